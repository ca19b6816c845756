"""Reads files that a library in C takes apart in a process of its own, under a limit on memory and time.

One changed byte can end such a process, or make it ask for all memory there is. The functions called there for
datasets stand here as well, where they import little.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from featbank import errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READY = b"ready\n"
MAX_TEXT_BYTES = 1 << 26
MAX_CELLS = 2_000_000
"""What a sheet of scores stays far below."""


def call_apart(
    function: str, request: object, *, seconds: float, n_bytes: int, data: bytes = b""
) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Call a function in a process of its own, which may die of what it reads or be stopped; nothing is unpickled.

    Parameters
    ----------
    function : str
        Such as ``featbank.bank.imported:read_here``; takes ``request`` and ``data``, and returns a dict for JSON and an
        array or None.
    request : object
        Can be written as JSON.
    seconds : float
        How long it may take.
    n_bytes : int
        How much memory it may take beyond what its imports took.
    data : bytes
        Sent to it as they are.

    Raises
    ------
    FeatbankError
        What the function raised.
    ChildProcessError, TimeoutError
        If the process ended before it answered, or was stopped.
    """
    here = str(Path(__file__).parents[1])
    program = f"import sys; sys.path.append({here!r}); from featbank.apart import serve; serve()"
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    arguments = json.dumps([function, request, n_bytes, len(data)])
    # Its standard input stays open: the end of it tells the child that this process has ended.
    with subprocess.Popen(  # noqa: S603 (this very interpreter)
        [sys.executable, "-P", "-c", program, arguments],  # -P: nothing is imported from the current folder
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | one_thread | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
    ) as child:
        timer = threading.Timer(seconds, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            assert child.stdin is not None
            is_ready = child.stdout.readline() == _READY
            if not is_ready and timer.is_alive():
                raise errors.FeatbankError(f"{sys.executable} cannot be started; see `featbank doctor`.")
            with suppress(BrokenPipeError):
                child.stdin.write(data)
                child.stdin.flush()
            found = _receive(child.stdout) if is_ready else None
        finally:
            is_late = not timer.is_alive()
            timer.cancel()
            child.kill()
    if found is not None:
        return found
    raise (
        TimeoutError(f"took more than {seconds:.0f} s to read")
        if is_late
        else ChildProcessError("ended the process that read it")
    )


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], NDArray[Any] | None] | None:
    """Take what `serve` sends; None where it ended before."""
    import numpy as np

    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    if "error" in answer:
        raise getattr(errors, answer["kind"], errors.FeatbankError)(answer["error"])
    if "dtype" not in answer:
        return answer, None
    array = np.empty(answer.pop("shape"), dtype=answer.pop("dtype"))
    rest = array.data.cast("B") if array.size else memoryview(b"")
    while rest:
        n_bytes = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not n_bytes:
            return None
        rest = rest[n_bytes:]
    return answer, array


def serve() -> None:
    """Call the function named by the argument and send what it returns to standard output; the child's work."""
    function, request, n_bytes, n_sent = json.loads(sys.argv[1])
    module, _, name = function.partition(":")
    call = getattr(import_module(module), name)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes nowhere
    out.write(_READY)
    out.flush()
    data = sys.stdin.buffer.read(n_sent)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _limit_memory(n_bytes)
    content: memoryview | bytes = b""
    try:
        answer, array = call(request, data)
        if array is not None:
            answer = {**answer, "shape": array.shape, "dtype": array.dtype.str}
            content = array.data.cast("B") if array.size else b""
    except errors.FeatbankError as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    out.write(json.dumps(answer).encode() + b"\n")
    out.write(content)
    out.flush()
    os._exit(0)


def _end_with_input() -> None:
    """Wait for the end of standard input, which comes when the parent dies, however it dies."""
    sys.stdin.buffer.read()
    os._exit(1)


