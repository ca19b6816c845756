"""The permutation control: the whole fit on shuffled MOS, whose held-out score must be chance.

A leak inside the pipeline (columns chosen on all rows, one image on both sides of a fold) scores on shuffled MOS
too, where nothing can be learned; so this finds what no look at the data shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from regressors.checks import FloatArray, check_vector
from regressors.evaluation.metrics import srcc
from regressors.folds import Fold, check_folds

MAX_SIGMA: Final = 3.5
"""Standard errors above zero from which the control speaks of a leak: once in four thousand clean runs."""


@dataclass(frozen=True)
class PermutationControl:
    """Held-out scores of a fit on the true MOS and on shuffled ones.

    Attributes
    ----------
    score : float
        SRCC on the true MOS, the mean over folds.
    shuffled : float array of shape (n_permutations,)
        The same on each shuffle.
    standard_error : float
        Of the mean of ``shuffled`` where there is no leak.
    """

    score: float
    shuffled: FloatArray
    standard_error: float

    @property
    def mean(self) -> float:
        """Mean over the shuffles."""
        return float(self.shuffled.mean())

    @property
    def spread(self) -> float:
        """Standard deviation over the shuffles, 0 for a single one."""
        return float(self.shuffled.std(ddof=1)) if len(self.shuffled) > 1 else 0.0

    @property
    def is_leaking(self) -> bool:
        """Whether shuffled MOS are predicted better than chance allows."""
        return self.mean > MAX_SIGMA * self.standard_error

    @property
    def n_above(self) -> int:
        """Shuffles that score at least as high as the true MOS."""
        return int((self.shuffled >= self.score).sum())


def fold_srcc(y: ArrayLike, held_out: ArrayLike, folds: Sequence[Fold]) -> float:
    """Mean over folds of the SRCC between MOS and held-out predictions inside each fold.

    Predictions of different folds come from different fits, whose means differ against the held-out MOS: joined, they
    correlate negatively with shuffled MOS. Inside a fold they do not.

    Parameters
    ----------
    y : float array of shape (n_rows,)
        MOS.
    held_out : float array of shape (n_rows,)
        Prediction of each row by a fit without its fold; nan where no fold tests it.
    folds : sequence of (train, test)
        Row positions. Folds of fewer than 3 tested rows are passed over.

    Returns
    -------
    float in [-1, 1]
        A fold whose predictions are constant counts as 0: it ranks nothing.
    """
    mos, predicted = np.asarray(y, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    scores = [srcc(mos[test], predicted[test]) for _, test in folds if len(test) >= 3]
    return float(np.mean(np.nan_to_num(scores))) if scores else 0.0


def permutation_control(
    fit: Callable[[FloatArray], FloatArray],
    y: ArrayLike,
    folds: Sequence[Fold],
    *,
    held_out: ArrayLike | None = None,
    n_permutations: int = 5,
    random_state: int = 0,
) -> PermutationControl:
    """Run a fit on shuffled MOS and score its held-out predictions.

    Parameters
    ----------
    fit : callable
        Takes MOS of shape (n_rows,) and returns held-out predictions of the same shape: everything that the real fit
        does, on the same rows and folds.
    y : float array of shape (n_rows,)
        The true MOS.
    folds : sequence of (train, test)
        The folds of ``fit``.
    held_out : float array of shape (n_rows,), optional
        What ``fit(y)`` returned, if it is known already.
    n_permutations : int, default=5
        At least 1.
    random_state : int, default=0
        Seed of the shuffles.

    Returns
    -------
    PermutationControl

    Raises
    ------
    ValueError
        If ``y`` or the folds are not admissible, or there is no permutation.

    References
    ----------
    .. [1] M. Ojala and G. C. Garriga, "Permutation tests for studying classifier performance", Journal of
       Machine Learning Research 11, 2010, test 1.
    """
    who = "permutation_control"
    mos = check_vector(who, "y", y, min_rows=4)
    checked = check_folds(folds, len(mos), who=who)
    if n_permutations < 1:
        raise ValueError(f"{who}: n_permutations must be at least 1, got {n_permutations!r}.")
    rng = np.random.default_rng(random_state)
    known = fit(mos) if held_out is None else np.asarray(held_out, dtype=np.float64)
    shuffled = np.empty(n_permutations)
    for k in range(n_permutations):
        permuted = rng.permutation(mos)
        shuffled[k] = fold_srcc(permuted, fit(permuted), checked)
    # The variance of Spearman's coefficient of n unrelated pairs is 1 / (n - 1), exactly.
    sizes = np.array([len(test) for _, test in checked if len(test) >= 3])
    variance = (1 / (sizes - 1)).sum() / len(sizes) ** 2 if len(sizes) else 1.0
    return PermutationControl(
        score=fold_srcc(mos, known, checked),
        shuffled=shuffled,
        standard_error=float(np.sqrt(variance / n_permutations)),
    )
