"""From a table of features to quality scores: regressors, ensembles, metrics.

This package knows nothing of images, files of features or deep-learning libraries. Its input is a
pandas frame with string columns ``band:0000`` and a vector of mean opinion scores.

Importing it loads nothing heavy: the names below are fetched from their modules on first use.
"""

from __future__ import annotations

import importlib

# Public names by module; also what the tests of documentation and estimators walk.
_NAMES = {
    "bands": "BandScaler BlockTable SelectBands band_columns crop_rows",
    "checks": "AIM2024_BUDGET_GMACS BudgetError check_budget sum_gmacs",
    "ensemble": "BandEnsemble NoSkillWarning fit_combination",
    "evaluation.comparison": (
        "band_parts band_shares compare_paired draw_splits holm subset_drop summarise_scores"
    ),
    "evaluation.controls": "find_leaking_columns find_near_duplicates find_nearest_rows permutation_control",
    "evaluation.intervals": "ConformalInterval bootstrap_ci calibrate_interval",
    "evaluation.metrics": (
        "METRICS SCORERS apply_logistic4 evaluate fit_logistic4 krcc mae plcc plcc_logistic rmse srcc"
    ),
    "folds": "check_folds make_folds",
    "persistence": "ModelFileError ModelVersionWarning load_model save_model",
    "pipelines": "band_weight_candidates make_pipeline make_search",
    "search": "BandGridSearchCV PrecisionWarning fit_pipeline fit_search fit_searches predict_held_out",
    "subset_scores": "SubsetScorer",
    "svr": "UnitSVR",
}
_HOMES: dict[str, str] = {}
for _module, _names in _NAMES.items():
    _HOMES |= dict.fromkeys(_names.split(), _module)

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(
            f"module 'regressors' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}."
        )
    return getattr(importlib.import_module(f"regressors.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
