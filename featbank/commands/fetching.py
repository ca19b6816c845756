"""Downloads one weights file into a temporary place; used by ``featbank weights fetch`` and by nothing else."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from featbank.atomic import scratch_file
from featbank.encoders.weights import WeightsSource, weights_folder
from featbank.errors import EncoderError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60


@contextmanager
def fetch(source: WeightsSource) -> Iterator[Path]:
    """Download a source's file and hand out its path; the file is removed afterwards.

    Parameters
    ----------
    source : WeightsSource
        With a direct address.

    Yields
    ------
    Path

    Raises
    ------
    EncoderError
        If the site cannot be reached or ends the transfer early.
    """
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_file(folder) as path:
        try:
            _download(source, path)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise EncoderError(
                f"weights fetch: {source.name} could not be had from {source.url} ({error}). Fetch the file on a "
                f"machine that reaches the site (see {source.page}), copy it here, and run "
                f"`featbank weights add {source.name} FILE`."
            ) from error
        yield path


def _download(source: WeightsSource, path: Path) -> None:
    if not source.url.startswith(("https://", "http://")):
        raise EncoderError(f"weights fetch: {source.name} has no web address, got {source.url!r}.")
    request = urllib.request.Request(source.url, headers={"User-Agent": "featbank"})  # noqa: S310 - scheme checked
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
        total = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=total or None, unit="B", unit_scale=True, desc=source.name, disable=None) as bar:
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
        received = file.tell()
    if total and received != total:
        raise EncoderError(
            f"weights fetch: {source.name} must have {total} bytes, got {received}: the transfer was cut. Run it again."
        )
