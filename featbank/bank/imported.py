"""Reads features that were computed elsewhere: files of one matrix, folders of many, never pickled objects.

Finds the one matrix a file holds and the image names beside it, and says in words what it took. Where a
file leaves a choice it is refused with the list of choices: a guess would give numbers of another thing. To
which images the rows belong is decided elsewhere.

Files of a kind that a library in C takes apart (MAT, HDF5, Parquet, Feather) are read in a process of their own, under
a limit on memory and time: one changed byte can end such a process, or make it ask for all memory there is.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featbank.apart import call_apart
from featbank.bank.imported_arrays import (
    FoundMatrix,
    Wishes,
    choose_names,
    is_telling,
    not_in_file,
    read_array,
    read_hdf5,
    read_mat,
    read_names,
    read_npy,
    read_npz,
    reading,
    room,
    too_large,
)
from featbank.bank.place import explain
from featbank.errors import BankError, UnknownNameError

_APART = frozenset({".mat", ".parquet", ".feather", ".h5", ".hdf5"})
_MIB_PER_S = 4  # no reader is slower than this; one that takes longer is caught in a loop
_LEAST_S = 60.0


@dataclass(frozen=True)
class ImportedFeatures:
    """What was read from a file of features."""

    names: list[str] | None  # image name of each row, distinct; None where the file has none
    # float array of shape (n_rows, n_features); float64, float32 where the file holds float32 or small integers,
    # float16 where it holds that; finite
    matrix: NDArray[np.floating[Any]]
    description: str  # which variable or columns were taken, what was left out, what was replaced
    n_crops: int = 1  # that lie side by side in the columns, the columns of the first crop first


def read_feature_file(
    path: str | Path,
    *,
    variable: str | None = None,
    names: str | None = None,
    transpose: bool = False,
    nonfinite: str = "refuse",
    own_names: bool = True,
    exclude: Sequence[str] = (),
    average_crops: bool = False,
) -> ImportedFeatures:
    """Read a matrix of features, one row for each image.

    Parameters
    ----------
    path : str or Path
        A file that ends with ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet``, ``.feather``, ``.mat``, ``.h5`` or
        ``.hdf5``; a folder with an NPY file for each image, called after it; or one of shards as clip-retrieval writes
        them, ``img_emb_0.npy`` with ``metadata_0.parquet``.
    variable : str, optional
        Which array of an NPZ or MAT file. In a table: a list column, or a pattern like ``"nss:*"`` for the columns. By
        default the only candidate.
    names : str, optional
        Which column, array or MAT variable holds the image names. By default the only one that can.
    transpose : bool
        The file has one column for each image.
    nonfinite : str
        ``"refuse"``, or ``"zero"`` to replace NaN and infinite values by 0, as some published protocols do.
    own_names : bool
        False where the names of the rows are known from elsewhere: those in the file are left alone.
    exclude : sequence of str
        Columns that are left out: patterns for their titles; of an array numbers counted from 0, ``7`` or ``0-3``.
    average_crops : bool
        Take the mean over the crops of an array (n_images, n_crops, n_features), in the place of all of them.

    Returns
    -------
    ImportedFeatures

    Raises
    ------
    UnknownNameError
        If ``variable`` or ``names`` names nothing in the file.
    BankError
        If the file cannot be read, leaves a choice, holds objects or no matrix of numbers, has values that are not
        finite, repeats a name, has names that cannot be read, or would fill the memory.
    ValueError
        If ``nonfinite`` is neither of the two.
    """
    path = Path(path)
    if nonfinite not in {"refuse", "zero"}:
        raise ValueError(f"read_feature_file: nonfinite must be 'refuse' or 'zero', got {nonfinite!r}")
    suffix = path.suffix.lower()
    reader = _read_folder if path.is_dir() else _READERS.get(suffix)
    if reader is None:
        raise BankError(
            f"import: the file must end with {', '.join(_READERS)}, got {str(path)!r}. Save the features in one of "
            "these formats; pickled files are never read, as they can run code."
        )
    wishes = Wishes(variable, names, transpose, own_names, tuple(exclude))
    try:
        if not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
            raise BankError(f"import: {path} must be a file or a folder, got a device or a pipe.")
        found = _read_apart(path, wishes) if suffix in _APART and not path.is_dir() else reader(path, wishes)
    except OSError as error:
        if isinstance(error, BankError) or not error.errno:
            raise
        raise explain("read", path, error) from error
    matrix = found.matrix
    if 0 in matrix.shape:
        raise BankError(f"import: {path} must hold at least one row and one column, got {matrix.shape}.")
    n_crops = matrix.shape[1] if matrix.ndim == 3 else 1
    if n_crops > 1 and average_crops:
        matrix, n_crops = matrix.mean(axis=1, dtype=np.float64), 1
    said = ""
    if exclude and suffix not in _TABLES:
        kept = _kept_columns(path, matrix.shape[-1], exclude)
        matrix, said = matrix[..., kept], f"; columns left out: {matrix.shape[-1] - len(kept)}"
    matrix = matrix.reshape(len(matrix), -1)
    described = (
        f"{found.taken} of {path.name}: {matrix.shape[0]} rows x {matrix.shape[1]} columns, {matrix.dtype}"
    )
    described += said + (f"; {n_crops} crops side by side" if n_crops > 1 else "")
    if found.left_out:
        described += f"; left out: {', '.join(found.left_out)}"
    # The smallest type of ours that holds every number of the file's.
    wider = min(np.result_type(matrix.dtype, np.float32), np.dtype(np.float64))
    matrix = np.ascontiguousarray(matrix, dtype=np.float16 if matrix.dtype == np.float16 else wider)
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
    return ImportedFeatures(found.names, matrix, described, n_crops)


_TABLES = frozenset({".csv", ".tsv", ".parquet", ".feather"})


def _kept_columns(path: Path, n_columns: int, exclude: Sequence[str]) -> list[int]:
    """Return the columns that no number or range of numbers excludes."""
    gone: set[int] = set()
    for text in exclude:
        low, _, high = text.partition("-")
        if not (low.isdecimal() and (high or low).isdecimal() and int(low) <= int(high or low) < n_columns):
            raise UnknownNameError(
                f"import: --exclude takes columns of {path} by number, 0 to {n_columns - 1}, or a range such as 0-3, "
                f"got {text!r}."
            )
        gone.update(range(int(low), int(high or low) + 1))
    if len(gone) == n_columns:
        raise BankError(f"import: --exclude leaves no column of {path}.")
    return [column for column in range(n_columns) if column not in gone]


_SHARD = re.compile(r"img_emb_(\d+)\.npy")
MAX_FILES = 2_000_000


def _read_folder(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read shards as clip-retrieval writes them, else an NPY file for each image, named by its path without .npy."""
    for name, value in (("--variable", wishes.variable), ("--transpose", wishes.transpose)):
        if value:
            raise BankError(f"import: {name} goes with one file, got the folder {path}.")
    shards = {
        int(match[1]): file
        for folder in (path, path / "img_emb")
        for file in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if (match := _SHARD.fullmatch(file.name))
    }
    if shards:
        return _read_shards(path, [file for _, file in sorted(shards.items())], wishes)
    files = [file for file in islice(path.rglob("*"), MAX_FILES + 1) if file.is_file()]
    own = sorted(file for file in files if file.suffix.lower() == ".npy")
    if not own or len(files) > MAX_FILES:
        raise BankError(
            f"import: the folder {path} must hold an NPY file for each image, or img_emb_0.npy with "
            f"metadata_0.parquet, got {len(own):,} NPY files among {len(files):,}."
        )
    matrix: NDArray[Any] | None = None
    for row, file in enumerate(own):
        vector = _vector(file)
        if matrix is None:
            matrix = np.empty((len(own), *vector.shape), dtype=vector.dtype)
        if vector.shape != matrix.shape[1:]:
            raise BankError(
                f"import: all files of {path} must have one shape, got {vector.shape} in {file.name} and "
                f"{matrix.shape[1:]} in {own[0].name}."
            )
        matrix[row] = vector
    assert matrix is not None
    names = [file.relative_to(path).as_posix()[: -len(".npy")] for file in own]
    rest = (f"{len(files) - len(own):,} other files",) if len(files) > len(own) else ()
    return FoundMatrix(matrix, names if wishes.own_names else None, f"{len(own):,} files", rest)


