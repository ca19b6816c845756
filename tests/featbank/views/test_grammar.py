"""Spelling of views: what is read, what it is called afterwards, and what is refused with which help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.errors import ViewError
from featbank.views import VIEW_GRAMMAR, View, list_views, parse_view
from tests.support.views import spellings, views


@given(views)
def test_names_are_read_back_as_the_same_view(view: View) -> None:
    assert parse_view(view.name) == view
    assert parse_view(view.name).name == view.name


@given(spellings)
def test_parsing_is_a_function_of_the_text(text: str) -> None:
    assert parse_view(text) == parse_view(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("native", "native"),
        ("native/short_512~bicubic/native", "short_512"),
        ("center_320x320", "center_320"),
        ("center_1920x960", "center_1920x960"),
        ("five_224x224", "five_224"),
        ("square_320", "square_320"),
        ("square/squash_320x320~bilinear", "square_320~bilinear"),
        ("square/squash_320x200", "square/squash_320x200"),
        ("tiles_3x3", "tiles_3x3"),
        ("fragments_15x32x1", "fragments_15x32"),
        ("fragments_15x32x10", "fragments_15x32x10"),
        ("short_512~bilinear/center_480+half", "short_512~bilinear/center_480+half"),
        ("native+half", "native+half"),
        ("five_224+halfimage", "five_224+halfimage"),
    ],
)
def test_canonical_spelling(text: str, name: str) -> None:
    assert parse_view(text).name == name
    assert parse_view(text) == parse_view(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("centre_320", "did you mean 'center'"),
        ("Center_320", "did you mean 'center'"),
        ("squish_9x9", "did you mean 'squash'"),
        ("fragment_15x32", "did you mean 'fragments'"),
        ("short_512~cubic", "did you mean 'bicubic'"),
        ("short_512~nearest", "not one of bicubic, bilinear, lanczos"),
        ("center_320~bilinear", "does not resize"),
        ("square~bilinear", "does not resize"),
        ("short", "0 numbers where 'short' takes 1"),
        ("squash_224", "1 numbers where 'squash' takes 2"),
        ("tiles_3x3x3", "3 numbers where 'tiles' takes 1 or 2"),
        ("native_5", "1 numbers where 'native' takes 0"),
        ("center_0", "not one of the grammar"),
        ("center_032", "not one of the grammar"),
        ("center_-5", "not one of the grammar"),
        ("center_3.5", "not one of the grammar"),
        ("center_320/", "step ''"),
        ("", "step ''"),
        (" center_320", "not one of the grammar"),
        ("center_320\n", "not one of the grammar"),
        ("center_320+", r"ends in '\+'"),
        ("center_320+quarter", r"only '\+half' and '\+halfimage'"),
        ("center_320+half+half", r"ends in '\+half\+half'"),
        ("center_320+half/square", r"ends in '\+half/square'"),
        ("center_100001", "above 100000"),
        ("tiles_1001x1", "above 1000"),
        ("fragments_15x32x1001", "above 1000"),
    ],
)
def test_other_texts_are_refused_with_help(text: str, message: str) -> None:
    with pytest.raises(ViewError, match=message) as caught:
        parse_view(text)
    assert repr(text) in str(caught.value)
    assert VIEW_GRAMMAR in str(caught.value)


@given(st.text(alphabet="acdefghilmnoqrstuvw_x0123456789/~+ ", max_size=30))
def test_any_text_is_read_or_refused_cleanly(text: str) -> None:
    try:
        view = parse_view(text)
    except ViewError:
        return
    assert parse_view(view.name) == view


@pytest.mark.parametrize("text", [None, 3, b"native"])
def test_other_kinds_are_refused(text: object) -> None:
    with pytest.raises(ViewError, match="must be a string"):
        parse_view(text)  # type: ignore[arg-type]


def test_grammar_shows_only_views_that_can_be_read() -> None:
    examples = VIEW_GRAMMAR.splitlines()[-1].removeprefix("Examples: ").removesuffix(".").split(", ")
    assert len(examples) >= 4
    first_words = [
        line.split("  ")[1].split(", ") for line in VIEW_GRAMMAR.splitlines() if line.startswith("  ")
    ]
    for text in [*examples, *(word for words in first_words for word in words)]:
        parse_view(text)
    for family in (
        "native",
        "short",
        "width",
        "long",
        "squash",
        "down",
        "square",
        "center",
        "tiles",
        "mosaic",
        "fragments",
    ):
        assert family in VIEW_GRAMMAR


def test_listed_views_are_canonical_distinct_and_have_a_purpose() -> None:
    examples = list_views()
    for name, purpose in examples:
        assert parse_view(name).name == name
        assert 10 < len(purpose) < 100
    assert len({name for name, _ in examples}) == len(examples) > 20


def test_listed_views_use_every_family_of_the_grammar() -> None:
    names = " ".join(name for name, _ in list_views())
    for word in (
        "native",
        "short_",
        "width_",
        "long_",
        "squash_",
        "down_",
        "square_",
        "center_",
        "tiles_2",
        "tiles_3x3",
    ):
        assert word in names
    for word in ("mosaic_", "fragments_", "five_", "+half", "+halfimage", "~bilinear"):
        assert word in names
