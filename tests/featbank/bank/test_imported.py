"""A file of features gives its one matrix, or an error that says what to choose or to mend."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse

from featbank.bank import imported
from featbank.bank.imported import read_feature_file
from featbank.bank.imported_arrays import ROOM_BYTES
from featbank.errors import BankError, UnknownNameError

X = np.random.default_rng(7).normal(size=(6, 4))
NAMES = [f"{i:03d}.jpg" for i in range(6)]
COLUMNS = [f"f{i}" for i in range(4)]


def table(names: bool = True, **more: Any) -> pd.DataFrame:
    frame = pd.DataFrame(X, columns=COLUMNS)
    if names:
        frame.insert(0, "image_name", NAMES)
    return frame.assign(**more)


def save(folder: Path, suffix: str, X: np.ndarray = X) -> Path:
    """The same matrix in every format."""
    path = folder / f"features{suffix}"
    if suffix == ".npy":
        np.save(path, X)
    elif suffix == ".npz":
        np.savez(path, feats=X)
    elif suffix == ".mat":
        scipy.io.savemat(path, {"feats_mat": X})
    elif suffix in {".h5", ".hdf5"}:
        with h5py.File(path, "w") as file:
            file["group/feats"] = X
    else:
        frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
        if suffix == ".parquet":
            frame.to_parquet(path)
        elif suffix == ".feather":
            frame.to_feather(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these tests ask what is found, which does not depend on the process: starting one takes a second."""
    if "apart" not in request.node.name:
        monkeypatch.setattr(imported, "_APART", frozenset())


EVERY = [".npy", ".npz", ".mat", ".csv", ".tsv", ".parquet", ".feather", ".h5", ".hdf5"]


@pytest.mark.parametrize("suffix", EVERY)
def test_every_format_gives_the_same_numbers(tmp_path: Path, suffix: str) -> None:
    found = read_feature_file(save(tmp_path, suffix))
    assert found.matrix.dtype == np.float64
    assert found.matrix.tobytes() == X.tobytes()
    assert found.names is None
    assert "6 rows x 4 columns, float64" in found.description
    assert f"features{suffix}" in found.description


@pytest.mark.parametrize("suffix", EVERY)
def test_values_that_are_not_finite_are_refused_or_replaced_as_asked(tmp_path: Path, suffix: str) -> None:
    holes = X.copy()
    holes[1, 2], holes[4, 0], holes[4, 3] = np.nan, np.inf, -np.inf
    path = save(tmp_path, suffix, holes)
    with pytest.raises(
        BankError, match=r"got 3 that are NaN or infinite, in 2 rows and 3 columns \(first: row 1, column 2"
    ):
        read_feature_file(path)
    found = read_feature_file(path, nonfinite="zero")
    assert "3 NaN or infinite values replaced by 0" in found.description
    assert np.array_equal(found.matrix, np.where(np.isfinite(holes), holes, 0))
    with pytest.raises(ValueError, match="'refuse' or 'zero'"):
        read_feature_file(path, nonfinite="drop")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5"])
def test_images_in_columns_are_turned_on_request(tmp_path: Path, suffix: str) -> None:
    found = read_feature_file(save(tmp_path, suffix, X.T), transpose=True)
    assert np.array_equal(found.matrix, X)
    assert found.matrix.flags.c_contiguous


@pytest.mark.parametrize("suffix", EVERY)
def test_a_file_that_is_cut_or_of_another_format_is_refused(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, suffix)
    if suffix not in {".csv", ".tsv"}:  # a cut text table is still one
        data = path.read_bytes()
        for length in (0, 1, 10, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(BankError, match="import: "):
                read_feature_file(path)
    path.write_bytes(b"\x00\xff" * 300)
    with pytest.raises(BankError, match="cannot be read"):
        read_feature_file(path)
    path.unlink()
    with pytest.raises(BankError, match=r"cannot read .*features"):
        read_feature_file(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_are_never_unpickled(tmp_path: Path, suffix: str) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    objects = np.empty((2, 2), dtype=object)
    objects[:] = Trap()
    path = tmp_path / f"trap{suffix}"
    if suffix == ".npy":
        np.save(path, objects, allow_pickle=True)
    else:
        np.savez(path, feats=objects)
    for variable in (None, "feats" if suffix == ".npz" else None):
        with pytest.raises(BankError, match="import: "):
            read_feature_file(path, variable=variable)
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BankError, match="pickled files are never read"):
        read_feature_file(tmp_path / "trap.pkl")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "array",
    [
        X[0],
        X[None, None],
        X + 1j,
        np.array([["a", "b"]]),
        np.zeros((2, 2), "f4,f4"),
        np.zeros((0, 3)),
        np.zeros((3, 0)),
    ],
)
def test_an_array_that_is_no_matrix_of_numbers_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(BankError, match="must h"):
        read_feature_file(tmp_path / "x.npy")


