import numpy as np
import pytest

from featbank.datasets import read_dataset
from featbank.errors import DatasetError
from tests.support.datasets import touch, write_csv

HEADER = ["dist_img", "ref_img", "dmos", "var"]


def rows(means=(4.4, 4.2, 3.9, 2.2, 1.4), n_refs=3, n_kinds=5):
    """Scores that fall with the level, as in the release."""
    return [
        [f"I{ref:02d}_{kind:02d}_{level:02d}.png", f"I{ref:02d}.png", means[level - 1] + 0.01 * kind, 0.5]
        for ref in range(1, n_refs + 1)
        for kind in range(1, n_kinds + 1)
        for level in range(1, 6)
    ]


def test_dmos_is_taken_as_it_is_because_higher_is_better(tmp_path):
    write_csv(tmp_path / "dmos.csv", HEADER, rows())
    touch(tmp_path / "images/I01_01_01.png")
    table = read_dataset(tmp_path)
    assert table.name == "kadid-10k"
    assert table.mos_range == (1.0, 5.0)
    levels = table.frame["image_id"].str[-6:-4].astype(int).to_numpy()
    mos = table.frame["mos"].to_numpy()
    assert np.corrcoef(levels, mos)[0, 1] < -0.9, "stronger distortion, lower MOS"
    assert mos[0] == 4.41
    assert any("'dmos' is taken as MOS" in note for note in table.notes)


def test_the_group_is_the_reference(tmp_path):
    write_csv(tmp_path / "dmos.csv", HEADER, rows())
    table = read_dataset(tmp_path)
    assert table.frame["group"].value_counts().to_dict() == {"I01": 25, "I02": 25, "I03": 25}
    assert table.counts() == {"no split": 75}


def test_a_turned_copy_is_refused(tmp_path):
    turned = [[name, ref, 6 - mos, var] for name, ref, mos, var in rows()]
    write_csv(tmp_path / "dmos.csv", HEADER, turned)
    with pytest.raises(DatasetError, match=r"seems to be turned.*wrong sign"):
        read_dataset(tmp_path)


def test_a_few_rows_do_not_decide_the_direction(tmp_path):
    write_csv(
        tmp_path / "dmos.csv",
        HEADER,
        [["I01_01_01.png", "I01.png", 2, 1], ["I01_01_05.png", "I01.png", 3, 1]],
    )
    assert read_dataset(tmp_path).n_images == 2


def test_normalised_scores_of_another_copy_are_refused(tmp_path):
    scaled = [[name, ref, (mos - 1) / 4, var] for name, ref, mos, var in rows()]
    write_csv(tmp_path / "dmos.csv", HEADER, scaled)
    with pytest.raises(DatasetError, match="on the scale 1 to 5"):
        read_dataset(tmp_path)
