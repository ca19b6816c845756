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
    "BudgetError": "budget",
    "CropEnsemble": "crops",
    "METRICS": "metrics",
    "ConformalInterval": "intervals",
    "ModelFileError": "persistence",
    "ModelVersionWarning": "persistence",
    "NoSkillWarning": "ensemble",
    "PrecisionWarning": "search",
    "SCORERS": "metrics",
    "SelectBands": "bands",
    "SubsetScorer": "subset_scores",
    "SubsetSearch": "subsets",
    "UnitSVR": "svr",
    "apply_logistic4": "logistic",
    "band_columns": "bands",
    "band_parts": "importance",
    "band_shares": "importance",
    "band_weight_candidates": "pipelines",
    "bootstrap_ci": "bootstrap",
    "calibrate_interval": "intervals",
    "check_budget": "budget",
    "check_folds": "folds",
    "compare_paired": "comparison",
    "crop_rows": "crops",
    "draw_splits": "repeated",
    "evaluate": "metrics",
    "find_leaking_columns": "leakage",
    "find_near_duplicates": "leakage",
    "fit_combination": "combine",
    "fit_logistic4": "logistic",
    "fit_pipeline": "fitting",
    "fit_search": "fitting",
    "fit_searches": "search",
    "holm": "comparison",
    "krcc": "metrics",
    "list_subsets": "subsets",
    "load_model": "persistence",
    "mae": "metrics",
    "make_folds": "folds",
    "make_pipeline": "pipelines",
    "make_search": "pipelines",
    "permutation_control": "permutation",
    "plcc": "metrics",
    "plcc_logistic": "metrics",
    "predict_held_out": "fitting",
    "read_manifest": "persistence",
    "rmse": "metrics",
    "save_model": "persistence",
    "score_subsets": "subsets",
    "search_subsets": "subsets",
    "srcc": "metrics",
    "subset_drop": "comparison",
    "sum_gmacs": "budget",
    "summarise_scores": "repeated",
    "tabulate_subsets": "subsets",
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
