from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.report.style import (
    AGAINST_NOTE,
    MINUS,
    MISSING,
    against,
    decimals_for,
    duration,
    fixed,
    interval,
    number,
    percent,
    plain_label,
    plural,
    sentence_case,
    split_title,
)

MODERATE = st.floats(min_value=1e-5, max_value=9e3)


def _read(text: str) -> float:
    return float(text.replace(MINUS, "-").replace(",", ""))


@given(MODERATE, st.sampled_from([-1.0, 1.0]))
def test_number_keeps_three_significant_digits(size: float, sign: float) -> None:
    assert _read(number(sign * size)) == pytest.approx(sign * size, rel=5.1e-3, abs=5.1e-7)


@given(st.integers(min_value=-(10**9) + 1, max_value=10**9 - 1))
def test_number_shows_whole_numbers_without_decimals(value: int) -> None:
    text = number(float(value))
    assert "." not in text
    assert _read(text) == value


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_number_never_fails_and_never_shows_nan(value: float) -> None:
    text = number(value)
    assert text
    assert "nan" not in text
    assert "inf" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_dash(value: float) -> None:
    assert number(value) == fixed(value, 3) == duration(value) == percent(value) == MISSING
    assert interval(value, 0.5, 3) == interval(0.5, value, 3) == ""


@given(st.floats(min_value=-0.00049, max_value=0.0))
def test_a_rounded_zero_has_no_sign(value: float) -> None:
    assert fixed(value, 3) == "0.000"


@given(st.floats(min_value=1e9, max_value=1e300), st.integers(0, 6))
def test_runaway_values_stay_short(value: float, decimals: int) -> None:
    assert len(fixed(-value, decimals)) <= 10  # −1.23e+300
    assert _read(fixed(value, decimals)) == pytest.approx(value, rel=5.1e-3)
    assert number(value) == fixed(value, decimals)


def test_negative_values_carry_a_true_minus_sign() -> None:
    assert fixed(-0.1234, 3) == f"{MINUS}0.123"
    assert interval(-0.5, 0.25, 2) == f"[{MINUS}0.50, 0.25]"


@given(st.lists(MODERATE, min_size=1, max_size=6), st.integers(min_value=1, max_value=4))
def test_column_decimals_serve_the_smallest_value(values: list[float], digits: int) -> None:
    decimals = decimals_for(values, digits)
    smallest = min(values)
    assert 0 <= decimals <= 6
    if 0 < decimals < 6:
        assert 10 ** (digits - 1) <= smallest * 10**decimals * (1 + 1e-9) < 10**digits


def test_column_decimals_pass_over_zero_and_nan() -> None:
    assert decimals_for([0.0, math.nan, 0.0123]) == decimals_for([0.0123]) == 4
    assert decimals_for([0.0, math.nan]) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (6.31, "6.31 s"),
        (99.96, "1 min 40 s"),
        (214.7, "3 min 35 s"),
        (3599.6, "1 h 00 min"),
        (7325, "2 h 02 min"),
    ],
)
def test_durations_choose_their_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.523, "52 %"), (0.0109, "1.1 %"), (0.00012, "0.012 %"), (0.0, "0 %"), (-0.034, f"{MINUS}3.4 %")],
)
def test_percent_does_not_break_before_its_sign(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\u00a0")


@given(st.text(max_size=200), st.integers(min_value=5, max_value=60))
def test_labels_are_short_and_drawable(text: str, width: int) -> None:
    label = plain_label(text, width)
    assert len(label) <= width
    assert not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 or 0x7F <= ord(c) < 0xA0 for c in label)


def test_short_clean_labels_are_untouched() -> None:
    assert plain_label("without:quality") == "without:quality"
    assert plain_label("a" * 50 + "z", 11) == "aaaaa…aaaaz"


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(-1, 1))
def test_above_and_below_need_the_whole_interval(value: float, margin: float, other: float) -> None:
    word = against(value, (value - margin, value + margin), other)
    assert f"“{word}” " in AGAINST_NOTE.lower()
    assert (word == "above") == (value - margin > other)
    assert (word == "below") == (value + margin < other)
    assert (word in {"above", "ahead of"}) == (value > other)
    assert (word in {"below", "behind"}) == (value < other)


def test_without_an_interval_nothing_is_sure() -> None:
    none = (math.nan, math.nan)
    assert [against(value, none, 0.4) for value in (0.5, 0.4, 0.3)] == ["ahead of", "level with", "behind"]


def test_names_of_splits_and_counts() -> None:
    assert split_title("training_cv") == "training, out of fold"
    assert split_title("test/exclusive") == "test, exclusive only"
    assert plural(1, "image") == "1 image"
    assert plural(4269, "image") == "4,269 images"
    assert plural(2, "pass", "passes") == "2 passes"
    assert sentence_case("mOS") == "MOS"
