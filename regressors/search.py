"""A grid search with scikit-learn's interface and numbers that shares the work of its candidates."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgWarning
from scipy.stats import rankdata
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from regressors.bands import BandScaler, BlockTable, take_rows
from regressors.checks import Estimator, FloatArray, Table
from regressors.evaluation.metrics import scores_of_rows
from regressors.folds import Fold
from regressors.plan import SearchPlan, make_plan
from regressors.solvers.answers import BlockAnswers, Candidate, MemoryAnswers, RidgeFit
from regressors.solvers.resources import blas_threads, keep_local, local_jobs


def fit_search(
    search: Estimator, X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Estimator:
    """Fit a search, with sample weights in every fit and in every score.

    Parameters
    ----------
    search : GridSearchCV
        From `make_search`; fitted in place. Any other search must take ``sample_weight`` in its own `fit`.
    X : data frame or float array of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for. The mean score over folds is not weighted, as in scikit-learn.

    Returns
    -------
    GridSearchCV
        ``search``. Ill-conditioned candidates are no reason to warn: they earn their score like any other.

    Raises
    ------
    ValueError
        If weights are given and the scorer cannot take them.
    """
    if isinstance(search, BandGridSearchCV):
        return fit_searches([search], X, y, sample_weight)[0]
    if not isinstance(search, GridSearchCV):
        return search.fit(X, y, sample_weight=sample_weight)
    with _weighing(search, sample_weight) as params, warnings.catch_warnings():
        warnings.simplefilter("ignore", category=LinAlgWarning)
        return search.fit(X, y, **params)


@contextmanager
def _weighing(search: GridSearchCV, weights: ArrayLike | None) -> Iterator[dict[str, Any]]:
    """Ask for weights in each step and in the scorer, for the time of one fit; yield what `fit` takes besides."""
    if weights is None:
        yield {}
        return
    _check_scorer(search)
    with config_context(enable_metadata_routing=True):
        for step in (step for _, step in search.estimator.steps if _takes_weights(step)):
            step.set_fit_request(sample_weight=True)
        search.scoring.set_score_request(sample_weight=True)
        try:
            yield {"sample_weight": np.asarray(weights, dtype=np.float64)}
        finally:
            # A request is an instance attribute that refers back to its owner's class; model files cannot hold it,
            # and a fitted member has no more use for it.
            for pipeline in (search.estimator, getattr(search, "best_estimator_", search.estimator)):
                for _, step in pipeline.steps:
                    vars(step).pop("_metadata_request", None)


def _check_scorer(search: GridSearchCV) -> None:
    if not hasattr(search.scoring, "set_score_request"):
        raise ValueError(
            f"fit_search: with sample_weight the scorer must take weights, got {search.scoring!r}. "
            "Use one of SCORERS, or a scorer made by sklearn.metrics.make_scorer."
        )


def fit_pipeline(
    pipeline: Pipeline, X: Table, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Pipeline:
    """Fit one pipeline of `make_pipeline` on ``X`` and ``y``, with ``sample_weight`` in each step that takes it."""
    parameters = {}
    if sample_weight is not None:
        parameters = {
            f"{name}__sample_weight": sample_weight for name, step in pipeline.steps if _takes_weights(step)
        }
    with config_context(enable_metadata_routing=False):
        return pipeline.fit(X, y, **parameters)


def predict_held_out(
    estimator: Pipeline, X: Table, y: ArrayLike, folds: Sequence[Fold], sample_weight: ArrayLike | None = None
) -> FloatArray:
    """Predict each row from the folds in which it is held out, by clones of the pipeline ``estimator``.

    ``X`` and ``y`` are table and MOS, ``folds`` pairs of row positions, ``sample_weight`` says how many rows each row
    counts for. Returns means over the folds that test a row; nan for a row that no fold tests.
    """
    mos = np.asarray(y, dtype=np.float64)
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    total, n_tested = np.zeros(len(mos)), np.zeros(len(mos))
    for train, test in folds:
        fitted = fit_pipeline(
            clone(estimator), take_rows(X, train), mos[train], None if weights is None else weights[train]
        )
        total[test] += fitted.predict(take_rows(X, test))
        n_tested[test] += 1
    return np.divide(total, n_tested, out=np.full(len(mos), np.nan), where=n_tested > 0)


def _takes_weights(step: Estimator) -> bool:
    return bool(has_fit_parameter(step, "sample_weight"))


DOUBTFUL = 1e-9
"""Effect of rounding on predictions, in ranges of MOS, from which on no digits are promised.

