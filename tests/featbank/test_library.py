"""The names of the package itself: the same numbers as the commands, from a notebook's ten lines."""

import io
import json
import pydoc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageCms
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
    check_valid_tag_types,
)

import featbank
from featbank.bank import Bank
from featbank.cli import main
from featbank.errors import ImageError, RecipeError, RunError, UnknownNameError
from featbank.images import read_photo
from featbank.runs.score import score_paths
from regressors import srcc
from tests.support.datasets import write_image

BANDS = [
    {"name": "nss", "encoder": "classic:nss", "view": "native"},
    {"name": "layout", "encoder": "classic:layout", "view": "squash_16x16"},
]
RECIPE = featbank.Recipe(
    bands=BANDS, regression={"alpha": [1.0, 100.0], "cv": {"kind": "kfold", "n_splits": 3}}, name="small"
)


def write_photos(folder: Path) -> Path:
    """Write 60 noisy photos whose MOS falls with the noise, in groups of three."""
    rng = np.random.default_rng(0)
    lines = ["path,mos,split,subset,group"]
    (folder / "photos").mkdir(parents=True)
    for number in range(60):
        size = rng.uniform(0, 40)
        pixels = 128 + 40 * np.sin(np.mgrid[:48, :64].sum(axis=0) / 9) + rng.normal(size=(48, 64)) * size
        Image.fromarray(np.uint8(np.clip(pixels, 0, 255))).convert("RGB").save(
            folder / f"photos/{number:02d}.png"
        )
        split = "training" if number < 30 else "test"
        subset = "exclusive" if number >= 50 else ""
        lines.append(f"photos/{number:02d}.png,{5 - size / 10:.3f},{split},{subset},g{number // 3}")
    (folder / "scores.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def run(folder: Path) -> featbank.Run:
    options = featbank.FitOptions(workers=1, permutations=0)
    return featbank.fit(
        folder / "scores.csv", RECIPE, bank=folder / "bank", out=folder / "run", options=options
    )


@pytest.fixture(scope="module")
def table(folder: Path) -> featbank.Features:
    return featbank.open_table(folder / "scores.csv", RECIPE, bank=folder / "bank", workers=1)


def test_the_package_shows_its_public_names_and_loads_them_when_they_are_used() -> None:
    code = "import featbank, sys; dir(featbank); print([m for m in sys.modules if m.startswith(('numpy', 'sklearn'))])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    shown = pydoc.render_doc(featbank, renderer=pydoc.plaintext)
    assert all(name in shown for name in featbank.__all__)
    assert not {"TYPE_CHECKING", "    os", "importlib"} & set(shown.splitlines())
    assert set(dir(featbank)) == {*featbank.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'fits'; it has"):
        featbank.fits  # noqa: B018


def test_a_table_holds_features_opinions_groups_and_parts(folder: Path, table: featbank.Features) -> None:
    data = featbank.read_dataset(folder / "scores.csv")
    assert {"image_id", "path", "mos", "split", "subset", "group"} <= set(data.frame.columns)
    assert [sum(table.X.columns.str.startswith(f"{band}:")) for band in ("nss", "layout")] == [119, 185]
    assert list(table.X.index) == list(table.rows.index) == sorted(data.frame["image_id"])
    assert table.y == pytest.approx(data.frame.set_index("image_id").loc[table.X.index, "mos"])
    assert len(set(table.groups)) == 20
    counts = {name: int(rows.sum()) for name, rows in table.parts.items()}
    assert counts == {"training": 30, "test": 30, "test/exclusive": 10, "exclusive": 10}
    with pytest.raises(UnknownNameError, match="training, test"):
        table.part("exclusives")


def test_a_fit_is_that_of_the_command(folder: Path, run: featbank.Run, tmp_path: Path) -> None:
    RECIPE.write(tmp_path / "small.toml")
    ask = ["fit", str(folder / "scores.csv"), "--recipe", str(tmp_path / "small.toml"), "--workers", "1"]
    asked = [*ask, "--bank", str(folder / "bank"), "--out", str(tmp_path / "run"), "--permutations", "0"]
    assert main(asked) == 0
    other = featbank.Run(tmp_path / "run")
    pd.testing.assert_frame_equal(other.predictions, run.predictions)
    assert other.metrics == run.metrics
    test = run.predictions[run.predictions["split"] == "test"]
    assert run.metrics["test"]["srcc"] == pytest.approx(srcc(test["mos"], test["predicted"]))
    assert f"SRCC {run.metrics['test']['srcc']:.3f} on 30 test images" in repr(run)


def test_a_run_is_drawn_and_written_as_latex(run: featbank.Run, tmp_path: Path) -> None:
    for draw in (run.plot.scatter, run.plot.mos, run.plot.shares, run.plot.curve, run.plot.cost):
        figure = draw()
        assert isinstance(figure, Figure)
        assert figure.axes
    run.plot.scatter().savefig(tmp_path / "scatter.pdf")
    with pytest.raises(RunError, match="nothing that this figure could show"):
        run.plot.scatter("validation")
    text = run.to_latex(["srcc", "rmse"], decimals=2)
    assert "\\toprule" in text
    assert f"{run.metrics['test']['srcc']:.2f}" in text
    assert "KRCC" not in text


def test_a_scorer_gives_what_score_gives_whatever_an_image_comes_as(
    folder: Path, run: featbank.Run, tmp_path: Path
) -> None:
    scorer = featbank.Scorer.load(folder / "run")
    photo = folder / "photos/40.png"
    pixels = np.array(Image.open(photo))
    scores = scorer.score([str(photo), photo, photo.read_bytes(), pixels, Image.open(photo)])
    expected = score_paths(folder / "run", [str(photo)], Bank(tmp_path / "bank"), workers=1).iloc[0]
    assert scores["predicted"].to_numpy() == pytest.approx(np.full(5, expected["predicted"]), abs=1e-12)
    assert scores["image"].tolist() == [str(photo), str(photo), "2", "3", "4"]
    for column in ("predicted_low", "spread", "distance"):
        assert scores[column].to_numpy() == pytest.approx(np.full(5, expected[column]))
    in_run = run.predictions.set_index("image").loc["photos/40.png", "predicted"]
    assert expected["predicted"] == pytest.approx(in_run, rel=1e-9)


def test_a_scorer_has_a_row_for_what_it_cannot_read(folder: Path, run: featbank.Run) -> None:
    scores = run.scorer().score(
        [b"", str(folder / "gone.png"), str(folder / "photos/1.png"), folder / "photos/01.png"]
    )
    assert [reason.partition(":")[0] for reason in scores["reason"]] == ["empty", "missing", "missing", ""]
    assert scores["predicted"].notna().tolist() == [False, False, False, True]
    assert run.scorer().score([])["predicted"].empty


def test_threads_score_at_once(folder: Path, run: featbank.Run) -> None:
    scorer, photos = run.scorer(), sorted((folder / "photos").iterdir())[:20]
    one_by_one = scorer.score(photos)["predicted"].to_numpy()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda photo: scorer.score([photo])["predicted"].item(), photos * 3))
    assert found == pytest.approx(np.tile(one_by_one, 3), abs=1e-12)


