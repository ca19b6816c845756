import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.student.judge import falling_pairs, score_levels
from featbank.cli import main
from tests.support.small_demo import small_demo
from tests.support.textures import scene

RECIPE = """\
recipe_version = 1
title = "One band"

[[band]]
name = "quality"
encoder = "classic:nss"
view = "native"

[regression]
members = "all"
estimator = "ridge"
alpha = [1.0, 100.0]
cv = { kind = "grouped", n_splits = 3, shuffle = true, random_state = 0 }
"""


def test_falling_pairs_are_counted_by_kind_and_in_all():
    scores = pd.DataFrame(
        {
            "photo": ["a"] * 3 + ["b"] * 3 + ["a"] * 3,
            "kind": ["blur"] * 6 + ["noise"] * 3,
            "level": [1, 2, 3, 3, 2, 1, 1, 2, 3],
            "predicted": [3.0, 2.0, 1.0, 1.0, 2.0, 2.0, 1.0, 2.0, np.nan],
        }
    )
    table = falling_pairs(scores).set_index("kind")
    assert table.loc["blur", ["n", "falling"]].tolist() == [4, 3]
    assert table.loc["noise", ["n", "falling"]].tolist() == [2, 0]
    assert table.loc["all", "share"] == pytest.approx(0.5)


@pytest.mark.slow
def test_a_run_scores_what_gets_worse_lower(tmp_path):
    small_demo(tmp_path / "demo", n_photos=40)
    (tmp_path / "one.toml").write_text(RECIPE)
    place = [str(tmp_path / "demo"), "--recipe", str(tmp_path / "one.toml"), "--bank", str(tmp_path / "bank")]
    assert main(["features", *place]) == 0
    assert main(["fit", *place, "--out", str(tmp_path / "run")]) == 0
    photos = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(photos):
        Image.fromarray(scene(200, 300, seed=seed)).save(path)
    scores = score_levels(tmp_path / "run", photos, kinds=("gaussian_blur", "white_noise"), folder=tmp_path)
    assert len(scores) == 3 * 2 * 5
    assert np.isfinite(scores["predicted"]).all()
    again = score_levels(tmp_path / "run", photos, kinds=("gaussian_blur", "white_noise"), folder=tmp_path)
    pd.testing.assert_frame_equal(scores, again)
    assert falling_pairs(scores).set_index("kind").loc["all", "share"] > 0.6