def _limit_memory(n_bytes: int) -> None:
    """Allow this process so many bytes more than it has, where the system tells how many it has."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        import resource

        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + n_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def read_variable(name: str, data: bytes) -> tuple[dict[str, Any], None]:
    """Read one variable of a MAT file in the process that exists for it; called by `call_apart`."""
    import numpy as np
    from scipy.io import loadmat, whosmat

    file = io.BytesIO(data)
    try:
        content = loadmat(file, variable_names=[name])
        if name not in content:
            return {"found": [variable for variable, _, _ in whosmat(file)]}, None
    except Exception as error:  # noqa: BLE001 - scipy has no error of its own: the parent tells this one
        return {"refused": str(error)[:200] or type(error).__name__}, None
    array = np.asarray(content[name]).ravel()
    # A cell array arrives as an object array whose elements are arrays of one string.
    values = array.tolist() if array.dtype.kind in "fiu" else [_only_text(cell) for cell in array]
    return {"type": str(array.dtype), "values": values}, None


def _only_text(cell: object) -> str:
    import numpy as np

    values = np.asarray(cell).ravel()
    return str(values[0]).strip() if len(values) == 1 else ""


def read_sheet(request: str, data: bytes) -> tuple[dict[str, Any], None]:
    """Read the rows of a sheet (the first, unless named) that are not empty, in the process that exists for it."""
    return _refusing(partial(_rows, request), data), None


def read_arrow(request: object, data: bytes) -> tuple[dict[str, Any], None]:
    """Read the columns of a Parquet or Feather file in the process that exists for it."""
    return _refusing(_columns, data), None


def read_nested(kind: str, data: bytes) -> tuple[dict[str, Any], None]:
    """Read the arrays of NPY, NPZ and MAT, or the lists of a pickle or JSON, in the process that exists for it."""
    return _refusing(partial(_nested, kind), data), None


class _Lists(pickle.Unpickler):
    """Reads dicts, lists, numbers and text; whatever a pickle would import is refused before it runs."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, and pickles run what they ask for: only dicts, lists, numbers and text are "
            "read. Save the indices as NPZ or JSON"
        )


def _nested(kind: str, data: bytes) -> dict[str, Any]:
    import numpy as np
    from scipy.io import loadmat

    file = io.BytesIO(data)
    if kind in (".pkl", ".pickle"):
        found: object = _Lists(file).load()
    elif kind == ".json":
        found = json.loads(data)
    elif kind == ".npy":
        found = {"": np.load(file, allow_pickle=False)}
    elif kind == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    else:
        found = {name: value for name, value in loadmat(file).items() if not name.startswith("__")}
    return {"found": _plain(found)}


def _plain(value: object) -> object:
    """Turn containers and arrays of numbers and text into what JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | float | str):
        return value
    dtype = getattr(value, "dtype", None)
    if dtype is not None and dtype.kind in "biufUO":
        return _plain(value.tolist())  # type: ignore[attr-defined]
    raise ValueError(
        f"it holds {type(value).__name__} {dtype or ''}, expected numbers and text".replace(" ,", ",")
    )


def _refusing(read: Callable[[bytes], dict[str, Any]], data: bytes) -> dict[str, Any]:
    try:
        return read(data)
    except BaseException as error:  # noqa: BLE001 - the library's panics are no exceptions
        return {"refused": f"{type(error).__name__}: {str(error)[:200]}"}


def _rows(sheet: str, data: bytes) -> dict[str, Any]:
    from python_calamine import CalamineWorkbook

    book = CalamineWorkbook.from_filelike(io.BytesIO(data))
    if sheet and sheet not in book.sheet_names:
        raise ValueError(f"it has no sheet {sheet!r}, only {', '.join(book.sheet_names[:20])}")
    found = book.get_sheet_by_name(sheet) if sheet else book.get_sheet_by_index(0)
    rows: list[tuple[int, list[str]]] = []
    n_cells = n_bytes = 0
    for number, row in enumerate(found.to_python(skip_empty_area=False), start=1):
        cells = [cell_text(value) for value in row]
        n_cells, n_bytes = n_cells + len(cells), n_bytes + sum(map(len, cells))
        if n_cells > MAX_CELLS or n_bytes > MAX_TEXT_BYTES:
            raise ValueError(
                f"its {f'sheet {sheet!r}' if sheet else 'first sheet'} has more than {MAX_CELLS:,} cells or "
                f"{MAX_TEXT_BYTES:,} characters"
            )
        if any(cells):
            rows.append((number, cells))
    return {"rows": rows, "n_sheets": len(book.sheet_names)}


def _columns(data: bytes) -> dict[str, Any]:
    import pyarrow as pa
    from pyarrow import feather, parquet

    source = pa.BufferReader(data)
    if data[:4] == b"PAR1":
        file = parquet.ParquetFile(source)
        n_cells = file.metadata.num_rows * file.metadata.num_columns
        if n_cells > MAX_CELLS:
            raise ValueError(f"it has {n_cells:,} cells, more than {MAX_CELLS:,}")
        table = file.read(use_threads=False)
    else:
        table = feather.read_table(source, use_threads=False)
    if table.num_rows * table.num_columns > MAX_CELLS:
        raise ValueError(f"it has more than {MAX_CELLS:,} cells")
    # pandas writes its index last in Parquet, and first everywhere else.
    names = sorted(table.column_names, key=lambda name: not name.startswith("__index_level_"))
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    kept = [name for name in names if name not in nested]
    columns = [[cell_text(value) for value in table[name].to_pylist()] for name in kept]
    return {"header": kept, "columns": columns, "nested": nested}


def cell_text(value: object) -> str:
    """Write a cell as a CSV would have it, a whole number without ``.0``, nothing for a missing value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip("\0 ")
    return str(value).strip()
