"""What one worker does with one photo: decode it once, take its views, run its encoders, say what went wrong.

Jobs and outcomes are small and can be sent to another process or another machine. Writes nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from featbank.bank import ImageRecord
from featbank.digest import digest_json
from featbank.encoders.custom import allow_code
from featbank.errors import EncoderSetupError, ImageError
from featbank.feature import Failure, Feature, compute_features, make_feature
from featbank.images import DECODE_POLICY, Photo, read_photo
from featbank.remote import digest_at
from featbank.workers import keep_freed_memory, starting_workers

DECODE_EPOCH = int(DECODE_POLICY["epoch"])


@dataclass(frozen=True)
class FeatureRequest:
    """A feature by name: small enough to send to a worker, which builds the encoder itself."""

    encoder: str
    view: str
    aggregate: str = "mean"


@dataclass(frozen=True)
class Job:
    """One photo with the features it lacks.

    Attributes
    ----------
    path, image_id : str
        The file, and its name in the dataset.
    key : str
        SHA-256 of its bytes when it was listed.
    wanted : tuple of FeatureRequest
    digests : tuple of str
        For each of them the digest of the identity under which it will be stored.
    allow_code : bool
        Whether the caller lets encoders that are files of its own run.
    """

    path: str
    image_id: str
    key: str
    wanted: tuple[FeatureRequest, ...]
    digests: tuple[str, ...]
    allow_code: bool = False


@dataclass
class Outcome:
    """What became of a job.

    Attributes
    ----------
    job : Job
    key : str or None
        SHA-256 of the bytes that were decoded; None where nothing could be.
    vectors : dict of FeatureRequest to float32 array of shape (n_features,)
    failures : dict of FeatureRequest to ImageRecord
        Why the other features are not there.
    record : ImageRecord or None
        What is known of the photo itself; without a key where no bytes could be read.
    decode_s, views_s : float
        Seconds of work.
    encode_s : dict of str to float
        Seconds of work by feature label.
    """

    job: Job
    key: str | None = None
    vectors: dict[FeatureRequest, NDArray[np.float32]] = field(default_factory=dict)
    failures: dict[FeatureRequest, ImageRecord] = field(default_factory=dict)
    record: ImageRecord | None = None
    decode_s: float = 0.0
    views_s: float = 0.0
    encode_s: dict[str, float] = field(default_factory=dict)


def built(request: FeatureRequest) -> Feature:
    """Build a feature once for each process, however many photos it sees; raises as `make_feature`."""
    if request.encoder.partition(":")[0] == "file":
        return _built.__wrapped__(request)  # the file, and what it reads, may have changed since
    return _built(request)


@lru_cache(maxsize=256)
def _built(request: FeatureRequest) -> Feature:
    return make_feature(request.encoder, request.view, request.aggregate)


@lru_cache(maxsize=256)
def _built_as(request: FeatureRequest, digest: str) -> Feature:
    """Build a feature whose numbers belong under a key, or refuse: this may be another machine than the bank's."""
    feature = built(request)
    found = digest_json(feature.identity)
    if found != digest:
        raise EncoderSetupError(
            f"{feature.label}: the worker on {socket.gethostname()} computes this feature under the key {found[:12]}, "
            f"but the bank's is {digest[:12]}: its featbank, its libraries or its weights differ. Install the same "
            "versions on all machines; nothing of this photo was stored."
        )
    return feature


def _photo_record(photo: Photo) -> ImageRecord:
    # Only what follows from the image alone, so that it does not matter which features were computed with it.
    height, width = photo.pixels.shape[:2]
    return ImageRecord(
        key=photo.digest,
        status="ok",
        width=width,
        height=height,
        format=photo.format,
        mode=photo.mode,
        actions=photo.actions,
        epoch=DECODE_EPOCH,
    )


def compute(job: Job) -> Outcome:
    """Turn one photo into its vectors, or into the reasons why not; never raises for the photo's sake.

    Raises
    ------
    EncoderSetupError
        If an encoder cannot run here at all, or gives numbers that belong under another key.
    """
    outcome = Outcome(job)
    started = time.perf_counter()
    try:
        photo = read_photo(job.path)
    except (ImageError, MemoryError) as error:
        outcome.record = _failed_record(_refused_key(job, error), error, path=job.path)
        return outcome
    finally:
        outcome.decode_s = time.perf_counter() - started
    features = [_built_as(request, digest) for request, digest in zip(job.wanted, job.digests, strict=True)]
    found, timing = compute_features(features, photo)
    # The key is the digest of the bytes that were decoded, should the file have changed since it was listed.
    outcome.key = photo.digest
    for request, feature, result in zip(job.wanted, features, found, strict=True):
        if isinstance(result, np.ndarray):
            outcome.vectors[request] = result
        else:
            outcome.failures[request] = _failed_record(photo.digest, result, f"feature {feature.label}: ")
    outcome.record = _photo_record(photo)
    outcome.views_s, outcome.encode_s = timing.views_s, timing.encode_s
    return outcome


def compute_in_worker(job: Job) -> Outcome:
    """Compute in a process that exists for nothing else, by the caller's permissions."""
    keep_freed_memory()
    with allow_code(job.allow_code):
        return compute(job)


def _refused_key(job: Job, error: ImageError | MemoryError) -> str:
    """Return the digest of the bytes that were refused, which are not always those that were listed."""
    if isinstance(error, MemoryError):
        return ""
    if error.reason == "too-large" and not error.digest:  # refused unread
        with contextlib.suppress(OSError):
            return digest_at(job.path)
    return error.digest


def _failed_record(key: str, error: ImageError | Failure, who: str = "", path: str = "") -> ImageRecord:
    reason = (
        error.reason if isinstance(error, ImageError) else type(error).__name__.removesuffix("Error").lower()
    )
    message = f"{who}{str(error) or 'out of memory'}"
    path = "" if key else path
    return ImageRecord(
        key=key, path=path, status="failed", reason=reason, message=message, epoch=DECODE_EPOCH
    )


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Compute jobs in processes and yield their outcomes as they come, in any order.

    Parameters
    ----------
    jobs : sequence of Job
    workers : int
        Processes; 1 computes in the calling one.
    """
    if workers == 1 or len(jobs) <= 1:
        yield from map(compute, jobs)
        return
    # One photo a task: a task takes about a second, and a row lost to a kill is one photo. Two tasks a worker
    # wait at most, which bounds memory whatever the number of photos.
    with starting_workers():  # they start with the first tasks
        parallel = Parallel(
            n_jobs=workers,
            return_as="generator_unordered",
            pre_dispatch=2 * workers,
            batch_size=1,
            inner_max_num_threads=1,
        )
        outcomes = parallel(delayed(compute_in_worker)(job) for job in jobs)
    yield from outcomes
