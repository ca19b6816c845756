import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from featbank.datasets import ImageTable
from featbank.datasets.image_table import make_frame
from featbank.errors import DatasetError

ROOT = Path("/data").absolute()


def table(**columns):
    ids = columns.pop("image_id", ["a", "b", "c"])
    given = {
        "image_id": ids,
        "path": [str(ROOT / name) for name in ids],
        "mos": np.linspace(0.2, 0.8, len(ids)),
        **columns,
    }
    return ImageTable("test", ROOT, make_frame(given), (0.0, 1.0))


def test_columns_come_in_one_order_whatever_order_they_were_given_in():
    shuffled = make_frame({"image_id": ["a"], "path": [str(ROOT / "a")], "mos": [0.5], "meta:x": [1.0]})[
        ["meta:x", "group", "mos", "path", "subset", "image_id", "split"]
    ]
    made = ImageTable("test", ROOT, shuffled, (0.0, 1.0))
    assert list(made.frame.columns) == ["image_id", "path", "mos", "split", "subset", "group", "meta:x"]
    assert made.meta_columns == ["meta:x"]


def test_the_table_does_not_change_with_the_frame_it_was_made_from():
    frame = make_frame({"image_id": ["a"], "path": [str(ROOT / "a")], "mos": [0.5]})
    made = ImageTable("test", ROOT, frame, (0.0, 1.0))
    frame.loc[0, "mos"] = 0.9
    assert made.frame.loc[0, "mos"] == 0.5


@pytest.mark.parametrize("column", ["image_id", "path", "mos", "split", "subset", "group"])
def test_a_missing_column_is_named(column):
    frame = table().frame.drop(columns=column)
    with pytest.raises(DatasetError, match=f"missing '{column}'"):
        ImageTable("test", ROOT, frame, (0.0, 1.0))


def test_an_unknown_column_is_refused():
    with pytest.raises(DatasetError, match="must start with 'meta:', got 'score_std'"):
        table(score_std=[0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image_id": ["a", "b", "a"], "path": [str(ROOT / x) for x in "xyz"]},
            "'image_id' must occur once.*'a'",
        ),
        ({"path": [str(ROOT / "a")] * 3}, "'path' must occur once"),
        ({"image_id": ["a", "", "c"]}, "'image_id' is empty in row"),
        ({"path": ["a.jpg", str(ROOT / "b"), str(ROOT / "c")]}, "paths must be absolute, got 'a.jpg'"),
        ({"split": ["train", "", ""]}, "'split' must hold one of .* got 'train'"),
        ({"subset": ["", "hard", ""]}, "'subset' must hold one of .* got 'hard'"),
        ({"split": ["training"] * 3, "subset": ["", "", "exclusive"]}, "exclusive images belong.*'c'"),
        ({"mos": [0.1, np.inf, 0.3]}, "MOS must be finite and on the scale 0 to 1, got 'b: inf'"),
        ({"mos": [0.1, 77.0, 0.3]}, "on the scale 0 to 1, got 'b: 77'"),
        ({"meta:views": [1.0, np.nan, 2.0]}, "'meta:views' must hold finite"),
    ],
)
def test_broken_columns_are_refused_with_the_reason(columns, message):
    with pytest.raises(DatasetError, match=message):
        table(**columns)


def test_text_columns_must_hold_text():
    frame = table().frame.astype({"group": object})
    frame["group"] = [1, 2, 3]
    with pytest.raises(DatasetError, match="column 'group' must hold text, got 1, 2, 3"):
        ImageTable("test", ROOT, frame, (0.0, 1.0))


def test_mos_must_be_float64():
    frame = table().frame.astype({"mos": np.float32})
    with pytest.raises(DatasetError, match="must be float64, got float32"):
        ImageTable("test", ROOT, frame, (0.0, 1.0))


def test_a_scale_the_wrong_way_round_is_refused():
    with pytest.raises(DatasetError, match="worst <= best"):
        ImageTable("test", ROOT, table().frame, (1.0, 0.0))


def test_unknown_mos_is_allowed_with_and_without_a_scale():
    assert table(mos=[0.2, np.nan, 0.4]).frame["mos"].isna().tolist() == [False, True, False]
    frame = table(mos=[np.nan] * 3).frame
    assert ImageTable("test", ROOT, frame, (math.nan, math.nan)).n_images == 3


def test_selecting_cuts_by_split_and_subset():
    made = table(
        image_id=list("abcde"),
        split=["training", "test", "test", "validation", ""],
        subset=["", "exclusive", "", "exclusive", ""],
    )
    assert made.select("test")["image_id"].tolist() == ["b", "c"]
    assert made.select("test", "exclusive")["image_id"].tolist() == ["b"]
    assert made.select(subset="exclusive")["image_id"].tolist() == ["b", "d"]
    assert made.select(split="")["image_id"].tolist() == ["e"]
    assert len(made.select()) == 5
    with pytest.raises(DatasetError, match=r"split must be one of .* got 'train'"):
        made.select("train")


def test_counts_agree_with_a_count_by_hand_and_keep_report_order():
    made = table(
        image_id=list("abcdef"),
        split=["test", "test", "training", "validation", "", "training"],
        subset=["exclusive", "", "", "exclusive", "", ""],
    )
    assert list(made.counts().items()) == [
        ("training", 2),
        ("validation", 1),
        ("validation/exclusive", 1),
        ("test", 2),
        ("test/exclusive", 1),
        ("no split", 1),
    ]


def test_images_without_a_group_are_groups_of_their_own():
    # The third image is called like the first one's group: they must stay apart all the same.
    made = table(image_id=["a", "b", "ann", "d"], group=["ann", "ann", "", ""])
    groups = made.fold_groups()
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert made.has_groups
    assert not table().has_groups


def test_rows_are_counted_from_zero_after_a_shuffle():
    shuffled = table().frame.sample(frac=1, random_state=3)
    assert ImageTable("test", ROOT, shuffled, (0.0, 1.0)).frame.index.tolist() == [0, 1, 2]


def test_an_empty_table_keeps_the_kinds_of_its_columns():
    made = ImageTable("test", ROOT, make_frame({"image_id": [], "path": [], "mos": []}), (0.0, 1.0))
    assert made.n_images == 0
    assert made.counts() == {}
    assert pd.api.types.is_float_dtype(made.frame["mos"])
