"""Finds photos of one scene taken from one place, by small copies of them: what leaks where a split knows no scenes.

Series of shots, copies under other exposures, other blur, other compression, and slightly other crops are found; other
views of the same objects are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import joblib
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from featbank.errors import ImageError
from featbank.remote import is_url

THUMBNAIL_PX: Final = 32

SAME_SCENE: Final = 0.7
"""Correlation of local contrast above which two thumbnails show one scene. By it 18.3 % of BIQ2021's test photos share
a scene with a training photo; of 50 such pairs that were looked at 49 do. Of 700 distinct web photographs and 300
rendered ones none does."""

MAX_BYTES: Final = 1_000_000_000
"""Files of more bytes together are not read only to be compared: half a minute of one core."""

MAX_PAIRS: Final = 20_000_000_000
"""Pairs of thumbnails that are compared; of more, some of the judged photos are drawn."""

_SIGMA = 2.0  # of the neighbourhood whose mean and contrast are taken out, pixels of the thumbnail
_FAINT = 4.0  # grey levels of contrast that are counted as noise
_PLAIN = 2.0  # deviation in grey levels below which a thumbnail shows nothing to compare
_SHIFT = 4  # pixels that one thumbnail may lie beside the other
_COARSE = 16  # pixels of the copies among which candidates are sought
_N_CANDIDATES = 10
_BLOCK = 512

MAX_NAMES: Final = 10
"""Series of photos that are counted one by one."""


def make_thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce pixels, (height, width, 3) or gray (height, width, 1), to a square of `THUMBNAIL_PX` gray ones."""
    small = cv2.resize(pixels, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small)


def read_thumbnail(path: str) -> NDArray[np.uint8]:
    """Make the thumbnail of a file, of a JPEG without decoding it in full; a black one where it cannot be read."""
    from featbank.images import (
        read_photo,
    )  # imported where it is used: other readers of datasets need no decoder

    try:
        data = Path(path).read_bytes()
        if simplejpeg.is_jpeg(data):
            # The smallest of libjpeg's scales at which both sides have twice the pixels.
            sides = {"min_height": 2 * THUMBNAIL_PX, "min_width": 2 * THUMBNAIL_PX}
            return make_thumbnail(simplejpeg.decode_jpeg(data, "GRAY", fastdct=True, strict=False, **sides))
        return make_thumbnail(read_photo(data).pixels)
    except (ImageError, OSError, ValueError):
        return np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), dtype=np.uint8)


def compare_files(
    judged: Sequence[str], training: Sequence[str], *, workers: int | None = None
) -> NDArray[np.intp] | str:
    """Find for each photo one of the same scene among those of the training, as `find_same_scene` does.

    Parameters
    ----------
    judged, training : sequence of str
        Paths of files.
    workers : int or None
        Threads; None takes one for each processor.

    Returns
    -------
    int array of shape (n_judged,), or str
        Why the photos were not compared: some are not on this machine, or there are too many.
    """
    thumbnails = _read_thumbnails([*judged, *training], workers, MAX_BYTES)
    if isinstance(thumbnails, str):
        return thumbnails
    return find_same_scene(thumbnails[: len(judged)], thumbnails[len(judged) :])


def group_files(paths: Sequence[str], *, workers: int | None = None) -> NDArray[np.intp] | str:
    """Give the photos of one scene, linked one to the next, the position of the first of them.

    Returns
    -------
    int array of shape (n_paths,), or str
        Why the photos were not compared: some are not on this machine.
    """
    thumbnails = _read_thumbnails(paths, workers)
    if isinstance(thumbnails, str):
        return thumbnails
    contrasts, is_plain = _local_contrast(thumbnails)
    rows = np.flatnonzero(~is_plain)
    pairs = [
        pair for row, near, _ in _alike(contrasts, rows, contrasts, rows) for pair in ((row, i) for i in near)
    ]
    first, second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(paths), len(paths)))
    _, labels = connected_components(links, directed=False)
    return np.unique(labels, return_index=True)[1][labels]


def _read_thumbnails(
    paths: Sequence[str], workers: int | None, max_bytes: float = np.inf
) -> NDArray[np.uint8] | str:
    """Read the thumbnails of files in threads, or say why not."""
    if any(map(is_url, paths)):
        return "some are not on this machine"
    try:
        n_bytes = sum(Path(path).stat().st_size for path in paths)
    except OSError:
        return "some are not at hand"
    if n_bytes > max_bytes:
        return f"their files have {n_bytes / 1e9:.1f} GB, and `featbank check` compares them"
    n_jobs = workers or joblib.cpu_count()
    read = joblib.Parallel(n_jobs=n_jobs, prefer="threads")(map(joblib.delayed(read_thumbnail), paths))
    return np.stack(read)


