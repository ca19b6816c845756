"""Splits that somebody published: tables, arrays, lists, pickles; parts filled in, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from featbank.datasets import GivenSplit, read_splits
from featbank.errors import DatasetError, DatasetNotFoundError

IMAGES = [f"img/p{i:02d}.jpg" for i in range(10)]
TRAIN = [[5, 0, 1, 2, 3, 4], [9, 8, 7, 6, 5, 4]]
VAL = [[6], [3]]
TEST = [[7, 8, 9], [0, 1, 2]]


def parts(split: GivenSplit) -> list[list[int]]:
    return [split.training.tolist(), split.validation.tolist(), split.test.tolist()]


def write_table(folder: Path) -> list[Path]:
    lines = ["image,split_1,split_2,note"]
    for i, name in enumerate(IMAGES):
        words = [
            next(word for word, rows in (("train", TRAIN), ("val", VAL), ("test", TEST)) if i in rows[k])
            for k in (0, 1)
        ]
        lines.append(f"{name},{words[0]},{words[1]},x")
    (folder / "splits.csv").write_text("\n".join(lines))
    return [folder / "splits.csv"]


def write_pickle(folder: Path) -> list[Path]:
    nested = {k + 1: {"train": TRAIN[k], "val": VAL[k], "test": TEST[k]} for k in (0, 1)}
    (folder / "seed123.pkl").write_bytes(pickle.dumps(nested))
    return [folder / "seed123.pkl"]


def write_json(folder: Path) -> list[Path]:
    nested = {
        str(k + 1): {
            "train": [IMAGES[i] for i in TRAIN[k]],
            "val": [Path(IMAGES[i]).stem for i in VAL[k]],
            "test": [Path(IMAGES[i]).name for i in TEST[k]],
        }
        for k in (0, 1)
    }
    (folder / "splits.json").write_text(json.dumps(nested))
    return [folder / "splits.json"]


def write_npz(folder: Path) -> list[Path]:
    np.savez(folder / "s.npz", train_idx=np.array(TRAIN), val_idx=np.array(VAL), test_idx=np.array(TEST))
    return [folder / "s.npz"]


def write_mat(folder: Path) -> list[Path]:
    # MATLAB counts from 1, and keeps splits in columns as often as in lines.
    own = {"trainIndex": TRAIN, "valIndex": VAL, "testIndex": TEST}
    savemat(folder / "s.mat", {name: np.array(rows).T + 1.0 for name, rows in own.items()})
    return [folder / "s.mat"]


def write_masks(folder: Path) -> list[Path]:
    masks = {name: np.zeros((2, 10), dtype=bool) for name in ("train", "val", "test")}
    for name, rows in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        for k in (0, 1):
            masks[name][k, rows[k]] = True
    for name, mask in masks.items():
        np.save(folder / f"{name}_masks.npy", mask)
    return [folder / f"{name}_masks.npy" for name in masks]


def write_texts(folder: Path) -> list[Path]:
    paths = []
    for k in (0, 1):
        for name, rows in (("train", TRAIN), ("val", VAL), ("test", TEST)):
            path = folder / f"{name}_{k + 1}.txt"
            path.write_text("\ufeff" + "\r\n".join(IMAGES[i].replace("/", "\\") for i in rows[k]) + "\r\n")
            paths.append(path)
    return paths


@pytest.mark.parametrize(
    "write", [write_table, write_pickle, write_json, write_npz, write_mat, write_masks, write_texts]
)
def test_every_kind_of_file_gives_the_same_splits(
    tmp_path: Path, write: Callable[[Path], list[Path]]
) -> None:
    splits, notes = read_splits(write(tmp_path), IMAGES)
    keeps_order = write not in (write_table, write_masks)
    for k, split in enumerate(splits):
        wanted = [TRAIN[k], VAL[k], TEST[k]]
        assert parts(split) == (wanted if keeps_order else [sorted(rows) for rows in wanted])
    assert len(splits) == 2
    is_numbered = write in (write_pickle, write_npz, write_mat, write_masks)
    assert any("counted from" in note for note in notes) == is_numbered


def test_what_is_not_given_is_the_rest(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("p07\np08\np09\n")
    [split], _ = read_splits([tmp_path / "test.txt"], IMAGES)
    assert parts(split) == [[0, 1, 2, 3, 4, 5, 6], [], [7, 8, 9]]
    # Ten of pyiqa's lists have a validation part and no test part: the former is what the papers test on.
    (tmp_path / "live.pkl").write_bytes(pickle.dumps({1: {"train": [0, 1, 2], "val": [9], "test": []}}))
    [split], notes = read_splits([tmp_path / "live.pkl"], IMAGES)
    assert parts(split) == [[0, 1, 2], [], [9]]
    assert any("where no test images are listed" in note for note in notes)


def test_validation_may_lie_inside_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", train=[[0, 1, 2, 3]], val=[[3]], test=[[4, 9]])
    [split], _ = read_splits([tmp_path / "s.npz"], IMAGES)
    assert parts(split) == [[0, 1, 2, 3], [3], [4, 9]]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({1: {"train": Evil(), "test": [1]}}, r"asks for (posix|nt)\.system"),
        ({1: {"train": np.arange(3), "test": [4]}}, "only dicts, lists, numbers and text"),
        ([1, 2], "must hold train, val and test"),
        ({1: {"train": [0, 1], "test": [1, 2]}}, "both teach and test"),
        ({1: {"train": [0, 1], "test": [11]}}, "between 0 and 9, or 1 and 10"),
        ({1: {"train": ["p00"], "test": ["q"]}}, "does not have, or has twice: q"),
        ({1: {"train": [1, 1], "test": [2]}}, "lists an image twice"),
        ({1: {"left": [1], "right": [2]}}, "which part of a split"),
        ({1: {"train": [[1], [2]], "test": [2]}}, "lists of numbers or names"),
    ],
)
def test_what_is_no_split_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=words):
        read_splits([tmp_path / "s.pkl"], IMAGES)
    assert not (tmp_path / "ran").exists()


def test_files_that_say_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no file of splits"):
        read_splits([tmp_path / "none.csv"], IMAGES)
    (tmp_path / "mine.txt").write_text("p00\n")
    with pytest.raises(DatasetError, match="by one of train, val and test"):
        read_splits([tmp_path / "mine.txt"], IMAGES)
    (tmp_path / "mine.csv").write_text("image,mos\np00,1\n")
    with pytest.raises(DatasetError, match="no column whose cells are training"):
        read_splits([tmp_path / "mine.csv"], IMAGES)
    (tmp_path / "s.npz").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="cannot be read as splits"):
        read_splits([tmp_path / "s.npz"], IMAGES)
