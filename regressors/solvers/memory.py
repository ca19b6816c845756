"""How much memory fits take, how much there is, and how to keep to a limit; all sizes in units of 1e9 bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regressors.solvers.kernels import WIDE_COLUMNS
from regressors.solvers.path import extra_numbers
from regressors.solvers.sums import PRODUCT_BYTES

_NUMBER = 8
_COPIES = 6
"""Tables in float64 that a fit in memory holds at its peak: the frame, training rows, centred ones, parts of these."""

_ROW_BYTES = 1700
"""Names, MOS, folds and predictions of one image, in the run and in its report."""

_PROGRAM_GB = 0.4
"""The program itself with its libraries."""

_MAX_STORED_BYTES = 1_000_000_000
"""Products of columns up to this size are kept for all folds."""

_SHARE = 0.8

# Containers have less than the machine says; what they use counts cached files, so their limit alone is asked.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_limit_gb() -> float:
    """Return four fifths of the memory that is free here; infinity where that is not known."""
    free = [float("inf")]
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free.append(1024.0 * int(line.split()[1]))
    except (OSError, ValueError):
        pass
    for limit in _LIMITS:
        try:
            free.append(float(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or the word "max"
            continue
    return _SHARE * min(free) / 1e9


def in_memory_gb(n_rows: int, n_columns: int) -> float:
    """Return what a fit takes of a table in memory with ``n_rows`` rows and ``n_columns`` columns."""
    return _PROGRAM_GB + (_ROW_BYTES + _NUMBER * _COPIES * n_columns) * n_rows / 1e9


def kernel_gb(n_rows: int) -> float:
    """Return what one kernel of ``n_rows`` training rows and its reduction take."""
    return _NUMBER * 2 * float(n_rows) ** 2 / 1e9


def out_of_core_gb(n_rows: int, n_columns: int, n_folds: int, n_candidates: int, n_workers: int) -> float:
    """Return what an out-of-core fit takes besides the mapped files.

    Parameters
    ----------
    n_rows, n_columns : int
        Of the whole table.
    n_folds, n_candidates, n_workers : int
        Folds, points of all grids, and systems solved at once.
    """
    # Products of the columns in each part and each fold, their joint ones, and those being solved.
    squares = (2 * n_folds + 2 + 4 * n_workers) * float(n_columns) ** 2
    coefficients = 2.0 * n_folds * n_columns * n_candidates
    return _PROGRAM_GB + (_NUMBER * (squares + coefficients) + _ROW_BYTES * n_rows) / 1e9


def choose_out_of_core(
    n_rows: int,
    n_training: int,
    n_columns: int,
    *,
    estimators: Sequence[str],
    needs_memory: str = "",
    n_folds: int = 5,
    n_candidates: int = 1,
    n_workers: int = 1,
    limit_gb: float | None = None,
) -> bool:
    """Choose between a table in memory and one that is read out of core; both give the same numbers.

    Out of core is for ridges on many more rows than columns.

    Parameters
    ----------
    n_rows, n_training, n_columns : int
        Of the table, and those of the rows that are fitted.
    estimators : sequence of str
        Kinds of estimator that are fitted.
    needs_memory : str
        What else can only be done in memory, for the message; empty if nothing.
    n_folds, n_candidates, n_workers : int
        As of `out_of_core_gb`.
    limit_gb : float or None
        Gigabytes that the fit may take; None is four fifths of the memory that is free.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If kernels, or the table, do not fit into the limit.
    """
    limit = default_limit_gb() if limit_gb is None else limit_gb
    kernels = [name for name in estimators if name.endswith("svr")]
    if kernels and kernel_gb(n_training) > limit:
        raise ValueError(
            f"{kernels[0]} on {n_training:,} training images needs kernels of {kernel_gb(n_training):,.3g} GB each, "
            f'the limit is {limit:.3g} GB. Use estimator = "ridge", or fewer images'
            + (", or a higher --memory-limit." if limit_gb is not None else ".")
        )
    needed = in_memory_gb(n_rows, n_columns)
    if needed <= limit:
        return False
    hindrance = (
        f"{(kernels[0] if kernels else needs_memory)} takes no other way" if kernels or needs_memory else ""
    )
    if not hindrance and n_training < 2 * n_columns:
        hindrance = f"reading it by blocks takes more images than {2 * n_columns:,}, twice its columns"
    if hindrance:
        if limit_gb is None:
            return False  # what is free may grow, and the system decides
        raise ValueError(
            f"{n_rows:,} images x {n_columns:,} columns in memory take {needed:.3g} GB, the limit is {limit:.3g} GB, "
            f"and {hindrance}. Raise --memory-limit, or leave it out."
        )
    least = out_of_core_gb(n_rows, n_columns, n_folds, n_candidates, n_workers)
    if least > limit and limit_gb is not None:
        raise ValueError(
            f"{n_rows:,} images x {n_columns:,} columns read by blocks take {least:.3g} GB besides the bank's files, "
            f"the limit is {limit:.3g} GB. Raise --memory-limit, or use fewer bands."
        )
    return True


def refuse_out_of_core(estimator: str, n_rows: int, *, reference: bool) -> None:
    """Refuse what cannot be fitted out of core, before anything is read.

    Parameters
    ----------
    estimator : str
        Kind of estimator.
    n_rows : int
        Rows of the table.
    reference : bool
        Whether plain scikit-learn was asked for.

    Raises
    ------
    ValueError
        If the estimator needs kernels, or scikit-learn the table in memory.
    """
    if not estimator.endswith("ridge"):
        raise ValueError(
            f"a table that is read by blocks takes the estimators 'ridge' and 'banded-ridge', got {estimator!r}, whose "
            f"kernel of {n_rows:,} rows takes {kernel_gb(n_rows):,.3g} GB. Use a ridge, fewer rows, or a table in "
            "memory."
        )
    if reference:
        raise ValueError(
            "a table that is read by blocks cannot be searched by plain scikit-learn, which needs it in memory, got "
            "reference=True. Leave it out, or give a data frame."
        )


class MemoryPlan(NamedTuple):
    """How a search in memory goes about its work.

    Attributes
    ----------
    n_workers : int
        Matrices in work at once.
    folds_wait : bool
        Whether a fold begins only when the one before has ended; otherwise two may be in memory.
    stores_products : bool
        Whether the products of columns are kept for all folds, or computed again in each.
    gigabytes : float
        The most that is held at a time besides the table.
    """

    n_workers: int
    folds_wait: bool
    stores_products: bool
    gigabytes: float


def plan_memory(
    *,
    n_tests: Sequence[int],
    n_trains: Sequence[int],
    widths: Mapping[str, int],
    groups: Sequence[tuple[Sequence[str], int, Sequence[bool]]],
    n_gram_columns: int,
    n_parts: int,
    n_workers: int,
    limit_gb: float | None,
) -> MemoryPlan:
    """Choose the fastest way within a limit.

    Parameters
    ----------
    n_tests, n_trains : sequence of int
        Rows that each fold tests and trains on.
    widths : mapping of str to int
        Columns of each band.
    groups : sequence of (bands, n_penalties, list of bool)
        What differs only in penalties, and whether it is solved by normal equations in each fold; else by kernels.
    n_gram_columns, n_parts : int
        Columns of the normal equations, and parts in which rows are summed.
    n_workers : int
        Threads that there are.
    limit_gb : float or None
        Gigabytes that may be held besides the table; None sets no limit.

    Raises
    ------
    ValueError
        If the limit is not positive, or one fold with one matrix at a time needs more.
    """
    if limit_gb is not None and not limit_gb > 0:
        raise ValueError(f"memory_limit_gb must be positive or None, got {limit_gb!r}.")
    n_rows, n_columns = max(map(sum, zip(n_trains, n_tests, strict=True))), sum(widths.values())
    products = float(n_gram_columns) ** 2
    product_rows = min(n_rows * n_gram_columns, PRODUCT_BYTES // _NUMBER)
    # Predictions; scales and sums of each column.
    always = sum(n_tests) * sum(n for _, n, _ in groups) + (5 * (len(n_trains) + 1) + 6 * n_parts) * n_columns

    def needed(n_workers: int, folds_wait: bool, stores: bool) -> float:
        most = n_workers * (product_rows + 2 * products)
        for fold, (n_train, n_test) in enumerate(zip(n_trains, n_tests, strict=True)):
            dual = {band for bands, _, is_primal in groups if not is_primal[fold] for band in bands}
            held, work = float(len(dual) * (n_train + n_test) * n_train), 0.0
            for bands, n_penalties, is_primal in groups:
                size = sum(widths[band] for band in bands) if is_primal[fold] else n_train
                work = max(work, 2 * size**2 + n_test * size + extra_numbers(size, n_penalties))
            if dual:
                widest = min(max(widths[band] for band in dual), WIDE_COLUMNS)
                work = max(work, 2 * widest * (n_train + n_test) + n_train * (n_train + n_test))
            if len(dual) < len(widths) and n_gram_columns:
                held += products + n_test * n_gram_columns
                work = max(work, products + (0 if stores else product_rows + products))
            # A lone worker ends one fold before it begins the next.
            n_held = 1 if folds_wait or n_workers == 1 else 2
            most = max(most, n_held * held + n_workers * work)
        return _NUMBER * (always + (n_parts * products if stores else 0) + most) / 1e9

    ways = [
        (workers, waits, stores)
        for workers in range(n_workers, 0, -1)
        for waits in (False, True)
        for stores in (True, False)
        if not (stores and _NUMBER * n_parts * products > _MAX_STORED_BYTES)
    ]
    plans = [MemoryPlan(*way, needed(*way)) for way in (ways if limit_gb is not None else ways[:1])]
    for plan in plans:
        if limit_gb is None or plan.gigabytes <= limit_gb:
            return plan
    least = min(plan.gigabytes for plan in plans)
    raise ValueError(
        f"memory_limit_gb must be at least {least:.3g} for {n_rows} rows and {n_columns} columns, got {limit_gb:g}. "
        "Raise it, search fewer bands at a time, or use scikit-learn's GridSearchCV."
    )
