"""Renders the report of `check_dataset` as text for a terminal; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_N_FILES_SHOWN = 10


def render_check(report: Mapping[str, Any]) -> str:
    """Render a report for reading.

    Parameters
    ----------
    report : mapping
        As returned by `featbank.datasets.check_dataset`, or read back from its JSON.

    Returns
    -------
    str
        Several lines without a trailing newline. What deserves attention comes after the figures.
    """
    lines = [f"{report['name']}  {report['root']}"]
    lines += ["", *_parts(report)]
    if report["mos_range"] is not None:
        low, high = report["mos_range"]
        lines += ["", f"MOS scale {low:g} to {high:g}, higher is better"]
    lines += ["", *_groups(report), *_files(report)]
    if report["notes"]:
        lines += ["", "Notes", *(f"  {note}" for note in report["notes"])]
    if report["findings"]:
        lines += ["", "Findings", *(f"  {finding}" for finding in report["findings"])]
    sources = [
        f"{label}: {report[label.lower()]}" for label in ("Licence", "Reference") if report[label.lower()]
    ]
    if sources:
        lines += ["", *sources]
    return "\n".join(lines)


def _parts(report: Mapping[str, Any]) -> list[str]:
    """Lay out one line per part: images, MOS, and what the constant prediction scores there."""
    head = (
        "part",
        "images",
        "MOS mean",
        "std",
        "min",
        "5 %",
        "median",
        "95 %",
        "max",
        "constant MAE",
        "RMSE",
    )
    rows = [head]
    counts = dict(report["counts"])
    if sum("/" not in part for part in counts) > 1:
        counts["all"] = report["n_images"]
    for part, n_images in counts.items():
        mos = report["mos"].get(part)
        constant = (report["constant"] or {}).get(part)
        described = ["", "", "", "", "", "", ""]
        if mos is not None:
            levels = mos["quantiles"]
            numbers = (
                mos["mean"],
                mos["std"],
                *(levels[level] for level in ("0", "0.05", "0.5", "0.95", "1")),
            )
            described = [f"{number:.4g}" for number in numbers]
        errors = ["", ""] if constant is None else [f"{constant['mae']:.4f}", f"{constant['rmse']:.4f}"]
        rows.append((part, f"{n_images:,}", *described, *errors))
    # A column in which no part has anything says nothing.
    used = [place for place in range(len(head)) if any(row[place] for row in rows[1:])]
    widths = {place: max(len(row[place]) for row in rows) for place in used}
    return [
        "  ".join(
            row[place].ljust(widths[place]) if place == 0 else row[place].rjust(widths[place])
            for place in used
        ).rstrip()
        for row in rows
    ]


def _groups(report: Mapping[str, Any]) -> list[str]:
    groups = report["groups"]
    if groups is None:
        return ["Groups: none; every image counts as a group of its own"]
    lines = [
        f"Groups: {groups['n']:,}, the largest {groups['largest_name']!r} with {groups['largest']:,} images"
    ]
    if groups["n_images_without"]:
        lines.append(f"  {groups['n_images_without']:,} images without a group")
    for part, share in (report["group_overlap"] or {}).items():
        lines.append(f"  share of {part} whose group is in training: {share:.3f}")
    return lines


def _files(report: Mapping[str, Any]) -> list[str]:
    n_present = report["n_images"] - report["n_missing"]
    if report["every_image_missing"]:
        return ["Files: every image is missing"]
    lines = [f"Files: {n_present:,} present, {report['n_missing']:,} missing"]
    lines += [f"  missing: {path}" for path in report["missing"][:_N_FILES_SHOWN]]
    if not report["decoded"]:
        lines.append("  not decoded: damaged images would not show")
    else:
        lines.append(f"  unreadable: {report['n_unreadable']:,}")
        lines += [f"  {item['message']}" for item in report["unreadable_examples"][:_N_FILES_SHOWN]]
    if report["pixels"] is not None:
        (least_w, most_w), (least_h, most_h) = report["pixels"]["width"], report["pixels"]["height"]
        lines.append(
            f"  pixels: width {least_w:,} to {most_w:,}, height {least_h:,} to {most_h:,}, "
            f"{report['pixels']['n_portrait']:,} in portrait"
        )
        for label in ("formats", "modes", "actions"):
            if report[label]:
                lines.append(
                    f"  {label}: " + ", ".join(f"{name} {count:,}" for name, count in report[label].items())
                )
    duplicates = report["duplicates"]
    lines.append(
        f"  identical files: {duplicates['n_extra']:,} copies, {duplicates['n_sets_across_splits']:,} images in more "
        "than one split"
    )
    lines += [f"  identical: {', '.join(item['images'])}" for item in duplicates["examples"][:_N_FILES_SHOWN]]
    return lines
