import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featbank.demo import STATEMENT, write_demo
from featbank.demo.write import MARKER_FILE, METADATA_FILE, TAGS_FILE, make_plan, release_tables, render_photo
from featbank.digest import digest_file
from featbank.errors import DatasetError, OutputError

N, WIDTH = 20, 320

HEADER = (
    '"image_name","quality_mos","set","subset","orig_width","orig_height","views","likes","favorites","downloads",'
    '"comments","image_bytes","user_name","page_url","image_name_orig"'
)


class InterruptedRenderError(Exception):
    pass


def _files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _stop_after(n):
    def progress(done, total):
        if done >= n:
            raise InterruptedRenderError

    return progress


def _copy(finished_set, folder, *, without=()):
    for name, data in _files(finished_set).items():
        if name not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return folder


def test_the_layout_is_the_releases(finished_set):
    names = {p.name for p in finished_set.iterdir()}
    assert names == {"training", "validation", "test", METADATA_FILE, TAGS_FILE, MARKER_FILE}
    table = pd.read_csv(finished_set / METADATA_FILE, keep_default_na=False)
    assert table["set"].value_counts().to_dict() == {"training": 9, "validation": 3, "test": 8}
    assert sorted(p.name for p in finished_set.glob("*/*.jpg")) == sorted(table["image_name"])
    for row in table.itertuples():
        with Image.open(finished_set / row.set / row.image_name) as picture:
            assert (picture.format, picture.width) == ("JPEG", WIDTH)
            assert abs(row.orig_width / row.orig_height - picture.width / picture.height) < 0.002
            assert STATEMENT in picture.info["comment"].decode()
    assert set(table.loc[table["subset"] == "exclusive", "set"]) == {"validation", "test"}
    assert table["quality_mos"].between(0.0, 1.0).all()
    tags = pd.read_csv(finished_set / TAGS_FILE)
    assert list(tags) == ["image_name", "tag", "machine_confidence", "parents"]
    assert set(tags["image_name"]) == set(table["image_name_orig"])
    lines = (finished_set / METADATA_FILE).read_text().split("\n")
    assert lines[0] == HEADER
    first = lines[1].split(",")
    assert first[0] == '"1.jpg"'
    assert float(first[1]) == table["quality_mos"][0]
    assert all(cell.isdigit() for cell in first[4:12])
    assert first[13] == '""'


def test_the_header_is_the_releases_own(real_data):
    with (real_data / "uhd-iqa" / "uhd-iqa-metadata.csv").open() as file:
        assert file.readline().rstrip("\n") == HEADER


def test_the_marker_says_what_the_set_is_and_holds_every_rating(finished_set):
    marker = json.loads((finished_set / MARKER_FILE).read_text("utf-8"))
    table = pd.read_csv(finished_set / METADATA_FILE).set_index("image_name")
    assert (marker["n"], marker["seed"], marker["width"]) == (N, 0, WIDTH)
    assert marker["is_simulation"] is True
    assert marker["statement"] == STATEMENT
    assert "simulation" in STATEMENT
    assert "prove nothing about real photos" in STATEMENT
    assert {"version", "libraries", "raters"} <= set(marker)
    for photo in marker["photos"]:
        ratings = np.array(photo["ratings"])
        assert ratings.shape == (2, 10)
        assert table.loc[photo["image_name"], "quality_mos"] == pytest.approx(ratings.mean() / 100, abs=1e-9)
        assert digest_file(finished_set / photo["split"] / photo["image_name"]) == photo["sha256"]


def test_popularity_is_tied_to_mos_only_weakly():
    links = []
    for seed in range(8):
        photos = pd.DataFrame([{"image_name": p.name, **vars(p)} for p in make_plan(200, 3840, seed)])
        photos["quality_mos"] = np.random.default_rng(seed).beta(4, 1.2, 200)
        table = release_tables(photos, seed)[1]
        links.append(np.corrcoef(np.log(table["views"]), table["quality_mos"])[0, 1])
        assert abs(np.corrcoef(np.log(table["image_bytes"]), table["quality_mos"])[0, 1]) < 0.25
    # Eight sets of 200: the mean of the correlations has a standard error of 0.025.
    assert 0.12 < np.mean(links) < 0.38