A random draw of rounding errors moves predictions by less than the worst one does."""

# Predictions that are worth a thread of their own to be scored.
_MANY_ROWS = 20_000


class PrecisionWarning(LinAlgWarning):
    """Some candidates of a search depend on rounding errors: no other computation will give the same digits."""


class BandGridSearchCV(GridSearchCV):
    """`GridSearchCV` with the same numbers, many times faster on pipelines of bands.

    The shared computation takes ``Pipeline([SelectBands, scaler, regressor])``, the scaler a StandardScaler,
    MinMaxScaler, RobustScaler or BandScaler and the regressor a Ridge, SVR or UnitSVR with a linear or RBF kernel;
    the grid may vary bands, band weights, penalties and the kernel's width. In each fold the kernels of the bands
    (or one Gram matrix, when there are fewer columns than rows) are computed once, summed over each subset of
    bands, and reduced once for all values of alpha; support-vector regressors get their kernels precomputed. Any
    other pipeline, grid, scorer or table is searched by plain `GridSearchCV`; ``fast_path_`` says why.

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in `GridSearchCV`. Several scorers, a rule as ``refit``, and a plain function as scorer take the plain
        search: wrap it by `sklearn.metrics.make_scorer`.
    n_jobs : int or None, default=None
        Matrices at once, in threads of one BLAS thread each; in the plain search fits at once, in processes. Where a
        joblib backend that reaches beyond this machine is active, its workers compute the folds.

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
        than 1e-9 of the range of MOS. Elsewhere scores and predictions agree with scikit-learn's to 1e-8.

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

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's own, untyped
        tags = super().__sklearn_tags__()
        # The search takes several targets exactly when its estimator does; scikit-learn's own does not say so.
        tags.target_tags = deepcopy(get_tags(self.estimator).target_tags)
        return tags

    def fit(self, X: Table, y: ArrayLike | None = None, **params: Any) -> BandGridSearchCV:  # noqa: ANN401
        """Search the grid and refit the best candidate.

        ``X`` is a data frame or float array of shape (n_rows, n_features), for ridges alone a
        `regressors.bands.BlockTable`; ``y`` are MOS of shape (n_rows,), ``params`` metadata such as ``groups`` and
        sample weights, as in `GridSearchCV`. A ValueError if a BlockTable cannot be searched so.
        """
        groups = params.get("groups")
        given = sorted(name for name, value in params.items() if value is not None and name != "groups")
        if given or (groups is not None and get_config()["enable_metadata_routing"]):
            self._fit_plain(X, y, params, f"metadata is to be routed, {', '.join(given) or 'groups'}")
        else:
            _fit_together([self], X, y, None, groups, {})
        return self

    def _fit_plain(self, X: Table, y: ArrayLike | None, params: Mapping[str, Any], reason: str) -> None:
        if isinstance(X, BlockTable):
            raise ValueError(f"a table that is read by blocks cannot be searched so: {reason}.")  # noqa: TRY004
        self.__dict__.pop("oof_predictions_", None)
        super().fit(X, y, **params)
        self.fast_path_ = f"plain: {reason}"

    def _take(self, plan: SearchPlan, splits: FloatArray, seconds: tuple[float, float]) -> None:
        """Take the scores of each point and fold."""
        for name in ("best_estimator_", "refit_time_", "oof_predictions_"):
            self.__dict__.pop(name, None)
        self.multimetric_, self.scorer_ = False, check_scoring(self.estimator, self.scoring)
        self.n_splits_, self.cv_results_ = splits.shape[1], _tabulate(plan.points, splits, seconds)
        subsets = len({candidate.bands for candidate in plan.candidates})
        self.fast_path_ = (
            f"shared: {len(plan.points)} candidates over {subsets} subsets of bands in {self.n_splits_} folds"
        )
        self.best_index_ = int(self.cv_results_["rank_test_score"].argmin())
        self.best_score_ = self.cv_results_["mean_test_score"][self.best_index_]
        self.best_params_ = plan.points[self.best_index_]

    def _refit(
        self, X: Table, y: ArrayLike | None, plan: SearchPlan, answers: MemoryAnswers | BlockAnswers
    ) -> None:
        """Fit the best candidate on all rows, from what is computed already where that is safe."""
        start = time.perf_counter()
        candidate, table = plan.candidates[self.best_index_], plan.table
        pipeline = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        target, fit = np.asarray(y), None
        # Other scalers do not centre where the ridge does.
        is_centred = table.scaling in ("deviation", "none")
        is_safe = isinstance(X, BlockTable) or answers.doubt[candidate] <= DOUBTFUL
        if is_safe and candidate.family == "ridge" and is_centred:
            fit = answers.fit_ridge(candidate)
        if fit is not None and np.isfinite(fit.coef).all():
            _fill(pipeline, X, target, fit, is_weighted=table.weight is not None)
        elif is_safe and candidate.family == "unit-svr":
            (_, select), (_, scale), (_, regress) = pipeline.steps
            own = {} if table.weight is None else {"sample_weight": table.weight}
            selected = select.fit_transform(X, target)
            scaled = scale.fit(selected, target, **own).transform(selected)
            solution = cast(MemoryAnswers, answers).fit_support_vectors(candidate)
            regress.fit_solved(scaled, target, solution, table.weight)
        else:
            # Nothing else runs now, so that BLAS may have the cores that the folds had.
            with blas_threads(local_jobs(self.n_jobs)):
                fit_pipeline(pipeline, X, target, table.weight)
        self.best_estimator_, self.refit_time_ = pipeline, time.perf_counter() - start
        if hasattr(pipeline, "feature_names_in_"):
            self.feature_names_in_ = pipeline.feature_names_in_