def test_small_types_keep_their_values(tmp_path: Path) -> None:
    for dtype, expected in (
        ("f2", "f2"),
        ("f4", "f4"),
        ("u1", "f4"),
        ("?", "f4"),
        ("i4", "f8"),
        ("i8", "f8"),
    ):
        array = np.arange(6).reshape(3, 2).astype(dtype)
        np.save(tmp_path / "x.npy", array)
        found = read_feature_file(tmp_path / "x.npy").matrix
        assert found.dtype == np.dtype(expected)
        assert np.array_equal(found, array)


def test_several_arrays_need_a_choice(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=X, b=X + 1, scale=np.float64(3), names=np.array(NAMES))
    scipy.io.savemat(tmp_path / "x.mat", {"a": X, "b": X + 1, "scale": 3.0, "note": "text", "s": {"f": 1}})
    for path in (tmp_path / "x.npz", tmp_path / "x.mat"):
        with pytest.raises(BankError, match=r"holds 2 matrices .* a \(6x4\), b \(6x4\).*--variable"):
            read_feature_file(path)
        found = read_feature_file(path, variable="b")
        assert np.array_equal(found.matrix, X + 1)
        assert "'b'" in found.description
        assert "left out: a, scale" in found.description
        with pytest.raises(UnknownNameError, match="Did you mean 'scale'"):
            read_feature_file(path, variable="scales")
        with pytest.raises(BankError, match="import: "):
            read_feature_file(path, variable="scale")


def cells(*shape: int) -> np.ndarray:
    return np.array(NAMES, dtype=object).reshape(shape)


ARRAYS_OF_NAMES = {
    "text": np.array(NAMES),
    "column": np.array(NAMES)[:, None],
    "row": np.array(NAMES)[None],
    "padded": np.array([name.ljust(20) for name in NAMES]),
    "bytes": np.array(NAMES, dtype="S"),
    "wide-bytes": np.array(NAMES, dtype="S30"),
    "bytes-column": np.array(NAMES, dtype="S")[:, None],
    "characters": np.array([list(name.ljust(12)) for name in NAMES]),
    "byte-characters": np.array([list(name.ljust(12)) for name in NAMES], dtype="S1"),
}


@pytest.mark.parametrize("title", ["names", "some_strings"])
@pytest.mark.parametrize("names", ARRAYS_OF_NAMES.values(), ids=ARRAYS_OF_NAMES)
def test_names_of_every_spelling_are_read_from_archives(
    tmp_path: Path, names: np.ndarray, title: str
) -> None:
    np.savez(tmp_path / "x.npz", X=X, other=np.arange(6), columns=np.array(COLUMNS), **{title: names})
    assert read_feature_file(tmp_path / "x.npz").names == NAMES
    assert read_feature_file(tmp_path / "x.npz", own_names=False).names is None


@pytest.mark.parametrize("title", ["Names", "some_strings"])
@pytest.mark.parametrize("names", [cells(6, 1), cells(1, 6), np.array(NAMES), ARRAYS_OF_NAMES["padded"]])
def test_names_of_every_spelling_are_read_from_matlab(tmp_path: Path, names: np.ndarray, title: str) -> None:
    more = {"note": "a text", "ids": np.arange(5.0), title: names}
    scipy.io.savemat(tmp_path / "x.mat", {"X": X, **more}, oned_as="column")
    assert read_feature_file(tmp_path / "x.mat", variable="X").names == NAMES
    assert read_feature_file(tmp_path / "x.mat", variable="X", own_names=False).names is None


