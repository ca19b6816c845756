from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from featbank.atomic import MARKER
from featbank.report import write_report
from featbank.report.page import FIGURE_NAMES, render_page
from featbank.runs.folder import METRIC_NAMES, RunData, read_run, write_text
from tests.featbank.conftest import SMALL, VARIANTS
from tests.support.page import Element, by_id, read_page, table_rows
from tests.support.run_folder import RunOptions, edit_json, write_run_folder

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>.jpg',
    "'><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "https://example.com/a.jpg",
    "a\x08b\x0cc",
    "very-long-" + "x" * 300 + ".jpg",
)


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
    folder_of: Callable[[RunOptions], Path],
    small_photos: dict[str, Path],
) -> Path:
    """A whole report with photos."""
    folder = Path(shutil.copytree(folder_of(SMALL), tmp_path_factory.mktemp("written") / "run"))
    assert write_report(folder, photos=small_photos) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Element:
    """The page of ``written``, parsed."""
    return read_page((written / "report.html").read_text(encoding="utf-8"))


def _rendered(run: RunData) -> Element:
    """The page without figures, which take most of the time."""
    return read_page(render_page(run, {}))


def test_sections_come_in_their_order(page: Element) -> None:
    names = [e.attributes["id"] for e in page.find("section")]
    assert names == [
        "verdict",
        "metrics",
        "comparison",
        "trust",
        "scores",
        "mos",
        "bands",
        "members",
        "cv",
        "misses",
        "failures",
        "cost",
        "licences",
        "receipt",
    ]
    targets = {a.attributes["href"].removeprefix("#") for a in page.find("a")}
    assert targets == set(names[1:])


def test_nothing_is_loaded_and_nothing_runs(page: Element) -> None:
    for element in page.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{element.tag} has {name}"
            if name in {"src", "href", "srcset", "action", "data", "poster"}:
                assert re.match(r"#|data:(image/(png|jpeg|svg\+xml);base64)?,", value), (
                    f"{element.tag} {name}={value[:40]}"
                )
    assert not {e.tag for e in page.walk()} & {
        "script",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "video",
        "audio",
    }
    for style in page.find("style"):
        assert "url(" not in style.raw_text
        assert "@import" not in style.raw_text
    policies = [m.attributes["content"] for m in page.find("meta") if "http-equiv" in m.attributes]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_metrics_table_shows_metrics_json(written: Path, page: Element) -> None:
    metrics = json.loads((written / "metrics.json").read_text(encoding="utf-8"))
    [table] = by_id(page, "metrics").find("table")
    rows = table_rows(table)
    assert rows[0] == [
        "split",
        "n",
        "SRCC",
        "PLCC",
        "PLCC after logistic map",
        "KRCC",
        "MAE",
        "RMSE",
        "RMSE after logistic map",
    ]
    keys = ["training_cv", "validation", "validation/exclusive", "test", "test/exclusive"]
    for key, row in zip(keys, rows[1:], strict=True):
        assert row[1] == str(metrics[key]["n"])
        for name, cell in zip(METRIC_NAMES, row[2:], strict=True):
            shown = [float(v) for v in re.findall(r"-?\d+\.\d+", cell.replace("−", "-"))]
            wanted = [metrics[key][name], *metrics[key]["ci95"][name]]
            assert shown == pytest.approx(wanted, abs=5.1e-4)


