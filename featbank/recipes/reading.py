"""The recipe: a strict, versioned TOML file that states which features, which regression, which budget."""

from __future__ import annotations

import difflib
import itertools
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import tomli_w

from featbank.digest import digest_json
from featbank.errors import RecipeError, unknown_name
from featbank.remote import read_regular
from regressors.kinds import DEFAULT_GRID, ESTIMATORS

MEMBERS = ("all+leave-one-out", "all", "each")
COMBINATIONS = ("uniform", "nnls", "simplex")


def shown(value: object) -> str:
    """Spell a value for a message, the beginning and the end of a long one."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python spells
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:50]}...{text[-20:]}"


def number(recipe: str, key: str, value: object, *, above: float | None, below: float = math.inf) -> float:
    """Accept a finite number inside an open interval.

    Parameters
    ----------
    recipe, key : str
        Where the value stands, for the message.
    value : object
        As read from TOML.
    above, below : float
        Bounds, themselves not allowed; ``above=None`` is no lower bound.

    Returns
    -------
    float

    Raises
    ------
    RecipeError
        For anything else.
    """
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        found = math.inf
    if math.isfinite(found) and (above is None or above < found) and found < below:
        return found
    interval = "a finite number" if above is None else f"a number above {above:g}"
    if below < math.inf:
        interval += f" and below {below:g}"
    raise RecipeError(f"recipe {recipe!r}: {key} must be {interval}, got {shown(value)}.")


def whole(recipe: str, key: str, value: object, low: int, high: int) -> int:
    """Accept a whole number from ``low`` to ``high``; raises RecipeError for anything else, as `number` does."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise RecipeError(
        f"recipe {recipe!r}: {key} must be a whole number from {low} to {high}, got {shown(value)}."
    )


def typed(recipe: str, key: str, value: object, kind: type) -> Any:  # noqa: ANN401 - one of the TOML types
    """Accept a value of one TOML type.

    Parameters
    ----------
    recipe, key : str
        Where the value stands, for the message.
    value : object
        As read from TOML.
    kind : {str, int, bool}

    Returns
    -------
    str, int or bool

    Raises
    ------
    RecipeError
        For a value of another type.
    """
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {str: "text", int: "a whole number", bool: "true or false"}
    raise RecipeError(f"recipe {recipe!r}: {key} must be {names[kind]}, got {shown(value)}.")