def fit_searches(
    searches: Sequence[Estimator],
    X: Table,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    shared: dict[str, Any] | None = None,
) -> list[Estimator]:
    """Fit several ``searches`` of `make_search` on one table in place, sharing the work among them where they can.

    ``X``, ``y`` and ``sample_weight`` as of `fit_search`, ``X`` also a BlockTable; the dict ``shared``, empty in the
    first call, keeps what was prepared of ``X`` for the next one with it.
    """
    if not all(isinstance(search, BandGridSearchCV) for search in searches):
        return [fit_search(search, X, y, sample_weight) for search in searches]
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for search in searches if weights is not None else ():
        _check_scorer(search)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=LinAlgWarning)
        _fit_together(searches, X, y, weights, None, {} if shared is None else shared)
    return list(searches)


def _fit_together(
    searches: Sequence[BandGridSearchCV],
    X: Table,
    y: ArrayLike | None,
    weights: FloatArray | None,
    groups: ArrayLike | None,
    shared: dict[str, Any],
) -> None:
    """Fit searches on one table: those with solvers together, as far as they have its folds in common."""

    def fit_plain(search: BandGridSearchCV, reason: str) -> None:
        with _weighing(search, weights) as params:
            search._fit_plain(X, y, params if groups is None else {**params, "groups": groups}, reason)

    able: dict[int, list[tuple[BandGridSearchCV, SearchPlan]]] = {}
    for search in searches:
        plan = make_plan(search, X, y, weights, groups, known=shared.get("table"))
        if isinstance(plan, str):
            fit_plain(search, plan)
            continue
        shared.setdefault("table", plan.table)
        able.setdefault(id(plan.table), []).append((search, plan))
    for group in able.values():
        reason = _fit_shared(group, X, y)
        for search, _ in group if reason else ():
            fit_plain(search, reason)