@pytest.mark.parametrize(
    "names",
    [
        pa.array(NAMES),
        pa.array(NAMES).dictionary_encode(),
        pa.array([name.encode() for name in NAMES]),
        pa.array([name.ljust(20).encode() for name in NAMES], pa.binary(20)),
        pa.array([[name] for name in NAMES]),
    ],
    ids=lambda array: str(array.type),
)
def test_names_of_every_spelling_are_read_from_parquet(tmp_path: Path, names: pa.Array) -> None:
    columns = {"which": names} | {title: X[:, i] for i, title in enumerate(COLUMNS)}
    pa.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    found = read_feature_file(tmp_path / "x.parquet")
    assert found.names == NAMES
    assert np.array_equal(found.matrix, X)


def test_numbers_are_names_where_they_are_called_so(tmp_path: Path) -> None:
    for title, expected in (("image_ids", list("123456")), ("label", None)):
        np.savez(tmp_path / "x.npz", X=X, **{title: np.arange(1, 7)})
        assert read_feature_file(tmp_path / "x.npz").names == expected
        scipy.io.savemat(tmp_path / "x.mat", {"X": X, title: np.arange(1.0, 7)[:, None]})
        assert read_feature_file(tmp_path / "x.mat", variable="X").names == expected


UNREADABLE = {
    "objects.npz": {"X": X, "names": cells(6)},
    "untitled-objects.npz": {"X": X, "list": cells(6, 1)},
    "latin-1.npz": {"X": X, "names": np.array(["caf\xe9".encode("latin-1")] * 6)},
    "too-few.npz": {"X": X, "names": np.array(NAMES[:3])},
    "two-texts.npz": {"X": X, "city": np.array(list("abcdef")), "who": np.array(list("abcdef"))},
    "cells-of-numbers.mat": {"X": X, "c": np.array([np.ones(2)] * 6 + [0], dtype=object)[:6].reshape(6, 1)},
    "struct-of-files.mat": {"X": X, "files": np.zeros(6, [("name", "O"), ("bytes", "f8")])},
    "too-few.mat": {"X": X, "names": cells(6)[:3]},
    "two-texts.mat": {"X": X, "c": cells(6, 1), "d": cells(6, 1)},
    "latin-1.parquet": {"which": [b"caf\xe9"] * 6},
    "lists.parquet": {"which": [["a", "b"]] * 6},
    "struct.parquet": {"which": [{"name": name} for name in NAMES]},
    "two-texts.parquet": {"which": NAMES, "who": NAMES},
    "latin-1.csv": {"which": "caf\xe9"},
}


@pytest.mark.parametrize(("name", "content"), UNREADABLE.items(), ids=UNREADABLE)
def test_beside_names_that_cannot_be_read_no_row_is_matched_by_position(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, content)
    elif path.suffix == ".parquet":
        columns = {title: X[:, i] for i, title in enumerate(COLUMNS)}
        pa.parquet.write_table(pa.table(columns | content), path)
    else:
        pd.DataFrame(X, columns=COLUMNS).assign(**content).to_csv(path, index=False, encoding="latin-1")
    with pytest.raises(BankError, match=r"--names-in|name the images|one name for each"):
        read_feature_file(path)
    assert np.array_equal(read_feature_file(path, own_names=False).matrix, X)


def test_what_holds_the_names_can_be_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=X, names=np.array(NAMES), cities=np.array(list("abcdef")))
    scipy.io.savemat(tmp_path / "x.mat", {"X": X, "names": cells(6, 1), "cities": np.array(list("abcdef"))})
    for path in (tmp_path / "x.npz", tmp_path / "x.mat"):
        assert read_feature_file(path).names == NAMES
        assert read_feature_file(path, names="cities").names == list("abcdef")
        with pytest.raises(BankError, match=r"must be text|one name for each"):
            read_feature_file(path, names="X")
        with pytest.raises(UnknownNameError):
            read_feature_file(path, names="title")