def one_of(recipe: str, key: str, value: object, allowed: tuple[str, ...]) -> str:
    """Accept one of several words.

    Parameters
    ----------
    recipe, key : str
        Where the value stands, for the message.
    value : object
        As read from TOML.
    allowed : tuple of str

    Returns
    -------
    str

    Raises
    ------
    RecipeError
        For any other value; names the nearest word.
    """
    if isinstance(value, str) and value in allowed:
        return value
    near = difflib.get_close_matches(shown(value).strip("'"), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RecipeError(
        f"recipe {recipe!r}: {key} must be one of {', '.join(allowed)}, got {shown(value)}.{hint}"
    )


def check_keys(recipe: str, where: str, item: object, known: Iterable[str]) -> Mapping[str, Any]:
    """Accept a table that holds known keys only.

    Parameters
    ----------
    recipe, where : str
        Where the table stands, for the message; ``where`` ends in a dot unless it is the recipe itself.
    item : object
        As read from TOML.
    known : iterable of str

    Returns
    -------
    mapping of str to object
        ``item``.

    Raises
    ------
    RecipeError
        If it is no table, or holds another key; names near keys.
    """
    known = set(known)
    if not isinstance(item, dict):
        raise RecipeError(
            f"recipe {recipe!r}: {where.rstrip('.')} must be a table of keys, got {shown(item)}."
        )
    for key in item:
        if key not in known:
            near = difflib.get_close_matches(key[:80], known, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise RecipeError(
                f"recipe {recipe!r}: unknown key {where}{key[:80]}.{hint} Known keys here: {', '.join(sorted(known))}."
            )
    return item


IMPORTED_PREFIX = "imported:"


class BandLike(Protocol):
    """What is asked of a band: a name and an encoder."""

    @property
    def name(self) -> str:
        """Name in the recipe."""

    @property
    def encoder(self) -> str:
        """Name of its encoder."""


@dataclass(frozen=True)
class SearchRequest:
    """``[search]``: further choices, each beside the recipe's own value, which always stays one of them.

    Attributes
    ----------
    view, aggregate : dict of str to tuple of str
        Further views, and ways to pool the crops, by band.
    estimator, members, combine : tuple of str
        Further kinds of regressor, designs of members, and rules of combination.
    unit_band : tuple of bool
        Further scalings: whether each band is brought to total variance 1.
    """

    view: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aggregate: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    estimator: tuple[str, ...] = ()
    unit_band: tuple[bool, ...] = ()
    members: tuple[str, ...] = ()
    combine: tuple[str, ...] = ()

    def to_table(self) -> dict[str, Any]:
        """Return what TOML writes: the choices that are there."""
        return {key: value for key, value in asdict(self).items() if value}


def parse_search(recipe: str, item: object, bands: Sequence[BandLike]) -> SearchRequest:
    """Check ``[search]`` against the schema.

    Parameters
    ----------
    recipe : str
        Name of the recipe, for messages.
    item : object
        As read from TOML.
    bands : sequence of BandRequest
        The recipe's bands.

    Returns
    -------
    SearchRequest

    Raises
    ------
    RecipeError
        For an unknown key or band, a wrong type, an empty list, a repeated choice, or another view of imported
        features.
    """
    table = check_keys(recipe, "search.", item, SearchRequest.__dataclass_fields__)
    values: dict[str, Any] = {}
    for key, allowed in (("estimator", ESTIMATORS), ("members", MEMBERS), ("combine", COMBINATIONS)):
        if key in table:
            where = f"search.{key}"
            values[key] = tuple(
                one_of(recipe, where, word, allowed) for word in _choices(recipe, where, table[key])
            )
    if "unit_band" in table:
        values["unit_band"] = tuple(
            typed(recipe, "search.unit_band", value, bool)
            for value in _choices(recipe, "search.unit_band", table["unit_band"])
        )
    for key in ("view", "aggregate"):
        if key in table:
            values[key] = _by_band(recipe, key, table[key], bands)
    return SearchRequest(**values)


def _by_band(recipe: str, key: str, item: object, bands: Sequence[BandLike]) -> dict[str, tuple[str, ...]]:
    encoders = {band.name: band.encoder for band in bands}
    choices: dict[str, tuple[str, ...]] = {}
    for band, value in check_keys(recipe, f"search.{key}.", item, encoders).items():
        where = f"search.{key}.{band}"
        if encoders[band].startswith(IMPORTED_PREFIX):
            raise RecipeError(
                f"recipe {recipe!r}: {where} is not possible: the features of {encoders[band]!r} were computed "
                f"elsewhere and have one {key}. Import the other ones as bands of their own."
            )
        choices[band] = tuple(typed(recipe, where, word, str) for word in _choices(recipe, where, value))
    return choices


def _choices(recipe: str, key: str, value: object) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise RecipeError(f"recipe {recipe!r}: {key} must be a list of choices, got {shown(value)}.")
    if any(choice in value[:place] for place, choice in enumerate(value)):
        raise RecipeError(f"recipe {recipe!r}: {key} must name each choice once, got {shown(value)}.")
    return value


RECIPE_VERSION: Final = 1

MAX_BYTES: Final = 1 << 20
MAX_BANDS: Final = 256
MAX_GRID: Final = 1000
"""Values of one hyper-parameter."""
MAX_VALUE: Final = 1e30
"""Larger hyper-parameters mean nothing and overflow when they are multiplied."""
MAX_FOLDS: Final = 10_000
MAX_SEED: Final = 2**32 - 1
MAX_NAME: Final = 200
"""Characters of a band's name, which heads its columns."""

AIM2024_BUDGET_GMACS: Final = 50.0
"""Budget of the AIM 2024 UHD-IQA challenge (report, section 1.2)."""

CV_KINDS = ("grouped", "kfold", "holdout")
ROWS = ("images", "crops")
SELECTION = ("srcc", "plcc", "krcc", "rmse", "mae")


@dataclass(frozen=True)
class BandRequest:
    """One ``[[band]]`` of a recipe: an encoder on a view, under a name of its own."""

    name: str
    encoder: str
    view: str = "none"
    aggregate: str = "mean"


@dataclass(frozen=True)
class FoldsRequest:
    """``regression.cv``: how the training split is cut.

    ``grouped`` (the default) keeps the images of one group (uploader, reference image) together;
    ``kfold`` keeps only the rows of one image together, for instance to mimic a published protocol;
    ``holdout`` is one grouped cut with ``test_size`` of the images held out.
    """

    kind: str = "grouped"
    n_splits: int = 5
    shuffle: bool = True
    random_state: int = 0
    test_size: float = 0.2


@dataclass(frozen=True)
class RegressionRequest:
    """``[regression]``: the members, their estimator and grid, and how they are combined.

    ``rows`` is ``images``, or ``crops`` to learn from every crop as a row of its own with its image's MOS and to
    average predictions over crops (as ARNIQA does); all bands then need ``aggregate = "concat"`` and the same
    number of crops. ``alpha`` is the ridge penalty; ``C`` and ``epsilon`` are the SVR's, in units of the
    standardised MOS; ``gamma`` multiplies 1 / (n_features * variance). Grids are lists of numbers.
    ``band_weights`` lists candidates for the weights of the bands, tried with every other parameter; none means
    all alike.
    """

    rows: str = "images"
    members: str | tuple[tuple[str, ...], ...] = "all+leave-one-out"
    estimator: str = "ridge"
    alpha: tuple[float, ...] = DEFAULT_GRID["alpha"]
    C: tuple[float, ...] = DEFAULT_GRID["C"]
    gamma: tuple[float, ...] = DEFAULT_GRID["gamma"]
    epsilon: tuple[float, ...] = DEFAULT_GRID["epsilon"]
    unit_band: bool = False
    band_weights: tuple[dict[str, float], ...] = ()
    cv: FoldsRequest = field(default_factory=FoldsRequest)
    combine: str = "nnls"
    select_by: str = "srcc"
    budget_gmacs: float = AIM2024_BUDGET_GMACS


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe: every default filled in.

    Attributes
    ----------
    name : str
        File name without ``.toml``.
    title : str
        One line for people.
    source : str
        Where the system comes from (paper, section), and what differs; may be empty.
    bands : tuple of BandRequest
    regression : RegressionRequest
    search : SearchRequest or None
        What `featbank search` may vary besides the subset of bands; a fit takes no notice of it.
    """

    name: str
    title: str
    source: str
    bands: tuple[BandRequest, ...]
    regression: RegressionRequest
    search: SearchRequest | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved content; the name does not count, nor does a search that is not there."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        if self.search is None:
            del content["search"]
        return digest_json(content)

    def to_toml(self) -> str:
        """Write the recipe as resolved; reading it back gives the same recipe."""
        content: dict[str, Any] = {
            "recipe_version": RECIPE_VERSION,
            "title": self.title,
            "source": self.source,
        }
        content["band"] = [asdict(band) for band in self.bands]
        content["regression"] = asdict(self.regression)
        if self.search is not None:
            content["search"] = self.search.to_table()
        return tomli_w.dumps(content)


def builtin_recipes() -> dict[str, Path]:
    """Return the recipes that ship with the package, by name."""
    folder = Path(str(resources.files("featbank") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by the name of a built-in one, or from a TOML file.

    Raises
    ------
    RecipeError
        If the file cannot be read or breaks the schema; the message names the key.
    UnknownNameError
        If no built-in recipe has that name.
    """
    builtin = builtin_recipes()
    if name_or_path in builtin:
        path = builtin[name_or_path]
    elif name_or_path.endswith(".toml") or "/" in name_or_path:
        path = Path(name_or_path)
    else:
        raise unknown_name("recipe", name_or_path, builtin, "featbank list recipes")
    try:
        text = read_regular(path, MAX_BYTES, RecipeError).decode("utf-8-sig")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe: cannot read {str(path)!r}: {error}.") from error
    return parse_recipe(text, path.stem)


def parse_recipe(text: str, name: str) -> Recipe:
    """Check a recipe's text against the schema and fill in the defaults.

    Raises
    ------
    RecipeError
        For invalid TOML, a missing or unknown key, a wrong type, or a value that is not allowed.
    """
    try:
        content = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also a number of thousands of digits, tables inside tables
        cause = str(error).partition(";")[0]
        raise RecipeError(f"recipe {name!r}: not valid TOML: {cause}.") from error
    check_keys(name, "", content, {"recipe_version", "title", "source", "band", "regression", "search"})
    version = content.get("recipe_version")
    if version != RECIPE_VERSION:
        raise RecipeError(
            f"recipe {name!r}: recipe_version must be {RECIPE_VERSION}, got {version!r}. "
            "Write `recipe_version = 1` as the first line; newer versions need a newer featbank."
        )
    bands = _parse_bands(name, content.get("band", []))
    regression = _parse_regression(name, content.get("regression", {}), [band.name for band in bands])
    if regression.rows == "crops" and any(band.aggregate != "concat" for band in bands):
        names = ", ".join(band.name for band in bands if band.aggregate != "concat")
        raise RecipeError(
            f'recipe {name!r}: regression.rows = "crops" needs aggregate = "concat" in every [[band]], because a mean '
            f"has no crops left; missing in {names}."
        )
    search = None if "search" not in content else parse_search(name, content["search"], bands)
    title, source = (typed(name, key, content.get(key, ""), str) for key in ("title", "source"))
    return Recipe(name, title or name, source, bands, regression, search)


def _parse_bands(recipe: str, items: object) -> tuple[BandRequest, ...]:
    if not isinstance(items, list) or not items:
        raise RecipeError(
            f"recipe {recipe!r}: needs at least one [[band]] with name, encoder and view. "
            "See `featbank list encoders` and `featbank list views`."
        )
    if len(items) > MAX_BANDS:
        raise RecipeError(f"recipe {recipe!r}: at most {MAX_BANDS} bands, got {len(items)}.")
    bands = []
    for item in items:
        check_keys(recipe, "band.", item, {"name", "encoder", "view", "aggregate"})
        for key in ("name", "encoder"):
            if not item.get(key):
                raise RecipeError(f"recipe {recipe!r}: every [[band]] needs `{key}`, got {shown(item)}.")
        band = BandRequest(**{key: typed(recipe, f"band.{key}", value, str) for key, value in item.items()})
        if (
            ":" in band.name
            or not band.name.strip()
            or not band.name.isprintable()
            or len(band.name) > MAX_NAME
        ):
            raise RecipeError(
                f"recipe {recipe!r}: band.name must be a word of at most {MAX_NAME} characters without ':', got "
                f"{shown(band.name)}."
            )
        if band.view == "none" and not band.encoder.startswith("imported:"):
            raise RecipeError(
                f'recipe {recipe!r}: band {band.name!r} needs a `view`, for example "center_320+half". '
                "See `featbank list views`."
            )
        bands.append(band)
    names = [band.name for band in bands]
    if len(set(names)) < len(names):
        raise RecipeError(f"recipe {recipe!r}: band names must differ, got {', '.join(names)}.")
    return tuple(bands)


def _parse_regression(recipe: str, item: object, bands: list[str]) -> RegressionRequest:
    known = set(RegressionRequest.__dataclass_fields__)
    item = check_keys(recipe, "regression.", item, known)
    values: dict[str, Any] = dict(item)
    for key, allowed in (
        ("rows", ROWS),
        ("estimator", ESTIMATORS),
        ("combine", COMBINATIONS),
        ("select_by", SELECTION),
    ):
        if key in values:
            one_of(recipe, f"regression.{key}", values[key], allowed)
    for key in ("alpha", "C", "gamma", "epsilon"):
        if key in values:
            values[key] = _grid(
                recipe, f"regression.{key}", values[key], allow_zero=key in {"alpha", "epsilon"}
            )
    if "members" in values:
        values["members"] = _members(recipe, values["members"], bands)
    if "unit_band" in values:
        typed(recipe, "regression.unit_band", values["unit_band"], bool)
    if "budget_gmacs" in values:
        values["budget_gmacs"] = number(recipe, "regression.budget_gmacs", values["budget_gmacs"], above=0.0)
    if "band_weights" in values:
        values["band_weights"] = _band_weights(recipe, values["band_weights"], bands)
    if "cv" in values:
        values["cv"] = _parse_folds(recipe, values["cv"])
    return RegressionRequest(**values)


def _parse_folds(recipe: str, item: object) -> FoldsRequest:
    if isinstance(item, dict) and "holdout" in item:  # the short form { holdout = 0.2 }
        item = {
            "kind": "holdout",
            "test_size": item["holdout"],
            **{k: v for k, v in item.items() if k != "holdout"},
        }
    item = check_keys(recipe, "regression.cv.", item, set(FoldsRequest.__dataclass_fields__))
    values: dict[str, Any] = dict(item)
    if "kind" in values:
        one_of(recipe, "regression.cv.kind", values["kind"], CV_KINDS)
    for key, low, high in (("n_splits", 2, MAX_FOLDS), ("random_state", 0, MAX_SEED)):
        if key in values:
            whole(recipe, f"regression.cv.{key}", values[key], low, high)
    if "shuffle" in values:
        typed(recipe, "regression.cv.shuffle", values["shuffle"], bool)
    if "test_size" in values:
        values["test_size"] = number(
            recipe, "regression.cv.test_size", values["test_size"], above=0.0, below=1.0
        )
    return FoldsRequest(**values)


def _members(recipe: str, value: object, bands: list[str]) -> str | tuple[tuple[str, ...], ...]:
    if isinstance(value, str):
        return one_of(recipe, "regression.members", value, MEMBERS)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(member, list) and member for member in value)
    ):
        raise RecipeError(
            f"recipe {recipe!r}: regression.members must be one of {', '.join(MEMBERS)} or a list of lists of band "
            f"names, got {shown(value)}."
        )
    for member in value:
        for band in member:
            one_of(recipe, "regression.members", band, tuple(bands))
    return tuple(tuple(member) for member in value)