def test_an_image_in_memory_is_read_as_its_file(tmp_path: Path) -> None:
    rgb = Image.open(write_image(tmp_path / "a.png", seed=3)).convert("RGB")
    assert read_photo(rgb).pixels.tolist() == np.array(rgb).tolist()
    assert read_photo(np.array(rgb)).pixels.tolist() == np.array(rgb).tolist()
    gray = np.array(rgb.convert("L"))
    assert (read_photo(gray).pixels == gray[..., None]).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for mode, options in (
        ("L", {}),
        ("LA", {}),
        ("CMYK", {}),
        ("RGB", {"exif": exif}),
        ("RGB", {"icc_profile": profile}),
    ):
        file = io.BytesIO()
        rgb.convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG", **options)
        opened = read_photo(Image.open(io.BytesIO(file.getvalue())))
        from_file = read_photo(file.getvalue())
        assert opened.pixels.tolist() == from_file.pixels.tolist()
        assert opened.actions == from_file.actions
    with pytest.raises(TypeError, match="uint8"):
        read_photo(np.zeros((4, 4, 3)))
    with pytest.raises(TypeError, match="shape"):
        read_photo(np.zeros((4, 4, 4), dtype=np.uint8))
    with pytest.raises(ImageError, match="cannot be used"):
        read_photo(Image.new("HSV", (4, 4)))


def test_frozen_features_stand_in_pipelines(folder: Path, tmp_path: Path, table: featbank.Features) -> None:
    paths = table.rows["path"].to_numpy()
    plain = featbank.FrozenFeatures("classic:nss").fit_transform(paths)
    assert plain == pytest.approx(table.X.filter(like="nss:").to_numpy(), abs=1e-12)
    kept = featbank.FrozenFeatures("classic:nss", bank=tmp_path / "bank", n_jobs=1)
    assert kept.fit_transform(paths.reshape(-1, 1)) == pytest.approx(plain, abs=1e-12)
    assert kept.transform(pd.DataFrame({"photo": paths[::-1]})) == pytest.approx(plain[::-1], abs=1e-12)
    framed = featbank.FrozenFeatures("classic:nss").set_output(transform="pandas").fit_transform(list(paths))
    assert list(framed.columns)[:2] == ["classic:nss@native.mean:0000", "classic:nss@native.mean:0001"]
    scores = cross_validate(make_pipeline(kept, Ridge()), paths, table.y, cv=3, scoring="r2")
    direct = cross_validate(Ridge(), plain, table.y, cv=3, scoring="r2")
    assert scores["test_score"] == pytest.approx(direct["test_score"])


