"""Makes once what several views of one photo begin with: the same resize, the same halving."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from featbank.views.steps import Resizing, Square, Step

Beginning = tuple[bool, tuple[Step, ...]]
"""Whether the image was halved first, and the steps taken on it."""


def leading(steps: tuple[Step, ...]) -> int:
    """Count the steps at the beginning that take the whole image, without chance, to one other image."""
    count = 0
    while count < len(steps) and isinstance(steps[count], Resizing | Square):
        count += 1
    return count


class SharedBeginnings:
    """Images that more than one of some views begins with, kept for as long as this object.

    Parameters
    ----------
    beginnings : iterable of set of Beginning
        For each view, what it makes of the whole image on its way. What only one view makes is not kept.
    """

    def __init__(self, beginnings: Iterable[set[Beginning]]) -> None:
        counts = Counter(beginning for view in beginnings for beginning in view)
        self._wanted = {beginning for beginning, count in counts.items() if count > 1}
        self._made: dict[Beginning, NDArray[np.uint8]] = {}

    def take(self, beginning: Beginning, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the image of a beginning, made by ``make`` unless another view had it made.

        Returns
        -------
        uint8 array of shape (height, width, 3)
            Not to be written to.
        """
        if beginning not in self._wanted:
            return make()
        if beginning not in self._made:
            self._made[beginning] = make()
        return self._made[beginning]