def test_a_changed_number_changes_the_page(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    before = _rendered(read_run(folder)).text
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    metrics["test"]["srcc"] = 0.4327
    metrics["test"]["ci95"]["srcc"] = [0.4013, 0.4641]
    metrics["baselines"]["metadata_ridge"]["test"]["srcc"] = 0.2719
    metrics["single_bands"]["quality"]["test"]["srcc"] = 0.9871
    edit_json(folder / "metrics.json", **metrics)
    edit_json(folder / "receipt.json", band_share={"quality": 0.777, "content": 0.223})
    page = _rendered(read_run(folder))
    verdict = by_id(page, "verdict").text
    for text in ("0.433", "[0.401, 0.464]", "0.272", "0.987", "below the best single band, quality"):
        assert text not in before
        assert text in verdict
    assert "78 %" in by_id(page, "bands").text.replace("\u00a0", " ")


def test_misses_show_their_photo(written: Path, page: Element) -> None:
    section = by_id(page, "misses")
    images = section.find("img")
    assert len(images) == 12 == len(section.find("li"))
    names = {image.attributes["alt"] for image in images}
    frame = read_run(written).predictions
    assert names <= set(frame.loc[frame["split"] == "test", "image"])
    assert not [e for e in section.walk() if e.attributes.get("class") == "placeholder"]


def test_figures_are_written_and_shown(written: Path, page: Element) -> None:
    expected = set(FIGURE_NAMES) - {"predicted_training"}
    assert {path.stem for path in written.glob("*.png")} == expected
    for path in written.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 600
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert {f.attributes["id"] for f in page.find("figure")} == {f"figure-{name}" for name in expected}
    for figure in page.find("figure"):
        assert figure.find("img")
        assert len(figure.find("figcaption")[0].text) > 60


def test_tables_lie_beside_the_page(written: Path) -> None:
    assert (
        (written / "tables.csv").read_text(encoding="utf-8").startswith("predictor,kind,split,subset,n,srcc,")
    )
    assert "## Metrics by split" in (written / "table.md").read_text(encoding="utf-8")
    assert [path.name for path in written.iterdir() if path.name.startswith(".")] == [MARKER]


def test_the_same_run_gives_the_same_bytes(
    written: Path, tmp_path: Path, small_photos: dict[str, Path]
) -> None:
    made = {path.name: path.read_bytes() for path in written.iterdir()}
    elsewhere = Path(shutil.copytree(written, tmp_path / "another name"))
    write_report(elsewhere, photos=small_photos)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == made


def test_every_color_variable_is_defined(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    light, dark = re.findall(r":root \{ (--.*?) \}", html)
    for block in (light, dark):
        assert used <= set(re.findall(r"--([\w-]+):", block))
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert "@media print" in html


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_run_gives_a_whole_page(folder_of: Callable[[RunOptions], Path], name: str) -> None:
    run = read_run(folder_of(VARIANTS[name]))
    page = _rendered(run)
    assert len(page.find("section")) == 14
    text = page.text
    for leak in ("nan", "None", "inf ", "{{", "{%", "Undefined", "<built-in"):
        assert leak not in text.replace("information", ""), leak
    for section in page.find("section"):
        assert len(section.text) > 20, section.attributes["id"]
    assert [h.text for h in page.find("h1")] == [run.title]


@pytest.mark.parametrize("name", ["one band, training only", "tiny", "imported"])
def test_odd_runs_are_written_whole(
    tmp_path: Path, folder_of: Callable[[RunOptions], Path], name: str
) -> None:
    folder = Path(shutil.copytree(folder_of(VARIANTS[name]), tmp_path / "run"))
    (folder / "predicted_validation.png").write_bytes(b"of an earlier run that had a validation split")
    (folder / "mine.png").write_bytes(b"not the report's")
    files = [path.name for path in folder.iterdir() if path.name != "mine.png"]
    (folder / MARKER).write_text(json.dumps({"kind": "run", "files": files}))
    page = read_page(write_report(folder).read_text(encoding="utf-8"))
    assert (folder / "predicted_validation.png").exists() == ("validation" in VARIANTS[name].counts)
    (folder / "mine.png").unlink()
    assert {f.attributes["id"] for f in page.find("figure")} == {
        f"figure-{p.stem}" for p in folder.glob("*.png")
    }
    assert len(page.find("img")) == len(page.find("figure"))  # and no thumbnail


def test_a_simulation_says_so_before_anything_else(folder_of: Callable[[RunOptions], Path]) -> None:
    html = render_page(read_run(folder_of(VARIANTS["simulation"])), {})
    [banner] = [e for e in read_page(html).walk() if e.attributes.get("class") == "banner"]
    assert "prove nothing about real photos" in banner.text
    assert html.index('class="banner"') < html.index('id="verdict"')
    assert 'class="banner"' not in render_page(read_run(folder_of(SMALL)), {})


def test_what_is_optimistic_is_said(folder_of: Callable[[RunOptions], Path]) -> None:
    page = _rendered(read_run(folder_of(SMALL)))
    assert "“Training, out of fold” is somewhat optimistic" in by_id(page, "metrics").text
    assert "optimistic" in by_id(page, "members").text


def test_the_runs_notes_stand_with_its_metrics(folder_of: Callable[[RunOptions], Path]) -> None:
    run = read_run(folder_of(SMALL))
    [note] = run.receipt["notes"]
    assert note in by_id(_rendered(run), "metrics").text


def test_equal_weights_are_not_said_to_be_found(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    assert "Weights were found" in by_id(_rendered(read_run(folder)), "members").text
    edit_json(folder / "receipt.json", recipe={"title": "t", "text": '[regression]\ncombine = "uniform"'})
    text = by_id(_rendered(read_run(folder)), "members").text
    assert "Members weigh the same" in text
    assert "Weights were found" not in text


def test_a_run_without_photos_has_no_empty_frames(small_run: RunData, small_photos: dict[str, Path]) -> None:
    section = by_id(_rendered(small_run), "misses")
    assert len(section.find("li")) == 12
    assert "photos are not at hand" in section.text
    assert not section.find("img")
    gone = by_id(
        read_page(render_page(small_run, {}, dict.fromkeys(small_photos, Path("nowhere.jpg")))), "misses"
    )
    assert gone.text == section.text
    some = dict(list(small_photos.items())[:20]) | {"not an image of the run": Path("nowhere.jpg")}
    section = by_id(read_page(render_page(small_run, {}, some)), "misses")
    placeholders = [e for e in section.walk() if e.attributes.get("class") == "placeholder"]
    assert len(placeholders) + len(section.find("img")) == 12
    assert {e.text for e in placeholders} == {"photo not at hand"}


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    options = RunOptions(
        counts={"training": 12, "test": len(HOSTILE)},
        names=HOSTILE,
        title='<script>alert("title")</script> & </style></title>',
        n_bootstrap=3,
        n_bands=2,
        exclusive=0,
    )
    folder = write_run_folder(tmp_path / "run", options)
    receipt = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))
    name = HOSTILE[0]
    for key in ("features", "passes", "failures", "chosen"):
        receipt[key] = [
            {k: name if isinstance(v, str) else v for k, v in row.items()} for row in receipt[key]
        ]
    receipt["band_share"] = {name: 0.5, HOSTILE[1]: 0.5}
    receipt["dataset"]["name"] = receipt["notes"][0] = receipt["versions"][name] = name
    edit_json(folder / "receipt.json", **receipt)
    for table in ("weights.csv", "cv_results.csv"):
        text = (folder / table).read_text(encoding="utf-8")
        (folder / table).write_text(text.replace("\nall,", f'\n"{name}",'), encoding="utf-8")
    html = write_report(folder, photos={name: name for name in HOSTILE}).read_text(encoding="utf-8")
    page = read_page(html)
    assert not page.find("script")
    assert not [(e.tag, n) for e in page.walk() for n in e.attributes if n.startswith("on")]
    assert len(page.find("img")) == len(page.find("figure"))  # and no thumbnail
    assert page.find("title")[0].text == options.title
    misses = by_id(page, "misses").raw_text
    for image in HOSTILE:
        assert image.replace("\x0c", "") in misses.replace("\x0c", "")
    assert "alert(1)" in by_id(page, "bands").text
    assert "49" not in misses.replace("0.49", "") or "{{ 7 * 7 }}" in misses


def test_names_that_are_no_text_can_be_written(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    text = (folder / "receipt.json").read_text(encoding="utf-8")
    (folder / "receipt.json").write_text(text.replace('"quality"', '"\\udc80"'), encoding="utf-8")
    run = read_run(folder)
    assert "\udc80" in run.section("band_share")
    page = write_text(folder / "report.html", render_page(run, {}))
    read_page(page.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_page_of_a_large_run_stays_small(tmp_path: Path, small_photos: dict[str, Path]) -> None:
    options = RunOptions(
        counts={"training": 4269, "validation": 904, "test": 9000},
        exclusive=300,
        n_bootstrap=1,
        failures=5000,
    )
    folder = write_run_folder(tmp_path / "run", options)
    frame = read_run(folder).predictions
    photos = dict.fromkeys(frame["image"], next(iter(small_photos.values())))
    page = write_report(folder, photos=photos)
    assert page.stat().st_size < 2_000_000
    read_page(page.read_text(encoding="utf-8"))
