"""Support-vector regression on a ready kernel, by libsvm's own steps, compiled by numba: three to five times as fast.

libsvm copies two rearranged columns of 2 n values per step and looks at each variable by itself. Here the two
variables of a training row share one value of the kernel, and rows are taken many at a time by the processor's wide
registers. The steps are libsvm's: the same pairs in the same order with the same float32 kernel, ties and rounding, so
that both stop at the same solution. Working sets: Fan, Chen and Lin, JMLR 6, 2005, WSS 2; variables that stay at a
bound are left out of the choice as in section 5 of Chang and Lin, "LIBSVM: a library for support vector machines".

numba is not among the package's requirements; importing this module needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from regressors.checks import FloatArray
from regressors.solvers.systems import SupportVectors

_TAU = 1e-12
"""Curvature in place of one that is not positive, as in libsvm."""
_LANES = 64
"""Maxima are kept for so many interleaved series of rows, which the processor compares side by side."""
_LOOK_EVERY = 1000
"""Steps between two looks for variables to set aside, if there are as many variables."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # No fast mathematics: each rounding is libsvm's.
    settings = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(**settings)(function)


def solve_svr(
    kernel: FloatArray,
    target: FloatArray,
    costs: FloatArray,
    epsilon: float,
    *,
    tol: float = 1e-3,
    shrinking: bool = True,
) -> SupportVectors:
    """Solve the dual problem of epsilon support-vector regression, as libsvm does but for rounding.

    ``kernel`` is of shape (n, n) between training rows, ``target`` and ``costs``, the largest absolute dual
    coefficients, of shape (n,); ``tol`` is of the stopping rule.
    """
    n_rows = len(target)
    width = -(-n_rows // _LANES) * _LANES
    single = np.zeros((n_rows, width), dtype=np.float32)
    single[:, :n_rows] = kernel
    diagonal, limits = np.ones(width), np.ones(width)
    diagonal[:n_rows], limits[:n_rows] = np.diagonal(kernel), costs
    gradient = np.zeros((2, width))
    gradient[0, :n_rows] = epsilon - target
    gradient[1, :n_rows] = epsilon + target
    alpha = np.zeros((2, width))
    n_iter, rho = _solve(single, diagonal, limits, gradient, alpha, n_rows, tol, shrinking)
    dual = (alpha[0] - alpha[1])[:n_rows]
    support = np.flatnonzero(dual)
    return SupportVectors(support.astype(np.int32), dual[support], -rho, max(1, n_iter))


# Below, a variable is (side, row): side 0 holds a row's target from below, side 1 from above. Its number among all is
# side * n_rows + row; `order` lists the numbers as libsvm has them in memory, `place` is the inverse. `up` and `low`
# are 0 where the variable may still grow or shrink against its side's sign, else minus infinity.


@_compiled
def _solve(kernel, diagonal, limits, gradient, alpha, n_rows, tol, shrinking):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    n_all = 2 * n_rows
    up, low = np.full_like(gradient, -np.inf), np.full_like(gradient, -np.inf)
    order, place = np.arange(n_all), np.arange(n_all)
    rises, falls, lanes = np.empty(len(diagonal)), np.empty(len(diagonal)), np.empty(_LANES)
    linear, bounded = gradient.copy(), np.zeros(len(diagonal))
    _free_all(alpha, limits, up, low, n_rows)
    n_active, has_returned, n_iter = n_all, False, 0
    until_look = min(n_all, _LOOK_EVERY) + 1
    _move(gradient, up, kernel[0], kernel[0], 0.0, 0.0, rises)
    while True:
        until_look -= 1
        if until_look == 0:
            until_look = min(n_all, _LOOK_EVERY)
            if shrinking:
                rise, fall = _violations(gradient, up, low, order, n_active, n_rows)
                if not has_returned and rise + fall <= 10.0 * tol:
                    has_returned = True
                    _take_back(
                        kernel, gradient, linear, bounded, alpha, limits, up, low, order, n_active, n_rows
                    )
                    n_active = n_all
                n_active = _set_aside(
                    gradient, alpha, limits, up, low, order, place, n_active, rise, fall, n_rows
                )
                _move(gradient, up, kernel[0], kernel[0], 0.0, 0.0, rises)
        i, j = _choose(kernel, diagonal, gradient, up, low, place, rises, falls, lanes, tol, n_rows)
        if j < 0 and n_active < n_all:
            # Optimal without those set aside: look at all.
            _take_back(kernel, gradient, linear, bounded, alpha, limits, up, low, order, n_active, n_rows)
            n_active = n_all
            _move(gradient, up, kernel[0], kernel[0], 0.0, 0.0, rises)
            i, j = _choose(kernel, diagonal, gradient, up, low, place, rises, falls, lanes, tol, n_rows)
            until_look = 1
        if j < 0:
            return n_iter, _offset(gradient, alpha, limits, order, n_rows)
        n_iter += 1
        (i_side, i_row), (j_side, j_row) = divmod(i, n_rows), divmod(j, n_rows)
        i_old, j_old = alpha[i_side, i_row], alpha[j_side, j_row]
        curvature = diagonal[i_row] + diagonal[j_row] - 2.0 * np.float64(kernel[i_row, j_row])
        alpha[i_side, i_row], alpha[j_side, j_row] = _step(
            i_old,
            j_old,
            gradient[i_side, i_row],
            gradient[j_side, j_row],
            curvature if curvature > 0.0 else _TAU,
            limits[i_row],
            limits[j_row],
            i_side == j_side,
        )
        for side, row, old in ((i_side, i_row, i_old), (j_side, j_row, j_old)):
            _note_bounds(side, row, alpha, limits, up, low)
            was_full, is_full = old >= limits[row], alpha[side, row] >= limits[row]
            if was_full != is_full:
                _add(bounded, kernel[row], limits[row] if is_full != (side == 1) else -limits[row])
        i_change, j_change = alpha[i_side, i_row] - i_old, alpha[j_side, j_row] - j_old
        _move(
            gradient,
            up,
            kernel[i_row],
            kernel[j_row],
            -i_change if i_side else i_change,
            -j_change if j_side else j_change,
            rises,
        )


@_compiled
def _step(i_old, j_old, i_gradient, j_gradient, curvature, i_limit, j_limit, same_side):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Minimise over two variables along the line that the equality constraint leaves, inside their box."""
    if same_side:
        total, delta = i_old + j_old, (i_gradient - j_gradient) / curvature
        i_new, j_new = i_old - delta, j_old + delta
        if total > i_limit:
            if i_new > i_limit:
                i_new, j_new = i_limit, total - i_limit
        elif j_new < 0:
            i_new, j_new = total, 0.0
        if total > j_limit:
            if j_new > j_limit:
                i_new, j_new = total - j_limit, j_limit
        elif i_new < 0:
            i_new, j_new = 0.0, total
        return i_new, j_new
    apart, delta = i_old - j_old, (-i_gradient - j_gradient) / curvature
    i_new, j_new = i_old + delta, j_old + delta
    if apart > 0:
        if j_new < 0:
            i_new, j_new = apart, 0.0
    elif i_new < 0:
        i_new, j_new = 0.0, -apart
    if apart > i_limit - j_limit:
        if i_new > i_limit:
            i_new, j_new = i_limit, i_limit - apart
    elif j_new > j_limit:
        i_new, j_new = j_limit + apart, j_limit
    return i_new, j_new


@_compiled
def _move(gradient, up, i_kernel, j_kernel, i_change, j_change, rises):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Bring gradients up to date, and find how much each row's better variable would gain by growing."""
    above, below, up_above, up_below = gradient[0], gradient[1], up[0], up[1]
    for row in range(len(rises)):
        change = i_kernel[row] * i_change + j_kernel[row] * j_change
        first, second = above[row] + change, below[row] - change
        above[row], below[row] = first, second
        first, second = up_above[row] - first, up_below[row] + second
        rises[row] = first if first > second else second


@_compiled
def _weigh(gradient, low, kernel, diagonal, own_diagonal, rise, falls):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Find how far each row's better variable would lower the objective."""
    above, below, low_above, low_below = gradient[0], gradient[1], low[0], low[1]
    for row in range(len(falls)):
        first, second = low_above[row] + above[row], low_below[row] - below[row]
        slope = rise + (first if first > second else second)
        slope = slope if slope > 0.0 else 0.0
        curvature = own_diagonal + diagonal[row] - 2.0 * np.float64(kernel[row])
        curvature = curvature if curvature > 0.0 else _TAU
        falls[row] = slope * slope / curvature


@_compiled
def _largest(values, lanes):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    lanes[:] = values[:_LANES]
    for start in range(_LANES, len(values), _LANES):
        part = values[start : start + _LANES]
        for lane in range(_LANES):
            lanes[lane] = part[lane] if part[lane] > lanes[lane] else lanes[lane]
    return lanes.max()


@_compiled
def _choose(kernel, diagonal, gradient, up, low, place, rises, falls, lanes, tol, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Choose the two variables of the next step; the second is -1 at the optimum. Of ties the last in memory wins."""
    rise, i = _largest(rises, lanes), -1
    if rise == -np.inf:
        return i, -1
    for lane in range(_LANES):
        if lanes[lane] == rise:
            for row in range(lane, n_rows, _LANES):
                if rises[row] == rise:
                    if up[0, row] - gradient[0, row] == rise and (i < 0 or place[row] > place[i]):
                        i = row
                    other = n_rows + row
                    if up[1, row] + gradient[1, row] == rise and (i < 0 or place[other] > place[i]):
                        i = other
    own = i % n_rows
    _weigh(gradient, low, kernel[own], diagonal, diagonal[own], rise, falls)
    best, j = _largest(falls, lanes), -1
    for lane in range(_LANES):
        # Nothing is above 0 where no slope is, or where all squares are too small for a float.
        if lanes[lane] == best:
            for row in range(lane, n_rows, _LANES):
                if falls[row] == best:
                    curvature = diagonal[own] + diagonal[row] - 2.0 * np.float64(kernel[own, row])
                    curvature = curvature if curvature > 0.0 else _TAU
                    slope = rise + (low[0, row] + gradient[0, row])
                    if slope > 0.0 and slope * slope / curvature == best and (j < 0 or place[row] > place[j]):
                        j = row
                    other = n_rows + row
                    slope = rise + (low[1, row] - gradient[1, row])
                    if (
                        slope > 0.0
                        and slope * slope / curvature == best
                        and (j < 0 or place[other] > place[j])
                    ):
                        j = other
    if j >= 0:
        side, row = divmod(j, n_rows)
        slope = rise + (
            low[side, row] - gradient[side, row] if side else low[side, row] + gradient[side, row]
        )
        # What is not optimal for one pair needs no look at the others.
        if slope < tol and _is_optimal(gradient, low, rise, tol, n_rows):
            return i, -1
    return i, j


@_compiled
def _is_optimal(gradient, low, rise, tol, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Say whether no pair violates the conditions of optimality by the tolerance."""
    for row in range(n_rows):
        if rise + (low[0, row] + gradient[0, row]) >= tol or rise + (low[1, row] - gradient[1, row]) >= tol:
            return False
    return True


@_compiled
def _note_bounds(side, row, alpha, limits, up, low):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Note whether a variable may grow and shrink; the sign of its side turns one into the other."""
    grows = 0.0 if alpha[side, row] < limits[row] else -np.inf
    shrinks = 0.0 if alpha[side, row] > 0.0 else -np.inf
    up[side, row], low[side, row] = (shrinks, grows) if side else (grows, shrinks)


@_compiled
def _free_all(alpha, limits, up, low, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Let all variables be chosen."""
    for row in range(n_rows):
        _note_bounds(0, row, alpha, limits, up, low)
        _note_bounds(1, row, alpha, limits, up, low)


@_compiled
def _add(total, values, factor):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for k in range(len(total)):
        total[k] += factor * values[k]


@_compiled
def _take_back(kernel, gradient, linear, bounded, alpha, limits, up, low, order, n_active, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Let all variables be chosen, after computing the gradients of those set aside: at a limit, then free ones."""
    if n_active == len(order):
        return
    above, below = bounded + linear[0], linear[1] - bounded
    for number in order[:n_active]:
        side, row = divmod(number, n_rows)
        if 0.0 < alpha[side, row] < limits[row]:
            factor = -alpha[side, row] if side else alpha[side, row]
            _add(above, kernel[row], factor)
            _add(below, kernel[row], -factor)
    for number in order[n_active:]:
        side, row = divmod(number, n_rows)
        gradient[side, row] = below[row] if side else above[row]
    _free_all(alpha, limits, up, low, n_rows)


@_compiled
def _violations(gradient, up, low, order, n_active, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return the most that any active variable would gain by growing and by shrinking."""
    rise, fall = -np.inf, -np.inf
    for number in order[:n_active]:
        side, row = divmod(number, n_rows)
        signed = -gradient[side, row] if side else gradient[side, row]
        rise, fall = max(rise, up[side, row] - signed), max(fall, low[side, row] + signed)
    return rise, fall


@_compiled
def _set_aside(gradient, alpha, limits, up, low, order, place, n_active, rise, fall, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Leave variables at a bound out of the choice that will hardly move; return how many are left."""
    # The places are exchanged as libsvm does it: they decide ties.
    first = 0
    while first < n_active:
        if _stays_at_bound(order[first], gradient, alpha, limits, rise, fall, n_rows):
            n_active -= 1
            while n_active > first:
                if not _stays_at_bound(order[n_active], gradient, alpha, limits, rise, fall, n_rows):
                    order[first], order[n_active] = order[n_active], order[first]
                    place[order[first]], place[order[n_active]] = first, n_active
                    break
                n_active -= 1
        first += 1
    for number in order[n_active:]:
        side, row = divmod(number, n_rows)
        up[side, row], low[side, row] = -np.inf, -np.inf
    return n_active


@_compiled
def _stays_at_bound(number, gradient, alpha, limits, rise, fall, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    side, row = divmod(number, n_rows)
    slope = gradient[side, row]
    if alpha[side, row] >= limits[row]:
        return -slope > (fall if side else rise)
    if alpha[side, row] <= 0.0:
        return slope > (rise if side else fall)
    return False


@_compiled
def _offset(gradient, alpha, limits, order, n_rows):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Return libsvm's rho: the mean over free variables, else the middle of what the bounds admit."""
    n_free, total, lowest, highest = 0, 0.0, -np.inf, np.inf
    for number in order:
        side, row = divmod(number, n_rows)
        signed = -gradient[side, row] if side else gradient[side, row]
        if 0.0 < alpha[side, row] < limits[row]:
            n_free += 1
            total += signed
        elif (alpha[side, row] <= 0.0) == (side == 0):
            highest = min(highest, signed)
        else:
            lowest = max(lowest, signed)
    return total / n_free if n_free else (highest + lowest) / 2.0
