"""``[search]`` of a recipe: what `featbank search` may vary besides the subset of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from featbank.errors import RecipeError
from featbank.recipes.values import COMBINATIONS, MEMBERS, check_keys, one_of, shown, typed
from regressors.kinds import ESTIMATORS

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
