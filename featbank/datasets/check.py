"""Looks a dataset over before work is spent on it: counts, files, duplicates, overlap, what a constant scores.

What the files themselves say comes from `featbank.datasets.check`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from featbank.datasets.check import N_EXAMPLES, describe_files, find_duplicates, inspect_files
from featbank.datasets.image_table import SPLITS, ImageTable
from featbank.remote import find_statuses, is_url, utf8_name

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_N_BINS = 10


def check_dataset(
    table: ImageTable,
    *,
    decode: bool = True,
    workers: int = 2,
    on_progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Report what is in a dataset and what is wrong with it.

    Parameters
    ----------
    table : ImageTable
        From `featbank.datasets.read_dataset`.
    decode : bool
        Whether every present image is decoded in full, which finds truncated and damaged files. Otherwise
        files are only looked up, and read where another file has the same size, to find duplicates.
    workers : int
        Processes that read images; 1 reads in this process.
    on_progress : callable, optional
        Called with (files done, files in all) from time to time.

    Returns
    -------
    dict
        Holds only JSON's kinds of values. Parts are named as in ``metrics.json``: ``training``, ``validation``,
        ``validation/exclusive``, ``test``, ``test/exclusive``.

        - ``name, root, is_simulation, licence, reference, notes``; ``n_images``, ``n_scored`` (with a MOS);
        - ``counts``: images by part;
        - ``mos``: by part and for ``all``: ``n, mean, std, quantiles`` (by level), ``histogram`` (``edges``,
          ``counts``); ``mos_range``: nominal scale or None;
        - ``groups``: ``n, largest, largest_name, n_images_without``; None without groups;
        - ``group_overlap``: by part other than training, the share of its images whose group is in training; None
          without groups or training images;
        - ``constant``: by part, ``mae`` and ``rmse`` of predicting the mean training MOS; None without training;
        - ``n_missing, missing`` (first `N_EXAMPLES` paths), ``every_image_missing``;
        - ``decoded`` (bool), ``n_unreadable``, ``unreadable`` (count by reason), ``unreadable_examples``;
        - ``pixels``: ``width, height`` as [least, greatest], ``n_portrait``; ``formats``, ``modes``, ``actions``:
          counts; None unless decoded;
        - ``duplicates`` among readable files: ``n_sets`` (sets of identical files), ``n_extra`` (files beyond the
          first of each set), ``n_sets_across_splits``, ``n_sets_with_different_mos``, ``examples``;
        - ``findings``: what deserves attention, in plain sentences.

    Raises
    ------
    ValueError
        If ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"check_dataset: workers must be at least 1, got {workers}.")
    frame = table.frame
    present = _are_present(frame["path"].tolist())
    facts = inspect_files(frame.loc[present], decode=decode, workers=workers, on_progress=on_progress)
    report: dict[str, Any] = {
        "name": table.name,
        "root": str(table.root),
        "is_simulation": table.is_simulation,
        "licence": table.licence,
        "reference": table.reference,
        "notes": list(table.notes),
        "n_images": table.n_images,
        "n_scored": int(frame["mos"].notna().sum()),
        "counts": table.counts(),
        "mos_range": None if any(math.isnan(end) for end in table.mos_range) else list(table.mos_range),
        "mos": _describe_mos(table),
        "groups": _describe_groups(table),
        "group_overlap": _group_overlap(table),
        "constant": _constant_baseline(table),
        "n_missing": int((~present).sum()),
        "missing": [utf8_name(path) for path in frame.loc[~present, "path"].head(N_EXAMPLES)],
        "every_image_missing": bool(len(present) and not present.any()),
        **describe_files(facts, decode=decode),
        "duplicates": find_duplicates(facts),
    }
    report["findings"] = _findings(report)
    return report


def _are_present(paths: list[str]) -> NDArray[np.bool_]:
    in_store = find_statuses([path for path in paths if is_url(path)])
    # A Path for each of a million rows would take longer than to look the file up.
    found = [path in in_store if is_url(path) else os.path.isfile(path) for path in paths]  # noqa: PTH113
    return np.array(found, dtype=bool)


def _parts(table: ImageTable) -> dict[str, pd.DataFrame]:
    """Return the rows of every part that has images, in report order."""
    parts: dict[str, pd.DataFrame] = {}
    for split in SPLITS:
        rows = table.select(split)
        exclusive = rows[rows["subset"] == "exclusive"]
        if len(rows):
            parts[split or "no split"] = rows
        if len(exclusive):
            parts[f"{split or 'no split'}/exclusive"] = exclusive
    return parts


def _describe_mos(table: ImageTable) -> dict[str, dict[str, Any]]:
    known = table.frame["mos"].dropna().to_numpy()
    if not len(known):
        return {}
    # One set of edges for all parts, so that their histograms can be laid over each other.
    edges = np.histogram_bin_edges(known, bins=_N_BINS)
    described: dict[str, dict[str, Any]] = {}
    for part, rows in {"all": table.frame, **_parts(table)}.items():
        values = rows["mos"].dropna().to_numpy()
        if not len(values):
            continue
        described[part] = {
            "n": len(values),
            "mean": float(values.mean()),
            "std": float(values.std()),
            "quantiles": {f"{level:g}": float(np.quantile(values, level)) for level in QUANTILES},
            "histogram": {"edges": edges.tolist(), "counts": np.histogram(values, bins=edges)[0].tolist()},
        }
    return described


def _describe_groups(table: ImageTable) -> dict[str, Any] | None:
    if not table.has_groups:
        return None
    groups = table.frame["group"]
    sizes = Counter(group for group in groups if group)
    # Among groups of one size the name decides, so that two reports of one dataset are equal.
    name, largest = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {
        "n": len(sizes),
        "largest": largest,
        "largest_name": name,
        "n_images_without": int((groups == "").sum()),
    }


def _group_overlap(table: ImageTable) -> dict[str, float] | None:
    trained = set(table.select("training")["group"]) - {""}
    if not trained:
        return None
    return {
        part: float(rows["group"].isin(trained).mean())
        for part, rows in _parts(table).items()
        if part != "training"
    }


def _constant_baseline(table: ImageTable) -> dict[str, dict[str, float]] | None:
    training = table.select("training")["mos"].dropna()
    if training.empty:
        return None
    mean = float(training.mean())
    errors = {part: (rows["mos"].dropna() - mean).to_numpy() for part, rows in _parts(table).items()}
    return {
        part: {
            "n": len(error),
            "prediction": mean,
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
        }
        for part, error in errors.items()
        if len(error)
    }


def _findings(report: dict[str, Any]) -> list[str]:
    """Put into words what a user has to know before trusting results on this dataset."""
    found: list[str] = []
    if report["is_simulation"]:
        found.append("This is a simulation: results on it prove nothing about real photos.")
    if report["every_image_missing"]:
        found.append(
            f"Every image is missing: none of the {report['n_images']:,} files is there, the first was expected at "
            f"{report['missing'][0]}."
        )
    elif report["n_missing"]:
        found.append(f"{report['n_missing']:,} of {report['n_images']:,} images are missing.")
    if report["n_unreadable"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["unreadable"].items())
        found.append(f"{report['n_unreadable']:,} images cannot be read: {reasons}.")
    duplicates = report["duplicates"]
    if duplicates["n_sets"]:
        found.append(f"{duplicates['n_extra']:,} files are copies of another image, byte for byte.")
    if duplicates["n_sets_across_splits"]:
        found.append(
            f"{duplicates['n_sets_across_splits']:,} images occur in more than one split: results on them are not "
            "results on unseen images."
        )
    if duplicates["n_sets_with_different_mos"]:
        found.append(
            f"{duplicates['n_sets_with_different_mos']:,} images occur several times with different MOS."
        )
    n_unscored = report["n_images"] - report["n_scored"]
    if report["n_scored"] == 0:
        found.append("There is no MOS: these images can be scored, but nothing can be fitted on them.")
    elif n_unscored:
        found.append(f"{n_unscored:,} images have no MOS.")
    if report["n_scored"] and report["constant"] is None:
        found.append(
            "There is no training split: results depend on the split that is made, state it with them."
        )
    overlap = (report["group_overlap"] or {}).get("test", 0.0)
    if overlap > 0:
        found.append(
            f"{overlap:.1%} of the test images belong to groups that also have training images: what is learned about "
            "a group helps on them."
        )
    return found
