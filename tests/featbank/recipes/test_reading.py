"""The recipe's schema is strict, its errors name the key, and writing it back changes nothing."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.encoders import make_encoder
from featbank.encoders.weights import NETWORK_FAMILIES
from featbank.errors import RecipeError, UnknownNameError
from featbank.feature import make_feature
from featbank.recipes.reading import builtin_recipes, parse_recipe, read_recipe

MINIMAL = """
recipe_version = 1
[[band]]
name = "quality"
encoder = "classic:nss"
view = "center_320"
"""


def test_defaults_are_those_of_the_contract() -> None:
    recipe = parse_recipe(MINIMAL, "minimal")
    assert recipe.regression.members == "all+leave-one-out"
    assert recipe.regression.cv.kind == "grouped"
    assert recipe.regression.alpha == pytest.approx([10.0**exponent for exponent in range(-6, 7)])
    assert recipe.regression.budget_gmacs == 50.0


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("[regression]\nalhpa = [1.0]", "Did you mean alpha"),
        ("[regression]\nestimator = 'rigde'", "Did you mean 'ridge'"),
        ("[regression]\ncombine = 'average'", "regression.combine must be one of uniform, nnls, simplex"),
        ("[regression]\nalpha = [-1.0]", "not negative"),
        ("[regression]\nalpha = { logspace = [-6, 6] }", "logspace must be"),
        ("[regression]\nalpha = []", "must hold 1 to 1000 values"),
        ("[regression]\nC = [0.0]", "positive"),
        ("[regression]\nscale = 'minmx'", "Did you mean 'minmax'"),
        ("[regression]\nscale = 'none'\nunit_band = true", "weigh standardised columns"),
        (
            "[regression]\nscale = 'none'\n[search]\nestimator = ['banded-ridge']",
            "weigh standardised columns",
        ),
        ("[regression]\nbudget_gmacs = 'big'", "budget_gmacs must be a number above 0"),
        ("[regression]\ncv = { kind = 'grouped', n_splits = 1 }", "n_splits must be a whole number from 2"),
        ("[regression]\ncv = { n_splits = 1000000000000 }", "n_splits must be a whole number"),
        ("[regression]\ncv = { n_splits = true }", "n_splits must be a whole number"),
        ("[regression]\ncv = { random_state = -1 }", "random_state must be a whole number from 0"),
        ("[regression]\ncv = { random_state = 4294967296 }", "random_state must be a whole number from 0"),
        ("[regression]\ncv = { random_stat = 1 }", "Did you mean random_state"),
        (f"[regression]\nalpha = [1{'0' * 400}]", "regression.alpha must be a finite number"),
        (f"[regression]\nalpha = [1{'0' * 5000}]", "not valid TOML"),
        (f"[regression]\nbudget_gmacs = 1{'0' * 400}", "budget_gmacs must be a number above 0"),
        (f"[regression]\nseed = 1{'0' * 400}", "unknown key regression.seed"),
        ("[regression]\nalpha = [1e308]", "below 1e+30"),
        ("[regression]\nalpha = [nan]", "regression.alpha must be a finite number"),
        ("[regression]\nalpha = [inf]", "regression.alpha must be a finite number"),
        ("[regression]\nC = 'many'", "regression.C must be a finite number"),
        ("[regression]\nalpha = { logspace = [-6, 6, 1000000000] }", "number of values"),
        ("[regression]\nalpha = { logspace = [-6, 400, 5] }", "logspace must be a number above -31"),
        ("[regression]\nalpha = { logspace = ['a', 6, 5] }", "logspace must be a number above -31"),
        ("[regression]\nalpha = { logspace = [-6, 6, true] }", "number of values"),
        (f"x = {'[' * 5000}", "not valid TOML"),
        ("[regression]\nalpha = [1.0]\nalpha = [2.0]", "not valid TOML"),
        (f"[[band]]\nname = '{'b' * 1000}'\nencoder = 'x'\nview = 'y'", "at most 200 characters"),
        ('[[band]]\nname = "a\\nb"\nencoder = "x"\nview = "y"', "band.name must be a word"),
        ("[[band]]\nname = 'b'\nencoder = 'x'\nview = 'y'\n" * 300, "at most 256 bands"),
        ("[regression]\ncv = { kind = 'loo' }", "cv.kind must be one of"),
        ("[regression]\ncv = { holdout = 1.5 }", "above 0 and below 1"),
        ("[regression]\nmembers = [['scene']]", "regression.members must be one of quality"),
        ("[regression]\nunit_band = 1", "true or false"),
        ("[regression]\nband_weights = [{ qualty = 1.0 }]", "Did you mean quality"),
        ("[regression]\nband_weights = [{ quality = 0.0 }]", "above 0"),
        ("[regression]\nband_weights = 2.0", "list of tables"),
        (
            "[[band]]\nname = 'quality'\nencoder = 'classic:gist'\nview = 'square_320'",
            "band names must differ",
        ),
        ("[[band]]\nname = 'a:b'\nencoder = 'classic:gist'\nview = 'square_320'", "without ':'"),
        ("[[band]]\nname = 'b'\nencoder = 'classic:gist'", "needs a `view`"),
        ("[[band]]\nname = 'b'\nview = 'square_320'", "needs `encoder`"),
        ("[[band]]\nname = 'b'\nencoder = 3\nview = 'square_320'", "must be text"),
        ("[regression]\nrows = 'crops'", 'aggregate = "concat"'),
        ("[regression]\nrows = 'tiles'", "regression.rows must be one of images, crops"),
        ("regression = 3", "must be a table"),
        ("[output]", "unknown key output"),
        ("[", "not valid TOML"),
    ],
)
def test_a_broken_recipe_is_refused_with_the_key_named(addition: str, expected: str) -> None:
    text = addition + MINIMAL if addition == "regression = 3" else MINIMAL + addition
    with pytest.raises(RecipeError, match=re.escape(expected)) as refused:
        parse_recipe(text, "broken")
    assert len(str(refused.value)) < 400


def test_what_is_no_recipe_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "empty.toml").touch()
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(1 << 40)
    for name, words in (
        ("pipe", "not a file"),
        ("folder", "not a file"),
        ("empty", "zero bytes"),
        ("binary", "cannot read"),
        ("huge", "at most"),
        ("none", "cannot read"),
    ):
        with pytest.raises(RecipeError, match=words):
            read_recipe(str(tmp_path / f"{name}.toml"))


@pytest.mark.parametrize("text", ["", "recipe_version = 2", "recipe_version = 1\nband = []"])
def test_version_and_bands_are_required(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text, "empty")


@given(
    logs=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5),
    splits=st.integers(2, 20),
    combine=st.sampled_from(["uniform", "nnls", "simplex"]),
    members=st.sampled_from(["'all'", "'each'", "[['quality']]"]),
)
def test_writing_and_reading_back_gives_the_same_recipe(
    logs: list[float], splits: int, combine: str, members: str
) -> None:
    text = MINIMAL + (
        f"[regression]\nalpha = {logs!r}\ncv = {{ kind = 'kfold', n_splits = {splits} }}\n"
        f"combine = '{combine}'\nmembers = {members}\nband_weights = [{{ quality = 0.5 }}, {{}}]\n"
    )
    recipe = parse_recipe(text, "trip")
    again = parse_recipe(recipe.to_toml(), "trip")
    assert again == recipe
    assert again.digest == recipe.digest


def test_the_short_form_of_holdout() -> None:
    recipe = parse_recipe(MINIMAL + "[regression]\ncv = { holdout = 0.3 }", "holdout")
    assert (recipe.regression.cv.kind, recipe.regression.cv.test_size) == ("holdout", 0.3)


def test_a_recipe_from_before_scaling_was_a_choice_keeps_its_digest() -> None:
    recipe = parse_recipe(MINIMAL, "minimal")
    assert recipe.digest == "1426c366705965765f937f7b97dc8ab40baed980ffc0d1f07a3be9065c2778ec"
    assert parse_recipe(MINIMAL + "[regression]\nscale = 'standard'", "minimal").digest == recipe.digest
    assert parse_recipe(MINIMAL + "[regression]\nscale = 'none'", "minimal").digest != recipe.digest


def test_unknown_recipe_names_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="starter"):
        read_recipe("startr")


def test_missing_file_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match="cannot read"):
        read_recipe("no/such/recipe.toml")


def needs_networks(name: str) -> bool:
    families = {band.encoder.partition(":")[0] for band in read_recipe(name).bands}
    return bool(families & set(NETWORK_FAMILIES))


@pytest.mark.parametrize(
    "name",
    [
        # Building every network on the meta device takes a second or two each.
        pytest.param(
            name, marks=[pytest.mark.slow] if needs_networks(name) and name not in {"icl", "baseline"} else []
        )
        for name in sorted(builtin_recipes())
    ],
)
def test_every_builtin_recipe_resolves_within_its_budget(name: str) -> None:
    if needs_networks(name):
        pytest.importorskip("torch", reason="needs the optional packages of network encoders")
    recipe = read_recipe(name)
    passes = {}
    for band in recipe.bands:
        assert make_encoder(band.encoder).spec.name == band.encoder
        feature = make_feature(band.encoder, band.view, band.aggregate)
        passes[feature.pass_id] = feature.gmacs()
    # The networks to search among fit one by one.
    total = max(passes.values()) if name == "search-networks" else sum(passes.values())
    assert total <= recipe.regression.budget_gmacs
