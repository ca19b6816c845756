"""A file of features gives its one matrix, or an error that says what to choose or to mend."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse

from featbank.bank import read_feature_file
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
    else:
        frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
        if suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


EVERY = [".npy", ".npz", ".mat", ".csv", ".tsv", ".parquet"]


@pytest.mark.parametrize("suffix", EVERY)
def test_every_format_gives_the_same_numbers(tmp_path: Path, suffix: str) -> None:
    found = read_feature_file(save(tmp_path, suffix), n_rows=6)
    assert found.matrix.dtype == np.float64
    assert found.matrix.tobytes() == X.tobytes()
    assert found.names is None
    assert found.n_nonfinite == 0
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
    assert found.n_nonfinite == 3
    assert "3 NaN or infinite values replaced by 0" in found.description
    assert np.array_equal(found.matrix, np.where(np.isfinite(holes), holes, 0))
    with pytest.raises(ValueError, match="'refuse' or 'zero'"):
        read_feature_file(path, nonfinite="drop")


@pytest.mark.parametrize("suffix", EVERY)
def test_another_number_of_rows_is_an_error(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path, suffix)
    with pytest.raises(BankError, match="each of the 5 images, got 6"):
        read_feature_file(path, n_rows=5)
    with pytest.raises(BankError, match="transpose"):
        read_feature_file(path, n_rows=4)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_images_in_columns_are_turned_on_request(tmp_path: Path, suffix: str) -> None:
    found = read_feature_file(save(tmp_path, suffix, X.T), transpose=True, n_rows=6)
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
        X[None],
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
            read_feature_file(path, variable="scale", n_rows=6)


def test_names_beside_the_matrix_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=X, names=np.array(NAMES))
    assert read_feature_file(tmp_path / "x.npz").names == NAMES
    np.savez(tmp_path / "y.npz", X=X, names=np.array(NAMES), cities=np.array(list("abcdef")))
    assert read_feature_file(tmp_path / "y.npz").names is None  # either could be the names
    assert read_feature_file(tmp_path / "y.npz", names="cities").names == list("abcdef")
    cells = np.array(NAMES, dtype=object).reshape(-1, 1)
    scipy.io.savemat(
        tmp_path / "x.mat", {"X": X, "names": cells, "padded": np.array(["a", "bb", "c", "d", "e", "f"])}
    )
    assert read_feature_file(tmp_path / "x.mat").names is None
    assert read_feature_file(tmp_path / "x.mat", names="names").names == NAMES
    assert read_feature_file(tmp_path / "x.mat", names="padded").names == ["a", "bb", "c", "d", "e", "f"]
    with pytest.raises(BankError, match="cell array of character vectors"):
        read_feature_file(tmp_path / "x.mat", names="X")
    for path in (tmp_path / "x.mat", tmp_path / "x.npz"):
        with pytest.raises(UnknownNameError):
            read_feature_file(path, names="title")


def test_matlab_files_beyond_reach_are_refused_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(BankError, match=r"version 7\.3 .* '-v7'"):
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
        assert found.columns == COLUMNS
        assert np.array_equal(found.matrix, X)
        assert f"names from {title!r}" in found.description


def test_an_index_that_pandas_wrote_is_no_feature(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "x.csv")
    table().set_index("image_name").to_parquet(tmp_path / "y.parquet")
    table().iloc[[1, 0, 2, 3, 4, 5]].to_parquet(tmp_path / "z.parquet")
    for name, order in (("x.csv", range(6)), ("y.parquet", range(6)), ("z.parquet", [1, 0, 2, 3, 4, 5])):
        found = read_feature_file(tmp_path / name)
        assert found.columns == COLUMNS
        assert found.names == [NAMES[i] for i in order]
        assert np.array_equal(found.matrix, X[list(order)])


@pytest.mark.parametrize("title", ["mos", "MOS", "quality_mos", "MOSFull", "dmos", "DMOS", "MOS_zscore"])
def test_the_target_is_never_taken_for_a_feature(tmp_path: Path, title: str) -> None:
    table(**{title: X[:, 0]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(BankError, match="looks like the MOS"):
        read_feature_file(tmp_path / "x.csv")
    found = read_feature_file(tmp_path / "x.csv", exclude=[title])
    assert found.columns == COLUMNS
    assert f"left out: {title}" in found.description


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
        ("city,country,a\nx,y,1\n", "2 columns of text"),
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
    with pytest.raises(BankError, match="cannot be looked up"):
        read_feature_file(save(tmp_path, ".mat"), exclude=["x"])
    with pytest.raises(BankError, match="cannot be transposed"):
        read_feature_file(save(tmp_path, ".csv"), transpose=True)
    with pytest.raises(UnknownNameError):
        read_feature_file(save(tmp_path, ".csv"), exclude=["x"])
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
    found = read_feature_file(real_data / path, nonfinite="zero", n_rows=shape[0])
    assert found.matrix.shape == shape
    assert found.n_nonfinite == n_bad
    assert "variable 'feats_mat'" in found.description
    reference = scipy.io.loadmat(real_data / path)["feats_mat"]
    assert np.array_equal(found.matrix, np.nan_to_num(reference, nan=0, posinf=0, neginf=0))
