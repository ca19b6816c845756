"""Lays a run's metrics out as the table that `featbank fit` prints."""

from __future__ import annotations

from typing import Any

from featbank.commands import SIMULATION
from featbank.encoders import random_weights_note


def render_metrics(metrics: dict[str, Any]) -> str:
    """Lay the metrics out as the table that `featbank fit` prints."""
    parts = [
        name
        for name in ("training_cv", "validation", "validation/exclusive", "test", "test/exclusive")
        if name in metrics
    ]
    lines = [
        f"{'':<22}{'n':>6}  {'SRCC':>6} {'95 % interval':>16}  {'PLCC':>6}  {'KRCC':>6}  {'RMSE':>8}  {'MAE':>8}"
    ]
    lines += [_metric_line(name, metrics[name]) for name in parts]
    reasons = {name: metrics[name].get("ci95_reason") for name in parts}
    lines += [f"no interval for {name}: {reason}" for name, reason in reasons.items() if reason]
    last = "test" if "test" in metrics else "validation"
    compared = {"constant prediction": metrics.get("baselines", {}).get("constant", {})}
    compared["metadata-only ridge"] = metrics.get("baselines", {}).get("metadata_ridge", {})
    compared |= {f"band {name} alone": scores for name, scores in metrics.get("single_bands", {}).items()}
    shown = [_metric_line(name, scores[last]) for name, scores in compared.items() if last in scores]
    if shown:
        lines += [f"for comparison, on {last}:", *shown]
    lines.append(
        f"cost {metrics['gmacs']:.3f} GMACs of {metrics['budget_gmacs']:g}, {metrics['params_m']:.2f} M parameters"
    )
    if metrics["simulation"]:
        lines.append(SIMULATION)
    if metrics["random_weights"]:
        lines.append(random_weights_note(metrics["random_weights"]))
    return "\n".join(lines)


def _metric_line(name: str, scores: dict[str, Any]) -> str:
    low, high = (scores.get("ci95") or {}).get("srcc", (None, None))
    interval = f"[{low:.3f}, {high:.3f}]" if low is not None and high is not None else "-"
    cells = [f"{scores[key]:.4f}" if scores[key] is not None else "-" for key in ("srcc", "plcc", "krcc")]
    errors = [f"{scores[key]:.4g}" for key in ("rmse", "mae")]
    return (
        f"  {name:<20}{scores['n']:>6}  {cells[0]:>6} {interval:>16}  {cells[1]:>6}  {cells[2]:>6}  "
        f"{errors[0]:>8}  {errors[1]:>8}"
    )