def _vector(file: Path) -> NDArray[Any]:
    """Read the array of one image: a vector, or one line for each crop."""
    array = read_array(file)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiub":
        raise BankError(
            f"import: {file} must hold a vector of numbers, or one for each crop, got {array.dtype} of shape "
            f"{array.shape}."
        )
    return array[0] if array.ndim == 2 and len(array) == 1 else array


def _read_shards(path: Path, files: list[Path], wishes: Wishes) -> FoundMatrix:
    """Join shards in the order of their numbers; the names stand in the table of the same number."""
    parts: list[NDArray[Any]] = []
    names: list[str] = []
    for file in files:
        part = read_npy(file, Wishes()).matrix
        number = _SHARD.fullmatch(file.name)[1]  # type: ignore[index]
        name = f"metadata_{number}.parquet"
        table = next((p for p in (file.parent / name, path / "metadata" / name) if p.is_file()), None)
        if table is None and wishes.own_names:
            raise BankError(
                f"import: {file} needs {name} beside it, or in {path / 'metadata'}, with the names of its rows; or "
                "give them in a text file with `--names FILE`."
            )
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise BankError(
                f"import: the shards of {path} have {parts[0].shape[1:]} and {part.shape[1:]} columns."
            )
        parts.append(part)
        if table is not None and wishes.own_names:
            own = _call(table, wishes, "read_names_here")[0]["names"]
            if len(own) != len(part):
                raise BankError(f"import: {table} names {len(own):,} rows, {file.name} has {len(part):,}.")
            names += own
    return FoundMatrix(np.concatenate(parts), names if wishes.own_names else None, f"{len(files)} shards")


