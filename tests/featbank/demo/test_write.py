import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featbank.demo import STATEMENT, write_demo
from featbank.demo.plan import make_plan
from featbank.demo.render import render_photo
from featbank.demo.write import MARKER_FILE, METADATA_FILE, TAGS_FILE
from featbank.digest import digest_file
from featbank.errors import DatasetError, OutputError

N, WIDTH = 20, 320


class InterruptedRenderError(Exception):
    pass


def _files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _stop_after(n):
    def progress(done, total):
        if done >= n:
            raise InterruptedRenderError

    return progress


def test_the_layout_is_the_releases(finished_set):
    names = {p.name for p in finished_set.iterdir()}
    assert names == {"training", "validation", "test", METADATA_FILE, TAGS_FILE, MARKER_FILE}
    table = pd.read_csv(finished_set / METADATA_FILE, keep_default_na=False)
    assert len(table) == N
    assert table["set"].value_counts().to_dict() == {"training": 9, "validation": 3, "test": 8}
    found = sorted(p.name for p in finished_set.glob("*/*.jpg"))
    assert found == sorted(table["image_name"])
    for row in table.itertuples():
        with Image.open(finished_set / row.set / row.image_name) as picture:
            assert picture.format == "JPEG"
            assert picture.width == WIDTH
    exclusive = table[table["subset"] == "exclusive"]
    assert set(exclusive["set"]) == {"validation", "test"}
    assert table["quality_mos"].between(0.0, 1.0).all()


def test_the_marker_says_what_the_set_is_and_holds_every_rating(finished_set):
    marker = json.loads((finished_set / MARKER_FILE).read_text("utf-8"))
    table = pd.read_csv(finished_set / METADATA_FILE).set_index("image_name")
    assert (marker["n"], marker["seed"], marker["width"]) == (N, 0, WIDTH)
    assert marker["is_simulation"] is True
    assert marker["statement"] == STATEMENT
    assert "simulation" in STATEMENT
    assert "prove nothing about real photos" in STATEMENT
    assert {"version", "libraries", "raters", "agreement"} <= set(marker)
    for photo in marker["photos"]:
        ratings = np.array(photo["ratings"])
        assert ratings.shape == (2, 10)
        assert table.loc[photo["image_name"], "quality_mos"] == pytest.approx(ratings.mean() / 100, abs=1e-9)
        path = finished_set / photo["set"] / photo["image_name"]
        assert digest_file(path) == photo["sha256"]
        assert path.stat().st_size == photo["n_bytes"]


def test_photos_are_those_of_their_plans_in_any_order(finished_set):
    plans = make_plan(N, WIDTH, 0)
    for plan in (plans[13], plans[2]):
        data = (finished_set / plan.split / plan.name).read_bytes()
        assert render_photo(plan, 0).data == data
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.mode == ("L" if plan.settings.is_grayscale else "RGB")


def test_another_seed_gives_other_photos():
    first, second = make_plan(N, WIDTH, 0)[0], make_plan(N, WIDTH, 1)[0]
    assert render_photo(first, 0).data != render_photo(second, 1).data


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(finished_set, tmp_path):
    write_demo(tmp_path / "set", n_photos=N, width=WIDTH, workers=2)
    assert _files(tmp_path / "set") == _files(finished_set)


def test_an_interrupted_set_goes_on_where_it_stopped(finished_set, tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(15))
    assert not (folder / METADATA_FILE).exists()
    assert not (folder / MARKER_FILE).exists()
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("*/*.jpg")}
    assert len(kept) >= 15
    calls = []
    write_demo(
        folder, n_photos=N, width=WIDTH, workers=1, progress=lambda done, total: calls.append((done, total))
    )
    assert calls[0] == (len(kept), N)
    assert calls[-1] == (N, N)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert _files(folder) == _files(finished_set)


def test_a_photo_without_its_record_or_cut_off_is_rendered_again(finished_set, tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(4))
    done = sorted(folder.glob("*/*.jpg"))
    whole = done[0].read_bytes()
    done[0].write_bytes(whole[: len(whole) // 2])
    (folder / ".unfinished" / f"{done[1].stem}.json").unlink()
    calls = []

    def progress(n_done, total):
        calls.append(n_done)
        if n_done > calls[0]:
            raise InterruptedRenderError

    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=progress)
    assert calls[0] == len(done) - 2


def test_a_finished_set_is_left_alone_and_a_lost_photo_comes_back(finished_set, tmp_path):
    folder = tmp_path / "set"
    for name, data in _files(finished_set).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert write_demo(folder, n_photos=N, width=WIDTH, workers=1) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    next(folder.glob("test/*.jpg")).unlink()
    write_demo(str(folder), n_photos=N, width=WIDTH, workers=1)
    assert _files(folder) == _files(finished_set)


def test_folders_with_other_data_are_refused_and_left_alone(finished_set, tmp_path):
    with pytest.raises(DatasetError, match="another demo set"):
        write_demo(finished_set, n_photos=N, width=WIDTH, seed=1)
    foreign = tmp_path / "release"
    foreign.mkdir()
    (foreign / METADATA_FILE).write_text("not ours")
    with pytest.raises(OutputError, match=f"demo must be a new or empty folder.*'{METADATA_FILE}'"):
        write_demo(foreign, n_photos=N, width=WIDTH)
    assert [p.name for p in foreign.iterdir()] == [METADATA_FILE]
    (foreign / MARKER_FILE).write_text("{")
    with pytest.raises(DatasetError, match="cannot be read"):
        write_demo(foreign, n_photos=N, width=WIDTH)


def test_an_unfinished_set_of_other_arguments_is_refused(tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InterruptedRenderError):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1, progress=_stop_after(1))
    with pytest.raises(DatasetError, match="unfinished demo set made with other arguments"):
        write_demo(folder, n_photos=N, width=WIDTH, seed=2, workers=1)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"'thesis\.tex'"):
        write_demo(folder, n_photos=N, width=WIDTH, workers=1)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file' must be a folder, got a file"):
        write_demo(tmp_path / "file" / "set", n_photos=N, width=WIDTH, workers=1)


def test_no_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        write_demo(tmp_path, n_photos=N, width=WIDTH, workers=0)
