"""One feature on disk: rows of numbers keyed by image digest, appended in shards, read in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featbank.bank.place import is_vanished, refuse_read_only, shard_name, store_at
from featbank.bank.rows import KeyIndex, MappedRows, RowReader, relisting
from featbank.bank.shard import SPEC_NAME, FeatureSpec, Keys, encode_shard, format_keys, parse_keys
from featbank.bank.upkeep import Problem, compact_feature, name_of, verify_feature
from featbank.errors import BankError, MissingFeaturesError, first_few
from featbank.remote import Place

_SHOWN = 3


class FeatureFolder:
    """All rows of one feature; get it from :meth:`featbank.bank.Bank.open`.

    Threads and processes may share a folder freely: nothing is locked, what is finished is never changed. It can be
    pickled. Every method raises BankError if a shard is damaged or the operating system refuses, and ValueError if a
    key is malformed.

    Parameters
    ----------
    path : Path or RemotePath
        The folder, named by the digest of the identity.
    spec : FeatureSpec
        What it holds.
    read_only : bool
        Refuse everything that writes.

    Attributes
    ----------
    is_read_only : bool
        Whether writing is refused.
    """

    def __init__(self, path: Place, spec: FeatureSpec, *, read_only: bool = False) -> None:
        self.path = path
        self.spec = spec
        self.is_read_only = read_only
        self._rows = RowReader(path, spec)

    def __repr__(self) -> str:
        return f"FeatureFolder({self.label!r}, n_features={self.n_features}, path={str(self.path)!r})"

    @property
    def digest(self) -> str:
        """SHA-256 of the identity's canonical JSON, 64 hexadecimal digits."""
        return self.spec.digest

    @property
    def label(self) -> str:
        """Name for people."""
        return self.spec.label

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that can change the numbers."""
        return self.spec.identity

    @property
    def n_features(self) -> int:
        """Numbers per image."""
        return self.spec.n_features

    @property
    def dtype(self) -> str:
        """Stored type, ``"float32"`` or ``"float16"``."""
        return self.spec.dtype

    def shard_names(self) -> list[str]:
        """Return the file names of the shards that exist now, ascending."""
        return store_at(self.path).shards()

    def n_shards(self) -> int:
        """Count the files of this feature."""
        return len(self.shard_names())

    def n_bytes(self) -> int:
        """Add up the sizes of this feature's shards, in bytes."""
        return relisting(self.path, lambda: store_at(self.path).measure(self.shard_names()))

    def keys(self) -> set[str]:
        """Return the keys of all stored rows, 64 hexadecimal digits each; only key columns are read."""
        return set(format_keys(self._rows.index().keys))

    def missing(self, keys: Sequence[str]) -> list[str]:
        """Return those of ``keys`` that have no row here, each once, in the order given.

        Parameters
        ----------
        keys : sequence of str
            64 lower-case hexadecimal digits each; may repeat.
        """
        positions = self._rows.index().locate(parse_keys(keys))
        return list(dict.fromkeys(keys[i] for i in np.flatnonzero(positions < 0).tolist()))

    def append(self, keys: Sequence[str], vectors: ArrayLike) -> Place:
        """Store rows as one new shard: all of them, or none.

        The same rows give the same file whatever their order, so repeating an append is harmless. Rows of keys
        that are stored already may be appended; the one in the smallest shard name is served.

        Parameters
        ----------
        keys : sequence of str
            64 lower-case hexadecimal digits each, at least one. A key may repeat with equal numbers.
        vectors : float array-like of shape (n_keys, n_features)
            Finite; is converted to the stored type.

        Returns
        -------
        Path or RemotePath
            The new shard.

        Raises
        ------
        ValueError
            If there is no row, or a key is malformed.
        BankError
            If the shape is wrong, a number is NaN, infinite or too large for the stored type, a key repeats
            with other numbers, or the shard cannot be written (full disk, no permission): then nothing is stored.
        """
        refuse_read_only(self.path, self.is_read_only)
        raw, rows = self._checked_rows(keys, vectors)
        data = encode_shard(self.spec, raw, rows)
        for attempt in (1, 2):
            try:
                return self._put(data)
            except BankError as error:
                if attempt == 2 or not is_vanished(error):
                    raise
        raise AssertionError  # both attempts return or raise

    def _put(self, data: memoryview) -> Place:
        # A prune by another process may have removed the folder since it was opened.
        self._write_lost_spec()
        path = store_at(self.path).put(shard_name(data), data)
        # Or just now: a disk refuses the shard then, a store takes it.
        self._write_lost_spec()
        return path

    def _write_lost_spec(self) -> None:
        if not (self.path / SPEC_NAME).is_file():
            self.spec.write(self.path)

    def check_writable(self) -> None:
        """Refuse now what :meth:`append` would refuse later, after the work that gave the rows."""
        refuse_read_only(self.path, self.is_read_only)
        store_at(self.path).check_writable(SPEC_NAME)

    def _checked_rows(self, keys: Sequence[str], vectors: ArrayLike) -> tuple[Keys, NDArray[Any]]:
        """Return distinct ascending keys and their vectors in the stored type."""
        raw = parse_keys(keys)
        given = np.asarray(vectors)
        if not len(raw):
            raise ValueError(
                f"bank: append to {self.label!r} needs at least one row, got none. Skip empty batches."
            )
        if given.shape != (len(raw), self.n_features) or given.dtype.kind not in "fiu":
            raise BankError(
                f"bank: feature {self.label!r} takes numbers of shape ({len(raw)}, {self.n_features}) for these "
                f"{len(raw)} keys, got {given.dtype} of shape {given.shape}. Does n_features fit the encoder?"
            )
        self._refuse_rows(~np.isfinite(given).all(axis=1), keys, "hold NaN or infinities")
        with np.errstate(over="ignore"):  # is checked in the next line, with the images' names
            stored = np.ascontiguousarray(given, dtype=self.dtype)
        limit = np.finfo(self.dtype).max
        self._refuse_rows(
            ~np.isfinite(stored).all(axis=1), keys, f"are beyond {limit:.3g}, the largest {self.dtype}"
        )
        order = np.argsort(raw, kind="stable")
        raw, stored = raw[order], stored[order]
        repeats = np.zeros(len(raw), dtype=bool)
        repeats[1:] = raw[1:] == raw[:-1]
        if repeats.any():
            differs = repeats.copy()
            differs[1:] &= (stored[1:] != stored[:-1]).any(axis=1)
            self._refuse_rows(
                differs, [keys[i] for i in order.tolist()], "give one image two different vectors"
            )
            raw, stored = raw[~repeats], np.ascontiguousarray(stored[~repeats])
        return raw, stored

    def _refuse_rows(self, is_bad: NDArray[np.bool_], keys: Sequence[str], fact: str) -> None:
        bad = np.flatnonzero(is_bad).tolist()
        if bad:
            raise BankError(
                f"bank: {len(bad)} of {len(keys)} rows for feature {self.label!r} {fact}; images "
                f"{first_few([keys[i] for i in bad], _SHOWN)}. Nothing of "
                "this batch was stored: a bank holds finite numbers only. See what the encoder does with these images."
            )

    def read(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of ``keys`` in the order asked, each checked against its stored checksum.

        Parameters
        ----------
        keys : sequence of str
            64 lower-case hexadecimal digits each; may repeat.

        Returns
        -------
        float32 array of shape (n_keys, n_features)

        Raises
        ------
        MissingFeaturesError
            If a key has no row here.
        """
        return self.read_raw(parse_keys(keys))

    def read_raw(self, keys: Keys) -> NDArray[np.float32]:
        """Return the vectors of keys as they are stored (dtype S32, may repeat), as :meth:`read`."""

        def gather() -> NDArray[np.float32]:
            index = self._rows.index()
            out = np.empty((len(keys), self.n_features), dtype=np.float32)
            self._rows.gather(index, self._locate(index, keys), out)
            return out

        return relisting(self.path, gather)

    def holds(self, keys: Keys) -> NDArray[np.bool_]:
        """Say which keys, as they are stored, have a row here; bool array of shape (n_keys,)."""
        return self._rows.index().locate(keys) >= 0

    def map(self, keys: Keys) -> MappedRows:
        """Leave the vectors of keys, as they are stored, in their files, and give access to them by position.

        Every checksum of these files is checked now. Raises as :meth:`read`, also if the rows lie in too many files.
        """

        def find() -> MappedRows:
            index = self._rows.index()
            return MappedRows(self.path, self.spec, index, self._locate(index, keys))

        return relisting(self.path, find)

    def _locate(self, index: KeyIndex, keys: Keys) -> NDArray[np.int64]:
        positions = index.locate(keys)
        absent = format_keys(keys[positions < 0])
        if absent:
            raise MissingFeaturesError(
                f"bank: feature {name_of(self.spec)} must have a row for each of the {len(keys)} images asked for, "
                f"{len(absent)} are missing: {first_few(absent, _SHOWN)}. Compute them with "
                f"`featbank features DATA --recipe R --bank {self.path.parent}`."
            )
        return positions

    def verify(self) -> list[Problem]:
        """Check every byte: specification, checksums, columns, width, finite numbers, duplicates that disagree."""
        return verify_feature(self.path, self.spec)

    def compact(self) -> int:
        """Merge all shards into canonical ones, equal byte for byte in every bank with the same rows.

        Safe beside readers, appenders and other compactions, and against being killed at any moment: no row is lost.
        Needs room for a second copy of the feature while it runs.

        Returns
        -------
        int
            Files that went.
        """
        refuse_read_only(self.path, self.is_read_only)
        return compact_feature(self.path, self.spec)

    def remove(self) -> None:
        """Delete the feature with all its rows.

        A process that still appends to it makes it anew, with the rows it had yet to store.
        """
        refuse_read_only(self.path, self.is_read_only)
        store = store_at(self.path)
        store.remove(reversed(self.shard_names()))
        store.sweep()
        store.remove([SPEC_NAME])  # last: a kill before leaves an empty feature, not nameless shards
        if not store.remove_folder():  # somebody appends, or keeps other files here
            self.spec.write(self.path)
