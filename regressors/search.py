"""A grid search with scikit-learn's interface and numbers that shares the work of its candidates."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgWarning
from sklearn.model_selection import GridSearchCV
from sklearn.utils import get_tags

from regressors.checks import Estimator, Folds, Scorer, Table
from regressors.fitting import fit_search, search_context
from regressors.shared.candidates import Candidate
from regressors.shared.elsewhere import here
from regressors.shared.estimator import SharedFits, make_shared_estimator, quick_rows
from regressors.shared.fits import DOUBTFUL, Answers, answer_candidates
from regressors.shared.plan import SearchPlan, make_plan


class PrecisionWarning(LinAlgWarning):
    """Some candidates of a search depend on rounding errors: no other computation will give the same digits."""


class BandGridSearchCV(GridSearchCV):
    """`GridSearchCV` with the same numbers, many times faster on pipelines of bands.

    The shared computation takes ``Pipeline([SelectBands, scaler, regressor])``, the scaler a StandardScaler,
    MinMaxScaler or BandScaler and the regressor a Ridge, KernelRidge, SVR or UnitSVR with a linear or RBF kernel; the
    grid may vary bands, band weights, penalties and the kernel's width. In each fold the kernels of the bands (or one
    Gram matrix, when there are fewer columns than rows) are computed once, summed over each subset of bands, and
    reduced once for all values of alpha; support-vector regressors get their kernels precomputed, and with numba
    installed a solver that takes libsvm's steps several times as fast. Everything else is scikit-learn's: its own
    search runs over estimators that look their predictions up, so that scores, ranks, failures and warnings are its
    own, and the best candidate is a pipeline fitted on all rows like any other.

    Any other pipeline, grid, scorer or table is searched by plain `GridSearchCV`; ``fast_path_`` says why.

    Parameters
    ----------
    estimator : Pipeline
        As above; any other estimator is searched by plain `GridSearchCV`.
    param_grid : dict or list of dict
        As in `GridSearchCV`. Candidates that are not admissible are fitted by scikit-learn and fail there.
    scoring : str, scorer, list, tuple or dict, default=None
        As in `GridSearchCV`. A plain function may look at more than predictions, so it takes the plain search: wrap
        it by `sklearn.metrics.make_scorer`.
    n_jobs : int or None, default=None
        Matrices at once, in threads of one BLAS thread each; in the plain search fits at once, in processes. Where a
        joblib backend that reaches beyond this machine is active, its workers compute the folds.
    refit : bool, str or callable, default=True
        As in `GridSearchCV`.
    cv : int, splitter or iterable, default=None
        As in `GridSearchCV`.
    verbose : int, default=0
        As in `GridSearchCV`.
    pre_dispatch : int or str, default="2*n_jobs"
        As in `GridSearchCV`; of the plain search only.
    error_score : "raise" or float, default=nan
        As in `GridSearchCV`.
    return_train_score : bool, default=False
        As in `GridSearchCV`; True takes the plain search.
    memory_limit_gb : float or None, default=None
        Gigabytes (1e9 bytes) that the shared computation may hold besides the table. To keep to it, folds wait for
        each other and fewer matrices are in work at once; None sets no limit. Not for the refit; but kernels of all
        rows, from which the best UnitSVR is fitted otherwise, are not made then.

    Attributes
    ----------
    fast_path_ : str
        "shared: ..." with what was shared, or "plain: ..." with the reason.
    oof_predictions_ : float64 array of shape (n_rows,)
        Held-out predictions of the best candidate, the mean where several folds test a row, nan where none
        does. Only after the shared computation, and when there is a best candidate.
    best_estimator_, best_params_, best_index_, best_score_, cv_results_, scorer_, n_splits_, refit_time_, multimetric_
        As in `GridSearchCV`. Fit times are those of the shared computation, split evenly.

    Warns
    -----
    PrecisionWarning
        If a random perturbation of the size of rounding errors moves the predictions of a candidate by more
        than 1e-9 of the range of MOS; for example at tiny penalties when rows repeat with different MOS.

    Notes
    -----
    Scores and predictions agree with scikit-learn's to 1e-8 relative except where that warning is due. Tables of
    float16 and float32 are cast to float64 first, as `SelectBands` does.

    Examples
    --------
    >>> import numpy as np
    >>> from regressors.pipelines import make_pipeline
    >>> from regressors.search import BandGridSearchCV
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> search = BandGridSearchCV(make_pipeline("ridge"), {"regress__alpha": [0.1, 10.0]}).fit(X, X[:, 0])
    >>> search.best_params_, search.fast_path_.split(":")[0]
    ({'regress__alpha': 0.1}, 'shared')
    """

    def __init__(
        self,
        estimator: Estimator,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        scoring: Scorer | None = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Folds = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: float | str = np.nan,
        return_train_score: bool = False,
        memory_limit_gb: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.memory_limit_gb = memory_limit_gb

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's own, untyped
        tags = super().__sklearn_tags__()
        # The search takes several targets exactly when its estimator does; scikit-learn's own does not say so.
        tags.target_tags = deepcopy(get_tags(self.estimator).target_tags)
        return tags

    def fit(self, X: Table, y: ArrayLike | None = None, **params: object) -> BandGridSearchCV:
        """Search the grid and refit the best candidate.

        Parameters
        ----------
        X : data frame or float array of shape (n_rows, n_features)
            Feature table.
        y : float array of shape (n_rows,)
            MOS.
        **params : dict of str to object
            Metadata such as ``groups`` and sample weights, as in `GridSearchCV`.

        Returns
        -------
        BandGridSearchCV
            Itself.
        """
        plan = make_plan(self, X, y, params)
        answers = None if isinstance(plan, str) else _answer([plan], self)
        return self._fit_plan(X, y, params, plan, answers)

    def _fit_plan(
        self,
        X: Table,
        y: ArrayLike | None,
        params: Mapping[str, Any],
        plan: SearchPlan | str,
        answers: Answers | None,
    ) -> BandGridSearchCV:
        for name in ("oof_predictions_", "fast_path_"):
            self.__dict__.pop(name, None)
        if isinstance(plan, str) or answers is None:
            super().fit(X, y, **params)
            self.fast_path_ = f"plain: {plan}"
            return self
        shared = SharedFits(X, y, plan, answers, has_room=self.memory_limit_gb is None)
        inner = GridSearchCV(
            make_shared_estimator(shared),
            self.param_grid,
            scoring=self.scoring,
            refit=self.refit,
            cv=plan.folds,
            verbose=self.verbose,
            error_score=self.error_score,
        )
        # What is left is looked up, or fitted on all rows.
        with closing(shared), here():
            if self.refit and self.memory_limit_gb is None:
                shared.prepare_refit(self.n_jobs)
            self._search_shared(inner, shared, plan, y, answers.seconds)
        _warn_of_doubt(plan, answers)
        self.fast_path_ = plan.describe(answers)
        return self

    def _search_shared(
        self, inner: GridSearchCV, shared: SharedFits, plan: SearchPlan, y: ArrayLike | None, seconds: float
    ) -> None:
        """Run scikit-learn's search over the shared answers, and take what it found."""
        rows = quick_rows(np.arange(len(plan.table.y))[:, None])
        inner.fit(rows, quick_rows(y) if type(y) is np.ndarray else y, **plan.score_params)
        n_fits = len(plan.candidates) * len(plan.folds)
        inner.cv_results_["mean_fit_time"] += seconds / n_fits
        for name in ("cv_results_", "scorer_", "multimetric_", "n_splits_"):
            setattr(self, name, getattr(inner, name))
        for name in ("best_index_", "best_score_", "best_params_", "refit_time_"):
            self.__dict__.pop(name, None)
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))
        if self.refit:
            start = time.perf_counter()
            self.best_estimator_ = inner.best_estimator_.pipeline(self.n_jobs)
            self.refit_time_ += time.perf_counter() - start
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        if hasattr(self, "best_index_"):
            self.oof_predictions_ = shared.held_out(self.best_params_)