def test_frozen_features_refuse_what_would_lose_a_row(folder: Path, tmp_path: Path) -> None:
    photo = str(folder / "photos/00.png")
    transformer = featbank.FrozenFeatures("classic:nss", bank=tmp_path / "bank", n_jobs=1)
    with pytest.raises(ImageError, match=r"gone\.png"):
        transformer.transform([photo, str(tmp_path / "gone.png")])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    for each in (transformer, clone(transformer).set_params(bank=None)):
        with pytest.raises(ImageError, match=r"broken\.jpg"):
            each.transform([photo, tmp_path / "broken.jpg"])
    with pytest.raises(TypeError, match="bank=None"):
        transformer.transform([b"bytes"])
    with pytest.raises(TypeError, match="Put it in a list"):
        transformer.transform(photo)
    with pytest.raises(TypeError, match="one column"):
        transformer.transform(pd.DataFrame({"a": [photo], "b": [photo]}))
    with pytest.raises(UnknownNameError, match="nss"):
        featbank.FrozenFeatures("classic:nsss").fit([photo])


@pytest.mark.parametrize(
    "check",
    [
        check_estimator_repr,
        check_get_params_invariance,
        check_no_attributes_set_in_init,
        check_parameters_default_constructible,
        check_set_params,
        check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_frozen_features_pass_the_estimator_checks_that_need_no_numbers(check: object) -> None:
    check("FrozenFeatures", featbank.FrozenFeatures())  # type: ignore[operator]


def test_recipes_are_built_changed_written_and_read(tmp_path: Path) -> None:
    starter = featbank.Recipe.read("starter")
    assert featbank.Recipe.read(str(starter.write(tmp_path / "starter.toml"))) == starter
    fewer = starter.change(bands=starter.bands[:2], regression={"estimator": "ridge"}, name="fewer")
    assert [band.name for band in fewer.bands] == ["quality", "content"]
    assert fewer.digest != starter.digest
    built = featbank.Recipe(
        bands=[featbank.BandRequest("nss", "classic:nss", "native")],
        regression=featbank.RegressionRequest(estimator="rbf-svr"),
    )
    assert built.checked() == built
    for wrong, word in (
        ({"bands": [{"name": "a", "encoder": "classic:nss"}]}, "needs a `view`"),
        ({"bands": "starter"}, "list of tables"),
        ({"bands": BANDS, "regression": {"estimater": "ridge"}}, "Did you mean estimator"),
        ({"bands": [*BANDS, BANDS[0]]}, "must differ"),
    ):
        with pytest.raises(RecipeError, match=word):
            featbank.Recipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="estimator"):
        featbank.Recipe(bands=BANDS, regression=featbank.RegressionRequest(estimator="lasso")).checked()


def test_an_ablation_drops_and_adds_each_band_and_pairs_the_resamples(table: featbank.Features) -> None:
    X = table.X.copy()
    layout = X.columns.str.startswith("layout:")
    X.loc[:, layout] = np.random.default_rng(1).normal(
        size=(60, layout.sum())
    )  # says nothing of these photos
    table = replace(table, X=X)
    found = featbank.ablate(table, RECIPE, parts=["test", "exclusive"], n_resamples=200, workers=1)
    assert found.groupby(["part", "kind"]).size().to_dict() == {
        ("exclusive", "add"): 1,
        ("exclusive", "drop"): 2,
        ("test", "add"): 1,
        ("test", "drop"): 2,
    }
    test = found[found["part"] == "test"].set_index(["kind", "band"])
    assert test.loc[("drop", "nss"), "gain"] > 0.2
    assert test.loc[("drop", "nss"), "low"] > 0
    assert test.loc[("add", "layout"), "low"] < 0.05
    assert (test["gain"] - (test["with_band"] - test["without"])).abs().max() < 1e-12
    assert found.loc[found["part"] == "exclusive", "low"].isna().all()  # four groups allow no interval
    worse = featbank.ablate(table, RECIPE, metric="rmse", n_resamples=50, workers=1).set_index(
        ["kind", "band"]
    )
    assert worse.loc[("drop", "nss"), "gain"] > 0
    with pytest.raises(RunError, match="lacks the bands quality"):
        featbank.ablate(table, "starter")
    with pytest.raises(UnknownNameError, match="part must be one of"):
        featbank.ablate(table, RECIPE, parts=["validation"])


def test_what_a_receipt_names_is_what_was_asked_for(run: featbank.Run) -> None:
    receipt = json.loads((run.folder / "receipt.json").read_text())
    assert receipt["recipe"]["name"] == "small"
    assert (run.folder / "report.html").is_file()