@pytest.mark.parametrize("suffix", [".mat", ".parquet"])
def test_read_apart_is_read_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Another process sends matrix, names and errors as they are, and imports nothing of the current folder."""
    path = save(tmp_path, suffix)
    for name in ("json", "numpy", "scipy", "sitecustomize", "random"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    found = read_feature_file(path)
    assert found.matrix.tobytes() == X.tobytes()
    with pytest.raises(UnknownNameError, match="must have"):
        read_feature_file(path, variable="nothing")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BankError, match="cannot be read"):
        read_feature_file(path)
    assert not (tmp_path / "ran").exists()


def test_read_apart_a_file_that_ends_the_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"feats": X, "names": cells(6, 1)})
    data = bytearray(path.read_bytes())
    data[145] = 0xFF  # "has an imaginary part", which is not there: SciPy 1.17 dies of it
    path.write_bytes(data)
    with pytest.raises(BankError, match=r"cannot be read as a \.mat file"):
        read_feature_file(path)


def test_read_apart_a_file_that_takes_for_ever_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imported, "_LEAST_S", 0.0)
    with pytest.raises(BankError, match=r"took more than 0 s|cannot be started"):
        read_feature_file(save(tmp_path, ".mat"))


def test_read_apart_a_small_file_never_fills_the_memory(tmp_path: Path) -> None:
    """Parquet stores a text once and gives it 64 times; a MATLAB file may declare anything."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array(["x" * (16 << 20)]))
    table = pa.table({"which": texts, "c": np.arange(64.0)})
    pa.parquet.write_table(table, tmp_path / "x.parquet", compression="zstd", store_schema=False)
    n_rows = ROOM_BYTES // 4
    scipy.io.savemat(tmp_path / "x.mat", {"X": np.zeros((1_234, 5))})
    data = (tmp_path / "x.mat").read_bytes()
    (tmp_path / "x.mat").write_bytes(data.replace(struct.pack("<I", 1_234), struct.pack("<I", n_rows)))
    for path in (tmp_path / "x.parquet", tmp_path / "x.mat"):
        assert path.stat().st_size < 4 << 20
        with pytest.raises(BankError, match="made to fill the memory"):
            read_feature_file(path)
    with pytest.raises(BankError, match="made to fill the memory"):
        read_feature_file(tmp_path / "x.parquet", own_names=False)


def test_what_an_array_declares_must_lie_in_the_file(tmp_path: Path) -> None:
    """Memory is asked for by the header, so the header is checked first."""
    np.save(tmp_path / "x.npy", X)
    data = (tmp_path / "x.npy").read_bytes()
    for shape in (b"(6000000000000, 4)", b"(6, -4)", b"(600, 4)"):
        wrong = data.replace(b"(6, 4), }".ljust(len(shape) + 3), shape + b", }")
        assert shape in wrong
        (tmp_path / "y.npy").write_bytes(wrong)
        with pytest.raises(BankError, match="cannot be read"):
            read_feature_file(tmp_path / "y.npy")
        with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive:
            archive.writestr("X.npy", wrong)
        with pytest.raises(BankError, match=r"cannot be read|unpacks to more"):
            read_feature_file(tmp_path / "y.npz")


