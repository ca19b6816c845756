"""Simulated raters: from the measured fidelity of a photo to opinion scores.

Ten raters judge every photo in two sessions on a slider from 0 to 100, as in the UHD-IQA study. All see the
same quality, a fixed increasing map of :func:`featbank.demo.measure.fidelity`; each adds a bias, a gain, a
taste for or against the single photo that lasts over both sessions, and noise of the session.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from featbank.digest import seed_from

N_RATERS = 10
N_SESSIONS = 2

WORST, BEST, SLOPE, CENTRE = 0.18, 0.95, 4.5, 0.7
"""The map from fidelity to quality; it puts flawless photos at about 0.8 and hopeless ones at about 0.25."""

_BIAS, _GAIN, _TASTE, _NOISE = 0.05, 0.15, 0.04, 0.06


@dataclass(frozen=True)
class Rater:
    """One simulated rater.

    Parameters
    ----------
    bias : float
        Constant offset on the quality scale.
    gain : float
        Factor on the distance from middling quality.
    """

    bias: float
    gain: float


def to_quality(fidelity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map fidelity to quality by a logistic function.

    Parameters
    ----------
    fidelity : float64 array of any shape, in [0, 1]

    Returns
    -------
    float64 array of the same shape
        Strictly increasing in the fidelity, between 0.18 and 0.95.
    """
    return WORST + (BEST - WORST) / (1.0 + np.exp(-SLOPE * (np.asarray(fidelity, dtype=np.float64) - CENTRE)))


def make_raters(seed: int) -> list[Rater]:
    """Draw the ten raters of a set."""
    rng = np.random.default_rng(seed_from("raters", str(seed)))
    return [
        Rater(float(rng.normal(0.0, _BIAS)), float(np.exp(rng.normal(0.0, _GAIN)))) for _ in range(N_RATERS)
    ]


def rate(fidelity: NDArray[np.float64], names: list[str], seed: int) -> NDArray[np.int64]:
    """Let all raters judge all photos in both sessions.

    Parameters
    ----------
    fidelity : float64 array of shape (n_photos,)
    names : list of str
        File names; a rater's taste and noise depend on the name and the seed, not on the order.
    seed : int

    Returns
    -------
    int64 array of shape (n_photos, 2, 10) in [0, 100]
        Slider positions by photo, session and rater.
    """
    raters = make_raters(seed)
    bias = np.array([r.bias for r in raters])
    gain = np.array([r.gain for r in raters])
    quality = to_quality(fidelity)
    out = np.empty((len(names), N_SESSIONS, N_RATERS), dtype=np.int64)
    for row, name in enumerate(names):
        rng = np.random.default_rng(seed_from("rating", str(seed), name))
        taste = rng.normal(0.0, _TASTE, N_RATERS)
        noise = rng.normal(0.0, _NOISE, (N_SESSIONS, N_RATERS))
        opinion = 0.6 + gain * (quality[row] - 0.6) + bias + taste + noise
        out[row] = np.clip(np.rint(100.0 * opinion), 0, 100).astype(np.int64)
    return out


def mean_opinion(ratings: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the twenty ratings of each photo to a MOS in [0, 1] in steps of 0.0005, as in the release."""
    return np.round(ratings.reshape(len(ratings), -1).mean(axis=1) / 100.0, 4)


def agreement(ratings: NDArray[np.int64], fidelity: NDArray[np.float64]) -> dict[str, float]:
    """Describe how well raters agree: what no predictor can be expected to exceed.

    Parameters
    ----------
    ratings : int64 array of shape (n_photos, 2, 10)
    fidelity : float64 array of shape (n_photos,)

    Returns
    -------
    dict
        SRCC of the two halves of the raters, of the two sessions, of a single rater with the other nine
        (mean over raters), and of the MOS with the fidelity behind it.
    """

    def srcc(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return round(float(scipy.stats.spearmanr(a, b).statistic), 4)

    by_rater = ratings.mean(axis=1)
    by_session = ratings.mean(axis=2)
    singles = [srcc(by_rater[:, k], np.delete(by_rater, k, axis=1).mean(axis=1)) for k in range(N_RATERS)]
    half = N_RATERS // 2
    return {
        "srcc_half_raters": srcc(by_rater[:, :half].mean(axis=1), by_rater[:, half:].mean(axis=1)),
        "srcc_sessions": srcc(by_session[:, 0], by_session[:, 1]),
        "srcc_one_rater_with_others": round(float(np.mean(singles)), 4),
        "srcc_mos_with_fidelity": srcc(mean_opinion(ratings), np.asarray(fidelity)),
    }
