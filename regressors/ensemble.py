"""The ensemble over bands: one searched regressor per subset of bands, joined by weights from held-out predictions.

Hyper-parameters, held-out predictions and weights all come from the same folds inside the rows given to
`fit`; no other row is ever asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from regressors.bands import (
    WHOLE_TABLE,
    BlockTable,
    as_frames,
    check_labels,
    crop_rows,
    locate_bands,
    unknown_bands,
)
from regressors.checks import (
    Estimator,
    FloatArray,
    Folds,
    IntArray,
    Scorer,
    Table,
    check_choice,
    check_vector,
    check_weights,
)
from regressors.folds import Fold, resolve_folds
from regressors.pipelines import ESTIMATORS, KINDS, band_weight_candidates, make_search, readable_params

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

RULES = ("uniform", "nnls", "simplex")


class Combination(NamedTuple):
    """How members become one prediction: ``intercept + predictions @ weights``, the weights non-negative."""

    weights: FloatArray
    intercept: float

    def __call__(self, predictions: FloatArray) -> FloatArray:
        """Combine predictions of shape (n_rows, n_members) into shape (n_rows,)."""
        # Members without weight are left out, so that they need not be predicted either.
        used = np.flatnonzero(self.weights)
        combined: FloatArray = self.intercept + predictions[:, used] @ self.weights[used]
        return combined


def fit_combination(
    rule: str, y: ArrayLike, predictions: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> Combination:
    """Fit member weights to held-out predictions.

    "uniform" is 1 / n_members, intercept 0; "simplex" argmin ``|y - P w|`` over w >= 0, sum(w) = 1, intercept 0;
    "nnls" argmin ``|y - b - P w|`` over w >= 0 and any intercept b, which corrects scale and offset [1]_ [2]_. A
    single member is always itself: weight 1, intercept 0.

    Parameters
    ----------
    rule : {"uniform", "nnls", "simplex"}
    y : float array of shape (n_rows,)
        MOS.
    predictions : float array of shape (n_rows, n_members)
        Held-out predictions P; in-sample ones would reward the member that overfits most.
    sample_weight : float array of shape (n_rows,), optional
        How many rows each row counts for.

    Returns
    -------
    Combination
        Under "nnls" all weights can be zero: then no member beats the mean MOS on held-out rows.

    Raises
    ------
    ValueError
        If the rule is unknown, a value is not finite, or the shapes differ.

    References
    ----------
    .. [1] C. Lawson and R. Hanson, "Solving least squares problems", 1974, chapter 23: NNLS, and problem LDP.
    .. [2] L. Breiman, "Stacked regressions", Machine Learning 24, 1996 (non-negative weights).
    """
    who = "fit_combination"
    check_choice(who, "rule", rule, RULES)
    mos = check_vector(who, "y", y)
    P = np.asarray(predictions, dtype=np.float64)
    if P.ndim != 2 or len(P) != len(mos) or P.shape[1] == 0 or not np.isfinite(P).all():
        raise ValueError(
            f"{who}: predictions must be finite with shape ({len(mos)}, n_members), got shape {P.shape} with "
            f"{np.count_nonzero(~np.isfinite(P))} values that are not finite. Leave out rows that no fold tests."
        )
    weights = np.ones(len(mos)) if sample_weight is None else check_weights(who, sample_weight, len(mos))
    n_members = P.shape[1]
    if rule == "uniform" or n_members == 1:
        return Combination(np.full(n_members, 1 / n_members), 0.0)
    root = np.sqrt(weights)[:, None]
    if rule == "simplex":
        return Combination(_simplex(root * (P - mos[:, None])), 0.0)
    mean_P, mean_y = np.average(P, axis=0, weights=weights), float(np.average(mos, weights=weights))
    # The best intercept for given weights is mean_y - mean_P w: centring removes it from the problem.
    solution = _nnls(root * (P - mean_P), root[:, 0] * (mos - mean_y))
    return Combination(solution, mean_y - float(mean_P @ solution))


def cross_combine(
    rule: str,
    y: FloatArray,
    predictions: FloatArray,
    folds: Sequence[Fold],
    *,
    sample_weight: FloatArray | None = None,
) -> tuple[FloatArray, Combination]:
    """Combine each fold's held-out predictions by weights learned on the rows of the other folds.

    Returns the combined predictions of shape (n_rows,), the mean over the folds that test a row and nan where none
    does, and the weights learned on all tested rows; a single fold has no other rows, and gets these.
    """

    def fit(rows: IntArray) -> Combination:
        chosen = None if sample_weight is None else sample_weight[rows]
        return fit_combination(rule, y[rows], predictions[rows], sample_weight=chosen)

    tested = np.flatnonzero(~np.isnan(predictions[:, 0]))
    final = fit(tested)
    total, n_tested = np.zeros(len(y)), np.zeros(len(y))
    for _, test in folds:
        others = np.setdiff1d(tested, test)
        usable = len(others) > 0 and (sample_weight is None or sample_weight[others].any())
        total[test] += (fit(others) if usable else final)(predictions[test])
        n_tested[test] += 1
    return np.divide(total, n_tested, out=np.full(len(y), np.nan), where=n_tested > 0), final


def _simplex(residuals: FloatArray) -> FloatArray:
    """Minimise ``|R w|`` over w >= 0, sum(w) = 1, exactly.

    For u >= 0 with sum t, ``|R u|^2 + (1 - sum u)^2 = t^2 |R (u / t)|^2 + (1 - t)^2``: whatever t is, the best
    direction u / t is the solution sought. So one NNLS problem and one division do.
    """
    scale = float(np.sqrt(np.mean(np.sum(residuals**2, axis=0))))
    if scale == 0:
        return np.full(residuals.shape[1], 1 / residuals.shape[1])  # all members perfect
    matrix = np.vstack([residuals / scale, np.ones(residuals.shape[1])])
    target = np.zeros(len(matrix))
    target[-1] = 1.0
    solution = _nnls(matrix, target)
    return solution / solution.sum()


def _nnls(matrix: FloatArray, target: FloatArray) -> FloatArray:
    # The triangular factor has the same normal equations and as few rows as columns: the active set is then
    # cheap. Columns and target are scaled to unit length, which changes no sign: the solver's tolerance
    # knows nothing of the scale of MOS.
    size = float(np.linalg.norm(target))
    if size == 0:
        return np.zeros(matrix.shape[1])
    length = np.linalg.norm(matrix, axis=0)
    length[length == 0] = 1.0
    q, r = np.linalg.qr(matrix / length)
    solution, _ = nnls(r, q.T @ (target / size))
    scaled: FloatArray = solution * (size / length)
    return scaled


MEMBER_RULES = ("all+leave-one-out", "all", "each")


def list_members(
    members: str | Sequence[Sequence[str]], bands: tuple[str, ...]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """List the names of an ensemble's members and the bands each of them sees, in table order; see `BandEnsemble`."""
    if isinstance(members, str):
        check_choice("BandEnsemble", "members", members, MEMBER_RULES)
        if members == "each":
            return [f"only:{band}" for band in bands], [(band,) for band in bands]
        names, subsets = ["all"], [bands]
        if members == "all+leave-one-out" and len(bands) > 1:
            names += [f"without:{band}" for band in bands]
            subsets += [tuple(other for other in bands if other != band) for band in bands]
        return names, subsets
    subsets = []
    for subset in members:
        if isinstance(subset, str) or not len(subset):
            raise ValueError(
                f"BandEnsemble: each member must be a non-empty list of bands, got {subset!r}. "
                "Write [['a', 'b'], ['c']]."
            )
        if error := unknown_bands("BandEnsemble: members", subset, bands):
            raise error
        subsets.append(tuple(band for band in bands if band in subset))
    if not subsets or len(set(subsets)) != len(subsets):
        raise ValueError(
            f"BandEnsemble: members must be a non-empty list of different subsets, got {members!r}. "
            "Two members on the same bands would be one regressor twice."
        )
    return ["+".join(subset) for subset in subsets], subsets


