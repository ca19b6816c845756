import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.dummy import DummyRegressor
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from featbank.datasets import ImageTable, check_dataset, read_dataset, render_check
from featbank.datasets.image_table import make_frame
from featbank.datasets.scenes import compare_files, count_shared, find_same_scene, make_thumbnail
from tests.support.datasets import touch, uhd_row, write_image, write_uhd
from tests.support.textures import quantise, scene


def table(root, rows, mos_range=(0.0, 1.0), **options):
    """Build a table from rows (name, mos, split, subset, group)."""
    columns = dict(zip(("image_id", "mos", "split", "subset", "group"), zip(*rows, strict=True), strict=True))
    paths = [str(root / name) for name in columns["image_id"]]
    return ImageTable("test", root, make_frame({**columns, "path": paths}), mos_range, **options)


ROWS = st.lists(
    st.tuples(
        st.one_of(st.floats(0, 1), st.just(np.nan)),
        st.sampled_from(["training", "validation", "test", ""]),
        st.booleans(),
        st.sampled_from(["", "ann", "bo", "cy"]),
    ),
    min_size=1,
    max_size=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_counts_overlap_and_constant_agree_with_references(tmp_path, rows):
    made = table(
        tmp_path,
        [
            (f"{number}.jpg", mos, split, "exclusive" if exclusive and split != "training" else "", group)
            for number, (mos, split, exclusive, group) in enumerate(rows)
        ],
    )
    report = check_dataset(made)
    frame = made.frame
    training = frame[frame["split"] == "training"]
    for part, n_images in report["counts"].items():
        split, _, subset = part.partition("/")
        rows_of = frame[frame["split"] == ("" if split == "no split" else split)]
        if subset:
            rows_of = rows_of[rows_of["subset"] == subset]
        assert n_images == len(rows_of)
        scored = rows_of.dropna(subset="mos")
        if report["constant"] and part in report["constant"]:
            model = DummyRegressor().fit(np.zeros((len(training.dropna()), 1)), training["mos"].dropna())
            predicted = model.predict(np.zeros((len(scored), 1)))
            entry = report["constant"][part]
            assert entry["n"] == len(scored)
            assert entry["mae"] == pytest.approx(mean_absolute_error(scored["mos"], predicted), abs=1e-12)
            assert entry["rmse"] == pytest.approx(
                root_mean_squared_error(scored["mos"], predicted), abs=1e-12
            )
        if report["group_overlap"] and part != "training":
            known = set(training["group"]) - {""}
            expected = sum(group in known for group in rows_of["group"]) / len(rows_of)
            assert report["group_overlap"][part] == pytest.approx(expected)
    assert (report["constant"] is None) == training["mos"].dropna().empty
    assert report["n_scored"] == frame["mos"].notna().sum()
    assert report["every_image_missing"]
    # JSON without NaN, and the same text from what was read back.
    assert render_check(json.loads(json.dumps(report, allow_nan=False))) == render_check(report)


def test_mos_is_described_by_part_with_one_set_of_edges(tmp_path):
    mos = np.linspace(0.1, 0.9, 40)
    made = table(
        tmp_path,
        [
            (f"{number}.jpg", value, ["training", "test"][number % 2], "", "")
            for number, value in enumerate(mos)
        ],
    )
    described = check_dataset(made)["mos"]
    assert set(described) == {"all", "training", "test"}
    assert described["all"]["quantiles"]["0.5"] == pytest.approx(np.median(mos))
    assert described["all"]["quantiles"]["0"] == mos.min()
    assert described["training"]["histogram"]["edges"] == described["test"]["histogram"]["edges"]
    assert sum(described["training"]["histogram"]["counts"]) == 20
    assert described["test"]["std"] == pytest.approx(np.std(mos[1::2]))


def test_groups_are_counted_and_ties_are_broken_by_name(tmp_path):
    rows = [
        (f"{number}.jpg", 0.5, "", "", group)
        for number, group in enumerate(["bo", "ann", "ann", "bo", "cy", ""])
    ]
    assert check_dataset(table(tmp_path, rows))["groups"] == {
        "n": 3,
        "largest": 2,
        "largest_name": "ann",
        "n_images_without": 1,
    }
    assert check_dataset(table(tmp_path, [("1.jpg", 0.5, "", "", "")]))["groups"] is None


def test_an_image_without_a_group_does_not_count_as_seen_in_training(tmp_path):
    rows = [
        ("1.jpg", 0.5, "training", "", ""),
        ("2.jpg", 0.5, "training", "", "a"),
        ("3.jpg", 0.5, "test", "", ""),
    ]
    assert check_dataset(table(tmp_path, rows))["group_overlap"] == {"test": 0.0}


@pytest.fixture
def folder(tmp_path):
    """Nine images: a copy within a split, one across, one damaged, one empty, one missing, one in portrait."""
    write_image(tmp_path / "training/1.jpg", seed=1)
    write_image(tmp_path / "training/2.png", seed=2, size=(10, 30))
    shutil.copy(tmp_path / "training/1.jpg", tmp_path / "training/3.jpg")
    shutil.copy(tmp_path / "training/2.png", touch(tmp_path / "test/4.png"))
    data = write_image(tmp_path / "test/5.jpg", seed=5, size=(64, 64)).read_bytes()
    (tmp_path / "test/5.jpg").write_bytes(data[: len(data) // 2])
    touch(tmp_path / "test/6.jpg")
    touch(tmp_path / "test/7.jpg")
    write_image(tmp_path / "validation/9.bmp", seed=9)
    write_uhd(
        tmp_path,
        [
            uhd_row("1.jpg", 0.7, "training", user="ann"),
            uhd_row("2.png", 0.6, "training", user="bo"),
            uhd_row("3.jpg", 0.7, "training", user="ann"),
            uhd_row("4.png", 0.5, "test", user="ann"),
            uhd_row("5.jpg", 0.4, "test", user="cy"),
            uhd_row("6.jpg", "", "test", user="cy"),
            uhd_row("7.jpg", 0.4, "test", user="bo"),
            uhd_row("8.jpg", 0.4, "test", user=""),
            uhd_row("9.bmp", 0.4, "validation", "exclusive", user="ann"),
        ],
    )
    return tmp_path


def test_what_is_wrong_with_files_is_counted(folder):
    report = check_dataset(read_dataset(folder), workers=1)
    assert report["n_missing"] == 1
    assert report["missing"] == [str(folder / "test/8.jpg")]
    assert not report["every_image_missing"]
    assert report["decoded"]
    assert report["n_unreadable"] == 3
    assert sum(report["unreadable"].values()) == 3
    assert report["unreadable"]["empty"] == 2
    assert [item["image"] for item in report["unreadable_examples"]] == ["5.jpg", "6.jpg", "7.jpg"]
    assert all(item["message"] for item in report["unreadable_examples"])
    assert report["pixels"] == {"width": [10, 24], "height": [16, 30], "n_portrait": 2}
    assert report["formats"] == {"JPEG": 2, "PNG": 2, "BMP": 1}
    assert report["duplicates"] == {
        "n_sets": 2,
        "n_extra": 2,
        "n_sets_across_splits": 1,
        "n_sets_with_different_mos": 1,
        "examples": [
            {"images": ["2.png", "4.png"], "splits": ["training", "test"]},
            {"images": ["1.jpg", "3.jpg"], "splits": ["training", "training"]},
        ],
    }
    assert report["group_overlap"]["test"] == pytest.approx(2 / 5)


def test_without_decoding_copies_are_found_all_the_same(folder):
    made = read_dataset(folder)
    decoded, looked_up = check_dataset(made, workers=1), check_dataset(made, decode=False, workers=1)
    assert looked_up["duplicates"] == decoded["duplicates"]
    assert not looked_up["decoded"]
    assert looked_up["n_unreadable"] == 0
    assert looked_up["pixels"] is None


def test_without_decoding_files_of_a_size_of_their_own_are_not_opened(tmp_path, monkeypatch):
    for number, n_bytes in enumerate([10, 11, 11, 12]):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]) * n_bytes)
    opened = []
    monkeypatch.setattr(
        "featbank.datasets.check.digest_file",
        lambda path: opened.append(path) or hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    )
    report = check_dataset(read_dataset(tmp_path), decode=False, workers=1)
    assert opened == [str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg")]
    assert report["duplicates"]["n_sets"] == 0


@pytest.mark.slow
def test_processes_report_what_one_process_reports(tmp_path):
    for number in range(20):
        write_image(tmp_path / f"{number}.jpg", seed=number % 15)
    (tmp_path / "3.jpg").write_bytes(b"no image")
    made = read_dataset(tmp_path)
    steps = []
    alone = check_dataset(made, workers=1)
    together = check_dataset(made, workers=2, on_progress=lambda done, total: steps.append((done, total)))
    assert together == alone
    assert steps == [(done, 20) for done in range(1, 21)]


def test_progress_is_told_for_every_file(folder):
    steps = []
    check_dataset(read_dataset(folder), on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 8) for done in range(1, 9)]