def _read_apart(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read a file in another process, which may die of it or be stopped."""
    facts, matrix = _call(path, wishes, "read_here")
    assert matrix is not None
    return FoundMatrix(matrix, **facts)


def _call(path: Path, wishes: Wishes, function: str) -> tuple[dict[str, Any], NDArray[Any] | None]:
    seconds = _LEAST_S + path.stat().st_size / (_MIB_PER_S << 20)
    request = [str(path), asdict(wishes)]
    try:
        return call_apart(f"{__name__}:{function}", request, seconds=seconds, n_bytes=3 * room(path))
    except (ChildProcessError, TimeoutError) as error:
        raise BankError(
            f"import: {path} cannot be read as a {path.suffix} file: it {error}. It is damaged, or made to do harm. "
            "Save the matrix anew, best as NPY."
        ) from error


def read_here(request: tuple[str, dict[str, Any]], data: bytes) -> tuple[dict[str, Any], NDArray[Any]]:
    """Read a file in the process that exists for it; called by `call_apart`."""
    path, wishes = Path(request[0]), Wishes(**request[1] | {"exclude": tuple(request[1]["exclude"])})
    try:
        found = _READERS[path.suffix.lower()](path, wishes)
        matrix = np.ascontiguousarray(found.matrix)
    except MemoryError as error:
        raise too_large(path) from error
    except OSError as error:
        raise error if isinstance(error, BankError) else explain("read", path, error) from error
    return {name: getattr(found, name) for name in ("names", "taken", "left_out")}, matrix


def read_names_here(request: tuple[str, dict[str, Any]], data: bytes) -> tuple[dict[str, Any], None]:
    """Read the column of names of a Parquet file in the process that exists for it."""
    from pyarrow import parquet

    path, wishes = Path(request[0]), Wishes(names=request[1]["names"])
    with reading(path), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        texts = [field.name for field in schema if not _is_number(field.type) or is_telling(field.name)]
        source = choose_names(path, wishes, texts, schema.names)
        if source is None:
            raise BankError(f"import: {path} has no column of names, got {', '.join(schema.names[:20])}.")
        if file.metadata.num_rows * _NUMBER_BYTES > room(path):
            raise too_large(path)
        values = file.read(columns=[source], use_threads=False)[source].to_pylist()
        return {"names": read_names(path, f"column {source!r}", values)}, None


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


_INDEX_COLUMN = re.compile(r"Unnamed: \d+|__index_level_\d+__|")
_TARGET = re.compile(r"(?:^|[^A-Za-z])[dD]?(?:MOS|Mos|mos)(?![a-z])")  # MOS, quality_mos, MOSFull, not mosaic
_NUMBER_BYTES = 8
_BLOCK_BYTES = 1 << 26  # a row must fit into one block, and feature tables have long rows


def read_csv(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a CSV (or, named ``.tsv``, tab-separated) file with a header line."""
    from pyarrow import csv

    separator = "\t" if path.suffix.lower() == ".tsv" else ","

    def parse(columns: list[str], kind: pa.DataType | None = None) -> pa.Table:
        return csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, kind) if kind else None, include_columns=columns
            ),
        )

    try:
        table = parse([])
        titles = table.column_names
    except (pa.ArrowException, UnicodeDecodeError) as error:  # also an empty file
        raise BankError(
            f"import: {path} cannot be read as a table in UTF-8 with a header line, {separator!r} between the fields "
            f"and as many fields in each line: {error}"
        ) from error
    if all(_is_float(title) for title in titles) and titles != [str(i) for i in range(len(titles))]:
        raise BankError(
            f"import: {path} must begin with a header line, got numbers ({', '.join(titles[:3])}, ...). Add one, or "
            "save the matrix as NPY."
        )

    def read(columns: list[str], source: str | None) -> pa.Table:
        # Names are read again as they are written: "NA" and "007" are names too, and were taken for numbers.
        return (
            table
            if source is None
            else table.drop([source]).append_column(source, parse([source], pa.binary())[source])
        )

    return _find(path, table.schema, table.num_rows, read, wishes)