def restrict_weights(
    candidates: Sequence[Mapping[str, float]], bands: tuple[str, ...], known: tuple[str, ...]
) -> list[dict[str, float]]:
    """Cut candidates of band weights to a member's bands, each distinct one once, its largest weight 1."""
    distinct: dict[tuple[float, ...], None] = {}
    for candidate in candidates:
        if error := unknown_bands("BandEnsemble: band_weights", candidate, known):
            raise error
        row = np.array([candidate.get(band, 1.0) for band in bands])
        distinct[tuple(float(w) for w in row / row.max())] = None
    return [dict(zip(bands, row, strict=True)) for row in distinct]


def member_search(
    ensemble: Estimator, bands: tuple[str, ...], known: tuple[str, ...], folds: Sequence[Fold]
) -> Estimator:
    """Make the search of the member on ``bands``, not fitted, with the parameters of its ensemble."""
    candidates = ensemble.band_weights
    if candidates is None and KINDS[ensemble.estimator].has_band_weights:
        candidates = band_weight_candidates(bands, random_state=ensemble.random_state)
    if candidates is not None:
        candidates = restrict_weights(candidates, bands, known)
    return make_search(
        ensemble.estimator,
        # The single nameless band is selected by leaving all columns in place.
        None if known == (WHOLE_TABLE,) else bands,
        alpha=ensemble.alpha,
        C=ensemble.C,
        epsilon=ensemble.epsilon,
        gamma=ensemble.gamma,
        band_weights=candidates,
        unit_band=ensemble.unit_band,
        scale=ensemble.scale,
        cv=folds,
        scoring=ensemble.select_by,
        n_jobs=ensemble.n_jobs,
        random_state=ensemble.random_state,
        reference=ensemble.reference,
    )