def test_findings_say_what_matters_in_plain_words(folder):
    found = " ".join(check_dataset(read_dataset(folder), workers=1)["findings"])
    for statement in (
        "1 of 9 images are missing.",
        "3 images cannot be read:",
        "2 files are copies of another image, byte for byte.",
        "1 images occur in more than one split",
        "1 images occur several times with different MOS.",
        "1 images have no MOS.",
        "40.0% of the test images belong to groups that also have training images",
    ):
        assert statement in found


def test_a_sound_dataset_has_nothing_to_be_said_about(tmp_path):
    rows = [("1.png", 0.4, "training", "", "a"), ("2.png", 0.6, "test", "", "b")]
    for number, row in enumerate(rows):
        write_image(tmp_path / row[0], seed=number)
    assert check_dataset(table(tmp_path, rows), workers=1)["findings"] == []


def test_every_image_missing_is_said_first_and_nothing_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("featbank.datasets.check._inspect", None)  # calling it would fail
    report = check_dataset(table(tmp_path, [(f"{number}.jpg", 0.5, "", "", "") for number in range(2000)]))
    assert report["every_image_missing"]
    assert report["n_missing"] == 2000
    assert len(report["missing"]) == 20
    assert report["findings"][0].startswith("Every image is missing: none of the 2,000 files is there")


