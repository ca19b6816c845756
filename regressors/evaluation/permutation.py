"""The permutation control: the whole fit on shuffled MOS, whose held-out scores must be chance.

A fit in which held-out MOS reach the training side (columns chosen on all rows, folds that share rows) scores on
shuffled MOS too, where nothing can be learned. Two things must be kept apart there. What was *chosen* on the scored
folds, hyper-parameters and weights, scores a little above zero on clean data: the best of many chance scores. What was
not chosen does not: the held-out predictions of any one candidate depend on the MOS of the other folds alone, and given
these the MOS inside a fold are in random order, so that its rank correlation has mean 0 and variance 1 / (n - 1)
exactly [1]_, whatever features, groups, copies or ties there are. The mean over *all* candidates, none of them chosen,
has mean 0 as well, and is what the alarm judges. Two rows in different folds predict each other in two fits with much
the same weight, so the scores of the folds are dependent, which at most doubles the variance of their mean.

A column that knows the MOS, or copies of photos, lose their knowledge in the shuffle: `regressors.evaluation.leakage`
finds these.

References
----------
.. [1] E. J. G. Pitman, "Significance tests which may be applied to samples from any populations, II. The correlation
   coefficient test", Supplement to the Journal of the Royal Statistical Society 4, 1937.
.. [2] G. C. Cawley and N. L. C. Talbot, "On over-fitting in model selection and subsequent selection bias in
   performance evaluation", Journal of Machine Learning Research 11, 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from regressors.checks import FloatArray, IntArray, check_vector
from regressors.evaluation.metrics import srcc
from regressors.folds import Fold, check_folds

MAX_SIGMA: Final = 4.0
"""Standard errors above zero from which the control speaks of a leak: by the normal law once in 30,000 clean runs, and
at most once in 1,000 by the simulation of `experiments.benchmarks.trust`, on small sets and heavy ties too."""

_MAX_DRAWS = 200


@dataclass(frozen=True)
class PermutationControl:
    """Held-out scores of a fit on the true MOS and on shuffled ones.

    Attributes
    ----------
    score : float
        SRCC of the fit's held-out predictions on the true MOS, the mean over folds.
    shuffled : float array of shape (n_permutations,)
        The same on each shuffle: a little above zero by what was chosen on these folds.
    unchosen : float array of shape (n_permutations,)
        Mean score of all candidates on each shuffle, which has mean 0 where there is no leak.
    standard_error : float
        Of the mean of ``unchosen`` where there is no leak.
    """

    score: float
    shuffled: FloatArray
    unchosen: FloatArray
    standard_error: float

    @property
    def mean(self) -> float:
        """Mean of ``shuffled``."""
        return float(self.shuffled.mean())

    @property
    def spread(self) -> float:
        """Standard deviation of ``shuffled``, 0 for a single one."""
        return float(self.shuffled.std(ddof=1)) if len(self.shuffled) > 1 else 0.0

    @property
    def limit(self) -> float:
        """What the mean of ``unchosen`` stays below on clean data."""
        return MAX_SIGMA * self.standard_error

    @property
    def is_leaking(self) -> bool:
        """Whether shuffled MOS are predicted better than chance allows."""
        return float(self.unchosen.mean()) > self.limit

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
    fit: Callable[[FloatArray], tuple[ArrayLike, ArrayLike]],
    y: ArrayLike,
    folds: Sequence[Fold],
    *,
    held_out: ArrayLike | None = None,
    n_permutations: int = 5,
    random_state: int = 0,
) -> PermutationControl | None:
    """Run a fit on shuffled MOS and score its held-out predictions.

    Parameters
    ----------
    fit : callable
        Takes MOS of shape (n_rows,) and does everything that the real fit does, on the same rows and folds. Returns
        held-out predictions of shape (n_rows,), and the correlation with MOS in each fold of every candidate that the
        fit chooses from, shape (n_candidates, n_folds).
    y : float array of shape (n_rows,)
        The true MOS.
    folds : sequence of (train, test)
        The folds of ``fit``.
    held_out : float array of shape (n_rows,), optional
        The predictions of ``fit(y)``, if they are known already.
    n_permutations : int, default=5
        At least 1.
    random_state : int, default=0
        Seed of the shuffles. One that leaves all MOS of a fold equal is drawn again, which favours no order inside a
        fold.

    Returns
    -------
    PermutationControl or None
        None where the MOS have so few different values that some fold holds equal ones alone in each shuffle.

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
    known = fit(mos)[0] if held_out is None else held_out
    shuffled, unchosen = np.empty(n_permutations), np.empty(n_permutations)
    for k in range(n_permutations):
        permuted = _shuffle(rng, mos, [test for _, test in checked])
        if permuted is None:
            return None
        predicted, scores = fit(permuted)
        shuffled[k] = fold_srcc(permuted, predicted, checked)
        unchosen[k] = np.nan_to_num(np.asarray(scores, dtype=np.float64)).mean()
    sizes = np.array([max(len(test), 2) for _, test in checked])
    variance = min(2, len(sizes)) * (1 / (sizes - 1)).sum() / len(sizes) ** 2
    return PermutationControl(
        fold_srcc(mos, known, checked), shuffled, unchosen, float(np.sqrt(variance / n_permutations))
    )


def _shuffle(rng: np.random.Generator, mos: FloatArray, tests: Sequence[IntArray]) -> FloatArray | None:
    """Shuffle MOS so that no fold holds equal ones alone, on which nothing can be ranked."""
    for _ in range(_MAX_DRAWS):
        permuted = rng.permutation(mos)
        if all(np.ptp(permuted[test]) > 0 for test in tests):
            return permuted
    return None