def _held(pipeline: Pipeline) -> Pipeline:
    """Let a plain SVR be held by one of ours, which is stored without scikit-learn's private state."""
    from sklearn.pipeline import Pipeline
    from sklearn.svm import SVR

    from regressors.svr import UnitSVR

    regress = pipeline.named_steps["regress"]
    if not isinstance(regress, SVR):
        return pipeline
    return Pipeline([*pipeline.steps[:-1], ("regress", UnitSVR.holding(regress))])


# Kept as they come: the members cast what they select, so that a float32 table is not doubled as a whole.
_KINDS = [np.float64, np.float32]


class NoSkillWarning(UserWarning):
    """An ensemble none of whose members beats the mean MOS on held-out rows."""


class BandEnsemble(RegressorMixin, BaseEstimator):
    """Regressors over subsets of bands, each with its own grid search, combined into one prediction.

    The default is the composition of team ICL in the AIM 2024 challenge [1]_: one ridge on all bands and one per
    left-out band, 13 penalties each, weights from held-out predictions [2]_.

    Parameters
    ----------
    members : {"all+leave-one-out", "all", "each"} or list of list of str, default="all+leave-one-out"
        Which bands each member sees: one member on all; that one and one per left-out band; one member per band; or
        the bands of each member.
    estimator : {"ridge", "banded-ridge", "linear-svr", "rbf-svr", "plain-svr"}, default="ridge"
        Regressor of all members.
    alpha, C, epsilon, gamma : float array, optional
        Grids, see `regressors.pipelines.make_search`; those that do not belong to ``estimator`` are ignored.
    band_weights : list of dict of str to float, optional
        Candidates for the weights of the bands, bands that are not named having weight 1; each member tries
        their restriction to its bands. "banded-ridge" has its own by default, the others weigh all alike.
    unit_band : bool, default=False
        Whether each band is scaled to total variance 1 before the regressor.
    scale : {"standard", "none", "minmax", "robust"}, default="standard"
        What is done to each column, see `regressors.pipelines.SCALES`.
    cv : int, splitter, or list of (train, test), default=5
        Folds of the training rows; a number means `regressors.folds.make_folds`, without groups each row for itself.
    combine : {"uniform", "nnls", "simplex"}, default="nnls"
        Rule for the weights, see `fit_combination`.
    select_by : str or scorer, default="srcc"
        What the grid search maximises: one of `regressors.pipelines.SELECTIONS`, or a scorer of scikit-learn's.
    n_jobs : int or None, default=None
        Fits at once within a member's grid search.
    random_state : int or None, default=0
        Seed of the folds and of the random candidates of "banded-ridge".
    reference : bool, default=False
        Whether scikit-learn itself makes every fit of the searches, many times slower, with the same numbers to 1e-8.
    n_crops : int, default=1
        Crops that each row of the table holds one after the other, see `regressors.bands.crop_rows`. Members learn
        from crops, each with the MOS of its image; an image's prediction is the mean over its crops. Folds, groups and
        weights are those of images: crops of one image never meet across a fold.

    Attributes
    ----------
    member_names_, member_bands_, members_, member_params_ : list
        Of each member "all", "without:<band>", "only:<band>" or its bands joined by "+"; its bands; its pipeline fitted
        on all rows; its chosen hyper-parameters under short names.
    weights_, intercept_ : float64 array of shape (n_members,), float
        Non-negative weights, and MOS points added to the weighted sum.
    bands_ : tuple of str
        Bands of the table.
    folds_ : list of (train, test)
        Row positions of the folds used.
    oof_predictions_ : float64 array of shape (n_rows,)
        Held-out prediction of the ensemble for each training row: members fitted and weights learned without the
        row's fold; only the choice of hyper-parameters has seen it. nan where no fold tests it.
    column_means_ : float64 array of shape (n_features_in_,)
        Weighted means of the columns, the reference point of `regressors.evaluation.comparison.band_parts`.
    n_rows_ : int
        Number of training rows.

    Warns
    -----
    NoSkillWarning
        If "nnls" gives every member weight zero.

    References
    ----------
    .. [1] AIM 2024 challenge on UHD blind photo quality assessment, section 2.9.
    .. [2] L. Breiman, "Stacked regressions", Machine Learning 24, 1996.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from regressors.ensemble import BandEnsemble
    >>> X = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 2)), columns=["a:0000", "b:0000"])
    >>> BandEnsemble(alpha=[0.1, 1.0]).fit(X, X.sum(axis=1)).member_names_
    ['all', 'without:a', 'without:b']
    """

    n_crops, scale = 1, "standard"  # of a model file from before they were parameters

    def __init__(
        self,
        members: str | Sequence[Sequence[str]] = "all+leave-one-out",
        *,
        estimator: str = "ridge",
        alpha: ArrayLike | None = None,
        C: ArrayLike | None = None,
        epsilon: ArrayLike | None = None,
        gamma: ArrayLike | None = None,
        band_weights: Sequence[Mapping[str, float]] | None = None,
        unit_band: bool = False,
        scale: str = "standard",
        cv: Folds = 5,
        combine: str = "nnls",
        select_by: str | Scorer = "srcc",
        n_jobs: int | None = None,
        random_state: int | None = 0,
        reference: bool = False,
        n_crops: int = 1,
    ) -> None:
        self.members = members
        self.estimator = estimator
        self.alpha = alpha
        self.C = C
        self.epsilon = epsilon
        self.gamma = gamma
        self.band_weights = band_weights
        self.unit_band = unit_band
        self.scale = scale
        self.cv = cv
        self.combine = combine
        self.select_by = select_by
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.reference = reference
        self.n_crops = n_crops

    def fit(
        self,
        X: Table,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> BandEnsemble:
        """Search, fit and combine the members.

        Parameters
        ----------
        X : data frame, BlockTable, or float array of shape (n_rows, n_features)
            Feature table with string columns "band:0000"; other tables are one band. A `regressors.bands.BlockTable` is
            read by blocks of rows, for ridges alone.
        y : float array of shape (n_rows,)
            MOS on the dataset's own scale.
        groups : array of shape (n_rows,), optional
            Rows of one group never meet across a fold; used when ``cv`` is a number or a splitter.
        sample_weight : float array of shape (n_rows,), optional
            How many rows each row counts for: in every fit, every score, and the weights of the members.

        Raises
        ------
        ValueError
            If a parameter, a band or the folds are not admissible, or a value is not finite.
        """
        # Scoring loads neither searches nor solvers.
        from regressors.search import fit_searches, predict_held_out
        from regressors.solvers.resources import refuse_out_of_core
        from regressors.solvers.sums import ALL, measure

        who = "BandEnsemble"
        check_choice(who, "estimator", self.estimator, ESTIMATORS)
        check_choice(who, "combine", self.combine, RULES)
        check_labels(who, X)
        if isinstance(X, BlockTable):
            table, mos = X, check_vector(who, "y", y, min_rows=2)
            validate_data(
                self, X.frame(np.arange(min(2, len(X)))), dtype=_KINDS
            )  # learns the names of the columns
            refuse_out_of_core(self.estimator, len(mos), reference=self.reference)
            if self.n_crops > 1:
                raise TypeError(
                    f"{who}: n_crops={self.n_crops} needs a table in memory, got one that is read by blocks, whose "
                    "crops cannot be cut. Average crops first, or give a data frame."
                )
        else:
            values, target = validate_data(self, X, y, dtype=_KINDS, y_numeric=True, ensure_min_samples=2)
            table, mos = self._named(values), np.asarray(target, dtype=np.float64)
        weights = None if sample_weight is None else check_weights(who, sample_weight, len(mos))
        self.bands_ = tuple(locate_bands(getattr(self, "feature_names_in_", None), self.n_features_in_))
        self.member_names_, self.member_bands_ = list_members(self.members, self.bands_)
        self.folds_ = folds = resolve_folds(who, self.cv, table, mos, groups, self.random_state)
        self.n_rows_ = len(mos)
        images, image_weights = table, np.ones(len(mos)) if weights is None else weights
        if self.n_crops > 1:
            table, mos = crop_rows(table, self.n_crops), np.repeat(mos, self.n_crops)
            weights = None if weights is None else np.repeat(weights, self.n_crops)
            places = np.arange(len(mos)).reshape(-1, self.n_crops)
            folds = [(places[train].ravel(), places[test].ravel()) for train, test in folds]
        self.members_: list[Estimator] = []
        self.member_params_: list[dict[str, float]] = []
        self._search_results: list[dict[str, np.ndarray]] = []
        searches = [member_search(self, bands, self.bands_, folds) for bands in self.member_bands_]
        shared: dict[str, Any] = {}
        held_out = []
        for search in fit_searches(searches, table, mos, weights, shared=shared):
            self.members_.append(_held(search.best_estimator_))
            self.member_params_.append(readable_params(search.best_params_))
            self._search_results.append(_keep_results(search.cv_results_, len(folds)))
            predicted = getattr(search, "oof_predictions_", None)
            if predicted is None:
                predicted = predict_held_out(search.best_estimator_, table, mos, folds, weights)
            held_out.append(predicted)
        if isinstance(table, BlockTable):
            self.column_means_ = measure(shared["table"]).centres[ALL]
        else:
            self.column_means_ = image_weights @ np.asarray(images) / image_weights.sum()
        columns = np.column_stack(held_out)
        combined, combination = cross_combine(self.combine, mos, columns, folds, sample_weight=weights)
        self.oof_predictions_, self._held_out = self._by_image(combined), self._by_image(columns)
        self.weights_, self.intercept_ = combination
        if not self.weights_.any():
            warnings.warn(
                "BandEnsemble: no member beats the mean MOS on held-out rows, so every weight is 0 and the prediction "
                "is constant. Look at cv_results_; combine='simplex' would still average the members.",
                NoSkillWarning,
                stacklevel=2,
            )
        return self

    def predict(self, X: Table) -> FloatArray:
        """Predict MOS, shape (n_rows,), on the training scale and not clipped to it.

        A ValueError is raised for other columns than in `fit`, or values that are not finite.
        """
        check_is_fitted(self)
        # Members without weight need not be predicted.
        return Combination(self.weights_, self.intercept_)(self._predict(X, np.flatnonzero(self.weights_)))

    def predict_members(self, X: Table) -> pd.DataFrame:
        """Predict MOS by each member alone: data frame of shape (n_rows, n_members) with columns ``member_names_``."""
        check_is_fitted(self)
        values = self._predict(X, np.arange(len(self.members_)))
        index = X.index if isinstance(X, (pd.DataFrame, BlockTable)) else None
        return pd.DataFrame(values, columns=self.member_names_, index=index)

    def _predict(self, X: Table, members: IntArray) -> FloatArray:
        """Predict by some of the members, shape (n_rows, n_members); 0 by the others."""
        if isinstance(X, BlockTable):
            predicted = np.zeros((len(X), len(self.members_)))
            for rows, block in as_frames(X):
                predicted[rows] = self._predict(block, members)
            return predicted
        table = self._named(validate_data(self, X, dtype=_KINDS, reset=False))
        table = table if self.n_crops == 1 else crop_rows(table, self.n_crops)
        predicted = np.zeros((len(table), len(self.members_)))
        for k in members:
            predicted[:, k] = self.members_[k].predict(table)
        return self._by_image(predicted)

    def _by_image(self, values: FloatArray) -> FloatArray:
        """Average values of crops, given row by row, for each image."""
        return (
            values if self.n_crops == 1 else values.reshape(-1, self.n_crops, *values.shape[1:]).mean(axis=1)
        )

    @property
    def oof_members_(self) -> pd.DataFrame:
        """Held-out predictions of the members: data frame of shape (n_rows, n_members), nan where no fold tests."""
        check_is_fitted(self)
        return pd.DataFrame(self._held_out, columns=self.member_names_)

    @property
    def cv_results_(self) -> pd.DataFrame:
        """Every candidate of every member.

        Columns: ``member``, ``rank`` within the member (1 is best), the hyper-parameters under short names,
        ``mean_test_score``, ``std_test_score`` and ``split<i>_test_score``, greater being better.
        """
        check_is_fitted(self)
        tables = [
            pd.DataFrame({"member": name, **results})
            for name, results in zip(self.member_names_, self._search_results, strict=True)
        ]
        joined = pd.concat(tables, ignore_index=True)
        scores = [c for c in joined.columns if c.endswith("_test_score")]
        params = [c for c in joined.columns if c not in {"member", "rank", *scores}]
        return joined[["member", "rank", *params, *scores]]

    @property
    def is_additive_(self) -> bool:
        """Whether the prediction is a constant plus one part per band."""
        check_is_fitted(self)
        return KINDS[self.estimator].is_additive

    def _named(self, values: np.ndarray) -> Table:
        """Give checked values their columns' names back, by which the members find their bands."""
        names = getattr(self, "feature_names_in_", None)
        return values if names is None else pd.DataFrame(values, columns=names, copy=False)


def _keep_results(results: Mapping[str, Any], n_folds: int) -> dict[str, np.ndarray]:
    """Keep of a search's results what a table needs, as plain arrays."""
    params = [readable_params(candidate) for candidate in results["params"]]
    kept = {"rank": np.asarray(results["rank_test_score"], dtype=np.int64)}
    kept |= {name: np.array([candidate[name] for candidate in params]) for name in params[0]}
    splits = [f"split{k}_test_score" for k in range(n_folds)]
    for name in ("mean_test_score", "std_test_score", *splits):
        kept[name] = np.asarray(results[name], dtype=np.float64)
    return kept
