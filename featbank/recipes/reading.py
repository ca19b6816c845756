"""The recipe: a strict, versioned TOML file that states which features, which regression, which budget.

The dataclasses hold of each key the default, and the check of what a file may say instead.
"""

from __future__ import annotations

import difflib
import itertools
import math
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np
import tomli_w

from featbank.atomic import write_file
from featbank.datasets.image_table import WEIGHTS
from featbank.digest import digest_json
from featbank.errors import RecipeError, unknown_name
from featbank.remote import read_regular
from regressors.pipelines import DEFAULT_GRID, ESTIMATORS, KINDS, SCALES, SELECTIONS

RECIPE_VERSION: Final = 1

AIM2024_BUDGET_GMACS: Final = 50.0
"""Budget of the AIM 2024 UHD-IQA challenge (report, section 1.2)."""

MEMBERS: Final = ("all+leave-one-out", "all", "each")
COMBINATIONS: Final = ("uniform", "nnls", "simplex")
IMPORTED_PREFIX: Final = "imported:"

_MAX_BYTES = 1 << 20
_MAX_BANDS = 256
_MAX_GRID = 1000  # values of one hyper-parameter
_MAX_VALUE = 1e30  # larger hyper-parameters mean nothing and overflow when they are multiplied
_MAX_NAME = 200  # characters of a band's name, which heads its columns


@dataclass(frozen=True)
class _Place:
    """Where a value stands: what its errors name."""

    recipe: str
    key: str = ""
    encoders: Mapping[str, str] = field(default_factory=dict)  # of each band, once these are known

    def __truediv__(self, key: str) -> _Place:
        return replace(self, key=f"{self.key}.{key}" if self.key else key)

    def error(self, sentence: str) -> RecipeError:
        return RecipeError(f"recipe {self.recipe!r}: {sentence}")

    def wrong(self, expected: str, value: object, hint: str = "") -> RecipeError:
        return self.error(f"{self.key} must be {expected}, got {_shown(value)}.{hint}")

    def check_keys(self, value: object, known: Collection[str]) -> dict[str, Any]:
        """Accept a table that holds known keys only."""
        if not isinstance(value, dict):
            raise self.wrong("a table of keys", value)
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(key[:80], known, n=2)
                hint = f" Did you mean {' or '.join(near)}?" if near else ""
                spelt = f"{self.key}.{key[:80]}" if self.key else key[:80]
                raise self.error(f"unknown key {spelt}.{hint} Known keys here: {', '.join(sorted(known))}.")
        return value


Check = Callable[[_Place, object], Any]
_Request = TypeVar("_Request")


