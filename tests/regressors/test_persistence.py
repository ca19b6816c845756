"""Model files: bit-equal predictions, atomic writes, and refusal of everything that is not ours."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import KFold
from sklearn.svm import SVR

from regressors import persistence
from regressors.ensemble import BandEnsemble
from regressors.folds import make_folds
from regressors.persistence import (
    HEADER,
    ModelFileError,
    ModelVersionWarning,
    load_model,
    save_model,
)
from regressors.pipelines import ESTIMATORS, SCALES, make_pipeline
from regressors.svr import UnitSVR
from tests.support.band_tables import band_table

MANIFEST = {"bands": [{"name": "quality", "view": "native"}], "mos_range": [0.0, 1.0], "note": "Größe"}


def small(**parameters: Any) -> BandEnsemble:
    return BandEnsemble(
        **{"alpha": [1.0], "C": [1.0], "epsilon": [0.1], "gamma": [0.3], "cv": 2, **parameters}
    )


@pytest.fixture(scope="module")
def fitted() -> tuple[BandEnsemble, pd.DataFrame]:
    X, y = band_table(40)
    return small().fit(X, y), X


@pytest.fixture
def saved(fitted: tuple, tmp_path: Path) -> Path:
    return save_model(tmp_path / "model.skops", fitted[0], MANIFEST)


def rewrite_header(path: Path, **changes: Any) -> None:
    """Replace entries of the header, everything else as it is."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(entries.pop(HEADER)) | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        archive.writestr(HEADER, json.dumps(header))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("weighted", [False, True])
def test_predictions_survive_bit_by_bit(estimator: str, weighted: bool, tmp_path: Path) -> None:
    X, y = band_table(40)
    model = small(estimator=estimator, cv=make_folds(y, np.arange(40), n_splits=2))
    model.fit(X, y, sample_weight=np.arange(1, 41) if weighted else None)
    again, manifest = load_model(save_model(tmp_path / "model.skops", model, MANIFEST))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    pd.testing.assert_frame_equal(again.predict_members(X), model.predict_members(X))
    pd.testing.assert_frame_equal(again.cv_results_, model.cv_results_)
    np.testing.assert_array_equal(again.oof_predictions_, model.oof_predictions_)
    assert again.member_names_ == model.member_names_
    assert again.member_params_ == model.member_params_
    assert manifest == MANIFEST
    with pytest.raises(ValueError, match="order"):
        again.predict(X[X.columns[::-1]])


def test_pipelines_arrays_and_splitters_are_fine(tmp_path: Path) -> None:
    X, y = band_table(40)
    scaled = [small(scale=scale, estimator=kind) for scale in SCALES for kind in ("ridge", "rbf-svr")]
    for k, model in enumerate([make_pipeline("ridge"), small(cv=KFold(2)), Ridge(), *scaled]):
        values = X.to_numpy()
        model.fit(values, y)
        again, _ = load_model(save_model(tmp_path / f"{k}.skops", model, {}))
        np.testing.assert_array_equal(again.predict(values), model.predict(values))


def test_the_file_holds_no_pickle_and_is_a_plain_skops_file(saved: Path, fitted: tuple) -> None:
    with zipfile.ZipFile(saved) as archive:
        for name in archive.namelist():
            assert name.endswith((".json", ".npy")), name
            if name.endswith(".npy"):
                np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    model, X = fitted
    by_skops = skops.io.load(saved, trusted=list(persistence.TRUSTED_TYPES))
    np.testing.assert_array_equal(by_skops.predict(X), model.predict(X))


