"""The bank: a folder of features and the log of the images they were computed from."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featbank.atomic import FORBIDDEN
from featbank.bank.compaction import Compaction
from featbank.bank.files import explain
from featbank.bank.folder import FeatureFolder
from featbank.bank.image_log import IMAGE_LOG_NAME, ImageLog
from featbank.bank.place import check_place, list_folders, list_shards, make_root, sweep_temporaries
from featbank.bank.spec import SPEC_NAME, FeatureSpec, read_spec
from featbank.bank.verification import Problem, check_files
from featbank.errors import BankError
from featbank.remote import Place, as_place
from featbank.stat_cache import StatCache

FAILURES_NAME = "failures"
STAT_CACHE_NAME = "stat-cache.arrow"
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pruning:
    """What a prune removes, or removed.

    Attributes
    ----------
    is_done : bool
        False for a dry run.
    features : dict of str to int
        Rows of each feature that goes as a whole, by its digest.
    rows : dict of str to int
        Rows that go from each feature that stays, by its digest; only those with some.
    n_records : int
        Records of the image log that go.
    n_bytes : int
        Bytes set free, for a dry run without what compaction saves.
    compactions : dict of str to Compaction
        What compaction did to each feature that stayed, by its digest, and to ``"images"``; empty for a dry run.
    """

    is_done: bool
    features: dict[str, int]
    rows: dict[str, int]
    n_records: int
    n_bytes: int
    compactions: dict[str, Compaction] = field(default_factory=dict)


class Bank:
    """Features of images on disk, one folder each, named by what they are.

    Layout: ``ROOT/<digest of the identity>/spec.json`` and ``<sha256>.arrow`` beside it, ``ROOT/images/`` for the
    log, ``ROOT/failures/<digest>/`` for readable images whose feature could not be computed, ``ROOT/stat-cache.arrow``
    for the digests of files that have not changed since they were read (`StatCache`; may be deleted). Everything else
    in the folder is left alone. The bank may be moved or copied by any tool.

    Parameters
    ----------
    root : str, Path or RemotePath
        The folder, or the URL of a place in an object store, such as ``s3://bucket/bank``.
    create : bool
        Make it when it is missing; otherwise that is an error.
    read_only : bool
        Never write, not even a folder; for banks of other people.

    Raises
    ------
    BankError
        If there is no such bank, it cannot be made, or a newer version wrote it.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as root:
    ...     feature = Bank(root).open({"encoder": "classic:nss"}, n_features=2, label="nss")
    ...     path = feature.append(["0" * 64], np.array([[1.0, 2.0]]))
    ...     feature.read(["0" * 64])
    array([[1., 2.]], dtype=float32)
    """

    def __init__(self, root: str | Place, *, create: bool = True, read_only: bool = False) -> None:
        self.root = as_place(root)
        self.is_read_only = read_only
        check_place(self.root)
        if not self.root.is_dir():
            self._make_root(create and not read_only)
        self.images = ImageLog(self.root / IMAGE_LOG_NAME, read_only=read_only)
        self.images.check_version()
        if not read_only and isinstance(self.root, Path):
            self._sweep()
        self.stat_cache = StatCache(self.root / STAT_CACHE_NAME, read_only=read_only)

    def _sweep(self) -> None:
        """Remove what killed processes left: temporary files, and folders of features whose removal they had begun."""
        for folder in (self.root, self.images.path):
            sweep_temporaries(folder)
        with contextlib.suppress(BankError):
            for path in self._folders():
                with contextlib.suppress(OSError):
                    Path(
                        str(path)
                    ).rmdir()  # refused unless empty; whoever is about to write there makes it again

    def _make_root(self, may_create: bool) -> None:
        # Asked of the operating system in one step: a neighbour may be making the same folder.
        if may_create:
            make_root(self.root)
            return
        raise BankError(
            f"bank: there is no bank at {self.root}. `featbank features DATA --recipe R --bank {self.root}` makes "
            "and fills one."
        )

    def __repr__(self) -> str:
        return f"Bank({str(self.root)!r}, read_only={self.is_read_only})"

    def open(
        self, identity: dict[str, Any], n_features: int, label: str, dtype: str = "float32"
    ) -> FeatureFolder:
        """Return the folder of one feature, made when it is not there (in a read-only bank: empty).

        Parameters
        ----------
        identity : dict
            Everything that can change the numbers, as JSON with string keys. Its digest names the folder; it is
            compared in full with what is stored.
        n_features : int
            Numbers per image.
        label : str
            A name for people, kept from the first opening; not part of the identity.
        dtype : str
            How numbers are stored: ``"float32"``, or ``"float16"`` for half the room and 3 digits.

        Returns
        -------
        FeatureFolder

        Raises
        ------
        ValueError
            If an argument is malformed.
        BankError
            If the stored feature differs in width or type, its ``spec.json`` is damaged, a newer version wrote
            it, or the disk is full. Where nothing may be written the feature is empty; only appending is refused.
        """
        spec = FeatureSpec(identity, n_features, dtype, label)
        path = self.root / spec.digest
        try:
            stored = read_spec(path)
        except FileNotFoundError:
            stored = spec
            if not self.is_read_only:
                try:
                    spec.write(path)
                except BankError as error:
                    if error.errno not in FORBIDDEN:
                        raise  # else an empty feature: whoever asks for rows hears which are missing
        spec.check_agrees(stored, path)
        if not self.is_read_only:
            sweep_temporaries(path)
        return FeatureFolder(path, stored, read_only=self.is_read_only)

    def failures_of(self, digest: str) -> ImageLog:
        """Return the log of images that can be read and for which one feature could not be computed.

        It holds what was seen at some time: an image that has a row now is no failure any more.

        Parameters
        ----------
        digest : str
            Of the feature's identity, 64 hexadecimal digits.
        """
        log = ImageLog(self.root / FAILURES_NAME / digest, read_only=self.is_read_only)
        if not self.is_read_only:
            sweep_temporaries(log.path)
        return log

    def _failure_logs(self) -> list[ImageLog]:
        try:
            names = list_folders(self.root / FAILURES_NAME)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise explain("list", self.root / FAILURES_NAME, error) from error
        return [self.failures_of(name) for name in names if _FOLDER_NAME.fullmatch(name)]

    def features(self) -> list[FeatureFolder]:
        """Return all features of this bank, ordered by label, then digest.

        Raises
        ------
        BankError
            If a ``spec.json`` is damaged or missing beside shards, or a newer version wrote it.
        """
        found = []
        for path in self._folders():
            try:
                found.append(FeatureFolder(path, read_spec(path), read_only=self.is_read_only))
            except FileNotFoundError as error:
                if list_shards(path):
                    raise BankError(_no_spec(path)) from error
                # Between making the folder and its specification, or taken away in the meantime.
        return sorted(found, key=lambda folder: (folder.label, folder.digest))

    def _folders(self) -> list[Place]:
        try:
            names = list_folders(self.root)
        except OSError as error:
            raise explain("list", self.root, error) from error
        return [self.root / name for name in names if _FOLDER_NAME.fullmatch(name)]

    def verify(self) -> list[Problem]:
        """Check every byte of every feature and of the image log.

        Returns
        -------
        list of Problem
            Empty when all is well.
        """
        problems = [problem for log in (self.images, *self._failure_logs()) for problem in log.verify()]
        for path in self._folders():
            try:
                problems += FeatureFolder(path, read_spec(path), read_only=True).verify()
            except FileNotFoundError:
                if list_shards(path):
                    problems.append(
                        Problem(path.name[:12], path / SPEC_NAME, "specification", _no_spec(path))
                    )
            except BankError as error:
                problems.append(Problem(path.name[:12], path / SPEC_NAME, "specification", str(error)))
                problems += check_files(path, path.name[:12])[
                    1
                ]  # all that can be said without a specification
        return problems

    def compact(self) -> int:
        """Compact every feature and the logs.

        Returns
        -------
        int
            Shards that were merged into others and removed.

        Raises
        ------
        BankError
            As :meth:`FeatureFolder.compact`.
        """
        self._check_writable()
        sweep_temporaries(self.root)
        n_removed = sum(folder.compact().n_removed for folder in self.features())
        return n_removed + sum(log.compact().n_removed for log in (self.images, *self._failure_logs()))

    def remove(self, digest: str) -> None:
        """Delete one feature with all its rows.

        Parameters
        ----------
        digest : str
            Of its identity, 64 hexadecimal digits.

        Raises
        ------
        BankError
            If this bank has no such feature, or the operating system refuses.
        """
        self._check_writable()
        for folder in self.features():
            if folder.digest == digest:
                folder.remove()
                self.failures_of(digest).remove()
                return
        raise BankError(
            f"bank: there is no feature with digest {digest!r} in {self.root}, nothing was removed. List them with "
            "`featbank bank ls`."
        )

    def prune(
        self,
        *,
        keep_features: Collection[str] | None = None,
        keep_keys: Collection[str] | None = None,
        dry_run: bool = True,
    ) -> Pruning:
        """Remove what nobody names any more and compact the rest; without arguments only compact.

        Run it from one process at a time; readers and writers may go on. A writer of a feature that is being
        removed makes it anew with the rows it still had to store.

        Parameters
        ----------
        keep_features : collection of str, optional
            Digests of the features that stay, for example those of all recipes in use. By default all stay.
        keep_keys : collection of str, optional
            Keys of the images whose rows stay, for example those of all datasets in use. By default all stay.
        dry_run : bool
            Only say what would go, which is the default.

        Returns
        -------
        Pruning

        Raises
        ------
        ValueError
            If a collection to keep is empty: that would empty the bank, and is nearly always a slip.
        BankError
            If none of the bank's features is to stay, or as :meth:`compact`.
        """
        for name, kept in (("keep_features", keep_features), ("keep_keys", keep_keys)):
            if kept is not None and not len(kept):
                raise ValueError(
                    f"Bank.prune: {name} must name something to keep, got nothing: this would empty the bank. Pass "
                    f"None to keep all, or delete {self.root} yourself."
                )
        if not dry_run:
            self._check_writable()
        folders = self.features()
        going = [f for f in folders if keep_features is not None and f.digest not in keep_features]
        staying = [f for f in folders if f not in going]
        if going and not staying:
            raise BankError(
                f"bank: none of the {len(folders)} features in {self.root} is among the {len(keep_features or ())} to "
                "keep; this would empty the bank. Does the recipe belong to it? See `featbank bank ls`."
            )
        sizes = {folder.digest: folder.size() for folder in folders}
        rows: dict[str, int] = {}
        n_records = 0
        if keep_keys is not None:
            rows = {folder.digest: folder.count_outside(keep_keys) for folder in staying}
            n_records = self.images.count_outside(keep_keys)
        row_bytes = {d: size.n_bytes / max(size.n_rows, 1) for d, size in sizes.items()}
        n_bytes = sum(sizes[f.digest].n_bytes for f in going)
        n_bytes += round(sum(row_bytes[digest] * n for digest, n in rows.items()))
        compactions: dict[str, Compaction] = {}
        if not dry_run:
            sweep_temporaries(self.root)
            for folder in going:
                folder.remove()
                self.failures_of(folder.digest).remove()
            for log in self._failure_logs():
                log.compact(keep_keys)
            compactions = {folder.digest: folder.compact(keep_keys) for folder in staying}
            compactions[IMAGE_LOG_NAME] = self.images.compact(keep_keys)
        return Pruning(
            is_done=not dry_run,
            features={folder.digest: sizes[folder.digest].n_rows for folder in going},
            rows={digest: n for digest, n in rows.items() if n},
            n_records=n_records,
            n_bytes=n_bytes,
            compactions=compactions,
        )

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise BankError(
                f"bank: {self.root} was opened for reading only, cannot change it. Open it without read_only."
            )


def _no_spec(path: Place) -> str:
    return (
        f"bank: {path} holds shards but no {SPEC_NAME}. It is written anew when `featbank features` computes "
        "this feature; if nobody needs it, delete the folder."
    )