def _fit_shared(group: Sequence[tuple[BandGridSearchCV, SearchPlan]], X: Table, y: ArrayLike | None) -> str:
    """Fit searches by one set of answers; return why they have to be fitted plainly, or nothing."""
    first, table = group[0][0], group[0][1].table
    candidates = [candidate for _, plan in group for candidate in plan.candidates]
    start = time.perf_counter()
    answers: MemoryAnswers | BlockAnswers
    if isinstance(table.features, BlockTable):
        answers = BlockAnswers(table, candidates, n_jobs=first.n_jobs)
    else:
        answers = MemoryAnswers(table, candidates, n_jobs=first.n_jobs)
    answered = time.perf_counter()
    # What is left is done here.
    with keep_local():
        try:
            scores = _judge(answers, group)
        except ValueError:
            if first.error_score == "raise" or isinstance(X, BlockTable):
                raise
            return "a scorer has failed"
        if scores is None:
            return "a prediction is not finite"
        n_fits = sum(len(plan.points) for _, plan in group) * len(table.folds)
        seconds = (answered - start) / n_fits, (time.perf_counter() - answered) / n_fits
        for (search, plan), found in zip(group, scores, strict=True):
            if search.verbose > 0:
                n, folds = len(plan.points), len(table.folds)
                sys.stdout.write(
                    f"Fitting {folds} folds for each of {n} candidates, totalling {n * folds} fits\n"
                )
            search._take(plan, found, seconds)
            _warn_of_doubt({candidate: answers.doubt[candidate] for candidate in plan.candidates})
        chosen = [(search, plan, plan.candidates[search.best_index_]) for search, plan in group]
        held_out = answers.held_out(dict.fromkeys(candidate for _, _, candidate in chosen))
        for search, plan, candidate in chosen:
            search.oof_predictions_ = held_out[candidate]
            if search.refit:
                search._refit(X, y, plan, answers)
    return ""


class _Echo(RegressorMixin, BaseEstimator):
    """Predicts its input, so that a scorer judges predictions made elsewhere."""

    def predict(self, predictions: FloatArray) -> FloatArray:
        return predictions

    @cache  # noqa: B019 - one instance for all
    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn's own, untyped
        return super().__sklearn_tags__()


ECHO = _Echo()
"""Predicts its input."""


def _judge(
    answers: MemoryAnswers | BlockAnswers, group: Sequence[tuple[BandGridSearchCV, SearchPlan]]
) -> list[FloatArray] | None:
    """Score the predictions of each search, shape (n_points, n_folds); None if one is not finite."""
    table = group[0][1].table
    found = [np.empty((len(plan.points), len(table.folds))) for _, plan in group]
    scorers = [check_scoring(search.estimator, search.scoring) for search, _ in group]
    places: dict[Candidate, list[tuple[int, int]]] = {}
    for number, (_, plan) in enumerate(group):
        for place, candidate in enumerate(plan.candidates):
            places.setdefault(candidate, []).append((number, place))
    with ThreadPoolExecutor(local_jobs(group[0][0].n_jobs)) as pool:
        for fold, (_, test) in enumerate(table.folds):
            y = table.y[test]
            params = {} if table.weight is None else {"sample_weight": table.weight[test]}

            def score(task: tuple[int, int, FloatArray], y: FloatArray = y, params: Any = params) -> float:  # noqa: ANN401
                number, _, predicted = task
                return float(scorers[number](ECHO, predicted, y, **params))

            for chunk in answers.predictions(fold):
                if not all(np.isfinite(predicted).all() for _, predicted in chunk):
                    return None
                if table.weight is None and len(test) <= _MANY_ROWS:
                    predictions = np.stack([predicted for _, predicted in chunk])
                    together = [scores_of_rows(scorer, y, predictions) for scorer in scorers]
                    known = [values for values in together if values is not None]
                    if len(known) == len(scorers):
                        for row, (candidate, _) in enumerate(chunk):
                            for number, place in places[candidate]:
                                found[number][place, fold] = known[number][row]
                        continue
                tasks = [(*at, predicted) for candidate, predicted in chunk for at in places[candidate]]
                run: Callable[..., Iterable[float]] = pool.map if len(test) > _MANY_ROWS else map
                for (number, place, _), value in zip(tasks, run(score, tasks), strict=True):
                    found[number][place, fold] = value
    return found