def test_a_process_that_only_scores_needs_no_list_of_all_estimators(saved: Path, fitted: tuple) -> None:
    model, X, *_ = fitted
    X.to_pickle(saved.with_suffix(".pkl"))
    program = (
        "import sys, pandas; from regressors.persistence import import_skops, load_model\n"
        "import_skops(with_estimators=False)\n"
        "predicted = load_model(sys.argv[1])[0].predict(pandas.read_pickle(sys.argv[2]))\n"
        "print(predicted[0], 'sklearn.mixture' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(saved), str(saved.with_suffix(".pkl"))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(model.predict(X)[0]), "False"]


class Attack:
    """What a file must not be able to do: run a command while being loaded."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("thing", [os.system, subprocess.Popen, Attack("x"), exec])
def test_a_malicious_file_is_refused_before_anything_is_built(
    thing: Any, saved: Path, tmp_path: Path
) -> None:
    """A skops file with a foreign type, under a header copied from an honest one."""
    with zipfile.ZipFile(saved) as archive:
        header = archive.read(HEADER)
    evil = tmp_path / "evil.skops"
    evil.write_bytes(skops.io.dumps({"model": thing}))
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr(HEADER, header)
    with pytest.raises(ModelFileError, match=r"not trusted.*nothing was built"):
        load_model(evil)
    assert [p.name for p in tmp_path.iterdir()] != ["x"]


def test_a_type_renamed_inside_the_file_is_refused(saved: Path) -> None:
    """Editing the schema of an honest file so that it names another class."""
    with zipfile.ZipFile(saved) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    schema = (
        entries["schema.json"]
        .decode()
        .replace('"BandEnsemble"', '"Popen"')
        .replace("regressors.ensemble", "subprocess")
    )
    with zipfile.ZipFile(saved, "w") as archive:
        for name, data in (entries | {"schema.json": schema.encode()}).items():
            archive.writestr(name, data)
    with pytest.raises(ModelFileError, match=r"subprocess\.Popen"):
        load_model(saved)


def disguise(thing: Any, saved: Path, **entries: bytes) -> Path:
    """Put another object under the header of an honest file, and other bytes in place of some entries."""
    with zipfile.ZipFile(saved) as archive:
        header = archive.read(HEADER)
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(thing))) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, data in (content | {HEADER: header} | entries).items():
            archive.writestr(name, data)
    return saved


@pytest.mark.parametrize("place", ["alone", "in a pipeline", "in a member", "in the kernel regressor"])
def test_estimators_that_this_package_does_not_fit_are_not_built(
    place: str, saved: Path, fitted: tuple
) -> None:
    """libsvm reads beyond an array that is shorter than the file says, and the process ends."""
    X = fitted[1].to_numpy()
    svr = SVR().fit(X, X[:, 0])
    svr.support_ = svr.support_[:1]
    thing: Any = svr
    if place == "in a pipeline":
        thing = make_pipeline("rbf-svr").set_params(regress=svr)
    elif place != "alone":
        thing = copy.deepcopy(fitted[0])
        last = svr if place == "in a member" else UnitSVR()
        last.kernel = svr if last is not svr else "rbf"
        thing.members_[0].steps[-1] = ("regress", last)
    with pytest.raises(ModelFileError, match=r"not trusted.*SVR.*nothing was built"):
        load_model(disguise(thing, saved))


def ridge_of(model: BandEnsemble) -> Ridge:
    return model.members_[0].steps[-1][1]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "n_features_in_", 10**10),
        lambda model: setattr(model, "n_features_in_", "10"),
        lambda model: setattr(model, "weights_", np.ones(1)),
        lambda model: setattr(model, "column_means_", np.ones((5000, 1))),
        lambda model: setattr(model, "feature_names_in_", model.feature_names_in_[:-1]),
        lambda model: setattr(ridge_of(model), "coef_", np.ones((ridge_of(model).n_features_in_, 10**5))),
        lambda model: setattr(ridge_of(model), "coef_", np.array(["1"] * ridge_of(model).n_features_in_)),
        lambda model: setattr(ridge_of(model), "n_features_in_", 10**9),
        lambda model: model.members_[0].steps.pop(),
        lambda model: model.members_.append(model.members_[0].steps[0][1]),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(change: Any, saved: Path, fitted: tuple) -> None:
    model = copy.deepcopy(fitted[0])
    change(model)
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(disguise(model, saved))


def test_what_would_unpack_to_too_much_is_not_unpacked(
    saved: Path, fitted: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (persistence._JSON_BYTES, persistence._ARRAY_BYTES) == (16 << 20, 256 << 20)
    monkeypatch.setattr(persistence, "_JSON_BYTES", 1 << 20)
    monkeypatch.setattr(persistence, "_ARRAY_BYTES", 16 << 20)
    model, honest = fitted[0], saved.read_bytes()
    parts = b"[" + b"[]," * (5 << 16) + b"[]]"
    for name, data, said in (
        (HEADER, bytes(2 << 20), "bytes for featbank.json.*nothing of it was unpacked"),
        ("schema.json", bytes(3 << 20), "bytes for schema.json.*nothing of it was unpacked"),
        ("0.npy", bytes(20 << 20), "bytes for its arrays.*nothing of it was unpacked"),
        (HEADER, parts, "too many parts"),
        ("schema.json", parts, "too many parts"),
        ("schema.json", b"[" * 10**5 + b"]" * 10**5, "damaged"),
    ):
        saved.write_bytes(honest)
        with pytest.raises(ModelFileError, match=said):
            load_model(disguise(model, saved, **{name: data}))
        assert saved.stat().st_size < 1 << 20


@pytest.mark.parametrize(
    ("shape", "said"),
    [*((shape, "claims the shape") for shape in ("(9000000000,)", "(-1,)", "(2, 0)")), ("(9", "damaged")],
)
def test_an_array_is_as_long_as_it_says(shape: str, said: str, saved: Path, fitted: tuple) -> None:
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(fitted[0]))) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".npy"))
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80)
    schema = json.dumps(
        {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy",
         "file": "a.npy", "__id__": 1, "protocol": 2, "_skops_version": "0.16.0"}
    )  # fmt: skip
    with pytest.raises(ModelFileError, match=said):
        load_model(
            disguise(fitted[0], saved, **{"schema.json": schema.encode(), "a.npy": array, name: array})
        )


def test_a_pickle_is_no_model_file(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Attack(str(target))))
    with pytest.raises(ModelFileError, match="damaged or no model file"):
        load_model(path)
    assert not target.exists()


def test_a_plain_skops_file_is_not_guessed_at(tmp_path: Path, fitted: tuple) -> None:
    path = tmp_path / "plain.skops"
    skops.io.dump(fitted[0], path)
    with pytest.raises(ModelFileError, match=r"must hold an entry 'featbank\.json'"):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_cut_file_is_refused(keep: float, saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(ModelFileError, match="damaged or no model file"):
        load_model(saved)


@pytest.mark.parametrize("n_bytes", [1, 40, 3000])
def test_a_file_that_lost_its_first_bytes_is_refused(n_bytes: int, saved: Path) -> None:
    """The table at the end then places entries before the beginning of the file."""
    saved.write_bytes(saved.read_bytes()[n_bytes:])
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(saved)


def test_a_flipped_byte_is_noticed(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith(".npy"))
        place = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    data = bytearray(saved.read_bytes())
    data[place] ^= 0xFF
    saved.write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(saved)


@pytest.mark.parametrize("changes", [{"format_version": 2}, {"format_version": "1"}, {"format": "other"}])
def test_another_format_is_refused_with_the_cure(changes: dict, saved: Path) -> None:
    rewrite_header(saved, **changes)
    with pytest.raises(ModelFileError, match=r"version 1, got .*fit the recipe again"):
        load_model(saved)


@pytest.mark.parametrize("changes", [{"manifest": []}, {"probe": None}, {"versions": {}}])
def test_an_edited_header_is_refused(changes: dict, saved: Path) -> None:
    rewrite_header(saved, **changes)
    with pytest.raises(ModelFileError, match="incomplete"):
        load_model(saved)


def test_a_model_that_predicts_something_else_is_refused(saved: Path) -> None:
    rewrite_header(saved, probe=[0.1, 0.2, 0.3])
    with pytest.raises(ModelFileError, match=r"must predict \[0.1, 0.2, 0.3\] on its stored rows"):
        load_model(saved)


def test_another_scikit_learn_release_warns_when_the_predictions_agree(saved: Path, fitted: tuple) -> None:
    with zipfile.ZipFile(saved) as archive:
        versions = json.loads(archive.read(HEADER))["versions"]
    rewrite_header(saved, versions=versions | {"scikit-learn": "1.2.3"})
    with pytest.warns(ModelVersionWarning, match=r"written with scikit-learn 1\.2\.3.*agree"):
        model, _ = load_model(saved)
    np.testing.assert_array_equal(model.predict(fitted[1]), fitted[0].predict(fitted[1]))


def test_another_patch_release_does_not_warn(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        versions = json.loads(archive.read(HEADER))["versions"]
    major, minor, *_ = versions["scikit-learn"].split(".")
    rewrite_header(saved, versions=versions | {"scikit-learn": f"{major}.{minor}.99"})
    load_model(saved)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    X, y = band_table(40)
    model = small(select_by=make_scorer(r2_score)).fit(X, y)
    with pytest.raises(ModelFileError, match="Give scorers by name"):
        save_model(tmp_path / "model.skops", model, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "error"),
    [({"a": np.arange(3)}, TypeError), ({"a": float("nan")}, ValueError), ({"a": {1}}, TypeError)],
)
def test_a_manifest_must_be_strict_json(
    manifest: dict, error: type[Exception], tmp_path: Path, fitted: tuple
) -> None:
    with pytest.raises(error, match="manifest must be strict JSON"):
        save_model(tmp_path / "model.skops", fitted[0], manifest)
    assert list(tmp_path.iterdir()) == []


def test_an_unfitted_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        save_model(tmp_path / "model.skops", small(), {})


def test_a_failed_write_leaves_the_old_file(
    saved: Path, fitted: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, fitted[0], {"other": 1})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["model.skops"]


def test_an_existing_file_is_replaced(saved: Path, fitted: tuple) -> None:
    save_model(saved, fitted[0], {"other": 1})
    assert load_model(saved)[1] == {"other": 1}


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "model.skops")


def test_the_same_model_gives_the_same_probe_on_any_machine(fitted: tuple) -> None:
    rows = persistence._probe_rows(fitted[0])
    assert (rows.to_numpy() * 4 == np.round(rows.to_numpy() * 4)).all()
    assert rows.columns.tolist() == fitted[1].columns.tolist()