def fit_searches(
    searches: Sequence[Estimator], X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> list[Estimator]:
    """Fit several searches on one table, sharing the work among them where they can.

    Parameters
    ----------
    searches : sequence of GridSearchCV
        From `regressors.pipelines.make_search`; fitted in place.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    list of GridSearchCV
        ``searches``, each as `regressors.fitting.fit_search` leaves it.
    """
    if not all(isinstance(search, BandGridSearchCV) for search in searches):
        return [fit_search(search, X, y, sample_weight) for search in searches]
    ours = cast(Sequence[BandGridSearchCV], searches)
    with ExitStack() as stack:
        params: dict[str, Any] = {}
        for search in ours:
            params = stack.enter_context(search_context(search, sample_weight))
        plans: list[SearchPlan | str] = []
        for search in ours:
            known = next((plan for plan in plans if isinstance(plan, SearchPlan)), None)
            plans.append(make_plan(search, X, y, params, known=known))
        able = [plan for plan in plans if isinstance(plan, SearchPlan)]
        together = all(plan.table is able[0].table for plan in able)
        answers = _answer(able, ours[0]) if able and together else None
        for search, plan in zip(ours, plans, strict=True):
            own = answers
            if answers is None and isinstance(plan, SearchPlan):
                own = _answer([plan], search)
            search._fit_plan(X, y, params, plan, own)
    return list(searches)


def _answer(plans: Sequence[SearchPlan], search: BandGridSearchCV) -> Answers:
    candidates = [c for plan in plans for c in plan.candidates if c is not None]
    start = time.perf_counter()
    answers = answer_candidates(
        plans[0].table, candidates, n_jobs=search.n_jobs, memory_limit_gb=search.memory_limit_gb
    )
    answers.seconds = (time.perf_counter() - start) / len(plans)
    return answers


def _warn_of_doubt(plan: SearchPlan, answers: Answers) -> None:
    warn_of_doubt({c: answers.doubt.get(c, 0.0) for c in plan.candidates if c is not None}, stacklevel=4)


def warn_of_doubt(doubts: Mapping[Candidate, float], *, stacklevel: int = 3) -> None:
    """Warn of candidates that depend on rounding errors.

    Parameters
    ----------
    doubts : mapping of Candidate to float
        Effect of rounding on the predictions of each, in ranges of MOS.
    stacklevel : int, default=3
        As of `warnings.warn`.
    """
    doubtful = [candidate for candidate, doubt in doubts.items() if doubt > DOUBTFUL]
    if doubtful:
        largest = max(candidate.values[0] for candidate in doubtful)
        warnings.warn(
            f"BandGridSearchCV: {len(doubtful)} of {len(doubts)} candidates depend on rounding errors: perturbing the "
            f"last bits moves their predictions by up to {max(doubts.values()):.0e} of the range of MOS. "
            f"No two computations agree to 1e-8 there. Leave out the penalties up to {largest:g}, or "
            "look for rows that repeat with different MOS.",
            PrecisionWarning,
            stacklevel=stacklevel,
        )
