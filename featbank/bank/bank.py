"""The bank: a folder of features and the log of the images they were computed from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from featbank.atomic import FORBIDDEN
from featbank.bank.folder import FeatureFolder
from featbank.bank.image_log import IMAGE_LOG_NAME, ImageLog
from featbank.bank.place import refuse_read_only, store_at
from featbank.bank.shard import KEY, SPEC_NAME, FeatureSpec, read_spec
from featbank.bank.upkeep import Problem, check_files
from featbank.errors import BankError
from featbank.keys import StatCache
from featbank.remote import Place, as_place

FAILURES_NAME = "failures"
STAT_CACHE_NAME = "stat-cache.arrow"


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
        store = store_at(self.root)
        if not self.root.is_dir():
            if read_only or not create:
                raise BankError(
                    f"bank: there is no bank at {self.root}. `featbank features DATA --recipe R --bank {self.root}` "
                    "makes and fills one."
                )
            store.make()
        self.images = ImageLog(self.root / IMAGE_LOG_NAME, read_only=read_only)
        self.images.check_version()
        if not read_only and isinstance(self.root, Path):
            self._sweep(self.root)
        self.stat_cache = StatCache(self.root / STAT_CACHE_NAME, read_only=read_only)

    def _sweep(self, root: Path) -> None:
        """Remove what killed processes left: hidden files, and folders of features begun or being removed."""
        store_at(root).sweep()
        store_at(self.images.path).sweep()
        for place in (root, root / FAILURES_NAME):
            with contextlib.suppress(BankError):
                for name in store_at(place).folders():
                    if KEY.fullmatch(name):
                        store_at(place / name).sweep()
                        with contextlib.suppress(
                            OSError
                        ):  # unless empty; whoever is about to write makes it again
                            (place / name).rmdir()

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
            store_at(path).sweep()
        return FeatureFolder(path, stored, read_only=self.is_read_only)

    def failures_of(self, digest: str) -> ImageLog:
        """Return the log of images that can be read and for which one feature, named by its digest, failed.

        It holds what was seen at some time: an image that has a row now is no failure any more.
        """
        log = ImageLog(self.root / FAILURES_NAME / digest, read_only=self.is_read_only)
        if not self.is_read_only:
            store_at(log.path).sweep()
        return log

    def _logs(self) -> list[ImageLog]:
        names = store_at(self.root / FAILURES_NAME).folders()
        return [self.images, *(self.failures_of(name) for name in names if KEY.fullmatch(name))]

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
                if store_at(path).shards():
                    raise BankError(_no_spec(path)) from error
                # Between making the folder and its specification, or taken away in the meantime.
        return sorted(found, key=lambda folder: (folder.label, folder.digest))

    def _folders(self) -> list[Place]:
        return [self.root / name for name in store_at(self.root).folders() if KEY.fullmatch(name)]

    def verify(self) -> list[Problem]:
        """Check every byte of every feature and of the image log; return what is wrong, empty when all is well."""
        problems = [problem for log in self._logs() for problem in log.verify()]
        for path in self._folders():
            where, spec = path.name[:12], path / SPEC_NAME
            try:
                problems += FeatureFolder(path, read_spec(path), read_only=True).verify()
            except FileNotFoundError:
                if store_at(path).shards():
                    problems.append(Problem(where, spec, "specification", _no_spec(path)))
            except BankError as error:
                problems.append(Problem(where, spec, "specification", str(error)))
                problems += check_files(path, where)[1]  # all that can be said without a specification
        return problems

    def compact(self) -> int:
        """Compact every feature and the logs as :meth:`FeatureFolder.compact`; return how many shards went."""
        refuse_read_only(self.root, self.is_read_only)
        store_at(self.root).sweep()
        parts: list[FeatureFolder | ImageLog] = [*self.features(), *self._logs()]
        return sum(part.compact() for part in parts)

    def remove(self, digest: str) -> None:
        """Delete one feature, named by its digest, with all its rows.

        Raises
        ------
        BankError
            If this bank has no such feature, or the operating system refuses.
        """
        refuse_read_only(self.root, self.is_read_only)
        folder = next((folder for folder in self.features() if folder.digest == digest), None)
        if folder is None:
            raise BankError(
                f"bank: there is no feature with digest {digest!r} in {self.root}, nothing was removed. List them "
                "with `featbank bank ls`."
            )
        folder.remove()
        self.failures_of(digest).remove()


def _no_spec(path: Place) -> str:
    return (
        f"bank: {path} holds shards but no {SPEC_NAME}. It is written anew when `featbank features` computes "
        "this feature; if nobody needs it, delete the folder."
    )
