"""Spells numbers, names and the verdict for readers; reads no files and draws nothing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from featbank.runs.folder import METRIC_NAMES
from regressors.evaluation.metrics import ERRORS

MINUS = "−"
MISSING = "–"
UNREADABLE = 1e9  # from here on a number is written with an exponent

METRIC_TITLES = {name: name.upper() for name in METRIC_NAMES} | {"plcc_logistic": "PLCC after logistic map"}
CORRELATIONS = frozenset(METRIC_NAMES) - frozenset(ERRORS)

_SPLIT_TITLES = {"training_cv": "training, out of fold", "training": "training"}


def split_title(key: str) -> str:
    """Spell a key of ``metrics.json`` such as ``test/exclusive`` for a table row."""
    split, _, subset = key.partition("/")
    title = _SPLIT_TITLES.get(split, split)
    return f"{title}, {subset} only" if subset else title


def score_title(select_by: str) -> str:
    """Spell the metric that chose the hyper-parameters; errors are negated there, so that greater is better."""
    return f"negated {select_by.upper()}" if select_by in ERRORS else select_by.upper()


def sentence_case(text: str) -> str:
    """Raise the first letter and leave the others, so that ``MOS`` stays ``MOS``."""
    return text[:1].upper() + text[1:]


def plain_label(text: object, width: int = 44) -> str:
    """Make any name safe to draw: control characters replaced, long names shortened in the middle.

    Drawn text ends in an SVG document, where control characters and lone surrogates are not allowed at all.
    """
    label = "".join("\ufffd" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in str(text))
    if len(label) <= width:
        return label
    head = (width - 1) // 2
    return f"{label[:head]}…{label[-(width - 1 - head) :]}"


def decimals_for(values: Iterable[float], digits: int = 3) -> int:
    """Decimals that give the smallest of several magnitudes ``digits`` significant digits.

    One number of decimals for a whole column keeps its figures aligned.

    Returns
    -------
    int in [0, 6]
    """
    sizes = [abs(v) for v in values if math.isfinite(v) and v != 0]
    if not sizes:
        return digits - 1
    return max(0, min(6, digits - 1 - math.floor(math.log10(min(sizes)))))


def fixed(value: float, decimals: int) -> str:
    """Write ``value`` with a fixed number of decimals, a true minus sign, and a dash where it is undefined."""
    if not math.isfinite(value):
        return MISSING
    if abs(value) >= UNREADABLE:
        # A model gone wrong must not stretch every table; its size still shows.
        return f"{value:.2e}".replace("-", MINUS)
    text = f"{value:.{decimals}f}"
    if text.startswith("-"):
        # A rounded zero has no sign.
        text = text[1:] if float(text) == 0 else MINUS + text[1:]
    return text


def number(value: float, digits: int = 3) -> str:
    """Write ``value`` with about ``digits`` significant digits and no exponent; large ones with separators."""
    if not math.isfinite(value):
        return MISSING
    if 10_000 <= abs(value) < UNREADABLE:
        return f"{value:,.0f}".replace("-", MINUS)
    if value != 0 and abs(value) < 1e-6:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    if value == round(value):
        return fixed(value, 0)
    # The digits of the rounded value: 0.9996 is 1.00, not 1.000.
    return fixed(value, decimals_for([float(f"{value:.{digits - 1}e}")], digits))


def interval(low: float, high: float, decimals: int) -> str:
    """Write an interval in brackets, or nothing where an end is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def count(n: int) -> str:
    """Write a count with thousands separators."""
    return f"{n:,}"


def plural(n: int, noun: str, many: str = "") -> str:
    """Write a count with its noun, ``1 image`` or ``900 images``; ``many`` where an s does not do."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {many or noun + 's'}"


def percent(share: float, digits: int = 2) -> str:
    """Write a share of one as percent with about ``digits`` significant digits."""
    value = 100 * share
    if not math.isfinite(value):
        return MISSING
    decimals = 0 if abs(value) >= 10 or value == 0 else min(decimals_for([value], digits), 3)
    return f"{fixed(value, decimals)}\u00a0%"


def duration(seconds: float) -> str:
    """Write a time in seconds, from milliseconds to hours, in the unit people would choose."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 0.9995:
        return f"{number(1000 * seconds)} ms"
    if seconds < 99.95:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)} h {minutes:02d} min"


def against(value: float, ends: tuple[float, float], other: float) -> str:
    """Say how a score stands to another, given its own interval.

    Parameters
    ----------
    ends : (float, float)
        Its 95 % interval; nan where there is none, and then nothing is said to be sure.

    Returns
    -------
    str
        ``above`` or ``below`` where the whole interval lies on that side, ``ahead of`` or ``behind`` where only the
        score does, ``level with`` where they are equal. `AGAINST_NOTE` says so to readers.
    """
    if value == other:
        return "level with"
    if value > other:
        return "above" if ends[0] > other else "ahead of"
    return "below" if ends[1] < other else "behind"


AGAINST_NOTE = (
    "“Above” and “below” mean that the whole 95\u00a0% interval of this run lies on that side of the other value, "
    "“ahead of” and “behind” that only the value does, “level with” that both are equal."
)
