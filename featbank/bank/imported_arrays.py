"""Finds the one matrix in a NumPy, MATLAB or HDF5 file, and the image names beside it.

Headers are read before contents: what a file declares must lie in it, and may take no more memory than `room` says.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from featbank.errors import BankError, FeatbankError, UnknownNameError

NAME_TITLES = (
    *("image_id", "image_name", "image_path", "image", "name"),
    *("filename", "file_name", "file", "path", "key"),
)
"""Titles, in capitals or not, of columns and arrays (there also in the plural) that name images whatever they hold:
a dataset may number its images."""

ROOM_BYTES = 128 << 20
ROOM_RATIO = 50
"""A file may unpack to so many bytes, plus so many times its own size; features hardly compress at all."""

_UNKNOWN = "?"
_MAT_KINDS = (
    dict.fromkeys(("cell", "struct", "object", "function", "char"), "O")
    | dict.fromkeys(("double", "single", "logical"), "f")
    | {f"{sign}int{bits}": "i" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    | {"opaque": _UNKNOWN}  # a string of MATLAB's newer kind, whose shape is not told
)
"""Kinds of MATLAB's variables as NumPy spells them."""

_TEXT_CURE = (
    "Save them as plain text (NumPy: np.array(names, dtype=str); MATLAB: cellstr(names); tables: UTF-8), or give them "
    "in a text file with `--names FILE`."
)


@dataclass(frozen=True)
class Wishes:
    """What the user says of a file that leaves a choice."""

    variable: str | None = None  # array, variable, list column, or pattern for columns
    names: str | None = None  # what holds the image names
    transpose: bool = False  # images are the columns
    own_names: bool = True  # false where the names come from elsewhere: those in the file are left alone
    exclude: tuple[str, ...] = ()  # patterns for columns of a table that are no features


@dataclass(frozen=True)
class FoundMatrix:
    """A matrix as it lies in a file."""

    matrix: NDArray[
        Any
    ]  # array of shape (n_rows, n_columns) or (n_rows, n_crops, n_columns); of any real type
    names: list[str] | None  # one name for each row
    taken: str  # what was taken, in words
    left_out: tuple[str, ...] = ()  # what was not


def room(path: Path) -> int:
    """Return how many bytes a file may take when it is unpacked."""
    return ROOM_BYTES + ROOM_RATIO * path.stat().st_size