def read_parquet(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a Parquet file, or its one column of lists; best in a process of its own."""
    from pyarrow import parquet

    # ParquetFile, not read_table: that one looks for folders and partitions in the path.
    with reading(path), parquet.ParquetFile(path) as file:
        n_rows = file.metadata.num_rows
        _refuse_bombs(path, file.metadata)

        def read(columns: list[str], source: str | None) -> pa.Table:
            if n_rows * len(columns) * _NUMBER_BYTES > room(path):
                raise too_large(path)
            return file.read(columns=[*columns, *([source] if source else [])], use_threads=False)

        return _find(path, file.schema_arrow, n_rows, read, wishes)


MAX_CELL_BYTES = 1 << 16
MAX_PACKING = 1000
"""No column of features or names has larger cells that are packed more tightly, read or not."""


def _refuse_bombs(path: Path, metadata: Any) -> None:  # noqa: ANN401 (pyarrow has no type information)
    """Refuse a file with a column made to fill the memory, although it might be left out."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            n_bytes, n_packed = column.total_uncompressed_size, max(column.total_compressed_size, 1)
            if n_bytes > MAX_CELL_BYTES * max(column.num_values, 1) and n_bytes > MAX_PACKING * n_packed:
                raise BankError(
                    f"import: column {column.path_in_schema!r} of {path} unpacks {n_packed:,} bytes to {n_bytes:,} for "
                    f"{column.num_values:,} rows: it is damaged, or made to fill the memory. Take it out of the file."
                )


def read_feather(path: Path, wishes: Wishes) -> FoundMatrix:
    """Read the feature columns of a Feather file (Arrow IPC), or its one column of lists, as `read_parquet` does."""
    from pyarrow import feather, ipc

    with reading(path):
        with path.open("rb") as file:
            schema = ipc.open_file(file).schema
        n_rows = (
            feather.read_table(path, columns=schema.names[:1], use_threads=False).num_rows
            if schema.names
            else 0
        )

        def read(columns: list[str], source: str | None) -> pa.Table:
            if n_rows * len(columns) * _NUMBER_BYTES > room(path):
                raise too_large(path)
            return feather.read_table(
                path, columns=[*columns, *([source] if source else [])], use_threads=False
            )

        return _find(path, schema, n_rows, read, wishes)


def _is_number(kind: pa.DataType) -> bool:
    # A column without any value has no type; its values count as missing numbers.
    types = pa.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _find(
    path: Path,
    schema: pa.Schema,
    n_rows: int,
    read: Callable[[list[str], str | None], pa.Table],
    wishes: Wishes,
) -> FoundMatrix:
    """Tell names, features and the rest apart by titles and types, then read what is taken and nothing else."""
    titles = schema.names
    if wishes.transpose:
        raise BankError(
            f"import: {path} is a table of named columns, which cannot be transposed. Save the matrix as NPY."
        )
    if len(set(titles)) != len(titles):
        again = next(title for title in titles if titles.count(title) > 1)
        raise BankError(f"import: {path} must name each column once, got {again!r} more than once.")
    if not n_rows:
        raise BankError(f"import: {path} must hold at least one row, got a header alone.")
    usable = [f for f in schema if not _INDEX_COLUMN.fullmatch(f.name)]
    lists = [field.name for field in usable if _is_list(field.type) and _is_number(field.type.value_type)]
    numbers = [field.name for field in usable if _is_number(field.type)]
    others = [field.name for field in usable if field.name not in {*lists, *numbers}]
    possible = [*others, *(title for title in numbers if is_telling(title))]
    source = choose_names(path, wishes, possible, titles)
    for pattern in wishes.exclude:
        if not any(fnmatchcase(title, pattern) for title in titles):
            raise not_in_file(path, "column to exclude", pattern, titles)
    excluded = {title for title in titles for pattern in wishes.exclude if fnmatchcase(title, pattern)}
    candidates = [title for title in numbers if title != source and title not in excluded]
    lists = [title for title in lists if title not in excluded]
    is_list = wishes.variable in lists or (wishes.variable is None and len(lists) == 1 and not candidates)
    chosen = (
        [wishes.variable or lists[0]]
        if is_list
        else _choose_columns(path, candidates, titles, wishes.variable)
    )
    table = read(chosen, source)
    if is_list:
        matrix = _stack(path, chosen[0], table[chosen[0]].combine_chunks())
        taken = f"list column {chosen[0]!r}"
    else:
        matrix = np.stack(
            [table[title].cast(_numeric(table[title].type)).to_numpy() for title in chosen], axis=1
        )
        taken = f"{len(chosen)} columns ({chosen[0]} to {chosen[-1]})"
    names = None
    if source is not None:
        names = read_names(path, f"column {source!r}", table[source].to_pylist())
        taken += f", names from {source!r}"
    rest = tuple(title for title in titles if title not in chosen and title != source)
    return FoundMatrix(matrix, names, taken, rest)


def _numeric(kind: pa.DataType) -> pa.DataType:
    # Arrow has no way from these to a plain array of numbers, as they may lack values.
    return pa.float64() if pa.types.is_null(kind) or pa.types.is_integer(kind) else (
        pa.float32() if pa.types.is_boolean(kind) else kind
    )  # fmt: skip


def _stack(path: Path, column: str, lists: Any) -> NDArray[Any]:  # noqa: ANN401 (pyarrow has no type information)
    """Turn a column of lists into a matrix."""
    from pyarrow import compute

    flat = lists.flatten()
    lengths = {length or 0 for length in compute.list_value_length(lists).unique().to_pylist()}
    if len(lengths) != 1 or not _is_number(flat.type):
        raise BankError(
            f"import: list column {column!r} of {path} must hold as many numbers in each row, got lists of {flat.type} "
            f"with lengths {sorted(lengths)[:5]}."
        )
    return flat.cast(_numeric(flat.type)).to_numpy(zero_copy_only=False).reshape(len(lists), lengths.pop())


def _choose_columns(path: Path, candidates: list[str], titles: list[str], variable: str | None) -> list[str]:
    """Choose the feature columns among those of numbers, and refuse what would be a slip."""
    if variable is not None:
        matching = [t for t in candidates if t.rpartition(":")[0] == variable or fnmatchcase(t, variable)]
        if not matching:
            raise not_in_file(path, "column", variable, candidates)
        candidates = matching
    if not candidates:
        raise BankError(
            f"import: {path} must have at least one column of numbers, got the columns {', '.join(titles[:20])}. Are "
            "the fields separated by something else than commas?"
        )
    targets = [title for title in candidates if _TARGET.search(title)]
    if targets:
        raise BankError(
            f"import: column {targets[0]!r} of {path} looks like the MOS. As a feature it would make every score "
            "perfect and wrong. Take it out of the file."
        )
    bands = sorted({title.rpartition(":")[0] for title in candidates})
    if variable is None and len(bands) > 1 and "" not in bands:
        raise BankError(
            f"import: {path} holds {len(bands)} bands: {', '.join(bands[:20])}. Bring them one by one: say which with "
            "`--variable NAME`."
        )
    return candidates


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".feather": read_feather,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
