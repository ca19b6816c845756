"""Reads features that were computed elsewhere: NPY, NPZ, CSV, Parquet and MAT files, never pickled objects.

Finds the one matrix a file holds and the image names beside it, and says in words what it took. Where a
file leaves a choice it is refused with the list of choices: a guess would give numbers of another thing. To
which images the rows belong is decided elsewhere.

Files of a kind that a library in C takes apart (MAT, Parquet) are read in a process of their own, under a limit on
memory and time: one changed byte can end such a process, or make it ask for all memory there is.
"""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from featbank.bank.files import explain
from featbank.bank.imported_arrays import FoundMatrix, Wishes, read_mat, read_npy, read_npz, room, too_large
from featbank.bank.imported_tables import read_csv, read_parquet
from featbank.errors import BankError, FeatbankError, UnknownNameError

_READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
_APART = frozenset({".mat", ".parquet"})
_MIB_PER_S = 4  # no reader is slower than this; one that takes longer is caught in a loop
_LEAST_S = 60.0
_READY = b"ready\n"


@dataclass(frozen=True)
class ImportedFeatures:
    """What was read from a file of features.

    Attributes
    ----------
    names : list of str or None
        Image name of each row, distinct; None where the file has none.
    matrix : float array of shape (n_rows, n_features)
        float64, float32 where the file holds float32 or small integers, float16 where it holds that; finite.
    columns : list of str or None
        Name of each column; None where the file has none.
    n_nonfinite : int
        NaN and infinite values that were replaced by 0.
    description : str
        Which variable or columns were taken, what was left out, what was replaced.
    """

    names: list[str] | None
    matrix: NDArray[np.floating[Any]]
    columns: list[str] | None
    n_nonfinite: int
    description: str


def read_feature_file(
    path: str | Path,
    *,
    variable: str | None = None,
    names: str | None = None,
    exclude: Sequence[str] = (),
    transpose: bool = False,
    n_rows: int | None = None,
    nonfinite: str = "refuse",
    own_names: bool = True,
) -> ImportedFeatures:
    """Read a matrix of features, one row for each image.

    Parameters
    ----------
    path : str or Path
        Ends with ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.mat`` (up to version 7).
    variable : str, optional
        Which array of an NPZ or MAT file. In a table: a list column, or a pattern like ``"nss:*"`` for the columns. By
        default the only candidate.
    names : str, optional
        Which column, array or MAT variable holds the image names. By default the only one that can.
    exclude : sequence of str
        Columns of a table that are not features.
    transpose : bool
        The file has one column for each image.
    n_rows : int, optional
        How many images there must be.
    nonfinite : str
        ``"refuse"``, or ``"zero"`` to replace NaN and infinite values by 0, as some published protocols do.
    own_names : bool
        False where the names of the rows are known from elsewhere: those in the file are left alone.

    Returns
    -------
    ImportedFeatures

    Raises
    ------
    UnknownNameError
        If ``variable``, ``names`` or ``exclude`` names nothing in the file.
    BankError
        If the file cannot be read, leaves a choice, holds objects or no matrix of numbers, has values that are not
        finite, repeats a name, has names that cannot be read, has another number of rows, or would fill the memory.
    ValueError
        If ``nonfinite`` is neither of the two.
    """
    path = Path(path)
    if nonfinite not in {"refuse", "zero"}:
        raise ValueError(f"read_feature_file: nonfinite must be 'refuse' or 'zero', got {nonfinite!r}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BankError(
            f"import: the file must end with {', '.join(_READERS)}, got {str(path)!r}. Save the features in one of "
            "these formats; pickled files are never read, as they can run code."
        )
    wishes = Wishes(variable, names, tuple(exclude), transpose, own_names)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BankError(f"import: {path} must be a file, got a folder, a device or a pipe.")
        found = _read_apart(path, wishes) if path.suffix.lower() in _APART else reader(path, wishes)
    except OSError as error:
        if isinstance(error, BankError) or not error.errno:
            raise
        raise explain("read", path, error) from error
    matrix = found.matrix
    _check_shape(path, matrix, n_rows)
    described = (
        f"{found.taken} of {path.name}: {matrix.shape[0]} rows x {matrix.shape[1]} columns, {matrix.dtype}"
    )
    if found.left_out:
        described += f"; left out: {', '.join(found.left_out)}"
    matrix = np.ascontiguousarray(matrix, dtype=_kept_type(matrix.dtype))
    bad = ~np.isfinite(matrix)
    n_bad = int(np.count_nonzero(bad))
    if n_bad and nonfinite == "refuse":
        row, column = np.argwhere(bad)[0].tolist()
        raise BankError(
            f"import: {path} must hold finite numbers, got {n_bad} that are NaN or infinite, in "
            f"{bad.any(axis=1).sum()} rows and {bad.any(axis=0).sum()} columns (first: row {row}, column {column}, "
            "counted from 0). Mend them, or replace them all by 0 with `--nonfinite zero`."
        )
    if n_bad:
        matrix = np.where(bad, matrix.dtype.type(0), matrix)
        described += f"; {n_bad} NaN or infinite values replaced by 0"
    _check_names(path, found.names, len(matrix))
    return ImportedFeatures(found.names, matrix, found.columns, n_bad, described)


