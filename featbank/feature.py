"""A feature: the vector of one encoder on one view of one image.

Here the view, the encoder and the decoding policy meet and become one identity, the bank's key. The
module computes vectors from pixels; it reads and writes no file.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from featbank.bank import ImageRecord
from featbank.digest import digest_json, seed_from
from featbank.encoders import Encoder, make_encoder
from featbank.encoders.custom import allow_code
from featbank.errors import EncoderError, EncoderSetupError, ImageError, ViewError
from featbank.images import DECODE_POLICY, Photo, decode_policy, keeps_truncated, read_photo
from featbank.remote import digest_at
from featbank.views import SharedBeginnings, View, parse_view
from featbank.workers import keep_freed_memory, one_opencv_thread, starting_workers

AGGREGATES = ("mean", "mean+std", "concat")
"""Ways to turn the vectors of a view's crops into one: mean, mean and standard deviation, or all in order."""

UHD_HEIGHT_PX, UHD_WIDTH_PX = 2160, 3840
"""Size for which costs are stated: UHD-1, the UHD-IQA release's width at 16:9."""


@dataclass(frozen=True)
class Feature:
    """One encoder on one view, with the crops' vectors aggregated.

    Parameters
    ----------
    encoder : Encoder
    view : View
    aggregate : str
        One of `AGGREGATES`. The vectors of a view's scales are always concatenated.

    Raises
    ------
    EncoderError
        If the aggregate is unknown, or is ``concat`` on a view whose number of crops varies.
    """

    encoder: Encoder
    view: View
    aggregate: str = "mean"

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise EncoderError(
                f"feature: aggregate must be one of {', '.join(AGGREGATES)}, got {self.aggregate!r}."
            )
        if self.aggregate == "concat":
            counts = {
                self.view.geometry(height, width)[0][0]
                for height, width in ((UHD_HEIGHT_PX, UHD_WIDTH_PX), (600, 400), (333, 1000))
            }
            if len(counts) > 1:
                raise EncoderError(
                    f"feature: aggregate 'concat' needs a fixed number of crops, but view {self.view.name!r} "
                    f"gives {sorted(counts)} crops on different sizes. Use 'mean' or 'mean+std'."
                )

    @property
    def label(self) -> str:
        """Readable name such as ``classic:nss@native.mean``."""
        return f"{self.encoder.spec.name}@{self.view.name}.{self.aggregate}"

    @property
    def identity(self) -> dict[str, object]:
        """Everything that can change the numbers, as JSON-able values."""
        return self.identity_with(keeps_truncated())

    def identity_with(self, keep_truncated: bool) -> dict[str, object]:
        """Return the identity where damaged JPEGs are refused, or where what is left of them is kept."""
        return {"decode": decode_policy(keep_truncated=keep_truncated), **self._own_identity}

    @cached_property
    def _own_identity(self) -> dict[str, object]:
        return {
            "kind": "computed",
            "view": self.view.identity(),
            "encoder": self.encoder.identity(),
            "aggregate": self.aggregate,
        }

    @cached_property
    def pass_id(self) -> str:
        """Digest of the forward computation: features with equal pass pay its cost once."""
        return digest_json({"view": self.view.identity(), "encoder": self.encoder.pass_identity()})

    @cached_property
    def n_features(self) -> int:
        """Length of the vector."""
        scales = self.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX)
        n_crops = scales[0][0]
        per_crop = self.encoder.spec.n_features * len(scales)
        return per_crop * {"mean": 1, "mean+std": 2, "concat": n_crops}[self.aggregate]

    def gmacs(self, height: int = UHD_HEIGHT_PX, width: int = UHD_WIDTH_PX) -> float:
        """Count the multiply-accumulates for one image through all crops and scales."""
        return (
            sum(
                n_crops * self.encoder.count_macs(crop_height, crop_width)
                for n_crops, crop_height, crop_width in self.view.geometry(height, width)
            )
            / 1e9
        )

    def vector(self, scales: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Turn the crops of one image into its feature."""
        return self.join([self.encoder.encode(crops) for crops in scales])

    def join(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Concatenate the vectors of the scales and aggregate those of the crops."""
        # crops: (n_crops, n_scales * encoder.n_features)
        crops = np.concatenate(blocks, axis=1)
        if self.aggregate == "mean":
            vector = crops.mean(axis=0, dtype=np.float64)
        elif self.aggregate == "mean+std":
            vector = np.concatenate(
                [crops.mean(axis=0, dtype=np.float64), crops.std(axis=0, dtype=np.float64)]
            )
        else:
            vector = crops.reshape(-1)
        vector = vector.astype(np.float32)
        if not np.isfinite(vector).all():
            raise EncoderError(
                f"encoder {self.encoder.spec.name!r} gave {np.count_nonzero(~np.isfinite(vector))} values that are "
                f"not finite on view {self.view.name!r}; the image is left out rather than stored wrongly."
            )
        return vector


def make_feature(encoder: str, view: str, aggregate: str = "mean") -> Feature:
    """Build a feature from names, as a recipe writes them."""
    feature = Feature(make_encoder(encoder), parse_view(view), aggregate)
    for _, height, width in feature.view.geometry(UHD_HEIGHT_PX, UHD_WIDTH_PX):
        feature.encoder.check_size(height, width)
    return feature


@dataclass
class Timing:
    """Seconds spent on one image, by feature label for the encoders."""

    views_s: float = 0.0
    encode_s: dict[str, float] = field(default_factory=dict)


Failure = EncoderError | ViewError | MemoryError
"""What may keep one feature of a readable photo from being computed."""


def compute_features(
    features: Sequence[Feature], photo: Photo
) -> tuple[list[NDArray[np.float32] | Failure], Timing]:
    """Compute several features of one decoded photo; each distinct view is taken once, each pass runs once.

    Views that begin with the same resize share its result. A feature that cannot be computed takes no other one
    with it.
    """
    timing = Timing()
    found: dict[int, NDArray[np.float32] | Failure] = {}
    views = {feature.view.name: feature.view for feature in features}
    beginnings = SharedBeginnings([view.beginnings() for view in views.values()])
    for name, view in views.items():
        positions = [i for i, feature in enumerate(features) if feature.view.name == name]
        started = time.perf_counter()
        try:
            scales = view.scales(photo.pixels, seed_from(photo.digest, name), beginnings)
        except (ViewError, MemoryError) as error:
            found.update(dict.fromkeys(positions, error))
            continue
        finally:
            timing.views_s += time.perf_counter() - started
        for shared in _by_pass(features, positions):
            started = time.perf_counter()
            found.update(_run_pass(features, shared, scales))
            spent = (time.perf_counter() - started) / len(shared)
            for position in shared:
                timing.encode_s[features[position].label] = spent
    return [found[i] for i in range(len(features))], timing


def _run_pass(
    features: Sequence[Feature], shared: Sequence[int], scales: Sequence[NDArray[np.uint8]]
) -> dict[int, NDArray[np.float32] | Failure]:
    """Run one forward pass for all features that read it."""
    encoders = [features[position].encoder for position in shared]
    try:
        # blocks[k][i]: scale k, feature shared[i]; a network that several features read runs once.
        blocks = [encoders[0].encode_together(encoders, crops) for crops in scales]
        return {
            position: features[position].join([block[i] for block in blocks])
            for i, position in enumerate(shared)
        }
    except EncoderSetupError:
        raise
    except (EncoderError, MemoryError) as error:
        if len(shared) == 1:
            return {shared[0]: error}
    # One of them failed and it is not known which: alone, each has its own outcome.
    return {position: _run_pass(features, [position], scales)[position] for position in shared}


def _by_pass(features: Sequence[Feature], positions: Sequence[int]) -> list[list[int]]:
    """Group positions of features on one view whose forward computation is the same."""
    groups: dict[str, list[int]] = {}
    for position in positions:
        groups.setdefault(features[position].pass_id, []).append(position)
    return list(groups.values())


# Higher than the keys' epoch, as more kinds of files are read since: what was refused before is tried again.
DECODE_EPOCH = int(DECODE_POLICY["epoch"]) + 1

JOBS_AHEAD = 256
"""Photos sent ahead to a cluster, for the workers that it has and those that join."""


@dataclass(frozen=True)
class FeatureRequest:
    """A feature by name: small enough to send to a worker, which builds the encoder itself."""

    encoder: str
    view: str
    aggregate: str = "mean"


@dataclass(frozen=True)
class Job:
    """One photo with the features it lacks."""

    # path, image_id: The file, and its name in the dataset
    path: str
    image_id: str
    key: str  # SHA-256 of its bytes when it was listed
    wanted: tuple[FeatureRequest, ...]
    digests: tuple[str, ...]  # for each of them the digest of the identity under which it will be stored
    allow_code: bool = False  # whether the caller lets encoders that are files of its own run
    keep_truncated: bool = False  # whether what is left of a damaged JPEG is taken


@dataclass
class Outcome:
    """What became of a job."""

    job: Job
    key: str | None = None  # SHA-256 of the bytes that were decoded; None where nothing could be
    # dict of FeatureRequest to float32 array of shape (n_features,)
    vectors: dict[FeatureRequest, NDArray[np.float32]] = field(default_factory=dict)
    # Why the other features are not there
    failures: dict[FeatureRequest, ImageRecord] = field(default_factory=dict)
    # What is known of the photo itself; without a key where no bytes could be read
    record: ImageRecord | None = None
    # Instead of it where damage was kept: true of these features alone, others refuse the photo
    kept: ImageRecord | None = None
    # decode_s, views_s: Seconds of work
    decode_s: float = 0.0
    views_s: float = 0.0
    encode_s: dict[str, float] = field(default_factory=dict)  # seconds of work by feature label


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
    found = [digest_json(feature.identity_with(keep)) for keep in (False, True)]
    if digest not in found:
        raise EncoderSetupError(
            f"{feature.label}: the worker on {socket.gethostname()} computes this feature under the key "
            f"{found[0][:12]}, but the bank's is {digest[:12]}: its featbank, its libraries or its weights "
            "differ. Install the same versions on all machines; nothing of this photo was stored."
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
    """Turn one photo into its vectors, or into the reasons why not; never raises for the photo's sake."""
    outcome = Outcome(job)
    started = time.perf_counter()
    try:
        photo = read_photo(job.path, keep_truncated=job.keep_truncated)
    except (ImageError, MemoryError) as error:
        outcome.record = _failed_record(_refused_key(job, error), error, path=job.path)
        return outcome
    finally:
        outcome.decode_s = time.perf_counter() - started
    features = [_built_as(request, digest) for request, digest in zip(job.wanted, job.digests, strict=True)]
    with one_opencv_thread():
        found, timing = compute_features(features, photo)
    # The key is the digest of the bytes that were decoded, should the file have changed since it was listed.
    outcome.key = photo.digest
    for request, feature, result in zip(job.wanted, features, found, strict=True):
        if isinstance(result, np.ndarray):
            outcome.vectors[request] = result
        else:
            outcome.failures[request] = _failed_record(photo.digest, result, f"feature {feature.label}: ")
    record = _photo_record(photo)
    is_damaged = any(action.endswith("-kept") for action in photo.actions)
    outcome.record, outcome.kept = (None, record) if is_damaged else (record, None)
    outcome.views_s, outcome.encode_s = timing.views_s, timing.encode_s
    return outcome


def compute_in_worker(job: Job, task_name: str) -> Outcome:
    """Compute in a process that exists for nothing else, by the caller's permissions; the name is for messages."""
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
    """Compute jobs by joblib's active backend and yield their outcomes as they come, in any order."""
    if workers == 1 or (len(jobs) <= 1 and workers > 0):
        yield from map(compute, jobs)
        return
    # One photo a task: a task takes about a second, and a row lost to a kill is one photo. Few tasks wait, which bounds
    # memory whatever the number of photos; where workers may join, there must be some for them.
    with starting_workers():  # they start with the first tasks
        parallel = Parallel(
            n_jobs=workers,
            return_as="generator_unordered",
            pre_dispatch=2 * workers if workers > 0 else JOBS_AHEAD,
            batch_size=1,
            inner_max_num_threads=1,
        )
        outcomes = parallel(
            delayed(compute_in_worker)(job, task_name=f"the photo {job.path}") for job in jobs
        )
    yield from outcomes


def gave_up(job: Job, task_name: str) -> Outcome:
    """Record a photo under which workers died, also when nothing else ran."""
    message = (
        f"read_photo: {job.path} ended the worker that read it, each time, most likely for lack of memory; give the "
        "workers more, or scale the photo down"
    )
    record = ImageRecord(key=job.key, status="failed", reason="memory", message=message, epoch=DECODE_EPOCH)
    return Outcome(job, record=record)
