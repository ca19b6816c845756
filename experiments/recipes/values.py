"""The words of a recipe and the checks of its values, which name recipe and key in their errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from featbank.errors import RecipeError

MEMBERS = ("all+leave-one-out", "all", "each")
ESTIMATORS = ("ridge", "banded-ridge", "linear-svr", "rbf-svr")
COMBINATIONS = ("uniform", "nnls", "simplex")


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
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and (above is None or above < float(value)) and float(value) < below:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    interval = "a finite number" if above is None else f"a number above {above:g}"
    if below < math.inf:
        interval += f" and below {below:g}"
    raise RecipeError(f"recipe {recipe!r}: {key} must be {interval}, got {value!r}.")


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
    raise RecipeError(f"recipe {recipe!r}: {key} must be {names[kind]}, got {value!r}.")


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
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise RecipeError(f"recipe {recipe!r}: {key} must be one of {', '.join(allowed)}, got {value!r}.{hint}")


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
        raise RecipeError(f"recipe {recipe!r}: {where.rstrip('.')} must be a table of keys, got {item!r}.")
    for key in item:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise RecipeError(
                f"recipe {recipe!r}: unknown key {where}{key}.{hint} Known keys here: {', '.join(sorted(known))}."
            )
    return item
