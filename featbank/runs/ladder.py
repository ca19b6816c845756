"""How a model's scores fall while photos get worse: noise, blur, JPEG and resampling, level by level, at several sizes.

A model that is to rank photos has to rank at least a photo's own damaged copies. No MOS is needed, no feature is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import joblib
import numpy as np
import pandas as pd

from featbank.datasets import ImageTable
from featbank.demo import camera
from featbank.digest import seed_from
from featbank.errors import ImageError, RunError
from featbank.images import Source, read_photo
from featbank.runs.score import Scorer

SIZES: Final = (512, 1600, 3840)
"""Long sides in pixels at which photos are looked at: a thumbnail, a screen, 4K."""

N_LEVELS: Final = 10
"""Of each distortion, beside the photo itself, which is level 0."""

COLUMNS: Final = ["image", "size", "distortion", "level", "strength", "predicted"]


@dataclass(frozen=True)
class Rungs:
    """A distortion: its strength at the first and the last level, geometric between them, and what applies it."""

    first: float
    last: float
    apply: Callable[[camera.Pixels, float, camera.Random], Source]

    def strengths(self) -> list[float]:
        """Return the strength of each level."""
        return [float(strength) for strength in np.geomspace(self.first, self.last, N_LEVELS)]


DISTORTIONS: Final = {
    "noise": Rungs(2.0, 50.0, camera.add_noise),
    "blur": Rungs(0.5, 6.0, lambda picture, sigma, rng: camera.blur(picture, sigma)),
    "jpeg": Rungs(80.0, 5.0, lambda picture, quality, rng: camera.encode_jpeg(picture, round(quality))),
    "resampling": Rungs(1.25, 8.0, lambda picture, factor, rng: camera.resample(picture, factor)),
}
"""Deviation of white noise in grey levels; that of a Gaussian in pixels; quality of the file; factor by which the
picture is reduced and enlarged again."""

_HEADER: Final = ",".join(COLUMNS)


def is_ladder(path: Path) -> bool:
    """Tell by its columns whether a file is a table that the command wrote."""
    with path.open("rb") as file:
        return file.readline(1000).decode("utf-8", errors="replace").strip() == _HEADER


def climb(
    scorer: Scorer,
    photos: ImageTable,
    sizes: Sequence[int] = SIZES,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], object] = lambda n_done, n: None,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Score every photo at every size, distortion and level.

    Parameters
    ----------
    scorer : Scorer
    photos : ImageTable
        As `featbank.datasets.read_photos` gives it.
    sizes : sequence of int
        Long sides in pixels. A photo is reduced to those that it has, and never enlarged.
    workers : int or None
        Threads; None takes one for each processor.
    progress : callable
        Receives how many photos are done, and of how many.

    Returns
    -------
    DataFrame
        ``image, size, distortion, level`` (0 is the photo itself, once for each distortion), ``strength`` (nan for
        level 0) and ``predicted``.
    dict of str to str
        Photos that were left out, with the reason.

    Raises
    ------
    RunError
        If no photo can be used.
    """
    listed = list(zip(photos.frame["image_id"], photos.frame["path"], strict=True))
    tasks = (joblib.delayed(_climb_photo)(scorer, image, path, sizes) for image, path in listed)
    found, left_out = [], {}
    done = joblib.Parallel(n_jobs=workers or joblib.cpu_count(), prefer="threads", return_as="generator")(
        tasks
    )
    for n_done, ((image, _), result) in enumerate(zip(listed, done, strict=True), 1):
        if isinstance(result, str):
            left_out[image] = result
        else:
            found += result
        progress(n_done, len(listed))
    if not found:
        image, reason = next(iter(left_out.items()))
        raise RunError(
            f"ladder: none of {len(listed):,} photos can be used, the first being {image}: {reason}."
        )
    return pd.DataFrame(found, columns=COLUMNS), left_out


def _climb_photo(scorer: Scorer, image: str, path: str, sizes: Sequence[int]) -> list[tuple[Any, ...]] | str:
    """Return the rows of one photo, or why it has none."""
    try:
        photo = read_photo(path)
    except ImageError as error:
        return f"{error.reason}: {error}"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    side = max(photo.pixels.shape[:2])
    rows = []
    for size in (size for size in sizes if size <= side):
        shape = [max(1, round(length * size / side)) for length in photo.pixels.shape[:2]]
        picture = cv2.resize(photo.pixels, shape[::-1], interpolation=cv2.INTER_AREA)
        whole = _score(scorer, [picture])[0]
        for name, rungs in DISTORTIONS.items():
            strengths = rungs.strengths()
            # One draw for all levels: stronger noise is the same noise, scaled.
            levels = (
                rungs.apply(picture, s, np.random.default_rng(seed_from(photo.digest, name)))
                for s in strengths
            )
            scores = [whole, *_score(scorer, levels)]
            rows += [
                (image, size, name, level, strength, score)
                for level, (strength, score) in enumerate(zip([np.nan, *strengths], scores, strict=True))
            ]
    if not rows:
        return f"its long side of {side:,} pixels is below {min(sizes):,}, and nothing is enlarged"
    if not np.isfinite([row[-1] for row in rows]).all():
        return "some of its copies have no score"
    return rows


def _score(scorer: Scorer, pictures: Any) -> list[float]:  # noqa: ANN401 - sources of photos
    return scorer.score(pictures)["predicted"].tolist()


def summarise_ladder(scores: pd.DataFrame) -> pd.DataFrame:
    """Count the steps that fall.

    Parameters
    ----------
    scores : DataFrame
        As `climb` gives it.

    Returns
    -------
    DataFrame
        A row for each distortion and size, then for each distortion at all sizes (``size`` 0) and for everything
        (``distortion`` ``all``): ``ladders`` (a photo at a size under a distortion), their ``steps`` from a level to
        the next, how many are ``falling``, their ``share``, ``strongest_lowest`` (share of ladders whose last level
        scores below every other), ``first``, ``middle`` and ``last`` (mean scores of levels 0, 5 and 10).
    """
    levels = scores.pivot_table(index=["distortion", "size", "image"], columns="level", values="predicted")
    values = levels.to_numpy()
    each = pd.DataFrame(
        {
            "ladders": 1,
            "steps": N_LEVELS,
            "falling": (np.diff(values, axis=1) < 0).sum(axis=1),
            "strongest_lowest": values[:, -1] < values[:, :-1].min(axis=1),
            "first": values[:, 0],
            "middle": values[:, N_LEVELS // 2],
            "last": values[:, -1],
        },
        index=levels.index,
    ).reset_index()
    parts = [each, each.assign(size=0), each.assign(size=0, distortion="all")]
    summed = dict.fromkeys(("ladders", "steps", "falling"), "sum")
    averaged = dict.fromkeys(("strongest_lowest", "first", "middle", "last"), "mean")
    tables = [part.groupby(["distortion", "size"], sort=False).agg(summed | averaged) for part in parts]
    result = pd.concat(tables).reset_index()
    result.insert(5, "share", result["falling"] / result["steps"])
    order = {name: place for place, name in enumerate([*DISTORTIONS, "all"])}
    result["place"] = result["distortion"].map(order)
    whole = result["size"] == 0
    result = result.assign(whole=whole).sort_values(["whole", "place", "size"], ignore_index=True)
    return result.drop(columns=["whole", "place"])
