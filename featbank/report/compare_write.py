"""Writes the page, the figures and the tables of a comparison of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from featbank.atomic import FolderKind, replacing_folder
from featbank.report.compare_figures import cost_figure, differences_figure, scores_figure
from featbank.report.compare_tables import (
    MAX_PAIRS,
    SHOWN_DIFFERENCES,
    comparison_markdown,
    cost_rows,
    difference_rows,
    differences_csv,
    drop_rows,
    score_rows,
    scores_csv,
    win_rows,
)
from featbank.report.compare_words import comparison_notes, word_comparison
from featbank.report.drawing import Drawing
from featbank.report.tables import SIMULATION_NOTE
from featbank.report.wording import METRIC_TITLES, plural, split_title
from featbank.report.write import page_environment, palette
from featbank.runs.comparison import Comparison
from featbank.runs.data import METRIC_NAMES
from featbank.runs.folder import write_text

PAGE_NAME = "comparison.html"
FIGURE_NAMES = ("compared_scores", "compared_differences", "compared_cost")


def _own_before_markers(folder: Path) -> tuple[str, ...]:
    page = folder / PAGE_NAME
    is_ours = page.is_file() and "featbank comparison" in page.read_text("utf-8", errors="replace")
    names = (PAGE_NAME, "scores.csv", "differences.csv", "comparison.md", *(f"{n}.png" for n in FIGURE_NAMES))
    return names if is_ours else ()


COMPARISON: Final = FolderKind("comparison", _own_before_markers)


def write_comparison(comparison: Comparison, folder: str | Path) -> Path:
    """Write ``comparison.html``, its figures as PNG, ``scores.csv``, ``differences.csv`` and ``comparison.md``.

    Parameters
    ----------
    comparison : Comparison
    folder : path
        Made if it is not there; an earlier comparison there is replaced as a whole.

    Returns
    -------
    Path
        The page: one file, with no script and no address outside itself.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    drawings = (scores_figure(comparison), differences_figure(comparison), cost_figure(comparison))
    figures = {drawing.name: drawing for drawing in drawings if drawing is not None}
    with replacing_folder(folder, COMPARISON, "report --out") as place:
        for drawing in figures.values():
            drawing.write_png(place)
        write_text(place / "scores.csv", scores_csv(comparison))
        write_text(place / "differences.csv", differences_csv(comparison))
        write_text(place / "comparison.md", comparison_markdown(comparison))
        write_text(place / PAGE_NAME, render_comparison(comparison, figures))
    return Path(folder) / PAGE_NAME


def render_comparison(comparison: Comparison, figures: Mapping[str, Drawing]) -> str:
    """Render a comparison as a self-contained HTML document.

    Parameters
    ----------
    comparison : Comparison
    figures : mapping of str to Drawing
        By their names, as in ``FIGURE_NAMES``; those that are absent are left out of the page.

    Returns
    -------
    str
    """
    parts = [
        {
            "name": part.replace("/", "-"),
            "title": split_title(part),
            "n": plural(n, "image"),
            "rows": score_rows(comparison, part),
            "differences": [
                (METRIC_TITLES[metric], difference_rows(comparison, part, metric))
                for metric in SHOWN_DIFFERENCES
            ],
        }
        for part, n in comparison.parts.items()
    ]
    return (
        page_environment()
        .get_template("compare.html")
        .render(
            title="Comparison of " + plural(len(comparison.runs), "run"),
            facts=[
                ("dataset", str(comparison.runs[0].data.section("dataset").get("name") or "not named")),
                ("runs", ", ".join(run.label for run in comparison.runs)),
            ],
            palette=palette(),
            simulation_note=SIMULATION_NOTE if comparison.is_simulation else "",
            verdict=word_comparison(comparison),
            verdict_notes=comparison_notes(comparison),
            headline=split_title(comparison.headline),
            metric_titles=[METRIC_TITLES[name] for name in METRIC_NAMES],
            parts=parts,
            figures={name: drawing.markup() for name, drawing in figures.items()},
            n_pairs=len(comparison.runs) * (len(comparison.runs) - 1) // 2,
            max_pairs=MAX_PAIRS,
            win_columns=[
                ("part", "part", ""),
                *((f"run{i}", run.label, "num") for i, run in enumerate(comparison.runs)),
            ],
            win_rows=win_rows(comparison),
            cost_rows=cost_rows(comparison),
            drop_rows=drop_rows(comparison),
        )
    )
