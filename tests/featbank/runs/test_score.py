"""Scoring new photos: the numbers of the fitted model, a row for each file, refusals that say why."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featbank.bank import Bank
from featbank.bank.bank import STAT_CACHE_NAME
from featbank.cli import main
from featbank.datasets import read_dataset, read_photos
from featbank.distill.teacher import take_lesson
from featbank.errors import DatasetNotFoundError, RunError
from featbank.extract import FeatureRequest, extract
from featbank.runs.fit import FitOptions, fit_run
from featbank.runs.model import load_run_model
from featbank.runs.score import score_paths
from featbank.table import build_table, resolve_band
from regressors.novelty import BandNovelty
from regressors.persistence import save_model
from tests.support.datasets import CLASSIC_RECIPE, write_image
from tests.support.imported_run import prepare
from tests.support.small_demo import small_demo


def test_scores_are_the_predictions_of_the_run(fitted: Path, tmp_path: Path) -> None:
    # A fresh bank: everything is computed from the files again, by the model's own list of bands.
    scores = score_paths(
        fitted / "run/model.skops", [str(fitted / "photos")], Bank(tmp_path / "bank"), workers=1
    )
    assert list(scores.columns) == [
        "image",
        "predicted",
        "predicted_low",
        "predicted_high",
        "spread",
        "unlike_training",
        "distance",
        "off_scale",
        "simulation",
        "reason",
    ]
    assert len(scores) == 40
    predictions = pd.read_csv(fitted / "run/predictions.csv").query("split == 'test'").copy()
    predictions["image"] = predictions["image"].str.removeprefix("photos/")
    joined = predictions.merge(scores, on="image", suffixes=("_run", "_score"))
    assert len(joined) == 10
    assert np.allclose(joined["predicted_run"], joined["predicted_score"], atol=1e-8)
    members = joined.filter(like="member:").to_numpy()
    assert np.allclose(members.std(axis=1), joined["spread"], atol=1e-8)


def test_scoring_again_computes_nothing(fitted: Path, tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")

    def shards() -> dict[Path, int]:
        # Not the digests of files: those of files that changed a moment ago are remembered later on.
        found = (path for path in bank.root.rglob("*.arrow") if path.name != STAT_CACHE_NAME)
        return {path: path.stat().st_mtime_ns for path in found}

    first = score_paths(fitted / "run", [str(fitted / "photos")], bank, workers=1)
    before = shards()
    again = score_paths(fitted / "run", [str(fitted / "photos")], bank, workers=1)
    assert shards() == before != {}
    pd.testing.assert_frame_equal(first, again)


def test_a_broken_photo_has_a_row_with_its_reason(fitted: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "new/good.png", seed=7)
    (tmp_path / "new/broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    (tmp_path / "new/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    scores = score_paths(
        fitted / "run", [str(tmp_path / "new")], Bank(tmp_path / "bank"), workers=1
    ).set_index("image")
    assert np.isfinite(scores.loc["good.png", "predicted"])
    assert scores.loc["good.png", "reason"] == ""
    for name, word in (("broken.jpg", ":"), ("gone.jpg", "missing")):
        assert np.isnan(scores.loc[name, "predicted"])
        assert word in scores.loc[name, "reason"]


def test_the_command_writes_csv_and_json(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(fitted / "photos/0.png")
    bank = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert main(["score", str(fitted / "run"), photo, "--csv", str(tmp_path / "s.csv"), *bank]) == 0
    capsys.readouterr()
    assert main(["score", str(fitted / "run"), photo, "--json", *bank]) == 0
    document = json.loads(capsys.readouterr().out)
    written = pd.read_csv(tmp_path / "s.csv", keep_default_na=False)
    assert document["scores"][0]["predicted"] == pytest.approx(written["predicted"][0], rel=1e-5)
    assert document["simulation"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_no_file_of_a_folder_vanishes(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    write_image(new / "good.png", seed=7)
    (new / "good.png").rename(new / os.fsdecode(b"m\xfcller.png"))
    (new / os.fsdecode(b"kaputt\xfc.jpg")).write_bytes(b"\xff\xd8\xff nothing more")
    (new / "raw.CR2").write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(100))
    (new / "film.mov").write_bytes(b"")
    bank = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert main(["score", str(fitted / "run"), str(new), "--csv", str(tmp_path / "s.csv"), *bank]) == 0
    left_out = "1 file was left out, not an image by its ending: film.mov."
    assert left_out in capsys.readouterr().err
    written = pd.read_csv(tmp_path / "s.csv", keep_default_na=False).set_index("image")
    assert sorted(written.index) == ["kaputt\\xfc.jpg", "m\\xfcller.png", "raw.CR2"]
    assert "RAW file" in written.loc["raw.CR2", "reason"]
    assert written.loc["m\\xfcller.png", "reason"] == ""
    assert main(["score", str(fitted / "run"), str(new), "--json", *bank]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["scored"], document["failed"], document["notes"]) == (1, 2, [left_out])


def test_features_count_what_is_missing_left_out_or_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text(CLASSIC_RECIPE)
    (tmp_path / "scores.csv").write_text("path,mos\na.png,1\nb.png,2\ngone.png,3\nempty.jpg,4\n")
    (tmp_path / "b.png").write_bytes(write_image(tmp_path / "a.png").read_bytes())
    (tmp_path / "empty.jpg").touch()
    ask = ["features", str(tmp_path / "scores.csv"), "--recipe", str(tmp_path / "r.toml"), "--bank"]
    assert main([*ask, str(tmp_path / "bank"), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "without a readable file: gone.png" in lines
    assert "copies, byte for byte, computed once: 1 (b.png of a.png)" in lines
    assert any(line.startswith("  empty.jpg: ") for line in lines)
    assert main([*ask, str(tmp_path / "bank"), "--workers", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["missing_images"] == ["gone.png"]
    assert document["copies"] == [{"image": "b.png", "copy_of": "a.png"}]


@pytest.mark.parametrize("kind", ["text", "table", "stdin"])
def test_a_list_is_scored_in_its_order_and_a_bad_path_costs_one_row(
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.chdir(fitted)
    monkeypatch.setattr("featbank.runs.score.BATCH", 2)
    names = ["photos/31.png", "nowhere/gone.jpg", "photos/30.png", "photos/2.png", "photos"[:3]]
    lists = {"text": "\n".join(names) + "\n\n", "table": "file;note\n" + "".join(f"{n};x\n" for n in names)}
    path = tmp_path / ("list.csv" if kind == "table" else "list.txt")
    path.write_text(lists["table" if kind == "table" else "text"])
    monkeypatch.setattr("sys.stdin", io.StringIO(lists["text"]))
    ask = ["score", str(fitted / "run"), "-" if kind == "stdin" else str(path), "--workers", "1"]
    bank = ["--bank", str(tmp_path / "bank")]
    assert main([*ask, *bank, "--jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == names
    assert [row["reason"].partition(":")[0] for row in rows] == ["", "missing", "", "", "missing"]
    assert [row["predicted"] is None for row in rows] == [False, True, False, False, True]
    expected = score_paths(fitted / "run", [str(fitted / "photos/2.png")], Bank(tmp_path / "bank"), workers=1)
    assert rows[3]["predicted"] == pytest.approx(expected["predicted"].item())


def test_lists_beside_their_images_and_lists_that_are_none(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (fitted / "list.txt").write_text("photos/3.png\n")
    bank = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert main(["score", str(fitted / "run"), str(fitted / "list.txt"), "--json", *bank]) == 0
    assert json.loads(capsys.readouterr().out)["scored"] == 1
    (tmp_path / "no.csv").write_text("name,mos\na.png,1\n")
    (tmp_path / "no.txt").write_bytes(b"a\0b")
    for words, sentence in (
        (["no.csv"], "needs a column path"),
        (["no.txt"], "NUL"),
        (["gone.txt"], "no list of images at gone.txt"),
        (["gone.jpg"], "no file or folder at gone.jpg"),
        (["--jsonl", "--csv", "x.csv", str(fitted / "photos")], "Choose one"),
    ):
        assert main(["score", str(fitted / "run"), *words, *bank]) == 1
        assert sentence in capsys.readouterr().err


def with_manifest(fitted: Path, path: Path, **changes: object) -> Path:
    """Write the fitted model with another manifest."""
    ensemble, manifest = load_run_model(fitted / "run/model.skops")
    return save_model(path, ensemble, {**manifest, **changes})


def test_photos_unlike_the_training_photos_are_marked_and_have_no_interval(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "new/alike.png", seed=100)
    Image.new("RGB", (24, 16), "white").save(tmp_path / "new/white.png")
    (tmp_path / "new/broken.png").touch()
    bank = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert (
        main(["score", str(fitted / "run"), str(tmp_path / "new"), "--csv", str(tmp_path / "s.csv"), *bank])
        == 0
    )
    assert "1 of 3 photos are unlike the training photos: white.png." in capsys.readouterr().err
    written = pd.read_csv(tmp_path / "s.csv", keep_default_na=False, dtype=str).set_index("image")
    assert written["unlike_training"].to_dict() == {
        "alike.png": "False",
        "broken.png": "",
        "white.png": "True",
    }
    assert float(written.loc["white.png", "distance"]) > 1 >= float(written.loc["alike.png", "distance"])
    assert written.loc["white.png", "predicted_low"] == written.loc["white.png", "predicted_high"] == ""
    assert float(written.loc["alike.png", "predicted_low"]) < float(
        written.loc["alike.png", "predicted_high"]
    )
    old = with_manifest(fitted, tmp_path / "old.skops", training_distance=None)
    assert main(["score", str(old), str(tmp_path / "new"), "--json", *bank]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["unlike_training"] for row in document["scores"]] == [None, None, None]
    assert document["scores"][2]["predicted_low"] is not None
    assert any("of an earlier version" in note for note in document["notes"])
    edited = with_manifest(fitted, tmp_path / "edited.skops", training_distance={"center": []})
    assert main(["score", str(edited), str(tmp_path / "new"), *bank]) == 1
    assert "was edited" in capsys.readouterr().err


def test_every_output_of_a_simulation_says_so_and_scores_off_the_scale_are_named(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = with_manifest(fitted, tmp_path / "demo.skops", simulation=True, mos_range=[10.0, 11.0])
    ask = [
        "score",
        str(model),
        str(fitted / "photos/0.png"),
        "--bank",
        str(tmp_path / "bank"),
        "--workers",
        "1",
    ]
    assert main(ask) == 0
    printed = capsys.readouterr()
    assert "SIMULATION" in printed.err
    assert "1 scores left the MOS scale 10 to 11: " in printed.err
    row = pd.read_csv(io.StringIO(printed.out)).iloc[0]
    assert row["simulation"]
    assert row["off_scale"] == "below"
    assert main([*ask, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["simulation"] is True
    assert "SIMULATION" in document["statement"]
    assert document["off_scale"] == 1


@pytest.mark.slow
def test_white_noisy_and_checkered_pictures_are_unlike_the_photos_of_the_demo_set(tmp_path: Path) -> None:
    """Real features of rendered photos: every odd picture is marked, and few of the photos that were held out."""
    table = read_dataset(small_demo(tmp_path / "demo", n_photos=100))
    bank = Bank(tmp_path / "bank")
    odd = tmp_path / "odd"
    odd.mkdir()
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:240, :320]
    pictures = {
        "white": np.full((240, 320), 255),
        "noise": rng.integers(0, 256, (240, 320, 3)),
        "gray noise": rng.integers(0, 256, (240, 320)),
        **{
            f"normal {size}": np.clip(128 + size * rng.normal(size=(240, 320, 3)), 0, 255)
            for size in (25, 50)
        },
        **{f"checkers {size}": 255 * ((y // size + x // size) % 2) for size in (1, 2, 8, 32)},
    }
    for name, pixels in pictures.items():
        Image.fromarray(np.uint8(pixels)).convert("RGB").save(odd / f"{name}.png")
    encoders = [
        ("classic:nss", "native"),
        ("classic:layout", "squash_256x256"),
        ("classic:gist", "squash_256x256"),
    ]
    requests = [FeatureRequest(encoder, view) for encoder, view in encoders]
    frames = []
    for found in (table, read_dataset(odd)):
        extract(list(zip(found.frame["image_id"], found.frame["path"], strict=True)), requests, bank)
        bands = [resolve_band(bank, found.name, e.partition(":")[2], e, view) for e, view in encoders]
        frames.append(build_table(found, bands, bank, "").X)
    is_training = (table.frame["split"] == "training").to_numpy()
    novelty = BandNovelty().fit(frames[0][is_training])
    assert np.mean(novelty.distance(frames[0][~is_training]) > 1) <= 0.05
    distances = dict(zip(frames[1].index, novelty.distance(frames[1]), strict=True))
    assert min(distances.values()) > 1, distances


def test_nothing_readable_is_exit_1(fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    code = main(["score", str(fitted / "run"), str(tmp_path / "empty.jpg"), "--bank", str(tmp_path / "bank")])
    assert code == 1
    assert "empty" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [{"simulation": 3}, {"recipe": None}, {"mos_range": ["a", 1]}, {"interval": {}}, {"bands": [{}]}],
)
def test_a_model_with_another_manifest_is_refused_in_a_sentence(
    fitted: Path, tmp_path: Path, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(with_manifest(fitted, tmp_path / "other.skops", **changes))
    bank = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert main(["score", model, str(fitted / "photos"), *bank]) == 1
    assert "is not a model written by `featbank fit`" in capsys.readouterr().err
    with pytest.raises(RunError, match="is not a model written by"):
        take_lesson(read_photos([str(fitted / "photos")]), Path(model), Bank(tmp_path / "bank"), 1)


def test_wrong_paths_are_named(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        score_paths(fitted / "run", [str(tmp_path / "nowhere")], Bank(tmp_path / "bank"))
    with pytest.raises(RunError, match="no model at"):
        score_paths(tmp_path / "model.skops", [str(fitted / "photos")], Bank(tmp_path / "bank"))
    (tmp_path / "fake.skops").write_bytes(b"PK not a model")
    with pytest.raises(RunError, match="damaged"):
        score_paths(tmp_path / "fake.skops", [str(fitted / "photos")], Bank(tmp_path / "bank"))


def test_a_model_on_imported_features_cannot_score_photos(tmp_path: Path) -> None:
    table, recipe, bank = prepare(tmp_path)
    fit_run(table, recipe, bank, tmp_path / "run", FitOptions(workers=1))
    write_image(tmp_path / "photo.png")
    with pytest.raises(RunError, match="imported band 'sharp'"):
        score_paths(tmp_path / "run", [str(tmp_path / "photo.png")], bank, workers=1)


def test_features_computed_otherwise_than_for_the_model_are_refused(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featbank.encoders.classic.scene import LayoutEncoder

    identity = LayoutEncoder.identity
    monkeypatch.setattr(LayoutEncoder, "identity", lambda self: {**identity(self), "epoch": 99})
    with pytest.raises(RunError, match="computed differently"):
        score_paths(fitted / "run", [str(fitted / "photos")], Bank(tmp_path / "bank"), workers=1)


def test_the_ladder_command_starts_from_the_score_of_the_photo(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(tmp_path / "new/a.png", seed=3, size=(40, 32))
    (tmp_path / "new/broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    command = ["ladder", str(fitted / "run"), str(tmp_path / "new"), "--sizes", "40", "64", "--workers", "1"]
    assert main([*command, "--json", "--csv", str(tmp_path / "ladder.csv")]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["photos"] == 1
    assert list(document["left_out"]) == ["broken.jpg"]
    assert "left out: broken.jpg" in captured.err
    rows = pd.read_csv(tmp_path / "ladder.csv")
    assert rows["size"].unique().tolist() == [40]
    own = score_paths(fitted / "run", [str(tmp_path / "new/a.png")], Bank(tmp_path / "bank"), workers=1)
    assert np.allclose(rows.loc[rows["level"] == 0, "predicted"], own["predicted"], rtol=1e-5)
    steps = rows.sort_values("level").groupby("distortion")["predicted"].diff().dropna()
    assert len(steps) == 40
    assert document["share"] == pytest.approx((steps < 0).mean())
    assert main(command) == 0
    assert "of 40 steps fall" in capsys.readouterr().out
    (tmp_path / "mine.csv").write_text("a table of mine")
    assert main([*command, "--csv", str(tmp_path / "mine.csv")]) == 1
    assert (tmp_path / "mine.csv").read_text() == "a table of mine"
