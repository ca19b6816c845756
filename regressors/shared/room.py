"""How much memory a fit takes in memory and by blocks, how much there is, and what blocks cannot do."""

from __future__ import annotations

from pathlib import Path

from regressors.checks import Estimator

_NUMBER = 8
_COPIES = 6
"""Tables in float64 that a fit in memory holds at its peak: the frame, training rows, centred ones, parts of these."""

_ROW_BYTES = 1700
"""Names, MOS, folds and predictions of one image, in the run and in its report."""

_PROGRAM_GB = 0.4
"""The program itself with its libraries."""

_SHARE = 0.8

# Containers have less than the machine says; what they use counts cached files, so their limit alone is asked.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_limit_gb() -> float:
    """Return four fifths of the memory that is free here, in units of 1e9 bytes; infinity where that is not known."""
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
    """Return what a fit of a table in memory takes, in units of 1e9 bytes.

    Parameters
    ----------
    n_rows, n_columns : int
        Of the whole table.
    """
    return _PROGRAM_GB + (_ROW_BYTES + _NUMBER * _COPIES * n_columns) * n_rows / 1e9


def kernel_gb(n_rows: int) -> float:
    """Return what one kernel and its reduction take, in units of 1e9 bytes.

    Parameters
    ----------
    n_rows : int
        Training rows.
    """
    return _NUMBER * 2 * float(n_rows) ** 2 / 1e9


def by_blocks_gb(n_rows: int, n_columns: int, n_folds: int, n_candidates: int, n_workers: int) -> float:
    """Return what a fit by blocks takes besides the mapped files, in units of 1e9 bytes.

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


def refuse_blocks(model: Estimator, n_rows: int) -> None:
    """Refuse what cannot be fitted on a table that is read by blocks, before anything is read.

    Parameters
    ----------
    model : BandEnsemble
        Its parameters.
    n_rows : int
        Rows of the table.

    Raises
    ------
    ValueError
        If the estimator needs kernels, or plain scikit-learn was asked for.
    """
    if not model.estimator.endswith("ridge"):
        raise ValueError(
            f"a table that is read by blocks takes the estimators 'ridge' and 'banded-ridge', got "
            f"{model.estimator!r}, whose kernel of {n_rows:,} rows takes {kernel_gb(n_rows):,.3g} GB. Use a ridge, "
            "fewer rows, or a table in memory."
        )
    if model.reference:
        raise ValueError(
            "a table that is read by blocks cannot be searched by plain scikit-learn, which needs it in memory, got "
            "reference=True. Leave it out, or give a data frame."
        )
