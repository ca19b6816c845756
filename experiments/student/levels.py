"""Asks of a fitted run what anyone would try first: its score should fall, level by level, as a photo gets worse."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from experiments.student.distortions import N_LEVELS, distort
from featbank.bank import Bank
from featbank.digest import seed_from
from featbank.images import read_photo
from featbank.runs.score import score_paths

KINDS: Final = ("gaussian_blur", "white_noise", "jpeg", "resampled")


def score_levels(
    run: Path,
    photographs: Sequence[Path],
    *,
    kinds: Sequence[str] = KINDS,
    workers: int = 1,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Score photographs distorted at levels 1 to 5.

    Parameters
    ----------
    run : Path
        Fitted run, or its model.
    photographs : sequence of Path
    kinds : sequence of str
        Of `experiments.student.distortions.DISTORTIONS`.
    workers : int
        Processes.
    folder : Path or None
        Where the distorted photographs and their features lie meanwhile, tens of megabytes for each photograph;
        None takes the system's temporary folder.

    Returns
    -------
    DataFrame
        ``photo, kind, level, predicted``.

    Raises
    ------
    ImageError
        If a photograph cannot be read.
    RunError
        If the run cannot score.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        pictures = Path(name) / "pictures"
        pictures.mkdir()
        cases = [(p, kind) for p in photographs for kind in kinds]
        Parallel(n_jobs=workers)(delayed(_write_levels)(p, kind, pictures) for p, kind in cases)
        scores = score_paths(run, [str(pictures)], Bank(Path(name) / "bank"), workers=workers)
    predicted = scores.set_index("image")["predicted"]
    return pd.DataFrame(
        [
            {"photo": p.name, "kind": kind, "level": level, "predicted": predicted[_name(p, kind, level)]}
            for p, kind in cases
            for level in range(1, N_LEVELS + 1)
        ]
    )


def falling_pairs(scores: pd.DataFrame) -> pd.DataFrame:
    """Count the adjacent levels at which the score falls.

    Parameters
    ----------
    scores : DataFrame
        See `score_levels`.

    Returns
    -------
    DataFrame
        ``kind, n`` (pairs of adjacent levels), ``falling``, ``share``; the last row, ``all``, takes all kinds.
    """
    counts = []
    for kind, rows in scores.groupby("kind", sort=False):
        falls = [
            bool(after < before)
            for _, photo in rows.sort_values("level").groupby("photo")
            for before, after in pairwise(photo["predicted"])
        ]
        counts.append({"kind": kind, "n": len(falls), "falling": int(np.sum(falls))})
    table = pd.DataFrame(counts)
    table.loc[len(table)] = ["all", table["n"].sum(), table["falling"].sum()]
    return table.assign(share=table["falling"] / table["n"])


def _name(photograph: Path, kind: str, level: int) -> str:
    return f"{photograph.stem}-{kind}-{level}.png"


def _write_levels(photograph: Path, kind: str, folder: Path) -> None:
    pixels = read_photo(photograph).pixels
    for level in range(1, N_LEVELS + 1):
        # The same draw at every level, so that only the strength differs.
        rng = np.random.default_rng(seed_from("levels", photograph.name, kind))
        spoilt = Image.fromarray(distort(pixels, kind, level, rng))
        spoilt.save(folder / _name(photograph, kind, level), compress_level=1)