def too_large(path: Path) -> BankError:
    """Build the error for a file that would fill the memory."""
    return BankError(
        f"import: {path} has {path.stat().st_size:,} bytes and unpacks to more than {room(path):,}, which no features "
        "do: it is damaged, or made to fill the memory. If it is right after all, save it without compression."
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a strange file into one clear error."""
    try:
        yield
    except FeatbankError:
        raise
    except MemoryError as error:
        raise too_large(path) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        said = str(error) if str(error) else type(error).__name__
        raise BankError(
            f"import: {path} cannot be read as a {path.suffix} file of plain numbers: {said}. It may be cut short, of "
            "another format, or hold Python objects (never read, as they can run code). Save a plain float array."
        ) from error


def check_matrix(path: Path, what: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Refuse what is not a matrix of real numbers."""
    if dtype.kind not in "fiub":
        raise BankError(
            f"import: {what} of {path} must hold real numbers, got {dtype}. Save it as a plain float array; "
            "Python objects are never read, as they can run code."
        )
    if len(shape) not in (2, 3):
        raise BankError(
            f"import: {what} of {path} must have two dimensions, rows for images and columns for features, or three, "
            f"with crops between them, got shape {tuple(shape)}. Reshape it; a single feature has shape (n_images, 1)."
        )


def not_in_file(path: Path, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not in a file; lists what is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UnknownNameError(
        f"import: {path} must have the {kind} {name!r}, got {len(names)}: {listed or 'none'}.{hint}"
    )


def is_telling(title: str) -> bool:
    """Tell whether a column or an array names images by its title alone."""
    return re.sub(r"(?<=.)s$", "", title.lower()) in NAME_TITLES or title.lower() in NAME_TITLES


def choose_names(path: Path, wishes: Wishes, candidates: Sequence[str], known: Iterable[str]) -> str | None:
    """Choose what holds the image names: what was asked for, what has a telling title, or the only candidate."""
    if not wishes.own_names:
        return None
    if wishes.names is not None:
        if wishes.names not in known:
            raise not_in_file(path, "column or array of names", wishes.names, known)
        return wishes.names
    telling = sorted(
        (title for title in candidates if is_telling(title)),
        key=lambda title: next(
            i for i, word in enumerate(NAME_TITLES) if title.lower() in {word, f"{word}s"}
        ),
    )
    if telling:
        return telling[0]
    if len(candidates) > 1:
        raise BankError(
            f"import: {path} has {len(candidates)} columns or arrays of text and any of them could name the images: "
            f"{', '.join(candidates[:20])}. Say which one with `--names-in NAME`."
        )
    return candidates[0] if candidates else None


def read_names(path: Path, what: str, values: Iterable[Any]) -> list[str]:
    """Turn values into image names: text, bytes in UTF-8, whole numbers, each alone or wrapped once."""
    names = []
    for row, value in enumerate(values):
        name = _as_name(value)
        if name is None:
            raise BankError(
                f"import: {what} of {path} should name the images and must be text, got {value!r:.60} in row {row} "
                f"(counted from 0). {_TEXT_CURE}"
            )
        names.append(name)
    return names


def _as_name(value: Any) -> str | None:  # noqa: ANN401 (whatever lies in a file)
    """Return the text in a value, without the padding of fixed widths; None where there is none."""
    while isinstance(value, np.ndarray | list | tuple):
        if not len(value):
            return ""
        if len(value) > 1:
            return None
        value = value[0]
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, int | float | np.integer | np.floating) and value == value // 1:
        return str(int(value))
    return value.rstrip(" \0") if isinstance(value, str) else "" if value is None else None


def _rows_of_text(array: NDArray[Any], n_rows: int) -> Iterable[Any]:
    """Return one value for each row: of a vector in any direction, or of a matrix of characters."""
    if array.size == n_rows or array.ndim < 2 or array.dtype.kind not in "US":
        return array.ravel()
    return [b"".join(row) if array.dtype.kind == "S" else "".join(row) for row in array.tolist()]


def _can_be_names(title: str, shape: Sequence[int], kind: str, matrix: Sequence[int]) -> bool:
    """Tell by title, shape and kind of array (as NumPy spells it) whether it could name the rows of a matrix."""
    n_entries = math.prod(shape)
    if kind == _UNKNOWN:
        return True
    if kind not in "USO" and not (kind in "iufb" and is_telling(title)):
        return False
    if n_entries == matrix[0]:
        return n_entries == max(shape, default=1)
    return kind in "USO" and is_telling(title) and n_entries > 1 and n_entries != matrix[1]


def read_npy(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the array of an NPY file."""
    for name in filter(None, (wishes.variable, wishes.names)):
        raise BankError(
            f"import: {name!r} cannot be looked up in {path}: an NPY file holds one array without a name. Leave the "
            "option out."
        )
    array = read_array(path, check_matrix)
    return FoundMatrix(array.T if wishes.transpose else array, None, "the array")


def read_array(path: Path, check: Callable[..., None] = lambda *_: None) -> NDArray[Any]:
    """Read the array of an NPY file, after its shape and type have been checked."""
    with reading(path), path.open("rb") as file:
        if file.read(2) == b"PK":
            raise BankError(
                f"import: {path} is an NPZ archive, got the name of an NPY file. Rename it to .npz."
            )
        file.seek(0)
        shape, dtype = _read_header(file)
        check(path, "the array", shape, dtype)
        if math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
            raise ValueError(f"it is too short for its shape {shape}")
        file.seek(0)
        return np.asarray(npy.read_array(file, allow_pickle=False))


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return shape, dtype


def read_npz(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read one matrix of an NPZ file, and the names beside it if there is one array that can be them."""
    with reading(path), path.open("rb") as file:
        if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise BankError(
                f"import: {path} is a single array, got the name of an archive. Rename it to .npy."
            )
        with zipfile.ZipFile(file) as archive:
            headers = {}
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as entry:
                        headers[member.removesuffix(".npy")] = _read_header(entry)

            def load(title: str) -> NDArray[Any]:
                member, (shape, dtype) = f"{title}.npy", headers[title]
                if dtype.hasobject:
                    raise BankError(
                        f"import: array {title!r} of {path} should hold numbers, or name the images, and holds Python "
                        f"objects, which are never read, as they can run code. {_TEXT_CURE}"
                    )
                n_bytes = math.prod(shape) * dtype.itemsize
                if n_bytes > room(path):
                    raise too_large(path)
                if n_bytes > archive.getinfo(member).file_size:
                    raise ValueError(f"array {title!r} is too short for its shape {shape}")
                with archive.open(member) as entry:
                    return np.asarray(npy.read_array(entry, allow_pickle=False))

            listing = {}
            for title, (shape, dtype) in headers.items():
                # A matrix of characters has a name in each row.
                is_characters = dtype.str[1:] in {"U1", "S1"} and len(shape) == 2 and min(shape) > 1
                listing[title] = (shape[:1] if is_characters else shape, dtype.kind)
            return _find(path, "array", listing, load, wishes)


def read_mat(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read one matrix of a MATLAB file, and the names beside it; best in a process of its own."""
    from scipy.io import loadmat, whosmat

    def load(title: str) -> NDArray[Any]:
        return np.asarray(loadmat(str(path), appendmat=False, variable_names=[title])[title])

    with reading(path):
        try:
            listing = {
                str(name): (tuple(shape or ()), _MAT_KINDS.get(kind, ""))
                for name, shape, kind in whosmat(str(path), False)
            }
        except NotImplementedError:  # how SciPy answers to version 7.3, which is HDF5
            return read_hdf5(path, wishes)
        if max((8 * math.prod(shape) for shape, _ in listing.values()), default=0) > room(path):
            raise too_large(path)
        return _find(path, "variable", listing, load, wishes)


MAX_DATASETS = 2_000_000
"""More images than that are not kept one by one in a file."""


def read_hdf5(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read one matrix of an HDF5 file, or a vector for each image by its name; best in a process of its own.

    Links to other files are not followed.
    """
    try:
        import h5py
    except ImportError as error:
        raise BankError(
            f"import: {path} is an HDF5 file (as MATLAB's version 7.3 is), which needs h5py: pip install "
            "'featbank[hdf5]'. Or save the matrix as NPY; in MATLAB: save('features.mat', 'feats', '-v7')."
        ) from error
    with reading(path), h5py.File(path, "r") as file:
        sets: dict[str, Any] = {}

        def note(title: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and not title.startswith("#"):
                sets[title] = item
            if len(sets) > MAX_DATASETS:
                raise too_large(path)

        file.visititems(note)

        def load(title: str) -> NDArray[Any]:
            item = sets[title]
            if item.is_virtual or item.external:
                raise BankError(f"import: {title!r} of {path} lies in other files. Copy it into one.")
            if math.prod(item.shape or ()) * max(item.dtype.itemsize, 1) > room(path):
                raise too_large(path)
            if h5py.check_string_dtype(item.dtype) is not None:
                return np.asarray(item.asstr()[()], dtype=object)
            values = np.asarray(item[()])
            kind = _matlab_kind(item)
            if kind == "cell":  # of references to arrays of characters
                texts = ["".join(map(chr, np.asarray(file[ref][()]).T.ravel())) for ref in values.T.ravel()]
                return np.array(texts, dtype=object)
            if kind == "char":
                return np.array(["".join(map(chr, row)) for row in np.atleast_2d(values.T)], dtype=object)
            return values.T if kind else values  # MATLAB counts along columns

        listing = {}
        for title, item in sets.items():
            kind, shape = _matlab_kind(item), tuple(item.shape or ())
            is_text = h5py.check_string_dtype(item.dtype) is not None
            listing[title] = (
                (shape[::-1], _MAT_KINDS.get(kind, ""))
                if kind
                else (shape, "O" if is_text else item.dtype.kind)
            )
        single = [title for title, (shape, kind) in listing.items() if len(shape) == 1 and kind in "fiub"]
        has_matrix = any(len(shape) in (2, 3) and kind in "fiub" for shape, kind in listing.values())
        if len(single) > 1 and not has_matrix and wishes.variable is None:
            if len({listing[title][0] for title in single}) > 1:
                raise BankError(f"import: {path} must hold vectors of one length, one for each image.")
            names = single if wishes.own_names else None
            rest = tuple(title for title in sets if title not in set(single))
            return FoundMatrix(
                np.stack([load(title) for title in single]), names, f"{len(single)} vectors", rest
            )
        return _find(path, "dataset", listing, load, wishes)


def _matlab_kind(item: Any) -> str:  # noqa: ANN401 (h5py has no type information)
    kind = item.attrs.get("MATLAB_class", b"")
    return kind.decode() if isinstance(kind, bytes) else ""


def _find(
    path: Path,
    noun: str,
    listing: Mapping[str, tuple[tuple[int, ...], str]],
    load: Callable[[str], NDArray[Any]],
    wishes: Wishes,
) -> FoundMatrix:
    """Choose the matrix, and what names its rows, by titles, shapes and kinds (as NumPy spells them); load no more."""
    shapes = {
        title: "x".join(map(str, shape))
        for title, (shape, kind) in listing.items()
        if kind in "fiub" and kind and len(shape) in (2, 3) and min(shape) > 0 and max(shape) > 1
    }
    if wishes.variable is not None and wishes.variable not in listing:
        raise not_in_file(path, "variable", wishes.variable, listing)
    if wishes.variable is None and not shapes:
        raise BankError(
            f"import: {path} must hold a matrix of numbers, got {', '.join(listing) or 'nothing'}. Save the features "
            "as one two-dimensional array."
        )
    if wishes.variable is None and len(shapes) > 1:
        listed = ", ".join(f"{name} ({shape})" for name, shape in sorted(shapes.items())[:20])
        raise BankError(
            f"import: {path} holds {len(shapes)} matrices and any of them could be the features: {listed}. Say which "
            "one with `--variable NAME`."
        )
    chosen = wishes.variable or next(iter(shapes))
    matrix = load(chosen)
    check_matrix(path, f"{noun} {chosen!r}", matrix.shape, matrix.dtype)
    matrix = matrix.T if wishes.transpose else matrix
    candidates = [
        title
        for title, (shape, kind) in listing.items()
        if title != chosen and _can_be_names(title, shape, kind, matrix.shape)
    ]
    source = choose_names(path, wishes, candidates, listing)
    names, taken = None, f"{noun} {chosen!r}"
    if source is not None:
        names = read_names(path, f"{noun} {source!r}", _rows_of_text(load(source), len(matrix)))
        taken += f", names from {source!r}"
    return FoundMatrix(
        matrix, names, taken, tuple(title for title in listing if title not in {chosen, source})
    )
