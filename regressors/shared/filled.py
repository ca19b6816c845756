"""Pipelines fitted without their rows: names and shapes from two of them, all numbers from sums over all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgWarning
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from regressors.bands import BandScaler
from regressors.blocks import BlockTable
from regressors.checks import IntArray
from regressors.shared.candidates import Candidate
from regressors.shared.column_scale import ColumnScale
from regressors.shared.kernel_fits import band_factors
from regressors.shared.row_sums import Moments


def fit_on_few(pipeline: Pipeline, X: BlockTable, y: ArrayLike) -> None:
    """Fit the steps on two rows, which do for all that does not depend on the rows.

    Parameters
    ----------
    pipeline : Pipeline
        Of bands, scaler and ridge, with its parameters set; fitted in place.
    X : BlockTable of shape (n_rows, n_features)
        Feature table.
    y : float array of shape (n_rows,)
        MOS.
    """
    few, target = X.frame(np.arange(2)), np.asarray(y)[:2]
    (_, select), (_, scale), (_, regress) = pipeline.steps
    selected = select.fit_transform(few, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=LinAlgWarning)
        regress.fit(scale.fit_transform(selected, target), target)


def fill_scaler(
    scaler: StandardScaler | BandScaler,
    candidate: Candidate,
    scales: Mapping[str, ColumnScale],
    order: IntArray,
    moments: Moments,
) -> None:
    """Set what a scaler learns from rows.

    Parameters
    ----------
    scaler : StandardScaler or BandScaler
        Fitted on a few rows.
    candidate : Candidate
        Bands and weights.
    scales : mapping of str to ColumnScale
        Of each band over all rows.
    order : int array of shape (n_columns,)
        Turns the order of the candidate's bands into that of the table's columns.
    moments : Moments
        Of all rows.
    """
    inner = scaler
    if isinstance(scaler, BandScaler):
        inner = scaler.scaler_
        widths = [len(scales[band].factor) for band in candidate.bands]
        scaler.column_weights_ = np.repeat(band_factors(candidate, scales), widths)[order]
    inner.mean_ = np.concatenate([scales[band].mean for band in candidate.bands])[order]
    inner.var_ = np.concatenate([scales[band].variance for band in candidate.bands])[order]
    varies = np.concatenate([scales[band].varies for band in candidate.bands])[order]
    inner.scale_ = np.where(varies, np.sqrt(inner.var_), 1.0)
    inner.n_samples_seen_ = type(inner.n_samples_seen_)(moments.total)
