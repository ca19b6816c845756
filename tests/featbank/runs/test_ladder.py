"""Ladders: steps are counted as they fall, photos are never enlarged."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from featbank.datasets import read_photos
from featbank.errors import RunError
from featbank.images import read_photo
from featbank.runs.ladder import DISTORTIONS, N_LEVELS, climb, summarise_ladder
from featbank.runs.score import Scorer
from tests.support.datasets import write_image


class _Sharpness:
    """Scores by the mean difference of neighbouring pixels: falls with blur, rises with noise."""

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def score(self, images: object) -> pd.DataFrame:
        pixels = [read_photo(image).pixels.astype(float) for image in images]  # type: ignore[attr-defined]
        self.shapes |= {part.shape for part in pixels}
        return pd.DataFrame({"predicted": [np.abs(np.diff(part, axis=1)).mean() for part in pixels]})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, size in enumerate([(96, 64), (48, 40), (20, 20)]):
        write_image(tmp_path / f"photos/{number}.png", seed=number, size=size)
    return tmp_path / "photos"


def test_steps_are_counted_where_photos_have_the_size(photos: Path) -> None:
    scorer = _Sharpness()
    scores, left_out = climb(cast(Scorer, scorer), read_photos([str(photos)]), (24, 96), workers=1)
    assert list(left_out) == ["2.png"]
    assert "nothing is enlarged" in left_out["2.png"]
    assert max(max(shape) for shape in scorer.shapes) == 96
    assert len(scores) == 3 * len(DISTORTIONS) * (N_LEVELS + 1)
    rows = summarise_ladder(scores).set_index(["distortion", "size"])
    assert rows.loc[("blur", 24), "ladders"] == 2
    assert rows.loc[("blur", 96), "ladders"] == 1
    assert rows.loc[("blur", 0), ["share", "strongest_lowest"]].tolist() == [1, 1]
    assert rows.loc[("noise", 0), "strongest_lowest"] == 0  # this scorer takes noise for sharpness
    assert rows.loc[("all", 0), "steps"] == 3 * len(DISTORTIONS) * N_LEVELS
    by_hand = scores.sort_values("level").groupby(["image", "size", "distortion"])["predicted"]
    assert rows.loc[("all", 0), "falling"] == sum(int((np.diff(part) < 0).sum()) for _, part in by_hand)
    assert rows.index[-1] == ("all", 0)


def test_no_photo_of_a_size_is_an_error_that_says_so(photos: Path) -> None:
    with pytest.raises(RunError, match=r"none of 3 photos can be used.*below 512"):
        climb(cast(Scorer, SimpleNamespace()), read_photos([str(photos)]), workers=1)
