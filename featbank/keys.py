"""The key of an image: what a row of the bank belongs to.

An image that is at hand is known by the SHA-256 of its bytes, so a renamed or moved file keeps its
features and a changed file loses them. An image that is not at hand (features brought from elsewhere)
is known by its name instead: in a published dataset by the dataset's and its own, else by where it should lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featbank.digest import digest_bytes
from featbank.stat_cache import StatCache


def key_of_name(dataset: str, image_id: str) -> str:
    """Return the key of an image whose file is not at hand.

    Parameters
    ----------
    dataset : str
        Name of the published dataset, so that ``1.jpg`` of two datasets are two images; empty for own tables.
    image_id : str
        The dataset's own name of the image; in own tables the place of its file (`ImageTable.full_names`).

    Returns
    -------
    str
        64 hexadecimal digits that no digest of a real file will meet by chance.
    """
    return digest_bytes(f"featbank image without file\0{dataset}\0{image_id}".encode())


def keys_of_files(
    paths: Sequence[str | Path], workers: int = 2, *, cache: StatCache | None = None, rehash: bool = False
) -> list[str | None]:
    """Digest many files.

    Parameters
    ----------
    paths : sequence of str or Path, length n_images
    workers : int
        Threads; hashing releases the interpreter lock.
    cache : StatCache, optional
        Where the digests of unchanged files are remembered; by default every file is read.
    rehash : bool
        Read every file all the same.

    Returns
    -------
    list of (str or None), length n_images
        The SHA-256 of each file, or None where there is no regular file of a photo's size or it cannot be read.
    """
    return (cache or StatCache(None)).digests(paths, workers=workers, rehash=rehash)
