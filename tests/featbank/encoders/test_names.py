"""Encoder names have one spelling, and every mistake is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.encoders.spec import OPTIONS, POOLS, parse_encoder_name
from featbank.errors import EncoderError

VALUES = {
    "taps": st.lists(st.sampled_from(["out", "layer1", "blocks.*", "a.b.c"]), min_size=1, unique=True).map(
        ",".join
    ),
    "pool": st.lists(st.sampled_from(POOLS), min_size=1, unique=True).map("+".join),
    "until": st.sampled_from(["layer3", "blocks.6"]),
    "l2": st.sampled_from(["0", "1"]),
    "prompts": st.sampled_from(["quality-levels", "stored"]),
    "precision": st.sampled_from(["fp32", "bf16"]),
    "random": st.integers(0, 999_999_999).map(str),
}


@given(options=st.fixed_dictionaries({}, optional=VALUES), order=st.randoms())
def test_any_order_of_options_has_one_spelling(options: dict[str, str], order: object) -> None:
    items = list(options.items())
    order.shuffle(items)  # type: ignore[attr-defined]
    query = "&".join(f"{key}={value}" for key, value in items)
    name = parse_encoder_name("timm:resnet18.a1_in1k" + (f"?{query}" if query else ""))
    assert dict(name.options) == options
    assert parse_encoder_name(name.text) == name
    assert list(name.options) == [key for key in OPTIONS if key in options]
    assert name.base == "timm:resnet18.a1_in1k"
    assert name.seed == (int(options["random"]) if "random" in options else None)


def test_stages_are_pooled_to_mean_and_deviation_unless_told_otherwise() -> None:
    assert parse_encoder_name("timm:x?taps=stages,out").pool == ("mean", "std")
    assert parse_encoder_name("timm:x?taps=stages&pool=max").pool == ("max",)
    assert parse_encoder_name("timm:x?taps=out").pool == ("mean",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resnet18", "family:name"),
        (":resnet18", "family:name"),
        ("timm:", "family:name"),
        ("timm:x?tap=layer1", "Did you mean 'taps'"),
        ("timm:x?l2", "key=value"),
        ("timm:x?l2=", "key=value"),
        ("timm:x?l2=1&l2=0", "once"),
        ("timm:x?l2=yes", "l2 must be one of 0, 1"),
        ("timm:x?pool=avg", "pool must be one of mean, std, max, cls"),
        ("timm:x?pool=mean+mean", "each once"),
        ("timm:x?precision=fp16", "fp32, bf16"),
        ("timm:x?random=-1", "whole number"),
        ("timm:x?random=1e3", "whole number"),
        ("timm:x?random=12345678901", "at most 9 digits"),
        ("timm:x?taps=a,a", "distinct"),
        ("timm:x?taps=a,", "distinct"),
    ],
)
def test_mistakes_are_named(text: str, expected: str) -> None:
    with pytest.raises(EncoderError, match=expected.replace("(", r"\(")):
        parse_encoder_name(text)
