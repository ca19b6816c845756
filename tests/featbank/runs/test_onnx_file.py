"""The exported file: the scorer's numbers, one set of weights, a contract, refusals that name the bands."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.cli import main
from featbank.digest import digest_json
from featbank.errors import OutputError, RunError
from featbank.feature import compute_features, make_feature
from featbank.images import read_photo
from featbank.runs.score import Scorer
from regressors.ensemble import BandEnsemble
from tests.support.datasets import write_image
from tests.support.network_encoders import SMALL_NETWORK

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
from featbank.runs.onnx_file import export_onnx, is_exported  # noqa: E402

STUDENT = "featbank:mobile"
BANDS = {
    "student": (STUDENT, "tiles_2x2/center_128", "mean+std"),
    "pair": (STUDENT, "center_256+half", "mean"),
    "network": (SMALL_NETWORK, "squash_64x64", "mean"),
    "crops": (SMALL_NETWORK, "tiles_2x2/squash_64x64", "concat"),
}


def make_scorer(bands: dict[str, tuple[str, str, str]], **changes: object) -> Scorer:
    """Fit a small model on pictures of noise, without a bank."""
    features = {name: make_feature(*spec) for name, spec in bands.items()}
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(9):
        pixels = rng.integers(0, rng.integers(20, 256), (300, 420, 3)).astype(np.uint8)
        computed, _ = compute_features(list(features.values()), read_photo(pixels))
        rows.append(np.concatenate(computed))
    names = [f"{name}:{k:04}" for name, feature in features.items() for k in range(feature.n_features)]
    X = pd.DataFrame(np.array(rows, dtype=np.float64), columns=names)
    ensemble = BandEnsemble(cv=3, n_jobs=1, **{"alpha": [1.0, 100.0], **changes})
    ensemble.fit(X, rng.uniform(0, 1, len(X)) + X.iloc[:, 0] / X.iloc[:, 0].std())
    entries = [
        dict(zip(("name", "encoder", "view", "aggregate"), (name, *spec), strict=True))
        | {"digest": digest_json(features[name].identity)}
        for name, spec in bands.items()
    ]
    facts = {"recipe": "small", "dataset": "noise", "simulation": False, "mos_range": [0.0, 1.0]}
    return Scorer(ensemble, {**facts, "bands": entries})


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (["student", "pair"], {"estimator": "rbf-svr", "C": [1.0], "gamma": [0.1], "combine": "simplex"}),
        (["network", "crops"], {"estimator": "banded-ridge", "combine": "uniform"}),
        (["network"], {"estimator": "plain-svr", "scale": "minmax", "combine": "uniform"}),
    ],
)
def test_the_file_gives_the_scorers_numbers(
    names: list[str], changes: dict[str, object], tmp_path: Path
) -> None:
    if "network" in names:
        pytest.importorskip("timm", reason="needs the extra encoders")
    scorer = make_scorer({name: BANDS[name] for name in names}, **changes)
    photo = write_image(tmp_path / "a.png", size=(500, 360))
    found = export_onnx(scorer, tmp_path / "m.onnx", [photo])
    assert found["compared"] == 3
    assert found["max_deviation"] < 1e-5
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    stored = {prop.key: json.loads(prop.value) for prop in model.metadata_props}["featbank"]
    assert {entry["name"] for entry in stored["inputs"]} == {value.name for value in model.graph.input}
    assert stored["mos_range"] == [0.0, 1.0]
    if "pair" in names:  # both bands and both scales of a view read one set of weights
        alone = make_scorer({"one": (STUDENT, "center_128", "mean")})
        assert found["megabytes"] < 2 * export_onnx(alone, tmp_path / "one.onnx")["megabytes"]


def test_bands_without_a_graph_are_named(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(fitted / "run"), "--onnx", str(tmp_path / "m.onnx")]) == 1
    message = capsys.readouterr().err
    assert "2 of 2 bands have no graph" in message
    assert "layout (classic:layout@squash_16x16.mean)" in message
    assert not (tmp_path / "m.onnx").exists()


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = make_scorer({"student": (STUDENT, "center_128", "mean")})
    other = tmp_path / "mine.onnx"
    other.write_bytes(b"of somebody else, and long enough to hold a head")
    with pytest.raises(OutputError, match=r"mine\.onnx"):
        export_onnx(scorer, other)
    with pytest.raises(RunError, match="cannot be read"):
        export_onnx(scorer, tmp_path / "m.onnx", [tmp_path / "nothing.jpg"])
    predict = scorer.ensemble.predict
    monkeypatch.setattr(scorer.ensemble, "predict", lambda X: predict(X) + 0.01 * len(X))
    with pytest.raises(RunError, match="deviates by"):
        export_onnx(scorer, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
    monkeypatch.undo()
    assert export_onnx(scorer, tmp_path / "m.onnx")["max_deviation"] < 1e-5
    assert is_exported(tmp_path / "m.onnx")
    export_onnx(scorer, tmp_path / "m.onnx")  # its own file is replaced
