"""The systems of the report as recipes: their cost, what they need, and the whole chain on random weights."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featbank.cli import main
from featbank.datasets import read_dataset
from featbank.demo import write_demo
from featbank.encoders.spec import parse_encoder_name
from featbank.encoders.weights import NETWORK_FAMILIES, find_sources
from featbank.feature import make_feature
from featbank.leaderboard.published import cost_by_recipe
from featbank.recipes.reading import builtin_recipes, list_variants, read_recipe
from featbank.search.space import Configuration, Space

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision", "timm", "open_clip")),
    reason="needs the optional packages of network encoders",
)

SYSTEMS = (
    "sjtu", "gs-piqa", "ciplab", "eqcnet", "mobilenet-iqa", "mobilevit-iqa", "nf-regnets", "clip-iqa-star", "icl",
    "baseline", "hyperiqa", "mlsp", "contrique", "arniqa", "clip-iqa-plus", "qualiclip", "re-iqa",
)  # fmt: skip
AS_PUBLISHED = ("icl-letter", "arniqa", "contrique", "re-iqa")
OWN = ("balanced", "permissive", "light", "coverage", "modern", "modern-light", "pretrained")

# Counted for the fact sheet of each system by torch's dispatcher-level counter, independently of this package.
TOTALS = {
    "icl": 41.70, "icl-letter": 41.70, "baseline": 3.92, "nf-regnets": 18.91, "nf-regnets-7": 44.12,
    "clip-iqa-star": 48.50,
    "mobilenet-iqa": 10.03, "sjtu": 48.56, "sjtu-480": 69.45, "sjtu-fitted": 48.56, "gs-piqa": 42.90, "eqcnet": 5.86,
    "mobilevit-iqa": 28.62, "mlsp": 7.52, "arniqa": 40.87, "hyperiqa": 41.26, "clip-iqa-plus": 41.29,
    "modern": 47.54, "modern-light": 13.86,
    "balanced": 39.36, "permissive": 46.75, "coverage": 44.77, "pretrained": 8.384,
}  # fmt: skip
QUICK = {"icl", "baseline", "sjtu", "pretrained"}
COVERAGE_PEAK_GIB = 4.0
BY_NAME = sorted({*SYSTEMS, *OWN, *TOTALS})


def network_recipes() -> list[str]:
    return [
        name
        for name in builtin_recipes()
        if {b.encoder.partition(":")[0] for b in read_recipe(name).bands} & set(NETWORK_FAMILIES)
    ]


def marked(names: list[str], quick: set[str]) -> list[object]:
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow]) for name in names]


def budget(name: str, capsys: pytest.CaptureFixture[str]) -> dict:
    code = main(["budget", name, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert code == (0 if document["within_budget"] else 1)
    return document


def test_every_system_and_our_own_have_a_recipe_that_says_what_differs() -> None:
    assert {*SYSTEMS, *OWN} <= set(builtin_recipes())
    for name in SYSTEMS:
        source = read_recipe(name).source
        assert "Differs" in source or "differs" in source, name
    for name in OWN:
        assert "Own composition" in read_recipe(name).source
    assert set(cost_by_recipe()) <= set(SYSTEMS)


def test_ridges_as_published_leave_columns_as_they_are() -> None:
    regression = {name: read_recipe(name).regression for name in AS_PUBLISHED}
    assert {(request.estimator, request.scale, request.unit_band) for request in regression.values()} == {
        ("ridge", "none", False)
    }
    assert len(regression["arniqa"].alpha) == 100
    assert regression["contrique"].alpha == (0.1, 0.25)
    letter = regression["icl-letter"]
    assert (letter.cv.kind, letter.cv.test_size, letter.select_by) == ("plain-holdout", 0.2, "r2")
    assert letter.combine == "uniform"
    for name in (*AS_PUBLISHED, "icl"):
        assert "Inferred" in read_recipe(name).source
        assert "Differs" in read_recipe(name).source
    assert read_recipe("icl").bands == read_recipe("icl-letter").bands


def test_names_are_canonical() -> None:
    for name in network_recipes():
        for band in read_recipe(name).bands:
            if band.encoder.partition(":")[0] in NETWORK_FAMILIES:
                assert parse_encoder_name(band.encoder).text == band.encoder
                assert parse_encoder_name(band.encoder).seed is None


def test_networks_are_fed_with_their_publishers_filter() -> None:
    for name in builtin_recipes():
        for band in read_recipe(name).bands:
            resizes = [
                word
                for word in band.view.partition("+")[0].split("/")
                if word[:5] in ("squas", "width", "squar")
            ]
            if band.encoder.startswith(("checkpoint:places365", "timm:mobilenetv3_large_100.miil_in21k")):
                assert resizes, band
                assert all(word.endswith("~bilinear") for word in resizes), band


@needs_torch
def test_the_permissive_recipe_needs_nobodys_word() -> None:
    sources = [source for band in read_recipe("permissive").bands for source in find_sources(band.encoder)]
    assert len(sources) == 7
    assert {source.terms for source in sources} == {"open"}
    licences = {source.licence.upper() for source in sources}
    assert licences <= {"APACHE-2.0", "MIT", "BSD-3-CLAUSE", "CC-BY"}


@needs_torch
def test_the_pretrained_recipe_needs_the_package_index_alone() -> None:
    sources = [source for band in read_recipe("pretrained").bands for source in find_sources(band.encoder)]
    assert len(sources) == 2
    assert all(source.package and source.terms == "open" for source in sources)


@needs_torch
@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("timm:mobilevitv2_200.cvnets_in22k_ft_in1k", "restricted"),
        ("timm:fastvit_mci0.apple_mclip", "restricted"),
        ("timm:convnextv2_atto.fcmae", "restricted"),
        ("timm:res2net50_14w_8s.in1k", "unstated"),
        ("timm:resnet50.a1_in1k", "open"),
        ("torchvision:regnet_y_16gf/IMAGENET1K_SWAG_E2E_V1", "restricted"),
        ("torchvision:resnet50/IMAGENET1K_V2", "open"),
        ("open_clip:ViT-B-32-quickgelu/openai", "open"),
        ("open_clip:MobileCLIP-S1/datacompdr", "restricted"),
        ("open_clip:ViTamin-S/datacomp1b", "unstated"),
    ],
)
def test_terms_follow_the_publishers_statement(name: str, terms: str) -> None:
    (source,) = find_sources(name)
    assert source.terms == terms
    assert ("--accept-licence" in source.command) == (terms != "open")


@needs_torch
@pytest.mark.parametrize("name", marked(BY_NAME, QUICK))
def test_totals(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = budget(name, capsys)
    if name in TOTALS:
        assert document["gmacs"] == pytest.approx(TOTALS[name], abs=0.02)
    assert document["within_budget"]
    assert document["gmacs"] < {"light": 15, "pretrained": 10, "sjtu-480": 70}.get(name, 50)
    assert "FlopCounterMode" in document["counter"]
    assert document["counter_version"].startswith("torch ")


@needs_torch
def test_the_published_figure_stands_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    document = budget("icl", capsys)
    assert document["table_4"]["gmacs"] == 42.09
    assert document["params_m"] == pytest.approx(93.979, abs=1e-3)
    # All four published networks with their heads; the report's 139.1 M lacks what torchvision freezes.
    assert document["published_params_m"] == pytest.approx(139.326, abs=1e-3)
    assert document["published_params_m"] - 0.2224 == pytest.approx(139.104, abs=1e-3)
    assert main(["budget", "sjtu"]) == 0
    text = capsys.readouterr().out
    assert "43.53" in text
    assert "69.45" in text


@needs_torch
@pytest.mark.slow
def test_networks_to_search_among_are_many_and_some_fit_the_budget() -> None:
    recipe = read_recipe("search-networks")
    bases = {band.encoder.partition("?")[0] for band in recipe.bands}
    assert len(bases & {base for base in bases if base.partition(":")[0] in NETWORK_FAMILIES}) >= 12
    assert len({band.encoder for band in recipe.bands}) > len(bases)  # several layers of one network
    passes = {}
    for variant in (variant for row in list_variants(recipe).values() for variant in row):
        request = variant.request
        seed = "&random=0" if "?" in request.encoder else "?random=0"
        feature = make_feature(request.encoder + seed, request.view, request.aggregate)
        passes[variant.name] = (feature.pass_id, feature.gmacs())
    assert all(gmacs <= 50 for _, gmacs in passes.values())
    space = Space(recipe, passes, 50.0)
    assert not space.is_feasible(space.own)
    assert space.is_feasible(Configuration(("language", "quality", "scene"), "ridge", True, "all", "nnls"))
    assert len(list(space.choices)) >= 12


@needs_torch
@pytest.mark.slow
def test_prompts_share_the_pass_and_cost_once(capsys: pytest.CaptureFixture[str]) -> None:
    document = budget("clip-iqa-star", capsys)
    notes = {row["band"]: row["note"] for row in document["bands"]}
    assert notes["tiles-prompts"] == "shares the pass of tiles"
    assert [item["gmacs"] for item in document["once"]] == [pytest.approx(14.9, abs=0.02)]
    assert document["published_params_m"] == pytest.approx(151.277, abs=1e-3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four small photographs of noise with a split: enough for the chain, nothing to learn from."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=40 + 2 * i)
        split = "test" if i % 3 == 0 else "training"
        rows.append((f"{i}.jpg", i / 24 + rng.normal() / 20, split, f"camera {i // 2}"))
    columns = ["path", "mos", "split", "group"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "photos.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen photos of a demo set at their full width, twelve of them for training, in groups of two."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, n_photos=20, workers=2)
    table = read_dataset(folder).frame.head(16)
    rows = pd.DataFrame({"path": table["path"], "mos": table["mos"]})
    rows["split"] = ["test" if i % 4 == 3 else "training" for i in range(len(rows))]
    rows["group"] = [f"camera {i // 2}" for i in range(len(rows))]
    rows.to_csv(folder / "photos.csv", index=False)
    return folder


def randomised(name: str, folder: Path, views: dict[str, str] | None = None) -> Path:
    """Write the recipe with random weights asked for in every encoder, and other views if any are given."""
    lines = []
    for line in Path(builtin_recipes()[name]).read_text().splitlines():
        value = line.split('"')[1] if '"' in line else ""
        if line.startswith("encoder = ") and value.partition(":")[0] in NETWORK_FAMILIES:
            line = f'encoder = "{value}{"&" if "?" in value else "?"}random=0"'
        if line.startswith("view = ") and views is not None:
            line = f'view = "{views[value]}"'
        lines.append(line)
    path = folder / f"{name}-random.toml"
    path.write_text("\n".join(lines))
    return path


def read_scores(text: str) -> list[dict]:
    return json.loads(text)["scores"]


# Recipes of every family and of every special kind, on small crops, one of them at each commit: four networks and
# five regressors; crops as rows; draws averaged; seven crops on three scales; similarities with prompts.
SMALL = {
    "icl": {
        "center_320+half": "center_64+half",
        "square_320+half": "square_64+half",
        "square_320~bilinear+half": "square_64~bilinear+half",
    },
    "icl-letter": {
        "center_320+half": "center_64+half",
        "square_320+half": "square_64+half",
        "square_320~bilinear+half": "square_64~bilinear+half",
    },
    "arniqa": {"five_224+halfimage": "five_64+halfimage"},
    "gs-piqa": {"fragments_16x24x3": "fragments_4x16x3"},
    "nf-regnets-7": {
        "tiles_2x2/center_720": "tiles_2x2/center_64",
        "down_2/tiles_2x1/center_720": "down_2/tiles_2x1/center_64",
        "down_3/center_720": "down_3/center_64",
    },
    "qualiclip": {"squash_800x448": "squash_64x64"},
}


@needs_torch
@pytest.mark.parametrize("name", marked(sorted(SMALL), {"arniqa"}))
@pytest.mark.filterwarnings("ignore::regressors.ensemble.NoSkillWarning")
def test_the_whole_chain_runs_on_small_crops_of_random_weights(
    name: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(randomised(name, tmp_path, SMALL[name]))
    data, run = str(dataset / "photos.csv"), str(tmp_path / "run")
    common = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    assert main(["features", data, "--recipe", recipe, *common, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["computed"], first["failures"]) == (24, [])
    assert first["random_weights"]
    assert main(["fit", data, "--recipe", recipe, *common, "--out", run]) == 0
    assert "RANDOM WEIGHTS in" in capsys.readouterr().out
    assert main(["score", run, str(dataset / "3.jpg"), *common, "--json"]) == 0
    printed = capsys.readouterr()
    assert "RANDOM WEIGHTS in" in printed.err
    check_run(name, Path(run), 24, "3.jpg", read_scores(printed.out))


def check_run(name: str, run: Path, n_images: int, image: str, scores: list[dict]) -> None:
    """What must hold of every run on random weights, and of some recipes besides."""
    receipt = json.loads((run / "receipt.json").read_text())
    assert all("RANDOM" in feature["weights"] for feature in receipt["features"])
    bands = [feature["band"] for feature in receipt["features"]]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["random_weights"] == bands
    assert metrics["gmacs"] == pytest.approx(sum(entry["gmacs"] for entry in receipt["passes"]))
    assert f"RANDOM WEIGHTS in {', '.join(bands)}" in (run / "report.html").read_text()
    predictions = pd.read_csv(run / "predictions.csv")
    assert len(predictions) == n_images
    assert np.isfinite(predictions.loc[predictions["split"] == "test", "predicted"]).all()
    row = predictions[predictions["image"].str.endswith(image)].iloc[0]
    (only,) = scores
    if row["split"] == "test":  # training rows have held-out predictions, by other models
        assert only["predicted"] == pytest.approx(row["predicted"], rel=1e-4, abs=1e-6)
    n_columns = {feature["band"]: feature["n_features"] for feature in receipt["features"]}
    if name == "arniqa":
        assert n_columns == {"pairs": 5 * 2 * 2048}
    if name == "gs-piqa":
        assert n_columns == {"fragments": 2 * (96 + 192 + 384 + 768)}
    if name == "nf-regnets-7":
        assert n_columns == {"native": 960, "half": 960, "third": 960}
    if name == "qualiclip":
        assert n_columns == {"image": 1024, "prompts": 14}
        assert len(receipt["passes"]) == 1
    if name == "icl":
        assert sum(n_columns.values()) == 16_384
        assert sum(column.startswith("member:") for column in predictions.columns) == 5


def run_command(*arguments: str) -> tuple[str, float]:
    """Run a command as a user does; returns its output and its peak memory in GiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen([sys.executable, "-m", "featbank", *arguments], stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        assert process.returncode == 0, err.read()
        return out.read(), usage.ru_maxrss / 2**20


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_the_whole_chain_runs_on_demo_photos_with_random_weights(
    name: str, rendered: Path, tmp_path: Path
) -> None:
    recipe = str(randomised(name, tmp_path))
    data, run = str(rendered / "photos.csv"), str(tmp_path / "run")
    common = ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    peaks = []
    for computed in (16, 0):
        text, peak = run_command("features", data, "--recipe", recipe, *common, "--json")
        assert json.loads(text)["computed"] == computed
        assert json.loads(text)["failures"] == []
        peaks.append(peak)
    peaks.append(run_command("fit", data, "--recipe", recipe, *common, "--out", run)[1])
    image = pd.read_csv(rendered / "photos.csv")["path"][3]
    text, peak = run_command("score", run, image, *common, "--json")
    check_run(name, Path(run), 16, Path(image).name, read_scores(text))
    assert max(*peaks, peak) < COVERAGE_PEAK_GIB  # the heaviest recipe's; the others stay below 2 GiB


CROPS = """
recipe_version = 1
[[band]]
name = "scene"
encoder = "checkpoint:places365-resnet18?random=0"
view = "five_64"
aggregate = "concat"
[[band]]
name = "layout"
encoder = "classic:layout"
view = "five_96"
aggregate = "concat"
[regression]
rows = "crops"
members = "each"
alpha = [1.0, 100.0]
cv = { kind = "grouped", n_splits = 3 }
combine = "simplex"
"""


@needs_torch
def test_crops_are_rows_of_their_image(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "crops.toml"
    recipe.write_text(CROPS)
    data, bank, run = str(dataset / "photos.csv"), str(tmp_path / "bank"), str(tmp_path / "run")
    assert main(["features", data, "--recipe", str(recipe), "--bank", bank, "--workers", "1"]) == 0
    assert main(["fit", data, "--recipe", str(recipe), "--bank", bank, "--out", run, "--workers", "1"]) == 0
    predictions = pd.read_csv(Path(run) / "predictions.csv")
    assert len(predictions) == 24
    assert predictions["predicted"].notna().all()
    capsys.readouterr()
    assert main(["score", run, str(dataset / "9.jpg"), "--bank", bank, "--workers", "1", "--json"]) == 0
    (only,) = read_scores(capsys.readouterr().out)
    row = predictions[predictions["image"] == "9.jpg"].iloc[0]
    assert only["predicted"] == pytest.approx(row["predicted"], rel=1e-6)
    recipe.write_text(CROPS.replace("five_96", "tiles_3x3/center_64"))
    assert main(["features", data, "--recipe", str(recipe), "--bank", bank, "--workers", "1"]) == 0
    assert main(["fit", data, "--recipe", str(recipe), "--bank", bank, "--out", run, "--workers", "1"]) == 1
    assert "scene 5, layout 9" in capsys.readouterr().err


def test_missing_weights_stop_before_any_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    assert (
        main(["features", str(tmp_path / "nowhere"), "--recipe", "icl", "--bank", str(tmp_path / "bank")])
        == 1
    )
    message = capsys.readouterr().err
    assert "4 weights files are missing" in message
    for part in ("reiqa-quality", "reiqa-content", "places365-resnet50", "keypointrcnn-body", "MIT", "CC-BY",
                 "BSD-3-Clause", "http://places2", "download.pytorch.org", str(tmp_path / "weights")):  # fmt: skip
        assert part in message
    assert not (tmp_path / "bank").exists()


def test_precision_belongs_into_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", str(tmp_path), "--recipe", "icl", "--precision", "bf16"]) == 1
    assert "checkpoint:reiqa-quality?precision=bf16" in capsys.readouterr().err


@needs_torch
@pytest.mark.slow
def test_peak_memory_of_the_heaviest_recipe_is_bounded(tmp_path: Path) -> None:
    """Recipe coverage runs a MobileNet over every native pixel: 3840 x 2560 is the largest usual shape of UHD-IQA."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (160, 240, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    Image.fromarray(pixels).save(tmp_path / "large.jpg")
    recipe = str(randomised("coverage", tmp_path))
    arguments = ["--recipe", recipe, "--bank", str(tmp_path / "bank"), "--workers", "1", "--json"]
    text, peak = run_command("features", str(tmp_path / "large.jpg"), *arguments)
    assert json.loads(text)["computed"] == 1
    assert peak < COVERAGE_PEAK_GIB  # 2.5 measured; 3.3 after twenty photos of up to 3840 x 2880
    assert f"up to {COVERAGE_PEAK_GIB:.0f} GiB for each worker" in read_recipe("coverage").source