def _kept_type(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return the smallest type of ours that holds every number of another."""
    if dtype == np.float16:
        return np.float16
    return np.float32 if np.can_cast(dtype, np.float32, casting="safe") else np.float64


def _check_shape(path: Path, matrix: NDArray[Any], n_rows: int | None) -> None:
    if 0 in matrix.shape:
        raise BankError(f"import: {path} must hold at least one row and one column, got {matrix.shape}.")
    if n_rows is not None and len(matrix) != n_rows:
        hint = (
            "It has that many columns: are images its columns? Then give `--transpose`."
            if matrix.shape[1] == n_rows
            else "Rows and images must correspond one to one."
        )
        raise BankError(
            f"import: {path} must hold one row for each of the {n_rows} images, got {len(matrix)}. {hint}"
        )


def _read_apart(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read a file in another process, which may die of it or be stopped."""
    here = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.append({here!r}); from featbank.bank.imported import serve; serve()"
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    request = json.dumps([str(path), asdict(wishes)])
    seconds = _LEAST_S + path.stat().st_size / (_MIB_PER_S << 20)
    # Its standard input stays open and empty: the end of it tells the child that this process has ended.
    with subprocess.Popen(  # noqa: S603 (this very interpreter)
        [sys.executable, "-P", "-c", program, request],  # -P: nothing is imported from the current folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | one_thread | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
    ) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            if child.stdout.readline() != _READY:
                raise BankError(
                    f"import: {sys.executable} cannot be started to read {path}; see `featbank doctor`."
                )
            found = _receive(child.stdout)
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
            child.kill()
    if found is None:
        fact = f"took more than {seconds:.0f} s to read" if is_late else "ended the process that read it"
        raise BankError(
            f"import: {path} cannot be read as a {path.suffix} file: it {fact}. It is damaged, or made to do harm. "
            "Save the matrix anew, best as NPY."
        )
    return found


def _receive(pipe: IO[bytes]) -> FoundMatrix | None:
    """Take what `serve` sends; None where it ended before."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    if "error" in answer:
        raise (UnknownNameError if answer["is_unknown"] else BankError)(answer["error"])
    matrix = np.empty(answer.pop("shape"), dtype=answer.pop("dtype"))
    rest = matrix.data.cast("B") if matrix.size else memoryview(b"")
    while rest:
        n_bytes = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not n_bytes:
            return None
        rest = rest[n_bytes:]
    return FoundMatrix(matrix, **answer)


def serve() -> None:
    """Read the file named by the argument and send its matrix to standard output; the child of `_read_apart`."""
    path_text, wishes = json.loads(sys.argv[1])
    path = Path(path_text)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes nowhere
    out.write(_READY)
    out.flush()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(3 * room(path))
    content: memoryview | bytes = b""
    try:
        found = _READERS[path.suffix.lower()](path, Wishes(**wishes | {"exclude": tuple(wishes["exclude"])}))
        matrix = np.ascontiguousarray(found.matrix)
        answer: dict[str, Any] = {"shape": matrix.shape, "dtype": matrix.dtype.str}
        answer |= {name: getattr(found, name) for name in ("names", "columns", "taken", "left_out")}
        content = matrix.data.cast("B") if matrix.size else b""
    except (FeatbankError, OSError, MemoryError) as error:
        told = too_large(path) if isinstance(error, MemoryError) else error
        told = explain("read", path, told) if not isinstance(told, FeatbankError) else told
        answer = {"error": str(told), "is_unknown": isinstance(error, UnknownNameError)}
    out.write(json.dumps(answer).encode() + b"\n")
    out.write(content)
    out.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """Wait for the end of standard input, which comes when the parent dies, however it dies."""
    sys.stdin.buffer.read()
    os._exit(1)


def _limit_memory(n_bytes: int) -> None:
    """Allow this process so many bytes more than it has, where the system tells how many it has."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + n_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def _check_names(path: Path, names: list[str] | None, n_rows: int) -> None:
    if names is None:
        return
    if len(names) != n_rows:
        raise BankError(
            f"import: {path} must hold one name for each of the {n_rows} rows, got {len(names)} names."
        )
    empty = names.count("")
    if empty or len(set(names)) != len(names):
        seen: set[str] = set()
        again = next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]
        what = f"{empty} empty names" if empty else f"{again!r} more than once"
        raise BankError(
            f"import: {path} must name each row once, got {what}. Mend the names, or name the column that holds them."
        )
