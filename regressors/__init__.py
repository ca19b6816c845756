"""From a table of features to quality scores: regressors, ensembles, metrics.

This package knows nothing of images, files of features or deep-learning libraries. Its input is a
pandas frame with string columns ``band:0000`` and a vector of mean opinion scores.

Importing it loads nothing heavy: the names below are fetched from their modules on first use.
"""

from __future__ import annotations

import importlib

# Public name -> module; also the list that the tests of documentation and estimators walk.
_HOMES = {
    "AIM2024_BUDGET_GMACS": "budget",
    "BandEnsemble": "ensemble",
    "BandGridSearchCV": "search",
    "BandScaler": "bands",
    "BlockTable": "blocks",
    "BudgetError": "budget",
    "CropEnsemble": "crops",
    "METRICS": "evaluation.metrics",
    "ConformalInterval": "evaluation.intervals",
    "ModelFileError": "persistence",
    "ModelVersionWarning": "persistence",
    "NoSkillWarning": "ensemble",
    "PrecisionWarning": "search",
    "SCORERS": "evaluation.metrics",
    "SelectBands": "bands",
    "SubsetScorer": "subset_scores",
    "UnitSVR": "svr",
    "apply_logistic4": "evaluation.logistic",
    "band_columns": "bands",
    "band_parts": "evaluation.importance",
    "band_shares": "evaluation.importance",
    "band_weight_candidates": "pipelines",
    "bootstrap_ci": "evaluation.bootstrap",
    "calibrate_interval": "evaluation.intervals",
    "check_budget": "budget",
    "check_folds": "folds",
    "compare_paired": "evaluation.comparison",
    "crop_rows": "crops",
    "draw_splits": "evaluation.repeated",
    "evaluate": "evaluation.metrics",
    "find_leaking_columns": "evaluation.leakage",
    "find_near_duplicates": "evaluation.leakage",
    "fit_combination": "combine",
    "fit_logistic4": "evaluation.logistic",
    "fit_pipeline": "fitting",
    "fit_search": "fitting",
    "fit_searches": "search",
    "holm": "evaluation.comparison",
    "krcc": "evaluation.metrics",
    "load_model": "persistence",
    "mae": "evaluation.metrics",
    "make_folds": "folds",
    "make_pipeline": "pipelines",
    "make_search": "pipelines",
    "permutation_control": "evaluation.permutation",
    "plcc": "evaluation.metrics",
    "plcc_logistic": "evaluation.metrics",
    "predict_held_out": "fitting",
    "read_manifest": "persistence",
    "rmse": "evaluation.metrics",
    "save_model": "persistence",
    "srcc": "evaluation.metrics",
    "subset_drop": "evaluation.comparison",
    "sum_gmacs": "budget",
    "summarise_scores": "evaluation.repeated",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'regressors' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}."
        )
    return getattr(importlib.import_module(f"regressors.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