def _tabulate(
    points: Sequence[Mapping[str, Any]], splits: FloatArray, seconds: tuple[float, float]
) -> dict[str, Any]:
    """Make ``cv_results_`` as scikit-learn's search does."""
    results: dict[str, Any] = {}
    for name, spent in zip(("fit", "score"), seconds, strict=True):
        results[f"mean_{name}_time"] = np.full(len(points), spent)
        results[f"std_{name}_time"] = np.zeros(len(points))
    for name in dict.fromkeys(name for point in points for name in point):
        values = [point[name] for point in points if name in point]
        numbers = all(isinstance(value, (int, float, np.number)) for value in values)
        column = np.ma.MaskedArray(
            np.empty(len(points), np.array(values).dtype if numbers else object), mask=True
        )
        for place, point in enumerate(points):
            if name in point:
                column[place] = point[name]
        results[f"param_{name}"] = column
    results["params"] = list(points)
    mean = np.average(splits, axis=1)
    results |= {f"split{fold}_test_score": splits[:, fold] for fold in range(splits.shape[1])}
    results["mean_test_score"] = mean
    results["std_test_score"] = np.sqrt(np.average((splits - mean[:, None]) ** 2, axis=1))
    if not np.isfinite(mean).all():
        warnings.warn(
            f"One or more of the test scores are non-finite: {mean}", category=UserWarning, stacklevel=5
        )
    known = np.nan_to_num(mean, nan=np.nanmin(mean, initial=0.0) - 1.0)
    results["rank_test_score"] = rankdata(-known, method="min").astype(np.int32)
    return results


def _fill(pipeline: Pipeline, X: Table, y: np.ndarray, fit: RidgeFit, *, is_weighted: bool) -> None:
    """Fit a pipeline on two rows, which do for names and shapes, and set what the solver learned from all of them.

    This is the one place where fitted attributes are set from outside: the rows may be more than memory holds.
    """
    (_, select), (_, scale), (_, regress) = pipeline.steps
    if isinstance(X, BlockTable):
        few: Table = X.frame(np.arange(2))
    else:
        few = X.iloc[:2] if isinstance(X, pd.DataFrame) else np.asarray(X)[:2]
    selected = select.fit_transform(few, y[:2])
    scale.fit(selected, y[:2], **({"sample_weight": np.ones(2)} if is_weighted else {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=LinAlgWarning)
        regress.fit(scale.transform(selected), y[:2])
    scaler = scale
    if isinstance(scale, BandScaler):
        scaler, scale.column_weights_ = scale.scaler_, fit.weights
    scaler.mean_ = fit.scale.mean
    if scaler.with_std:
        scaler.var_ = fit.scale.variance
        scaler.scale_ = np.where(fit.scale.varies, np.sqrt(fit.scale.variance), 1.0)
    scaler.n_samples_seen_ = type(scaler.n_samples_seen_)(fit.n_seen)
    regress.coef_, regress.intercept_ = fit.coef, np.float64(fit.intercept)


def _warn_of_doubt(doubts: Mapping[Candidate, float]) -> None:
    """Warn of candidates that depend on rounding errors, whose effects are given in ranges of MOS."""
    doubtful = [candidate for candidate, doubt in doubts.items() if doubt > DOUBTFUL]
    if doubtful:
        largest = max(alpha for alpha, *_ in (candidate.values for candidate in doubtful))  # noqa: PD011
        warnings.warn(
            f"BandGridSearchCV: {len(doubtful)} of {len(doubts)} candidates depend on rounding errors: perturbing the "
            f"last bits moves their predictions by up to {max(doubts.values()):.0e} of the range of MOS. "
            f"No two computations agree to 1e-8 there. Leave out the penalties up to {largest:g}, or "
            "look for rows that repeat with different MOS.",
            PrecisionWarning,
            stacklevel=5,
        )