@pytest.mark.parametrize("suffix", EVERY)
def test_only_a_file_is_opened(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    with pytest.raises(BankError, match="must be a file"):
        read_feature_file(tmp_path / f"pipe{suffix}")


def test_a_header_that_is_no_python_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    data = bytearray((tmp_path / "x.npy").read_bytes())
    for byte in (0x00, 0x28, 0x7F, 0xFF):
        data[10] = byte  # where the header's dictionary begins
        (tmp_path / "x.npy").write_bytes(data)
        with pytest.raises(BankError, match="cannot be read"):
            read_feature_file(tmp_path / "x.npy")


def test_matlab_files_beyond_reach_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(BankError, match=r"cannot be read as a \.mat file"):
        read_feature_file(path)
    scipy.io.savemat(path, {"feats": scipy.sparse.csc_array(X)})
    with pytest.raises(BankError, match="import: "):
        read_feature_file(path, variable="feats")
    scipy.io.savemat(path, {"feats": X}, format="4")
    assert np.array_equal(read_feature_file(path).matrix, X)


def test_names_of_a_table_are_found_as_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for title, names in (
        ("image_name", NAMES),
        ("vid", ["NA", "nan", "007", "1e3", "x,y", 'q"q']),
        ("File", list("123456")),
    ):
        pd.DataFrame(X, columns=COLUMNS).assign(**{title: names}).to_csv(path, index=False)
        found = read_feature_file(path)
        assert found.names == names
        assert np.array_equal(found.matrix, X)
        assert f"names from {title!r}" in found.description


def test_an_index_that_pandas_wrote_is_no_feature(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "x.csv")
    table().set_index("image_name").to_parquet(tmp_path / "y.parquet")
    table().iloc[[1, 0, 2, 3, 4, 5]].to_parquet(tmp_path / "z.parquet")
    for name, order in (("x.csv", range(6)), ("y.parquet", range(6)), ("z.parquet", [1, 0, 2, 3, 4, 5])):
        found = read_feature_file(tmp_path / name)
        assert found.names == [NAMES[i] for i in order]
        assert np.array_equal(found.matrix, X[list(order)])


@pytest.mark.parametrize("title", ["mos", "MOS", "quality_mos", "MOSFull", "dmos", "DMOS", "MOS_zscore"])
def test_the_target_is_never_taken_for_a_feature(tmp_path: Path, title: str) -> None:
    table(**{title: X[:, 0]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(BankError, match="looks like the MOS"):
        read_feature_file(tmp_path / "x.csv")


def test_a_mosaic_is_not_the_target(tmp_path: Path) -> None:
    table(mosaic=1.0, thermos=2.0).to_csv(tmp_path / "x.csv", index=False)
    assert read_feature_file(tmp_path / "x.csv").matrix.shape == (6, 6)


def test_columns_are_chosen_by_pattern_or_band(tmp_path: Path) -> None:
    renamed = table().rename(columns={"f0": "nss:0", "f1": "nss:1", "f2": "gist:0", "f3": "gist:1"})
    renamed.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(BankError, match="holds 2 bands: gist, nss"):
        read_feature_file(tmp_path / "x.csv")
    for variable in ("gist", "gist:*", "g*"):
        assert np.array_equal(read_feature_file(tmp_path / "x.csv", variable=variable).matrix, X[:, 2:])
    with pytest.raises(UnknownNameError):
        read_feature_file(tmp_path / "x.csv", variable="scene")


def test_a_column_of_lists_is_a_matrix(tmp_path: Path) -> None:
    for kind in (pa.list_(pa.float64()), pa.list_(pa.float64(), 4), pa.large_list(pa.float64())):
        lists = pa.array(X.tolist(), type=kind)
        pa.parquet.write_table(pa.table({"name": NAMES, "vector": lists}), tmp_path / "x.parquet")
        found = read_feature_file(tmp_path / "x.parquet")
        assert found.names == NAMES
        assert np.array_equal(found.matrix, X)
    ragged = pa.table({"name": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]})
    pa.parquet.write_table(ragged, tmp_path / "x.parquet")
    with pytest.raises(BankError, match=r"as many numbers in each row.*\[1, 2\]"):
        read_feature_file(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read as a table"),
        ("1.5,2.5\n3.5,4.5\n", "must begin with a header line"),
        ("a,b\n1,2,3\n4,5,6\n", "as many fields"),
        ("a,a\n1,2\n", "'a' more than once"),
        ("name;a;b\nx;1;2\n", "separated by something else"),
        ("name,a\nx,1\nx,2\n", "'x' more than once"),
        ("name,a\nx,1\n,2\n", "1 empty names"),
        ("city,country,a\nx,y,1\n", "2 columns or arrays of text"),
        ("a,b\n1,2\n3\n", "as many fields"),
        ("a,b\n1,2\n3,\n", "1 that are NaN"),
        ("a,b\n1,2\n3,4,5\n", "cannot be read as a table"),
        ("a,b\n", "at least one row"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(BankError, match=match):
        read_feature_file(tmp_path / "x.csv")


def test_numbered_columns_are_a_header(tmp_path: Path) -> None:
    pd.DataFrame(X).to_csv(tmp_path / "x.csv")
    assert np.array_equal(read_feature_file(tmp_path / "x.csv").matrix, X)
    pd.DataFrame(X).to_csv(tmp_path / "x.csv", index=False)
    assert np.array_equal(read_feature_file(tmp_path / "x.csv").matrix, X)


def test_numpy_files_with_the_wrong_ending_are_told_apart(tmp_path: Path) -> None:
    save(tmp_path, ".npy").rename(tmp_path / "x.npz")
    save(tmp_path, ".npz").rename(tmp_path / "x.npy")
    with pytest.raises(BankError, match=r"Rename it to \.npy"):
        read_feature_file(tmp_path / "x.npz")
    with pytest.raises(BankError, match=r"Rename it to \.npz"):
        read_feature_file(tmp_path / "x.npy")


def test_options_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="cannot be looked up"):
        read_feature_file(save(tmp_path, ".npy"), variable="x")
    with pytest.raises(BankError, match="cannot be transposed"):
        read_feature_file(save(tmp_path, ".csv"), transpose=True)
    with pytest.raises(UnknownNameError):
        read_feature_file(save(tmp_path, ".csv"), names="x")
    with pytest.raises(BankError, match="must end with"):
        read_feature_file(tmp_path / "x.xlsx")


@pytest.mark.dataset
@pytest.mark.parametrize(
    ("path", "shape", "n_bad"),
    [
        ("rvs-1080p/YOUTUBE_UGC_1080P_NSS_feats.mat", (294, 1836), 2098),
        ("rvs-1080p/YOUTUBE_UGC_1080P_CNN_feats.mat", (294, 2048), 0),
        ("rvs-1080p/YOUTUBE_UGC_1080P_Saliency_feats.mat", (294, 224), 0),
        ("videval-live-vqc/LIVE_VQC_VIDEVAL_light720_6fps_feats.mat", (585, 60), 1),
    ],
)
def test_published_features_are_read(real_data: Path, path: str, shape: tuple[int, int], n_bad: int) -> None:
    found = read_feature_file(real_data / path, nonfinite="zero")
    assert found.matrix.shape == shape
    assert n_bad == 0 or f"{n_bad} NaN or infinite" in found.description
    assert "variable 'feats_mat'" in found.description
    reference = scipy.io.loadmat(real_data / path)["feats_mat"]
    assert np.array_equal(found.matrix, np.nan_to_num(reference, nan=0, posinf=0, neginf=0))


def save_matlab73(path: Path) -> None:
    """Write what MATLAB writes with '-v7.3': arrays along columns, names as references to characters."""
    with h5py.File(path, "w", userblock_size=512) as file:
        matrix = file.create_dataset("feats", data=X.T)
        matrix.attrs["MATLAB_class"] = np.bytes_("double")
        cell = file.create_dataset("names", (1, len(NAMES)), dtype=h5py.ref_dtype)
        cell.attrs["MATLAB_class"] = np.bytes_("cell")
        for i, name in enumerate(NAMES):
            text = file.create_dataset(
                f"#refs#/{i}", data=np.array([[ord(c)] for c in name], dtype=np.uint16)
            )
            text.attrs["MATLAB_class"] = np.bytes_("char")
            cell[0, i] = text.ref
    data = bytearray(path.read_bytes())
    data[:128] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(data)


def test_matlab_73_is_read_apart(tmp_path: Path) -> None:
    save_matlab73(tmp_path / "f.mat")
    found = read_feature_file(tmp_path / "f.mat")
    assert np.array_equal(found.matrix, X)
    assert found.names == NAMES


def test_hdf5_gives_names_in_text_or_by_its_keys(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["feats"], file["image_names"] = X, NAMES
        file["notes"] = ["one", "two"]
    found = read_feature_file(tmp_path / "f.h5")
    assert (found.names, np.array_equal(found.matrix, X)) == (NAMES, True)
    with h5py.File(tmp_path / "keys.h5", "w") as file:
        for name, row in zip(NAMES, X, strict=True):
            file[f"features/{name}"] = row
    found = read_feature_file(tmp_path / "keys.h5")
    assert found.names == [f"features/{name}" for name in NAMES]
    assert np.array_equal(found.matrix, X)


def test_hdf5_that_leads_elsewhere_or_is_too_large_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"\0" * 192)
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("feats", (6, 4), dtype="f8", external=[(str(raw), 0, 192)])
    with pytest.raises(BankError, match="lies in other files"):
        read_feature_file(tmp_path / "external.h5")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("feats", (10**7, 1000), dtype="f8", chunks=(1000, 1000), compression="gzip")
    with pytest.raises(BankError, match="unpacks to more than"):
        read_feature_file(tmp_path / "huge.h5")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["a"], file["b"] = X, X
    with pytest.raises(BankError, match="--variable NAME"):
        read_feature_file(tmp_path / "two.h5")
    assert np.array_equal(read_feature_file(tmp_path / "two.h5", variable="b").matrix, X)


def test_a_column_made_to_fill_the_memory_is_refused_though_it_is_not_read(tmp_path: Path) -> None:
    frame = table(junk=["a" * 200_000] * 6, caption=["a photo of a bird"] * 6)
    frame["junk"] = [f"{i}{text}" for i, text in enumerate(frame["junk"])]
    frame.to_parquet(tmp_path / "bomb.parquet", compression="zstd")
    with pytest.raises(BankError, match=r"column 'junk' of .*made to fill the memory"):
        read_feature_file(tmp_path / "bomb.parquet")
    frame.drop(columns="junk").to_parquet(tmp_path / "fine.parquet")
    assert read_feature_file(tmp_path / "fine.parquet").names == NAMES


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, ".h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BankError, match=r"featbank\[hdf5\]"):
        read_feature_file(path)


def test_a_folder_with_a_file_for_each_image(tmp_path: Path) -> None:
    for name, row in zip(NAMES, X, strict=True):
        place = tmp_path / "feats" / f"sub/{name}.npy"
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(place, row[None] if name == NAMES[0] else row)
    (tmp_path / "feats/readme.txt").touch()
    found = read_feature_file(tmp_path / "feats")
    assert found.names == [f"sub/{name}" for name in NAMES]
    assert np.array_equal(found.matrix, X)
    assert "6 files of feats" in found.description
    assert "1 other files" in found.description
    np.save(tmp_path / "feats/z.npy", X[0][:3])
    with pytest.raises(BankError, match=r"one shape, got \(3,\) in z.npy"):
        read_feature_file(tmp_path / "feats")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BankError, match="an NPY file for each image"):
        read_feature_file(tmp_path / "empty")
    with pytest.raises(BankError, match="--transpose goes with one file"):
        read_feature_file(tmp_path / "feats", transpose=True)


@pytest.mark.parametrize("folders", [("", ""), ("img_emb", "metadata")])
def test_shards_as_clip_retrieval_writes_them(tmp_path: Path, folders: tuple[str, str]) -> None:
    for number, rows in ((0, slice(0, 2)), (2, slice(2, 3)), (10, slice(3, 6))):
        for folder in folders:
            (tmp_path / folder).mkdir(exist_ok=True)
        np.save(tmp_path / folders[0] / f"img_emb_{number}.npy", X[rows].astype(np.float16))
        frame = pd.DataFrame({"image_path": [f"/data/{n}" for n in NAMES[rows]], "caption": "a photo"})
        frame.to_parquet(tmp_path / folders[1] / f"metadata_{number}.parquet")
    found = read_feature_file(tmp_path)
    assert found.names == [f"/data/{name}" for name in NAMES]
    assert np.array_equal(found.matrix, X.astype(np.float16))
    assert "3 shards" in found.description
    (tmp_path / folders[1] / "metadata_2.parquet").unlink()
    with pytest.raises(BankError, match=r"needs metadata_2\.parquet"):
        read_feature_file(tmp_path)
    assert read_feature_file(tmp_path, own_names=False).names is None


def test_crops_stand_side_by_side_or_are_averaged(tmp_path: Path) -> None:
    crops = np.random.default_rng(1).normal(size=(6, 3, 4))
    np.save(tmp_path / "crops.npy", crops)
    found = read_feature_file(tmp_path / "crops.npy")
    assert found.n_crops == 3
    assert np.array_equal(found.matrix, crops.reshape(6, 12))
    assert "3 crops side by side" in found.description
    averaged = read_feature_file(tmp_path / "crops.npy", average_crops=True)
    assert averaged.n_crops == 1
    np.testing.assert_allclose(averaged.matrix, crops.mean(axis=1))


def test_columns_are_excluded_by_title_or_number(tmp_path: Path) -> None:
    table(False, meta_age=3.0, meta_iso=4.0).to_csv(tmp_path / "f.csv", index=False)
    found = read_feature_file(tmp_path / "f.csv", exclude=["meta_*", "f1"])
    assert np.array_equal(found.matrix, X[:, [0, 2, 3]])
    assert "left out: f1, meta_age, meta_iso" in found.description
    with pytest.raises(UnknownNameError, match="column to exclude 'g'"):
        read_feature_file(tmp_path / "f.csv", exclude=["g"])
    path = save(tmp_path, ".npy")
    assert np.array_equal(read_feature_file(path, exclude=["0-1", "3"]).matrix, X[:, [2]])
    for wrong in ("4", "b", "3-1", "-1"):
        with pytest.raises(UnknownNameError, match="by number, 0 to 3"):
            read_feature_file(path, exclude=[wrong])
    with pytest.raises(BankError, match="leaves no column"):
        read_feature_file(path, exclude=["0-3"])
