"""Finds the one matrix in a NumPy or MATLAB file."""

from __future__ import annotations

import contextlib
import difflib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featbank.errors import BankError, UnknownNameError

_MAT_NUMBERS = {
    "double",
    "single",
    "logical",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


@dataclass(frozen=True)
class Wishes:
    """What the user says of a file that leaves a choice.

    Attributes
    ----------
    variable : str or None
        Array, variable, list column, or pattern for columns.
    names : str or None
        What holds the image names.
    exclude : tuple of str
        Columns that are not features.
    transpose : bool
        Images are the columns.
    """

    variable: str | None = None
    names: str | None = None
    exclude: tuple[str, ...] = ()
    transpose: bool = False


@dataclass(frozen=True)
class FoundMatrix:
    """A matrix as it lies in a file.

    Attributes
    ----------
    matrix : array of shape (n_rows, n_columns)
        Numbers of any real type.
    names : list of str or None
        One name for each row.
    columns : list of str or None
        One name for each column.
    taken : str
        What was taken, in words.
    left_out : tuple of str
        What was not.
    """

    matrix: NDArray[Any]
    names: list[str] | None
    columns: list[str] | None
    taken: str
    left_out: tuple[str, ...] = ()


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Tell whether an array of this type holds real numbers."""
    return dtype.kind in "fiub" and dtype.names is None


def check_matrix(path: Path, what: str, array: NDArray[Any], wishes: Wishes) -> NDArray[Any]:
    """Refuse what is not a matrix of real numbers; turn it so that rows are images.

    Raises
    ------
    BankError
        Naming the shape and type found.
    """
    if not is_numeric(array.dtype):
        raise BankError(
            f"import: {what} of {path} must hold real numbers, got {array.dtype}. Save it as a plain float array; "
            "Python objects are never read, as they can run code."
        )
    if array.ndim != 2:
        raise BankError(
            f"import: {what} of {path} must have two dimensions, rows for images and columns for features, got shape "
            f"{array.shape}. Reshape it; a single feature has shape (n_images, 1)."
        )
    return array.T if wishes.transpose else array


def not_in_file(path: Path, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not in a file; lists what is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UnknownNameError(
        f"import: {path} must have the {kind} {name!r}, got {len(names)}: {listed or 'none'}.{hint}"
    )


def choose(path: Path, variable: str | None, shapes: Mapping[str, str], known: Sequence[str]) -> str:
    """Choose one of several arrays.

    Parameters
    ----------
    path : Path
        For the message.
    variable : str or None
        What the user asked for.
    shapes : mapping of str to str
        Shape in words by name, of those that could be meant.
    known : sequence of str
        All names in the file.

    Raises
    ------
    UnknownNameError
        If there is no such name.
    BankError
        If there is nothing to choose, or more than one and no wish.
    """
    if variable is not None:
        if variable not in known:
            raise not_in_file(path, "variable", variable, known)
        return variable
    if not shapes:
        raise BankError(
            f"import: {path} must hold a matrix of numbers, got {', '.join(known) or 'nothing'}. Save the features as "
            "one two-dimensional array."
        )
    if len(shapes) > 1:
        listed = ", ".join(f"{name} ({shape})" for name, shape in sorted(shapes.items())[:20])
        raise BankError(
            f"import: {path} holds {len(shapes)} matrices and any of them could be the features: {listed}. Say which "
            "one with `--variable NAME`."
        )
    return next(iter(shapes))


def read_npy(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the array of an NPY file.

    Raises
    ------
    BankError
        If it is not a plain matrix of numbers, or a name was asked for: the format has none.
    """
    _refuse_names(
        path, "an NPY file holds one array without a name", wishes.variable, wishes.names, *wishes.exclude
    )
    try:
        with path.open("rb") as file:  # numpy leaves a file open that turns out to be broken
            array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    if not isinstance(array, np.ndarray):
        raise BankError(f"import: {path} is an NPZ archive, got the name of an NPY file. Rename it to .npz.")
    return FoundMatrix(check_matrix(path, "the array", array, wishes), None, None, "the array")


def read_npz(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read one matrix of an NPZ file, and the names beside it if there is one array that can be them.

    Raises
    ------
    UnknownNameError
        If there is no array of that name.
    BankError
        If the choice is open, or the array is not a plain matrix of numbers.
    """
    _refuse_names(path, "an NPZ file has no columns", *wishes.exclude)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise BankError(
                    f"import: {path} is a single array, got the name of an archive. Rename it to .npy."
                )
            known = list(archive.files)
            arrays = {name: array for name in known if (array := _load_member(archive, name)) is not None}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    shapes = {
        name: "x".join(map(str, array.shape))
        for name, array in arrays.items()
        if array.ndim == 2 and is_numeric(array.dtype)
    }
    chosen = choose(path, wishes.variable, shapes, known)
    if chosen not in arrays:
        raise BankError(
            f"import: array {chosen!r} of {path} holds Python objects, which are never read, as they can run code. "
            "Save it as a plain float array."
        )
    matrix = check_matrix(path, f"array {chosen!r}", arrays[chosen], wishes)
    texts = [
        name for name, array in arrays.items() if array.dtype.kind == "U" and array.shape == (len(matrix),)
    ]
    if wishes.names is not None and wishes.names not in texts:
        raise not_in_file(path, "array of names", wishes.names, texts)
    source = wishes.names or (texts[0] if len(texts) == 1 else None)
    found = None if source is None else [str(name) for name in arrays[source]]
    taken = f"array {chosen!r}" + (f", names from {source!r}" if source else "")
    rest = tuple(name for name in known if name not in {chosen, source})
    return FoundMatrix(matrix, found, None, taken, rest)


def _load_member(archive: Any, name: str) -> NDArray[Any] | None:  # noqa: ANN401 (numpy's NpzFile)
    """Return an array of an archive, None when it holds objects."""
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            return None
        raise


def read_mat(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read one matrix of a MATLAB file of version 4 to 7.

    Raises
    ------
    UnknownNameError
        If there is no variable of that name.
    BankError
        If the choice is open, the variable is no full matrix of real numbers, or the file has version 7.3.
    """
    from scipy.io import loadmat, whosmat

    names = wishes.names

    _refuse_names(path, "a MAT file has no columns", *wishes.exclude)
    with _reading_mat(path):
        listing = whosmat(str(path), appendmat=False)
    classes = {name: kind for name, _, kind in listing}
    shapes = {
        name: "x".join(map(str, shape))
        for name, shape, kind in listing
        if kind in _MAT_NUMBERS and len(shape) == 2 and min(shape) > 0 and max(shape) > 1
    }
    chosen = choose(path, wishes.variable, shapes, list(classes))
    if names is not None and names not in classes:
        raise not_in_file(path, "variable", names, classes)
    wanted = [name for name in (chosen, names) if name is not None]
    with _reading_mat(path):
        content = loadmat(str(path), appendmat=False, variable_names=wanted)
    array = content[chosen]
    if not isinstance(array, np.ndarray):  # scipy.sparse
        raise BankError(
            f"import: variable {chosen!r} of {path} must be a full matrix, got a sparse one. Save full({chosen})."
        )
    matrix = check_matrix(path, f"variable {chosen!r}", array, wishes)
    found = None if names is None else _mat_names(path, names, content[names])
    taken = f"variable {chosen!r}" + (f", names from {names!r}" if names else "")
    rest = tuple(name for name in classes if name not in {chosen, names})
    return FoundMatrix(matrix, found, None, taken, rest)


@contextlib.contextmanager
def _reading_mat(path: Path) -> Iterator[None]:
    """Turn what SciPy raises on a strange file into one clear error."""
    from scipy.io.matlab import MatReadError

    try:
        yield
    except NotImplementedError as error:
        # How SciPy answers to version 7.3, which is another format.
        raise BankError(
            f"import: {path} is a MATLAB file of version 7.3 (HDF5), expected version 7 or below. In MATLAB: "
            "save('features.mat', 'feats', '-v7'); or read it with h5py and save it with numpy.save."
        ) from error
    except (MatReadError, ValueError, TypeError, KeyError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _unreadable(path, error) from error


def _mat_names(path: Path, variable: str, cells: NDArray[Any]) -> list[str]:
    """Turn a cell array of character vectors, or a padded character matrix, into names."""
    values = [np.asarray(cell) for cell in cells.ravel()]
    if any(value.size > 1 or value.dtype.kind != "U" for value in values):
        raise BankError(
            f"import: variable {variable!r} of {path} must be a cell array of character vectors to serve as names, got "
            f"{cells.dtype} of shape {cells.shape}."
        )
    return [str(value.ravel()[0]).rstrip() if value.size else "" for value in values]


def _refuse_names(path: Path, fact: str, *given: str | None) -> None:
    unused = [name for name in given if name is not None]
    if unused:
        raise BankError(f"import: {unused[0]!r} cannot be looked up in {path}: {fact}. Leave the option out.")


def _unreadable(path: Path, error: Exception) -> BankError:
    return BankError(
        f"import: {path} cannot be read as a {path.suffix} file of plain numbers: {error}. It may be cut short, of "
        "another format, or hold Python objects (never read, as they can run code). Save a plain float array."
    )