def _band_weights(recipe: str, value: object, bands: list[str]) -> tuple[dict[str, float], ...]:
    key = "regression.band_weights"
    if not isinstance(value, list) or not all(isinstance(candidate, dict) for candidate in value):
        raise RecipeError(
            f"recipe {recipe!r}: {key} must be a list of tables such as {{ {bands[0]} = 1.0 }}, got {shown(value)}."
        )
    for candidate in value:
        check_keys(recipe, f"{key}.", candidate, set(bands))
    return tuple(
        {
            band: number(recipe, f"{key}.{band}", weight, above=0.0, below=MAX_VALUE)
            for band, weight in candidate.items()
        }
        for candidate in value
    )


def _grid(recipe: str, key: str, value: object, *, allow_zero: bool) -> tuple[float, ...]:
    if isinstance(value, dict):
        check_keys(recipe, f"{key}.", value, {"logspace"})
        spec = value.get("logspace")
        if not (isinstance(spec, list) and len(spec) == 3):
            raise RecipeError(
                f"recipe {recipe!r}: {key}.logspace must be [lowest exponent, highest exponent, number of values], "
                f"got {shown(spec)}."
            )
        low, high = (number(recipe, f"{key}.logspace", end, above=-31.0, below=31.0) for end in spec[:2])
        n_values = whole(recipe, f"the number of values in {key}.logspace", spec[2], 1, MAX_GRID)
        return tuple(float(point) for point in np.logspace(low, high, n_values))
    numbers = value if isinstance(value, list) else [value]
    if not 1 <= len(numbers) <= MAX_GRID:
        raise RecipeError(f"recipe {recipe!r}: {key} must hold 1 to {MAX_GRID} values, got {len(numbers)}.")
    checked = tuple(number(recipe, key, point, above=None, below=MAX_VALUE) for point in numbers)
    if min(checked) < 0 or (min(checked) == 0 and not allow_zero):
        raise RecipeError(
            f"recipe {recipe!r}: {key} must be {'not negative' if allow_zero else 'positive'}, got {shown(value)}."
        )
    return checked


@dataclass(frozen=True)
class Variant:
    """One way to compute a band.

    Attributes
    ----------
    name : str
        The band's own name for the recipe's own variant, else with the view and aggregate that differ.
    band : str
        Band of the recipe.
    request : BandRequest
        Encoder, view and aggregate, under ``name``.
    """

    name: str
    band: str
    request: BandRequest


def list_variants(recipe: Recipe) -> dict[str, tuple[Variant, ...]]:
    """List every way in which a search may compute each band; the recipe's own comes first.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    dict of str to tuple of Variant
        By band, in the recipe's order.
    """
    search = recipe.search or SearchRequest()
    found: dict[str, tuple[Variant, ...]] = {}
    for band in recipe.bands:
        views = dict.fromkeys([band.view, *search.view.get(band.name, ())])
        aggregates = dict.fromkeys([band.aggregate, *search.aggregate.get(band.name, ())])
        variants = []
        for view, aggregate in itertools.product(views, aggregates):
            parts = [view] if view != band.view else []
            parts += [aggregate] if aggregate != band.aggregate else []
            name = "@".join([band.name, *parts])
            variants.append(
                Variant(name, band.name, replace(band, name=name, view=view, aggregate=aggregate))
            )
        found[band.name] = tuple(variants)
    return found