def test_a_simulation_and_missing_scores_are_said(tmp_path):
    made = table(tmp_path, [("1.jpg", np.nan, "", "", "")], (np.nan, np.nan), is_simulation=True)
    report = check_dataset(made)
    assert report["findings"][0].startswith("This is a simulation")
    assert any(finding.startswith("There is no MOS") for finding in report["findings"])
    assert report["mos"] == {}
    assert report["mos_range"] is None
    json.dumps(report, allow_nan=False)


def test_at_least_one_worker_is_needed(tmp_path):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        check_dataset(table(tmp_path, [("1.jpg", 0.5, "", "", "")]), workers=0)


def test_a_file_that_may_not_be_read_is_reported_with_its_reason(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    write_image(tmp_path / "1.jpg")
    monkeypatch.setattr("featbank.images.read_photo", refuse)
    report = check_dataset(read_dataset(tmp_path), workers=1)
    assert report["unreadable"] == {"unreadable": 1}
    assert "Permission denied" in report["unreadable_examples"][0]["message"]


def test_the_text_shows_each_part_once_and_the_figures(folder):
    made = read_dataset(folder)
    report = check_dataset(made, workers=1)
    text = render_check(report)
    lines = text.splitlines()
    assert lines[0] == f"uhd-iqa  {folder}"
    header = next(line for line in lines if line.startswith("part"))
    assert header.split()[:3] == ["part", "images", "MOS"]
    rows = {
        line.split()[0]: line.split()
        for line in lines[lines.index(header) + 1 :][: len(report["counts"]) + 1]
    }
    assert {part: int(row[1]) for part, row in rows.items()} == {**report["counts"], "all": 9}
    assert rows["test"][-2:] == [f"{report['constant']['test'][key]:.4f}" for key in ("mae", "rmse")]
    assert "share of test whose group is in training: 0.400" in text
    assert str(folder / "test/8.jpg") in text
    assert "identical: 2.png, 4.png" in text
    for finding in report["findings"]:
        assert finding in text


def test_the_text_of_a_plain_folder_has_no_columns_about_scores(tmp_path):
    write_image(tmp_path / "1.jpg")
    text = render_check(check_dataset(read_dataset(tmp_path), decode=False))
    assert "MOS mean" not in text
    assert "constant" not in text
    assert "not decoded: damaged images would not show" in text
    assert "Groups: none" in text


def test_the_report_does_not_depend_on_the_kind_of_text_column(tmp_path):
    made = table(tmp_path, [("1.jpg", 0.5, "training", "", "a"), ("2.jpg", 0.6, "test", "", "a")])
    frame = made.frame.astype({"group": object, "split": object, "image_id": object})
    again = ImageTable("test", tmp_path, pd.DataFrame(frame), (0.0, 1.0))
    assert check_dataset(again) == check_dataset(made)


def again(picture, number):
    """Take a scene again: darker, blurred, from a little aside, or as a bad JPEG."""
    shifted = picture[4:, :-6]
    darker = quantise(0.4 * picture.astype(np.float64))
    blurred = cv2.GaussianBlur(picture, (0, 0), 2.5)
    small = cv2.resize(picture, (80, 60), interpolation=cv2.INTER_AREA)
    return (shifted, darker, blurred, small)[number]


@pytest.fixture(scope="module")
def leaking(tmp_path_factory):
    """Thirty scenes in training, four of them again in the test under the name a, and eight others under b."""
    root, rows = tmp_path_factory.mktemp("leaking"), []
    for number in range(38):
        picture, is_training = scene(96, 128, seed=number), number < 30
        name = f"train/{number}.jpg" if is_training else f"b ({number}).jpg"
        rows.append((name, 0.1 + number / 50, "training" if is_training else "test", "", ""))
        Image.fromarray(picture).save(touch(root / name), quality=90)
        if number < 4:
            rows.append((f"a ({number}).jpg", 0.5, "test", "", ""))
            Image.fromarray(again(picture, number)).save(root / rows[-1][0], quality=30)
    rows.append(("b (plain).png", 0.5, "test", "", ""))
    Image.new("RGB", (128, 96), "white").save(root / "b (plain).png")
    return table(root, rows)


def test_scenes_on_both_sides_of_the_split_are_found_by_their_pictures(leaking):
    report = check_dataset(leaking, workers=1)
    assert report["scenes"]["parts"] == {
        "test": {
            "n": 12,  # nothing can be said of a plain one
            "n_shared": 4,
            "by_name": {"a": {"n": 4, "n_shared": 4}, "b": {"n": 8, "n_shared": 0}},
        }
    }
    pairs = {pair["image"]: pair["training_image"] for pair in report["scenes"]["examples"]}
    assert pairs == {f"a ({number}).jpg": f"train/{number}.jpg" for number in range(4)}
    [finding] = report["findings"]
    assert finding.startswith(
        "4 of 12 test images (33.3%; a 4 of 4, b 0 of 8) show the scene of a training image"
    )
    assert render_check(json.loads(json.dumps(report, allow_nan=False))) == render_check(report)
    assert check_dataset(leaking, decode=False, workers=1)["scenes"] is None


def test_series_are_told_by_the_beginnings_of_names_below_their_folder():
    counts = count_shared(["/p/x (1).jpg", "/p/x (2).jpg", "/p/y_1.jpg"], np.array([True, False, False]))
    assert counts["by_name"] == {"x": {"n": 2, "n_shared": 1}, "y": {"n": 1, "n_shared": 0}}
    assert count_shared(["1.jpg", "2.jpg"], np.array([True, False])) == {"n": 2, "n_shared": 1, "by_name": {}}


def test_files_are_compared_without_being_decoded_in_full(leaking, monkeypatch):
    paths = {part: rows["path"].tolist() for part, rows in leaking.frame.groupby("split")}
    whole = [np.asarray(Image.open(path).convert("RGB")) for path in (*paths["test"], *paths["training"])]
    thumbnails = np.stack([make_thumbnail(pixels) for pixels in whole])
    expected = find_same_scene(thumbnails[:13], thumbnails[13:])
    assert (expected >= 0).sum() == 4
    assert compare_files(paths["test"], paths["training"], workers=1).tolist() == expected.tolist()
    assert "not at hand" in compare_files(["/nowhere.jpg"], paths["training"])
    monkeypatch.setattr("featbank.datasets.scenes.MAX_BYTES", 1000)
    assert "`featbank check` compares them" in compare_files(paths["test"], paths["training"])
    monkeypatch.setattr("featbank.datasets.scenes.MAX_PAIRS", 60)
    assert (find_same_scene(thumbnails[:13], thumbnails[13:]) == -2).sum() == 11