def count_shared(images: Iterable[str], is_shared: NDArray[np.bool_]) -> dict[str, Any]:
    """Count photos that share a scene, also by the folder or series with which their names begin.

    Returns
    -------
    dict
        ``n, n_shared`` and ``by_name``, the same by beginning (up to the first ``/``, space, ``_``, ``-`` or ``(``);
        empty unless there are 2 to 10.
    """
    names = list(images)
    # Below the folder that they have in common.
    start = os.path.commonprefix(names).rfind("/") + 1  # noqa: RUF071 - cut at a slash
    found = [re.match(r"(.+?)[/ _(-]", name[start:]) for name in names]
    begins = np.array([match[1] if match else "" for match in found], dtype=object)
    series = sorted(set(begins))
    return {
        "n": len(begins),
        "n_shared": int(is_shared.sum()),
        "by_name": {
            name: {"n": int((begins == name).sum()), "n_shared": int(is_shared[begins == name].sum())}
            for name in (series if 2 <= len(series) <= MAX_NAMES and "" not in series else ())
        },
    }


def word_shared(part: str, counts: dict[str, Any]) -> str:
    """Word what `count_shared` counted of one part, such as ``test``."""
    n, n_shared = counts["n"], counts["n_shared"]
    detail = ", ".join(f"{name} {c['n_shared']:,} of {c['n']:,}" for name, c in counts["by_name"].items())
    return f"{n_shared:,} of {n:,} {part} images ({n_shared / n:.1%}{f'; {detail}' if detail else ''})"


def find_same_scene(judged: NDArray[np.uint8], training: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Find for each thumbnail one of the same scene among those of the training.

    Parameters
    ----------
    judged, training : uint8 arrays of shapes (n_judged, 32, 32) and (n_training, 32, 32)
        From `make_thumbnail`.

    Returns
    -------
    int array of shape (n_judged,)
        Positions among the training; -1 where there is none, -2 where there is nothing to compare: plain pictures, and
        those beyond `MAX_PAIRS`.

    Notes
    -----
    Each thumbnail is divided by its local contrast, so that exposure and haze do not count. The ten nearest by
    16 x 16 pixels are then laid over it at all shifts of up to four pixels; the highest correlation counts.
    """
    contrasts, is_plain = _local_contrast(judged)
    known, is_void = _local_contrast(training)
    places = np.flatnonzero(~is_void)
    found = np.where(is_plain, -2, -1).astype(np.intp)
    rows = np.flatnonzero(~is_plain)
    if not len(places) or not len(rows):
        return found
    n_compared = max(1, MAX_PAIRS // len(places))
    if len(rows) > n_compared:
        found[rows] = -2
        rows = np.sort(np.random.default_rng(0).choice(rows, n_compared, replace=False))
        found[rows] = -1
    for row, near, correlations in _alike(contrasts, rows, known, places):
        if len(near):
            found[row] = near[correlations.argmax()]
    return found


def _alike(
    contrasts: NDArray[np.float32],
    rows: NDArray[np.intp],
    known: NDArray[np.float32],
    places: NDArray[np.intp],
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float64]]]:
    """Yield each of some rows, those of the known places that show its scene, and their correlations."""
    coarse, n_candidates = _coarse(known[places]).T, min(_N_CANDIDATES, len(places))
    inner = slice(_SHIFT, THUMBNAIL_PX - _SHIFT)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        likeness = _coarse(contrasts[block]) @ coarse
        candidates = places[np.argpartition(likeness, -n_candidates, axis=1)[:, -n_candidates:]]
        for row, near in zip(block, candidates, strict=True):
            centre = np.ascontiguousarray(contrasts[row, inner, inner])
            found = np.array([cv2.matchTemplate(known[i], centre, cv2.TM_CCOEFF_NORMED).max() for i in near])
            is_same = found > SAME_SCENE
            yield int(row), near[is_same], found[is_same]


def _local_contrast(thumbnails: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Divide differences to the local mean by their local deviation; and tell which thumbnails are plain."""
    contrasts = np.empty(thumbnails.shape, dtype=np.float32)
    is_plain = np.empty(len(thumbnails), dtype=bool)
    for row, thumbnail in enumerate(thumbnails.astype(np.float32)):
        difference = thumbnail - cv2.GaussianBlur(thumbnail, (0, 0), _SIGMA)
        square = difference * difference
        is_plain[row] = square.mean() < _PLAIN**2
        contrasts[row] = difference / (np.sqrt(cv2.GaussianBlur(square, (0, 0), _SIGMA)) + _FAINT)
    return contrasts, is_plain


def _coarse(contrasts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average to 16 x 16 pixels, as rows of mean 0 and length 1."""
    n, side = len(contrasts), THUMBNAIL_PX // _COARSE
    rows = contrasts.reshape(n, _COARSE, side, _COARSE, side).mean(axis=(2, 4)).reshape(n, -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)
