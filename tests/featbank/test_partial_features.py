"""A photo that one encoder cannot take is left out with its name and reason; it costs no other work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featbank.bank import Bank
from featbank.cli import main

CODE = """
import numpy as np
from featbank.encoders import Encoder, EncoderSpec
from featbank.errors import EncoderSetupError


class Contrast(Encoder):
    def __init__(self):
        super().__init__(
            EncoderSpec(
                name="file:mine.py:Contrast", role="quality", title="standardised means", reference="own",
                licence="own", weights="none", n_features=3,
            )
        )

    def identity(self):
        return {"name": "contrast", "epoch": 1}

    def pass_identity(self):
        return self.identity()

    def count_macs(self, height, width):
        return 3 * height * width

    def _encode(self, crops):
        BODY
"""
NOT_FINITE = """with np.errstate(all="ignore"):
            return (crops.mean(axis=(1, 2)) / crops.std(axis=(1, 2, 3))[:, None]).astype(np.float32)"""
RAISES = """assert crops.std() > 0, "flat"
        return crops.mean(axis=(1, 2)).astype(np.float32)"""
CANNOT_RUN = 'raise EncoderSetupError("contrast: there is no such device here")'

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_16x16"
[[band]]
name = "own"
encoder = "file:{code}:Contrast"
view = "squash_16x16"
[regression]
alpha = [1.0, 100.0]
cv = {{ kind = "kfold", n_splits = 3 }}
"""


def make_project(folder: Path, body: str) -> Path:
    """Twenty-four photos, the eighth of one flat gray, and a recipe with an encoder of one's own."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        if i == 7:
            pixels[:] = 90
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append((f"{i}.png", float(rng.uniform(1, 5)), "test" if i % 4 == 0 else "training"))
    pd.DataFrame(rows, columns=["path", "mos", "split"]).to_csv(folder / "scores.csv", index=False)
    (folder / "mine.py").write_text(CODE.replace("BODY", body))
    (folder / "recipe.toml").write_text(RECIPE.format(code=folder / "mine.py"))
    return folder


def run(folder: Path, *command: str) -> int:
    recipe = ["--recipe", str(folder / "recipe.toml")] if command[0] != "score" else []
    return main([*command, *recipe, "--bank", str(folder / "bank"), "--workers", "1", "--allow-code"])


@pytest.mark.parametrize(("body", "said"), [(NOT_FINITE, "not finite"), (RAISES, "AssertionError: flat")])
@pytest.mark.filterwarnings("ignore::regressors.ensemble.NoSkillWarning")
def test_the_photo_is_left_out_by_name_and_the_others_go_on(
    body: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project(tmp_path, body)
    data = str(folder / "scores.csv")
    assert run(folder, "features", data) == 0
    text = capsys.readouterr().out
    assert "23 computed" in text
    assert "1 failed" in text
    assert "refused: 1 of 24 photos (4.2%)" in text
    assert "7.png: feature file:" in text

    bank = Bank(folder / "bank")
    rows = {feature.label.partition(":")[0]: len(feature.keys()) for feature in bank.features()}
    assert rows == {"classic": 24, "file": 23}  # what the other encoder made of the photo is kept
    assert bank.images.failures().empty  # the photo itself can be read
    assert bank.verify() == []

    out = folder / "run"
    assert run(folder, "fit", data, "--out", str(out)) == 0
    printed = capsys.readouterr()
    for part in ("left out 7.png", "band own", "Contrast", said):
        assert part in printed.err
    receipt = json.loads((out / "receipt.json").read_text())
    (failure,) = receipt["failures"]
    assert (failure["image"], failure["reason"]) == ("7.png", "encoder")
    assert said in failure["message"]
    assert any("left out 7.png" in note for note in receipt["notes"])
    assert len(pd.read_csv(out / "predictions.csv")) == 23
    assert "7.png" in (out / "report.html").read_text()

    assert run(folder, "score", str(out), str(folder / "7.png"), str(folder / "8.png"), "--json") == 0
    scores = {Path(row["image"]).name: row for row in json.loads(capsys.readouterr().out)["scores"]}
    assert said in scores["7.png"]["reason"]
    assert scores["7.png"]["predicted"] is None
    assert scores["8.png"]["reason"] == ""


def test_a_photo_that_was_not_tried_still_stops_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project(tmp_path, NOT_FINITE)
    data = str(folder / "scores.csv")
    assert run(folder, "features", data) == 0
    Image.new("RGB", (32, 24), "green").save(folder / "9.png")
    assert run(folder, "fit", data, "--out", str(folder / "run")) == 1
    assert "lacks features of 1 of 24 images" in capsys.readouterr().err


def test_mended_code_computes_the_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_project(tmp_path, NOT_FINITE)
    data = str(folder / "scores.csv")
    assert run(folder, "features", data) == 0
    (folder / "mine.py").write_text(CODE.replace("BODY", "return crops.mean(axis=(1, 2)).astype(np.float32)"))
    capsys.readouterr()
    assert run(folder, "features", data) == 0
    assert (
        "24 computed, 0 already in the bank, 0 without a readable file, 0 failed" in capsys.readouterr().out
    )


def test_an_encoder_that_cannot_run_here_stops_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_project(tmp_path, CANNOT_RUN)
    assert run(folder, "features", str(folder / "scores.csv")) == 1
    assert "no such device here" in capsys.readouterr().err
    assert list((folder / "bank").glob("failures/*")) == []
