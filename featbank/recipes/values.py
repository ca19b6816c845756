"""The words of a recipe and the checks of its values, which name recipe and key in their errors."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from featbank.errors import RecipeError

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