def test_photos_are_those_of_their_plans_in_any_order(finished_set):
    plans = make_plan(N, WIDTH, 0)
    for plan in (plans[13], plans[2]):
        written = Image.open(finished_set / plan.split / plan.name)
        rendered = Image.open(io.BytesIO(render_photo(plan, 0)[0]))
        np.testing.assert_array_equal(np.asarray(written), np.asarray(rendered))
        assert written.mode == ("L" if plan.settings.is_grayscale else "RGB")
    assert render_photo(plans[0], 0)[0] != render_photo(make_plan(N, WIDTH, 1)[0], 1)[0]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(finished_set, tmp_path):
    write_demo(tmp_path / "set", n_photos=N, width=WIDTH, workers=2)
    assert _files(tmp_path / "set") == _files(finished_set)


def test_an_interrupted_set_goes_on_where_it_stopped(finished_set, tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(15))
    assert not (folder / METADATA_FILE).exists()
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("*/*.jpg")}
    assert len(kept) >= 15
    calls = []
    write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=lambda *done: calls.append(done))
    assert calls[0] == (len(kept), N)
    assert calls[-1] == (N, N)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert _files(folder) == _files(finished_set)


def test_a_killed_set_goes_on_where_it_stopped(finished_set, tmp_path):
    folder = tmp_path / "set"
    code = f"from featbank.demo import write_demo; write_demo({str(folder)!r}, n_photos={N}, width={WIDTH}, workers=1)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while process.poll() is None and len(list(folder.glob("*/*.jpg"))) < 3:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    write_demo(folder, n_photos=N, width=WIDTH, workers=1)
    assert _files(folder) == _files(finished_set)


@pytest.mark.parametrize("lost", [(METADATA_FILE,), (METADATA_FILE, TAGS_FILE, MARKER_FILE)])
def test_a_set_killed_while_its_tables_were_written_is_completed(finished_set, tmp_path, lost):
    folder = _copy(finished_set, tmp_path / "set", without=lost)
    write_demo(folder, n_photos=N, width=WIDTH, workers=1)
    assert _files(folder) == _files(finished_set)


def test_a_finished_set_is_left_alone_and_a_lost_photo_comes_back(finished_set, tmp_path):
    folder = _copy(finished_set, tmp_path / "set")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert write_demo(folder, n_photos=N, width=WIDTH, workers=1) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    next(folder.glob("test/*.jpg")).unlink()
    write_demo(str(folder), n_photos=N, width=WIDTH, workers=1)
    assert _files(folder) == _files(finished_set)


def _strangers_photo(folder):
    photo = io.BytesIO()
    Image.new("RGB", (40, 30)).save(photo, "JPEG")
    (folder / "training").mkdir(exist_ok=True)
    (folder / "training" / f"{_trained()}.jpg").write_bytes(photo.getvalue())


def _trained():
    return next(plan.number for plan in make_plan(N, WIDTH, 0) if plan.split == "training")


def _cut_off_photo(folder):
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(1))
    photo = next(folder.glob("*/*.jpg"))
    photo.write_bytes(photo.read_bytes()[:-500])


def _thesis_beside_photos(folder):
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(1))
    (folder / "thesis.tex").write_text("years of work")


def _others_in_the_split(folder):
    (folder / "test").mkdir()
    (folder / "test" / "holiday.jpg").write_bytes(b"photo")


def _other_seed(folder):
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, seed=2, workers=1, progress=_stop_after(4))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (
            lambda folder: (folder / METADATA_FILE).write_text("not ours"),
            f"new or empty folder.*'{METADATA_FILE}'",
        ),
        (lambda folder: (folder / MARKER_FILE).write_text("{"), "not part of a demo set"),
        (_strangers_photo, "not part of a demo set"),
        (_thesis_beside_photos, r"'thesis\.tex'"),
        (_others_in_the_split, "new or empty folder.*'test'"),
        (_cut_off_photo, "was changed since it was rendered"),
        (_other_seed, "of another demo set|'training'"),
    ],
)
def test_folders_with_other_data_are_refused_and_left_alone(tmp_path, fill, message):
    fill(tmp_path)
    before = _files(tmp_path)
    with pytest.raises((DatasetError, OutputError), match=message):
        write_demo(tmp_path, n_photos=N, width=WIDTH, workers=1)
    assert _files(tmp_path) == before


def test_another_request_for_a_finished_set_is_refused(finished_set):
    with pytest.raises(DatasetError, match="another demo set"):
        write_demo(finished_set, n_photos=N, width=WIDTH, seed=1)


def test_a_folder_that_cannot_be_made_and_no_workers_are_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file' must be a folder, got a file"):
        write_demo(tmp_path / "file" / "set", n_photos=N, width=WIDTH, workers=1)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        write_demo(tmp_path, n_photos=N, width=WIDTH, workers=0)
