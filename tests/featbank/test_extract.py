"""Extraction: equal files once, failures recorded and not tried again, one worker or two the same."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbank.bank import Bank
from featbank.cli import main
from featbank.digest import digest_file
from featbank.errors import UnknownNameError
from featbank.extract import FeatureRequest, extract, measured_seconds, open_folder, take_shard
from featbank.feature import Outcome, make_feature, run_jobs
from featbank.images import DECODE_POLICY, keeping_truncated
from tests.featbank.bank.test_crashes import deaths
from tests.support.datasets import write_image

REQUESTS = [FeatureRequest("classic:layout", "squash_16x16"), FeatureRequest("classic:keypoint", "center_16")]


@pytest.fixture
def photos(tmp_path: Path) -> list[tuple[str, str]]:
    return [(f"{n}.png", str(write_image(tmp_path / "photos" / f"{n}.png", seed=n))) for n in range(6)]


def test_one_worker_and_two_give_the_same_rows(photos: list[tuple[str, str]], tmp_path: Path) -> None:
    banks = [Bank(tmp_path / "one"), Bank(tmp_path / "two")]
    for workers, bank in enumerate(banks, start=1):
        assert extract(photos, REQUESTS, bank, workers=workers).n_computed == 6
    for request in REQUESTS:
        one, two = (open_folder(bank, request) for bank in banks)
        keys = sorted(one.keys())
        assert keys == sorted(two.keys())
        assert np.array_equal(one.read(keys), two.read(keys))


def test_equal_files_are_computed_once(photos: list[tuple[str, str]], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(photos[0][1]).read_bytes())
    summary = extract([*photos, ("copy.png", str(copy))], REQUESTS, Bank(tmp_path / "bank"), workers=1)
    assert (summary.n_images, summary.n_computed) == (6, 6)
    assert summary.copies == [("copy.png", "0.png")]


def test_pipes_and_vast_files_are_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "vast.jpg").open("wb") as file:
        file.truncate(200 << 30)
    write_image(tmp_path / "good.png")
    images = [(name, str(tmp_path / name)) for name in ("pipe.jpg", "vast.jpg", "good.png", "none.png")]
    if Path("/proc/kmsg").exists():
        images.append(("kmsg", "/proc/kmsg"))  # of zero bytes, and without an end
    for n_computed in (1, 0):
        summary = extract(images, REQUESTS, Bank(tmp_path / "bank"), workers=1)
        reasons = {failure["image"]: failure["reason"] for failure in summary.failures}
        expected = {"pipe.jpg": "not-a-file", "vast.jpg": "too-large", "kmsg": "empty"}
        assert reasons == {name: reason for name, reason in expected.items() if name in dict(images)}
        assert summary.missing == ["none.png"]
        assert summary.n_computed == n_computed


def test_only_the_missing_feature_is_computed(photos: list[tuple[str, str]], tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")
    extract(photos, REQUESTS[:1], bank, workers=1)
    summary = extract(photos, REQUESTS, bank, workers=1)
    assert summary.n_computed == 6
    assert not any("layout" in name for name in summary.seconds)
    assert extract(photos, REQUESTS, bank, workers=1).n_computed == 0


def test_a_broken_file_is_recorded_once_and_tried_again_on_request(
    photos: list[tuple[str, str]], tmp_path: Path
) -> None:
    broken = Path(photos[2][1])
    broken.write_bytes(broken.read_bytes()[:60])
    bank = Bank(tmp_path / "bank")
    first = extract(photos, REQUESTS, bank, workers=1)
    assert [failure["image"] for failure in first.failures] == ["2.png"]
    assert bank.images.failures()["key"].tolist() == [digest_file(broken)]
    again = extract(photos, REQUESTS, bank, workers=1)
    assert again.n_computed == 0
    assert [failure["image"] for failure in again.failures] == ["2.png"]  # still said, though not tried
    assert "decode" in again.seconds
    assert again.seconds["decode"] == 0
    retried = extract(photos, REQUESTS, bank, workers=1, retry_failed=True)
    assert retried.seconds["decode"] > 0
    write_image(broken, seed=99)
    assert extract(photos, REQUESTS, bank, workers=1).n_computed == 1


MOMENTS = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "another file": lambda path: path.write_bytes(b"not an image, " * 1000),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "vast": lambda path: path.write_bytes(path.read_bytes() + bytes(10_000)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_photo_damaged_for_a_moment_is_refused_for_that_moment_only(
    moment: str, photos: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between listing and reading: the refusal belongs to the bytes that were refused, not to those listed."""
    monkeypatch.setattr("featbank.images.source.MAX_FILE_BYTES", 10_000)
    bank, victim = Bank(tmp_path / "bank"), Path(photos[2][1])
    good = victim.read_bytes()

    def damage_then_run(*arguments: object) -> Iterator[Outcome]:
        MOMENTS[moment](victim)
        yield from run_jobs(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("featbank.extract.run_jobs", damage_then_run)
        summary = extract(photos, REQUESTS[:1], bank, workers=1)
    assert [failure["image"] for failure in summary.failures] == ["2.png"]
    refused = bank.images.failures()["key"].tolist()
    assert refused == ([] if moment == "gone" else [digest_file(victim)])
    victim.write_bytes(good)
    again = extract(photos, REQUESTS[:1], bank, workers=1)
    assert (again.n_computed, again.failures) == (1, [])


def test_nothing_is_computed_when_a_request_cannot_be_built(
    photos: list[tuple[str, str]], tmp_path: Path
) -> None:
    bank = Bank(tmp_path / "bank")
    with pytest.raises(UnknownNameError):
        extract(photos, [*REQUESTS, FeatureRequest("classic:nothing", "native")], bank, workers=1)
    assert all(not folder.keys() for folder in bank.features())


def test_measured_seconds_are_means_over_photos(photos: list[tuple[str, str]], tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank")
    summary = extract(photos, REQUESTS, bank, workers=1)
    measured = measured_seconds(bank.root)
    assert measured["decode"] == pytest.approx(summary.seconds["decode"] / 6, abs=1e-4)
    assert set(measured) == {"decode", "views", *(open_folder(bank, request).label for request in REQUESTS)}
    with (bank.root / "extractions.jsonl").open("a") as log:
        log.write('{"cut')  # by a kill
    assert measured_seconds(bank.root) == measured


def test_dying_before_any_call_of_an_extraction_loses_no_vector_and_no_record(
    photos: list[tuple[str, str]], tmp_path: Path
) -> None:
    """What a run that was killed left undone, the next one does: also the record of a photo whose vectors are there."""
    photos = photos[:3]
    broken = Path(photos[2][1])
    broken.write_bytes(broken.read_bytes()[:60])
    whole = Bank(tmp_path / "whole")
    extract(photos, REQUESTS[:1], whole, workers=1)
    (tmp_path / "prepared").mkdir()

    def work(folder: Path) -> None:
        extract(photos, REQUESTS[:1], Bank(folder), workers=1)

    for folder in deaths(work, tmp_path / "killed", tmp_path / "prepared"):
        bank = Bank(folder)
        assert bank.verify() == []
        extract(photos, REQUESTS[:1], bank, workers=1)
        assert bank.images.frame().equals(whole.images.frame())
        (one,), (other,) = bank.features(), whole.features()
        keys = sorted(other.keys())
        assert one.keys() == set(keys)
        assert np.array_equal(one.read(keys), other.read(keys))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_are_disjoint_even_and_do_not_move_when_images_are_added(count: int) -> None:
    images = [(f"{n}.jpg", f"/photos/{n}.jpg") for n in range(1000)]
    parts = [take_shard(images, index, count) for index in range(count)]
    assert sorted(image for part in parts for image in part) == sorted(images)
    assert all(abs(len(part) - 1000 / count) < 100 for part in parts)
    more = [("new.jpg", "/photos/new.jpg"), *reversed(images)]
    for index, part in enumerate(parts):
        assert set(part) <= set(take_shard(more, index, count))


def test_what_is_left_of_a_damaged_photo_is_kept_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,mos"]
    for i in range(12):
        tile = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(tile).resize((160, 120)).save(tmp_path / f"{i}.jpg", quality=95)
        lines.append(f"{i}.jpg,{i / 10}")
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "0.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "r.toml").write_text(
        'recipe_version = 1\n[[band]]\nname = "layout"\nencoder = "classic:layout"\nview = "squash_64x64"\n'
        "[regression]\ncv = { n_splits = 2 }\n"
    )
    data, bank = str(tmp_path / "scores.csv"), ["--bank", str(tmp_path / "bank"), "--workers", "1"]
    recipe = ["--recipe", str(tmp_path / "r.toml")]
    keep = ["--truncated", "keep"]
    assert main(["features", data, *recipe, *bank]) == 0
    assert "11 computed" in (said := capsys.readouterr().out)
    assert "1 failed" in said
    # Another key, so nothing of the first is taken for it; the record of the failure does not stand in its way.
    assert main(["features", data, *recipe, *bank, *keep]) == 0
    assert "12 computed" in (said := capsys.readouterr().out)
    assert "0 failed" in said
    bank_there = Bank(tmp_path / "bank")
    logs = [bank_there.failures_of(folder.digest).frame() for folder in bank_there.features()]
    assert sum(log["actions"].astype(str).str.contains("truncated-kept").sum() for log in logs) == 1
    assert len(bank_there.images.failures()) == 1
    assert os.environ.get("FEATBANK_TRUNCATED") is None
    fit = ["fit", data, *recipe, *bank, "--permutations", "0"]
    assert main([*fit, *keep, "--out", str(tmp_path / "kept")]) == 0
    assert "12 images" in capsys.readouterr().err
    assert main([*fit, "--out", str(tmp_path / "refused")]) == 0
    assert "11 images" in capsys.readouterr().err
    for model in ("kept", "refused"):  # whole photos have the same features either way
        score = [
            "score",
            str(tmp_path / model),
            str(tmp_path / "0.jpg"),
            str(tmp_path / "1.jpg"),
            *bank,
            "--json",
        ]
        assert main([*score, *keep]) == 0
        assert json.loads(capsys.readouterr().out)["scored"] == 2
        assert main(score) == 0
        rows = json.loads(capsys.readouterr().out)["scores"]
        assert [row["predicted"] is None for row in rows] == [True, False]


def test_the_key_of_a_feature_is_what_it_was_unless_damage_is_kept() -> None:
    feature = make_feature("classic:layout", "squash_64x64")
    assert feature.identity["decode"] == DECODE_POLICY
    with keeping_truncated():
        assert feature.identity["decode"] != DECODE_POLICY
    assert feature.identity["decode"] == DECODE_POLICY
