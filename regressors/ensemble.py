"""The ensemble over bands: one searched regressor per subset of bands, joined by weights from held-out predictions.

Hyper-parameters, held-out predictions and weights all come from the same folds inside the rows given to
`fit`; no other row is ever asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from regressors.bands import check_labels, locate_bands
from regressors.blocks import BlockTable, as_frames
from regressors.checks import (
    Estimator,
    FloatArray,
    Folds,
    Scorer,
    Table,
    check_choice,
    check_vector,
    check_weights,
)
from regressors.combine import RULES, Combination, cross_combine
from regressors.fitting import predict_held_out
from regressors.folds import resolve_folds
from regressors.kinds import ESTIMATORS, KINDS
from regressors.members import list_members, member_search
from regressors.pipelines import readable_params
from regressors.search import fit_searches
from regressors.solvers.memory import refuse_out_of_core
from regressors.solvers.sums import ALL, measure

# Kept as they come: the members cast what they select, so that a float32 table is not doubled as a whole.
_KINDS = [np.float64, np.float32]


class NoSkillWarning(UserWarning):
    """An ensemble none of whose members beats the mean MOS on held-out rows."""


class BandEnsemble(RegressorMixin, BaseEstimator):
    """Regressors over subsets of bands, each with its own grid search, combined into one prediction.

    The default is the composition of team ICL in the AIM 2024 challenge [1]_, made explicit: one ridge on all
    bands and one per left-out band, 13 penalties each, weights from held-out predictions.

    Parameters
    ----------
    members : {"all+leave-one-out", "all", "each"} or list of list of str, default="all+leave-one-out"
        Which bands each member sees. "all": one member on all. "all+leave-one-out": that one and one per
        left-out band; with a single band there is nothing to leave out and it is "all". "each": one
        member per band. A list names the bands of each member.
    estimator : {"ridge", "banded-ridge", "linear-svr", "rbf-svr"}, default="ridge"
        Regressor of all members.
    alpha, C, epsilon, gamma : float array, optional
        Grids, see `regressors.pipelines.make_search`; those that do not belong to ``estimator`` are ignored.
    band_weights : list of dict of str to float, optional
        Candidates for the weights of the bands, bands that are not named having weight 1; each member tries
        their restriction to its bands. "banded-ridge" has its own by default, the others weigh all alike.
    unit_band : bool, default=False
        Whether each band is scaled to total variance 1 before the regressor.
    cv : int, splitter, or list of (train, test), default=5
        Folds of the training rows. A number means `regressors.folds.make_folds` with ``groups``, or with each
        row for itself when `fit` gets no groups. Explicit folds belong to one table.
    combine : {"uniform", "nnls", "simplex"}, default="nnls"
        Rule for the weights, see `regressors.combine.fit_combination`.
    select_by : str or scorer, default="srcc"
        What the grid search maximises: "srcc", "plcc", "krcc", "rmse", "mae" or scikit-learn's own.
    n_jobs : int or None, default=None
        Fits at once within a member's grid search.
    random_state : int or None, default=0
        Seed of the folds and of the random candidates of "banded-ridge".
    reference : bool, default=False
        Whether scikit-learn itself makes every fit of the searches, many times slower; the numbers are the
        same to 1e-8. Otherwise the members share their work, see `regressors.search.BandGridSearchCV`.

    Attributes
    ----------
    member_names_ : list of str
        "all", "without:<band>", "only:<band>", or the member's bands joined by "+".
    member_bands_ : list of tuple of str
        Bands of each member.
    members_ : list of Pipeline
        The members, fitted on all rows with their chosen hyper-parameters.
    member_params_ : list of dict of str to float
        The chosen hyper-parameters under short names.
    weights_ : float64 array of shape (n_members,)
        Non-negative weights.
    intercept_ : float
        MOS points added to the weighted sum.
    bands_ : tuple of str
        Bands of the table.
    folds_ : list of (train, test)
        Row positions of the folds used.
    oof_predictions_ : float64 array of shape (n_rows,)
        Held-out prediction of the ensemble for each training row: members fitted without the row's fold,
        weights learned without it as well (with a single fold there are no other rows, and the final
        weights are used). Only the choice of hyper-parameters has seen the row. nan where no fold tests it.
    column_means_ : float64 array of shape (n_features_in_,)
        Weighted means of the columns, the reference point of `regressors.evaluation.importance`.
    n_rows_ : int
        Number of training rows.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : object array of shape (n_features_in_,)
        Their names, if they had any; `predict` refuses other columns or another order.

    Warns
    -----
    NoSkillWarning
        If "nnls" gives every member weight zero.

    Notes
    -----
    Several rows per image (crops as rows) need nothing special but ``groups`` that name the image.

    References
    ----------
    .. [1] AIM 2024 challenge on UHD blind photo quality assessment, section 2.9.
    .. [2] L. Breiman, "Stacked regressions", Machine Learning 24, 1996.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from regressors.ensemble import BandEnsemble
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame(rng.normal(size=(120, 4)), columns=["a:0000", "a:0001", "b:0000", "b:0001"])
    >>> y = X["a:0000"] + X["b:0000"] + 0.1 * rng.normal(size=120)
    >>> model = BandEnsemble(alpha=[0.1, 1.0]).fit(X, y)
    >>> model.member_names_
    ['all', 'without:a', 'without:b']
    """

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
        cv: Folds = 5,
        combine: str = "nnls",
        select_by: str | Scorer = "srcc",
        n_jobs: int | None = None,
        random_state: int | None = 0,
        reference: bool = False,
    ) -> None:
        self.members = members
        self.estimator = estimator
        self.alpha = alpha
        self.C = C
        self.epsilon = epsilon
        self.gamma = gamma
        self.band_weights = band_weights
        self.unit_band = unit_band
        self.cv = cv
        self.combine = combine
        self.select_by = select_by
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.reference = reference

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
            Feature table with string columns "band:0000"; other tables are one band. A
            `regressors.blocks.BlockTable` is read by blocks of rows, for ridges alone.
        y : float array of shape (n_rows,)
            MOS on the dataset's own scale.
        groups : array of shape (n_rows,), optional
            Rows of one group never meet across a fold; used when ``cv`` is a number or a splitter.
        sample_weight : float array of shape (n_rows,), optional
            How many rows each row counts for: in every fit, every score, and the weights of the members.

        Returns
        -------
        BandEnsemble
            Itself.

        Raises
        ------
        ValueError
            If a parameter, a band or the folds are not admissible, or a value is not finite.
        """
        who = "BandEnsemble"
        check_choice(who, "estimator", self.estimator, ESTIMATORS)
        check_choice(who, "combine", self.combine, RULES)
        check_labels(who, X)
        if isinstance(X, BlockTable):
            table, mos = self._blocks(X), check_vector(who, "y", y, min_rows=2)
            refuse_out_of_core(self.estimator, len(mos), reference=self.reference)
        else:
            values, target = validate_data(self, X, y, dtype=_KINDS, y_numeric=True, ensure_min_samples=2)
            table, mos = self._named(values), np.asarray(target, dtype=np.float64)
        weights = None if sample_weight is None else check_weights(who, sample_weight, len(mos))
        located = locate_bands(getattr(self, "feature_names_in_", None), self.n_features_in_)
        self.bands_ = tuple(located)
        self.member_names_, self.member_bands_ = list_members(self.members, self.bands_)
        self.folds_ = resolve_folds(who, self.cv, table, mos, groups, self.random_state)
        self.n_rows_ = len(mos)
        self.members_: list[Estimator] = []
        self.member_params_: list[dict[str, float]] = []
        self._search_results: list[dict[str, np.ndarray]] = []
        searches = [member_search(self, bands, self.bands_, self.folds_) for bands in self.member_bands_]
        shared: dict[str, Any] = {}
        held_out = []
        for search in fit_searches(searches, table, mos, weights, shared=shared):
            self.members_.append(search.best_estimator_)
            self.member_params_.append(readable_params(search.best_params_))
            self._search_results.append(_keep_results(search.cv_results_, len(self.folds_)))
            predicted = getattr(search, "oof_predictions_", None)
            if predicted is None:
                predicted = predict_held_out(search.best_estimator_, table, mos, self.folds_, weights)
            held_out.append(predicted)
        self._held_out = np.column_stack(held_out)
        if isinstance(table, BlockTable):
            self.column_means_ = measure(shared["table"]).centres[ALL]
        else:
            row_weights = np.ones(len(mos)) if weights is None else weights
            self.column_means_ = row_weights @ np.asarray(table) / row_weights.sum()
        self.oof_predictions_, combination = cross_combine(
            self.combine, mos, self._held_out, self.folds_, sample_weight=weights
        )
        self.weights_, self.intercept_ = combination
        if not self.weights_.any():
            warnings.warn(
                "BandEnsemble: no member beats the mean MOS on held-out rows, so every weight is 0 and the prediction "
                "is constant. Look at cv_results_; combine='simplex' would still average the members.",
                NoSkillWarning,
                stacklevel=2,
            )
        return self

    def _blocks(self, X: BlockTable) -> BlockTable:
        """Learn the names of the columns from two rows."""
        validate_data(self, X.frame(np.arange(min(2, len(X)))), dtype=_KINDS)
        return X

    def predict(self, X: Table) -> FloatArray:
        """Predict MOS.

        Parameters
        ----------
        X : data frame, BlockTable, or float array of shape (n_rows, n_features)
            Feature table with the columns seen in `fit`.

        Returns
        -------
        float64 array of shape (n_rows,)
            MOS on the training scale. Not clipped to it: a value outside says that the image is unlike
            the training images.

        Raises
        ------
        ValueError
            If the columns or their order differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        if isinstance(X, BlockTable):
            joined = np.empty(len(X))
            for rows, block in as_frames(X):
                joined[rows] = self.predict(block)
            return joined
        table = self._named(validate_data(self, X, dtype=_KINDS, reset=False))
        predictions = np.zeros((len(table), len(self.members_)))
        for k in np.flatnonzero(self.weights_):
            predictions[:, k] = self.members_[k].predict(table)
        return Combination(self.weights_, self.intercept_)(predictions)

    def predict_members(self, X: Table) -> pd.DataFrame:
        """Predict MOS by each member alone.

        Parameters
        ----------
        X : data frame, BlockTable, or float array of shape (n_rows, n_features)
            Feature table with the columns seen in `fit`.

        Returns
        -------
        data frame of float64 of shape (n_rows, n_members)
            Columns are ``member_names_``, rows are those of ``X``. `combine_members` turns it into what
            `predict` returns.

        Raises
        ------
        ValueError
            If the columns or their order differ from those seen in `fit`, or a value is not finite.
        """
        check_is_fitted(self)
        if isinstance(X, BlockTable):
            joined = np.empty((len(X), len(self.members_)))
            for rows, block in as_frames(X):
                joined[rows] = self.predict_members(block)
            return pd.DataFrame(joined, columns=self.member_names_, index=X.index)
        table = self._named(validate_data(self, X, dtype=_KINDS, reset=False))
        values = np.column_stack([member.predict(table) for member in self.members_])
        return pd.DataFrame(
            values, columns=self.member_names_, index=X.index if isinstance(X, pd.DataFrame) else None
        )

    def combine_members(self, predictions: pd.DataFrame) -> FloatArray:
        """Combine what `predict_members` returned.

        Parameters
        ----------
        predictions : data frame of shape (n_rows, n_members)
            One column per member, any order.

        Returns
        -------
        float64 array of shape (n_rows,)

        Raises
        ------
        KeyError
            If a member's column is missing.
        """
        check_is_fitted(self)
        return Combination(self.weights_, self.intercept_)(
            predictions[self.member_names_].to_numpy(np.float64)
        )

    def member_spread(self, X: Table) -> FloatArray:
        """Say how much the members disagree: the standard deviation of their predictions, in MOS points.

        Members that see different bands disagree most on images unlike the training images. The spread is a
        flag for such images, not a standard error.

        Parameters
        ----------
        X : data frame, BlockTable, or float array of shape (n_rows, n_features)
            Feature table with the columns seen in `fit`.

        Returns
        -------
        float64 array of shape (n_rows,)
            Over all members alike (divisor n_members); 0 with a single member.
        """
        return np.std(self.predict_members(X).to_numpy(), axis=1)

    @property
    def oof_members_(self) -> pd.DataFrame:
        """Held-out predictions of the members: data frame of shape (n_rows, n_members), nan where no fold tests."""
        check_is_fitted(self)
        return pd.DataFrame(self._held_out, columns=self.member_names_)

    @property
    def cv_results_(self) -> pd.DataFrame:
        """Every candidate of every member.

        Columns: ``member``, ``rank`` within the member (1 is best), the hyper-parameters under short names,
        ``mean_test_score``, ``std_test_score`` and ``split<i>_test_score`` in the sense "greater is better".
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