def _shown(value: object) -> str:
    """Spell a value for a message, the beginning and the end of a long one."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python spells
        text = f"a very long {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:50]}...{text[-20:]}"


def _table(at: _Place, value: object, checks: Mapping[str, Check]) -> dict[str, Any]:
    """Accept a table by the check of each key."""
    return {key: checks[key](at / key, item) for key, item in at.check_keys(value, checks).items()}


def _text(at: _Place, value: object) -> str:
    if isinstance(value, str):
        return value
    raise at.wrong("text", value)


def _flag(at: _Place, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise at.wrong("true or false", value)


def _one_of(*allowed: str) -> Check:
    """Accept one of several words."""

    def check(at: _Place, value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        near = difflib.get_close_matches(_shown(value).strip("'"), allowed, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise at.wrong(f"one of {', '.join(allowed)}", value, hint)

    return check


def _whole(low: int, high: int) -> Check:
    """Accept a whole number from ``low`` to ``high``."""

    def check(at: _Place, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise at.wrong(f"a whole number from {low} to {high}", value)

    return check


def _number(above: float | None = None, below: float = math.inf) -> Check:
    """Accept a finite number inside an open interval."""

    def check(at: _Place, value: object) -> float:
        try:
            found = (
                math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
            )
        except OverflowError:  # a whole number of hundreds of digits
            found = math.inf
        if math.isfinite(found) and (above is None or above < found) and found < below:
            return found
        expected = "a finite number" if above is None else f"a number above {above:g}"
        raise at.wrong(expected + (f" and below {below:g}" if below < math.inf else ""), value)

    return check


def _choices(inner: Check) -> Check:
    """Accept a list of different choices."""

    def check(at: _Place, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise at.wrong("a list of choices", value)
        if any(choice in value[:place] for place, choice in enumerate(value)):
            raise at.error(f"{at.key} must name each choice once, got {_shown(value)}.")
        return tuple(inner(at, choice) for choice in value)

    return check


def _grid(*, allow_zero: bool) -> Check:
    """Accept a number, a list of numbers, or ``{ logspace = [low, high, n] }``."""

    def check(at: _Place, value: object) -> tuple[float, ...]:
        if isinstance(value, dict):
            return tuple(_table(at, value or {"logspace": None}, {"logspace": _logspace})["logspace"])
        numbers = value if isinstance(value, list) else [value]
        if not 1 <= len(numbers) <= _MAX_GRID:
            raise at.error(f"{at.key} must hold 1 to {_MAX_GRID} values, got {len(numbers)}.")
        checked = tuple(_number(below=_MAX_VALUE)(at, point) for point in numbers)
        if min(checked) < 0 or (min(checked) == 0 and not allow_zero):
            raise at.wrong("not negative" if allow_zero else "positive", value)
        return checked

    return check


def _logspace(at: _Place, value: object) -> list[float]:
    if not (isinstance(value, list) and len(value) == 3):
        raise at.wrong("[lowest exponent, highest exponent, number of values]", value)
    low, high = (_number(-31.0, 31.0)(at, end) for end in value[:2])
    n_values = _whole(1, _MAX_GRID)(replace(at, key=f"the number of values in {at.key}"), value[2])
    return [float(point) for point in np.logspace(low, high, n_values)]


def _key(default: Any, check: Check) -> Any:  # noqa: ANN401 - a field of any type
    """Declare a key of a table: what it is by default, and what a file may say."""
    return field(default=default, metadata={"check": check})


def _read(kind: type[_Request], at: _Place, value: object) -> _Request:
    """Read a table by the checks of its keys."""
    return kind(**_table(at, value, {key.name: key.metadata["check"] for key in fields(cast(Any, kind))}))


@dataclass(frozen=True)
class FoldsRequest:
    """``regression.cv``: how the training split is cut.

    ``grouped`` (the default) keeps the images of one group (uploader, reference image) together; ``kfold`` keeps only
    the rows of one image together, for instance to mimic a published protocol; ``holdout`` is one grouped cut with
    ``test_size`` of the images held out, ``plain-holdout`` the same by images, whatever their groups.
    """

    kind: str = _key("grouped", _one_of("grouped", "kfold", "holdout", "plain-holdout"))
    n_splits: int = _key(5, _whole(2, 10_000))
    shuffle: bool = _key(True, _flag)
    random_state: int = _key(0, _whole(0, 2**32 - 1))
    test_size: float = _key(0.2, _number(0.0, 1.0))


def _folds(at: _Place, value: object) -> FoldsRequest:
    if isinstance(value, dict) and "holdout" in value:  # the short form { holdout = 0.2 }
        rest = {key: item for key, item in value.items() if key != "holdout"}
        value = {"kind": "holdout", "test_size": value["holdout"], **rest}
    return _read(FoldsRequest, at, value)


def _members(at: _Place, value: object) -> str | tuple[tuple[str, ...], ...]:
    if isinstance(value, str):
        return str(_one_of(*MEMBERS)(at, value))
    if not (isinstance(value, list) and value and all(isinstance(m, list) and m for m in value)):
        raise at.wrong(f"one of {', '.join(MEMBERS)} or a list of lists of band names", value)
    return tuple(tuple(_one_of(*at.encoders)(at, band) for band in member) for member in value)


def _band_weights(at: _Place, value: object) -> tuple[dict[str, float], ...]:
    if not isinstance(value, list) or not all(isinstance(candidate, dict) for candidate in value):
        raise at.wrong(f"a list of tables such as {{ {next(iter(at.encoders))} = 1.0 }}", value)
    checks = dict.fromkeys(at.encoders, _number(0.0, _MAX_VALUE))
    return tuple(_table(at, candidate, checks) for candidate in value)


def _by_band(at: _Place, value: object) -> dict[str, tuple[str, ...]]:
    """Accept choices for each band by its name; imported ones have none."""

    def check(place: _Place, choices: object) -> tuple[str, ...]:
        encoder = at.encoders[place.key[len(at.key) + 1 :]]
        if encoder.startswith(IMPORTED_PREFIX):
            raise at.error(
                f"{place.key} is not possible: the features of {encoder!r} were computed elsewhere and have one "
                f"{at.key.partition('.')[2]}. Import the other ones as bands of their own."
            )
        return tuple(_choices(_text)(place, choices))

    return _table(at, value, dict.fromkeys(at.encoders, check))


@dataclass(frozen=True)
class RegressionRequest:
    """``[regression]``: the members, their estimator and grid, and how they are combined.

    ``rows`` is ``images``, or ``crops`` to learn from every crop as a row of its own with its image's MOS and to
    average predictions over crops (as ARNIQA does); all bands then need ``aggregate = "concat"`` and the same number
    of crops. ``alpha`` is the ridge penalty; ``C`` and ``epsilon`` are the SVR's, in units of the standardised MOS;
    ``sample_weight`` names the column by which training images count (``mos_std``, ``n_ratings``, ``weight``): in every
    fit, in the choice of hyper-parameters, and in the weights of the members; empty where all count alike.
    ``group_scenes`` compares small copies of the photos, and lets those of one scene stand in one group, so that folds,
    and a split that is made here, keep them together.
    ``gamma`` multiplies 1 / (n_features * variance). Those of ``plain-svr`` are scikit-learn's, in the units of columns
    and MOS, as published protocols state them. ``scale`` is what is done to each column: ``standard``, ``minmax``
    and ``robust`` as by scikit-learn's scalers, or ``none``. ``unit_band`` and ``band_weights`` are for standardised
    columns; the latter lists candidates for the weights of the bands, tried with every other parameter; none means all
    alike.
    """

    rows: str = _key("images", _one_of("images", "crops"))
    members: str | tuple[tuple[str, ...], ...] = _key("all+leave-one-out", _members)
    estimator: str = _key("ridge", _one_of(*ESTIMATORS))
    alpha: tuple[float, ...] = _key(DEFAULT_GRID["alpha"], _grid(allow_zero=True))
    C: tuple[float, ...] = _key(DEFAULT_GRID["C"], _grid(allow_zero=False))
    gamma: tuple[float, ...] = _key(DEFAULT_GRID["gamma"], _grid(allow_zero=False))
    epsilon: tuple[float, ...] = _key(DEFAULT_GRID["epsilon"], _grid(allow_zero=True))
    scale: str = _key("standard", _one_of(*SCALES))
    unit_band: bool = _key(False, _flag)
    band_weights: tuple[dict[str, float], ...] = _key((), _band_weights)
    cv: FoldsRequest = field(default_factory=FoldsRequest, metadata={"check": _folds})
    combine: str = _key("nnls", _one_of(*COMBINATIONS))
    select_by: str = _key("srcc", _one_of(*SELECTIONS))
    sample_weight: str = _key("", _one_of("", *WEIGHTS))
    group_scenes: bool = _key(False, _flag)
    budget_gmacs: float = _key(AIM2024_BUDGET_GMACS, _number(0.0))


@dataclass(frozen=True)
class SearchRequest:
    """``[search]``: further choices, each beside the recipe's own value, which always stays one of them.

    ``view`` and ``aggregate`` hold further views, and ways to pool the crops, by band; ``unit_band`` further scalings.
    """

    view: Mapping[str, tuple[str, ...]] = field(default_factory=dict, metadata={"check": _by_band})
    aggregate: Mapping[str, tuple[str, ...]] = field(default_factory=dict, metadata={"check": _by_band})
    estimator: tuple[str, ...] = _key((), _choices(_one_of(*ESTIMATORS)))
    unit_band: tuple[bool, ...] = _key((), _choices(_flag))
    members: tuple[str, ...] = _key((), _choices(_one_of(*MEMBERS)))
    combine: tuple[str, ...] = _key((), _choices(_one_of(*COMBINATIONS)))


@dataclass(frozen=True)
class BandRequest:
    """One ``[[band]]`` of a recipe: an encoder on a view, under a name of its own."""

    name: str
    encoder: str
    view: str = "none"
    aggregate: str = "mean"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A resolved recipe: every default filled in.

    Attributes
    ----------
    bands : tuple of BandRequest
        A list, and dicts in it, are taken as well.
    regression : RegressionRequest
        A dict with the keys of a recipe's ``[regression]`` is taken as well, and checked as that of a file.
    name : str
        File name without ``.toml``.
    title : str
        One line for people; the name by default.
    source : str
        Where the system comes from (paper, section), and what differs; may be empty.
    search : SearchRequest or None
        What `featbank search` may vary besides the subset of bands; a fit takes no notice of it.

    Raises
    ------
    RecipeError
        If dicts break the schema.

    Examples
    --------
    >>> recipe = Recipe(
    ...     bands=[dict(name="quality", encoder="classic:nss", view="native")], regression=dict(alpha=[1.0, 10.0])
    ... )
    >>> recipe.regression.alpha, recipe.change(name="mine").name
    ((1.0, 10.0), 'mine')
    """

    bands: tuple[BandRequest, ...]
    regression: RegressionRequest = field(default_factory=RegressionRequest)
    name: str = "recipe"
    title: str = ""
    source: str = ""
    search: SearchRequest | None = None

    def __post_init__(self) -> None:
        at = _Place(self.name) / "band"
        bands: object = self.bands
        if not isinstance(bands, list | tuple) or not all(isinstance(b, dict | BandRequest) for b in bands):
            raise at.wrong("a list of tables with name, encoder and view", bands)
        if any(isinstance(band, dict) for band in bands):
            bands = _bands(at, [band if isinstance(band, dict) else asdict(band) for band in bands])
        object.__setattr__(self, "bands", tuple(bands))
        if isinstance(self.regression, dict):
            at = replace(at, key="regression", encoders={band.name: band.encoder for band in self.bands})
            object.__setattr__(self, "regression", _read(RegressionRequest, at, self.regression))
        object.__setattr__(self, "title", self.title or self.name)

    @classmethod
    def read(cls, name_or_path: str) -> Recipe:
        """Read a recipe by the name of a built-in one, or from a TOML file, as `read_recipe`."""
        return read_recipe(name_or_path)

    def checked(self) -> Recipe:
        """Return the recipe, checked as a file of its content would be; a RecipeError names the key."""
        return parse_recipe(self.to_toml(), self.name)

    def change(self, **changes: Any) -> Recipe:  # noqa: ANN401 - of any field
        """Return a checked copy with other values of some attributes."""
        return replace(self, **changes).checked()

    def write(self, path: str | Path) -> Path:
        """Write the recipe as a TOML file, whole or not at all."""
        self.checked()
        return write_file(path, self.to_toml(), "recipe")

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved content, without the name, and a search, scaling or weights where there are none."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        for key in ("scale", "sample_weight", "group_scenes"):  # so of recipes from before they were keys
            if content["regression"][key] == getattr(RegressionRequest, key):
                del content["regression"][key]
        if self.search is None:
            del content["search"]
        return digest_json(content)

    def to_toml(self) -> str:
        """Write the recipe as resolved; reading it back gives the same recipe."""
        content: dict[str, Any] = {
            "recipe_version": RECIPE_VERSION,
            "title": self.title,
            "source": self.source,
            "band": [asdict(band) for band in self.bands],
            "regression": asdict(self.regression),
        }
        if self.search is not None:
            content["search"] = {key: value for key, value in asdict(self.search).items() if value}
        return tomli_w.dumps(content)


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
    """List by band, in the recipe's order, every way in which a search may compute it; the recipe's own comes first."""
    search = recipe.search or SearchRequest()
    found: dict[str, tuple[Variant, ...]] = {}
    for band in recipe.bands:
        variants = []
        for view, aggregate in itertools.product(
            dict.fromkeys([band.view, *search.view.get(band.name, ())]),
            dict.fromkeys([band.aggregate, *search.aggregate.get(band.name, ())]),
        ):
            other = [view] * (view != band.view) + [aggregate] * (aggregate != band.aggregate)
            name = "@".join([band.name, *other])
            request = replace(band, name=name, view=view, aggregate=aggregate)
            variants.append(Variant(name, band.name, request))
        found[band.name] = tuple(variants)
    return found


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
        text = read_regular(path, _MAX_BYTES, RecipeError).decode("utf-8-sig")
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
    at = _Place(name)
    try:
        content = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also a number of thousands of digits, tables inside tables
        raise at.error(f"not valid TOML: {str(error).partition(';')[0]}.") from error
    at.check_keys(content, ("recipe_version", "title", "source", "band", "regression", "search"))
    version = content.get("recipe_version")
    if version != RECIPE_VERSION:
        raise at.error(
            f"recipe_version must be {RECIPE_VERSION}, got {version!r}. Write `recipe_version = 1` as the first line; "
            "newer versions need a newer featbank."
        )
    bands = _bands(at / "band", content.get("band", []))
    at = replace(at, encoders={band.name: band.encoder for band in bands})
    regression = _read(RegressionRequest, at / "regression", content.get("regression", {}))
    if regression.rows == "crops" and any(band.aggregate != "concat" for band in bands):
        lacking = ", ".join(band.name for band in bands if band.aggregate != "concat")
        raise at.error(
            'regression.rows = "crops" needs aggregate = "concat" in every [[band]], because a mean has no crops left; '
            f"missing in {lacking}."
        )
    search = _read(SearchRequest, at / "search", content["search"]) if "search" in content else None
    estimators = (regression.estimator, *(search.estimator if search else ()))
    weighs = (
        regression.unit_band or regression.band_weights or any(KINDS[e].has_band_weights for e in estimators)
    )
    if regression.scale != "standard" and (weighs or (search and any(search.unit_band))):
        raise at.error(
            f'regression.scale = "{regression.scale}" cannot stand beside unit_band, band_weights or the banded ridge, '
            'which weigh standardised columns. Leave them out, or write scale = "standard".'
        )
    title, source = (_text(at / key, content.get(key, "")) for key in ("title", "source"))
    return Recipe(bands=bands, regression=regression, name=name, title=title, source=source, search=search)


def _bands(at: _Place, items: object) -> tuple[BandRequest, ...]:
    if not isinstance(items, list) or not items:
        raise at.error(
            "needs at least one [[band]] with name, encoder and view. See `featbank list encoders` and "
            "`featbank list views`."
        )
    if len(items) > _MAX_BANDS:
        raise at.error(f"at most {_MAX_BANDS} bands, got {len(items)}.")
    bands = []
    for item in items:
        values = _table(at, item, dict.fromkeys(("name", "encoder", "view", "aggregate"), _text))
        for key in ("name", "encoder"):
            if not values.get(key):
                raise at.error(f"every [[band]] needs `{key}`, got {_shown(item)}.")
        band = BandRequest(**values)
        name = band.name
        if ":" in name or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
            raise (at / "name").wrong(f"a word of at most {_MAX_NAME} characters without ':'", name)
        if band.view == "none" and not band.encoder.startswith(IMPORTED_PREFIX):
            raise at.error(
                f'band {name!r} needs a `view`, for example "center_320+half". See `featbank list views`.'
            )
        bands.append(band)
    names = [band.name for band in bands]
    if len(set(names)) < len(names):
        raise at.error(f"band names must differ, got {', '.join(names)}.")
    return tuple(bands)
