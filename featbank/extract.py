"""Computes the features a bank lacks: the one place where photographs become rows of the bank.

Each photo is decoded once for all its views and encoders. Workers compute, the calling process writes, so
a killed run loses at most the shard in hand and never anything that was finished. Reads paths and
image names, never a MOS.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from tqdm import tqdm

import featbank
from featbank.bank import Bank, FeatureFolder, ImageRecord
from featbank.bank.shard import read_spec
from featbank.digest import canonical_json, digest_json, seed_from
from featbank.encoders.custom import code_agrees, code_is_allowed
from featbank.encoders.engine import ENGINE_VARIABLE
from featbank.encoders.spec import parse_encoder_name
from featbank.encoders.weights import NETWORK_FAMILIES, weights_folder
from featbank.errors import BankError, EncoderError, ImageError
from featbank.feature import DECODE_EPOCH, FeatureRequest, Job, Outcome, built, gave_up, run_jobs
from featbank.images import decode_policy, keeps_truncated
from featbank.images.source import check_place
from featbank.keys import keys_of_files
from featbank.remote import Place, RemotePath, as_place, replace_file
from featbank.views import parse_view

__all__ = ["ExtractionSummary", "FeatureRequest", "extract", "open_folder", "take_shard"]

RETRIED_REASONS = ("memory", "missing", "unreadable", "not-a-file", "not-installed")
"""Failures that do not lie in the image's bytes, so the image is tried again."""

FLUSH_ROWS = 256
FLUSH_S = 30.0
"""A shard is written when this many rows wait, or when the oldest has waited this long."""


@dataclass
class ExtractionSummary:
    """What one extraction did."""

    # n_images, n_computed, n_cached: Distinct images asked for; whose features were all computed now; already
    # complete in the bank
    n_images: int = 0
    n_computed: int = 0
    n_cached: int = 0
    missing: list[str] = field(default_factory=list)  # images without a readable file
    # Images whose file equals that of an earlier one byte for byte, and that one: computed once
    copies: list[tuple[str, str]] = field(default_factory=list)
    # ``image``, ``reason`` and ``message`` of every image that gave no feature, now or earlier, and of every feature
    # of a readable image that could not be computed now
    failures: list[dict[str, str]] = field(default_factory=list)
    # Wall seconds under ``wall``; seconds of work summed over workers under ``decode``, ``views``, ``write`` and one
    # entry for each feature label
    seconds: dict[str, float] = field(default_factory=dict)


class _Writer:
    """Gathers rows and writes them as shards, every `FLUSH_ROWS` rows or `FLUSH_S` seconds."""

    def __init__(self, bank: Bank, folders: dict[FeatureRequest, FeatureFolder]) -> None:
        self._bank = bank
        self._folders = folders
        self._rows: dict[FeatureRequest, dict[str, NDArray[np.float32]]] = {
            request: {} for request in folders
        }
        self._records: list[ImageRecord] = []
        # What is to be said of single features: why they failed, and of which photos damage was kept.
        self._failures: dict[FeatureRequest, list[ImageRecord]] = {request: [] for request in folders}
        self._last_flush = time.monotonic()
        self.write_s = 0.0

    def add(self, outcome: Outcome) -> None:
        # What could not be read at all, perhaps for a moment, says nothing of the bytes that were listed.
        if outcome.record is not None and outcome.record.key:
            self._records.append(outcome.record)
        if outcome.key is not None:
            for request, vector in outcome.vectors.items():
                self._rows[request][outcome.key] = vector
                if outcome.kept is not None:
                    self._failures[request].append(outcome.kept)
        for request, failure in outcome.failures.items():
            self._failures[request].append(failure)
        waiting = max((len(rows) for rows in self._rows.values()), default=0)
        if waiting >= FLUSH_ROWS or time.monotonic() - self._last_flush >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        started = time.perf_counter()
        # Records come first: once its vectors are stored a photo is not looked at again, so that a record which a kill
        # kept from following them would be missing for ever. A record without vectors is merely computed again.
        if self._records:
            self._bank.images.record(self._records)
            self._records = []
        for request, rows in self._rows.items():
            if rows:
                self._folders[request].append(list(rows), np.stack(list(rows.values())))
                self._rows[request] = {}
        for request, failures in self._failures.items():
            if failures:
                self._bank.failures_of(self._folders[request].digest).record(failures)
                self._failures[request] = []
        self._last_flush = time.monotonic()
        self.write_s += time.perf_counter() - started


def extract(
    images: Sequence[tuple[str, str]],
    requests: Sequence[FeatureRequest],
    bank: Bank,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    retry_failed: bool = False,
    rehash: bool = False,
    show_progress: bool = False,
) -> ExtractionSummary:
    """Compute what the bank lacks, photo by photo; running it again computes nothing.

    Parameters
    ----------
    images : sequence of (image_id, path)
        Names and files. Equal files are computed once.
    requests : sequence of FeatureRequest
        Distinct features wanted for every image.
    bank : Bank
        Where features are looked up and written.
    workers : int or None
        Processes; None takes one for each processor this process may use.
    cluster : str or None
        Address of a Dask scheduler, ``dask://HOST:PORT``, whose workers compute instead of processes of this machine.
        They read the photos at the same paths; this process writes the bank.
    retry_failed : bool
        Try again images that an earlier run recorded as unreadable.
    rehash : bool
        Read every file to see whether it changed, also where size, times and inode are as they were.
    show_progress : bool
        Draw a bar with rate, time left and failures on standard error, if it is a terminal.

    Returns
    -------
    ExtractionSummary

    Raises
    ------
    BankError
        If the bank may not be written to and there is something to compute: nothing was computed then. If a shard
        cannot be written (full disk); finished shards stay.
    EncoderError, ViewError, UnknownNameError
        If a request cannot be built; nothing was computed then.
    EncoderSetupError
        If an encoder cannot run here at all, for lack of its device or whole weights; finished rows stay.
    ClusterError
        If the cluster cannot be reached or is lost; finished rows stay.
    """
    started = time.perf_counter()
    workers = workers or cpu_count()
    summary = ExtractionSummary()
    folders = {request: open_folder(bank, request) for request in dict.fromkeys(requests)}
    keys = keys_of_files([path for _, path in images], cache=bank.stat_cache, rehash=rehash)
    jobs = _missing_jobs(images, keys, folders, {} if retry_failed else _known_failures(bank), summary)
    _check_writable(folders, jobs)
    writer = _Writer(bank, folders)
    seconds = summary.seconds
    seconds.update(decode=0.0, views=0.0)
    bar = tqdm(total=len(jobs), unit="photo", desc="features", disable=None if show_progress else True)
    try:
        for outcome in _outcomes(jobs, workers, cluster):
            writer.add(outcome)
            bar.update()
            failed = list(outcome.failures.values()) if outcome.key is not None else [outcome.record]
            if failed:
                summary.failures += [_failure(outcome.job.image_id, record) for record in failed]
                bar.set_postfix(failed=len(summary.failures))
            else:
                summary.n_computed += 1
            seconds["decode"] += outcome.decode_s
            seconds["views"] += outcome.views_s
            for label, spent in outcome.encode_s.items():
                seconds[label] = seconds.get(label, 0.0) + spent
    except BankError:
        raise
    except BrokenProcessPool as error:
        writer.flush()
        raise BankError(
            "extract: a worker process died, most likely for lack of memory. What was finished is in the bank. "
            f"Run the same command again with fewer workers, for example --workers {max(1, workers // 2)}."
        ) from error
    except BaseException:
        # Interrupted from outside: keep what is finished, then let the interruption through.
        writer.flush()
        raise
    finally:
        bar.close()
    writer.flush()
    seconds["write"] = writer.write_s
    seconds["wall"] = time.perf_counter() - started
    if summary.n_computed:
        log_extraction(bank.root, summary.n_computed, workers, seconds)
    return summary


def open_folder(bank: Bank, request: FeatureRequest) -> FeatureFolder:
    """Open, or create, the bank's folder of one requested feature."""
    folder = known_folder(bank, request)
    if folder is None:
        feature = built(request)
        folder = bank.open(feature.identity, feature.n_features, feature.label)
        remember_folder(bank, request, folder)
    return folder


def take_shard(images: Sequence[tuple[str, str]], index: int, count: int) -> list[tuple[str, str]]:
    """Take one of several disjoint parts of a dataset, for schedulers that start the same command many times."""
    return [image for image in images if seed_from(image[0]) % count == index]


def _check_writable(folders: dict[FeatureRequest, FeatureFolder], jobs: list[Job]) -> None:
    """Refuse now what would be refused after the work, and say which features are missing."""
    lacking = Counter(request for job in jobs for request in job.wanted)
    for request in lacking:
        try:
            folders[request].check_writable()
        except BankError as error:
            missing = ", ".join(f"{folders[wanted].label} of {n}" for wanted, n in lacking.items())
            refusal = BankError(
                f"extract: the bank lacks features of photos ({missing}) and takes none. {error}"
            )
            refusal.errno = error.errno
            raise refusal from error


def _missing_jobs(
    images: Sequence[tuple[str, str]],
    keys: Sequence[str | None],
    folders: dict[FeatureRequest, FeatureFolder],
    known: dict[str, ImageRecord],
    summary: ExtractionSummary,
) -> list[Job]:
    missing = {request: set(folder.missing([k for k in keys if k])) for request, folder in folders.items()}
    jobs: dict[str, Job] = {}
    seen: dict[str, str] = {}
    for (image_id, path), key in zip(images, keys, strict=True):
        if key is None:
            try:
                check_place(as_place(path))
                reason = "missing"
            except ImageError as error:
                reason, message = error.reason, f"{path} {error}"
            if reason == "missing":
                summary.missing.append(image_id)
            else:  # a pipe, a sparse file of a terabyte: there, and not to be read
                summary.failures.append({"image": image_id, "reason": reason, "message": message})
            continue
        if key in seen:
            summary.copies.append((image_id, seen[key]))
            continue
        seen[key] = image_id
        wanted = tuple(request for request in folders if key in missing[request])
        if wanted and key in known:
            summary.failures.append(_failure(image_id, known[key]))
        elif wanted:
            digests = tuple(folders[r].digest for r in wanted)
            jobs[key] = Job(path, image_id, key, wanted, digests, code_is_allowed(), keeps_truncated())
        else:
            summary.n_cached += 1
    summary.n_images = len(seen)
    return list(jobs.values())


def _outcomes(jobs: Sequence[Job], workers: int, cluster: str | None) -> Iterator[Outcome]:
    if not (cluster and jobs):
        yield from run_jobs(jobs, workers)
        return
    from featbank.cluster import on_cluster

    # Keys, not versions, tell whether a worker computes the same numbers.
    with on_cluster(cluster, packages=None, give_up=gave_up):
        yield from run_jobs(jobs, -1)


KEPT_REASONS = ("truncated", "corrupt")
"""Why photos were refused of which something is left."""


def _known_failures(bank: Bank) -> dict[str, ImageRecord]:
    """Find images whose bytes these decoding rules cannot read: trying again cannot help, unlike a lack of memory."""
    frame = bank.images.failures()
    retried = (*RETRIED_REASONS, *(KEPT_REASONS if keeps_truncated() else ()))
    frame = frame[(frame["epoch"] == DECODE_EPOCH) & ~frame["reason"].isin(retried)]
    return {
        row.key: ImageRecord(
            key=row.key, status="failed", reason=row.reason, message=row.message, epoch=row.epoch
        )
        for row in frame.itertuples()
        if row.key
    }


def _failure(image_id: str, record: ImageRecord | None) -> dict[str, str]:
    reason, message = (record.reason, record.message) if record else ("unknown", "")
    return {"image": image_id, "reason": reason, "message": message}


EXTRACTION_LOG = "extractions.jsonl"


def log_extraction(root: Place, n_computed: int, workers: int, seconds: dict[str, float]) -> None:
    """Append one extraction's seconds to the log."""
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds["wall"])),
        "machine": platform.machine(),
        "engine": os.environ.get(ENGINE_VARIABLE) or "torch",
        "workers": workers,
        "n_computed": n_computed,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }
    # A log that cannot be written must not turn finished work into a failure.
    try:
        _append(root / EXTRACTION_LOG, json.dumps(entry) + "\n")
    except OSError as error:
        logging.getLogger(__name__).warning(
            "the extraction is done, but its log cannot be written: %s", error
        )


def _append(log: Place, line: str) -> None:
    if isinstance(log, RemotePath):
        # A store appends to nothing. Of two processes that end at the same moment one line is lost; it is only a log.
        before = log.read_text() if log.is_file() else ""
        log.write_bytes((before + line).encode())
        return
    with log.open("a", encoding="utf-8") as file:  # one short line: several processes may log at once
        file.write(line)


def measured_seconds(root: Place) -> dict[str, float]:
    """Mean seconds of work for one photo, over all logged extractions."""
    log = root / EXTRACTION_LOG
    if not log.exists():
        return {}
    spent: dict[str, float] = {}
    photos: dict[str, int] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line cut short by a kill: it is only a log
        for name, value in entry["seconds"].items():
            if name not in {"wall", "write"}:
                spent[name] = spent.get(name, 0.0) + value
                photos[name] = photos.get(name, 0) + entry["n_computed"]
    return {name: value / photos[name] for name, value in spent.items() if photos[name]}


KNOWN_FEATURES_NAME = "known-features.json"
_LIBRARIES = (
    "numpy",
    "open_clip_torch",
    "pillow",
    "safetensors",
    "simplejpeg",
    "timm",
    "torch",
    "torchvision",
)


def known_folder(bank: Bank, request: FeatureRequest) -> FeatureFolder | None:
    """Open the folder of a network's feature that this bank was asked for before."""
    if request.encoder.partition(":")[0] not in NETWORK_FAMILIES:
        return None  # built at once, or of code that may have changed
    digest = _read(bank).get(_spell(request))
    if digest is None:
        return None
    try:
        spec = read_spec(bank.root / digest)
        if not _agrees(spec.identity, request):
            return None
        if spec.identity["encoder"]["name"] != parse_encoder_name(request.encoder).base:
            return None
    except (FileNotFoundError, BankError, EncoderError, KeyError, TypeError):
        return None
    return bank.open(spec.identity, spec.n_features, spec.label, spec.dtype)


def stored_folders(bank: Bank, request: FeatureRequest) -> list[FeatureFolder]:
    """Find the folders that an encoder in a file of the user's own has filled, without running it."""
    if request.encoder.partition(":")[0] != "file":
        return []
    ending = f":{request.encoder.rpartition(':')[2]}@{parse_view(request.view).name}.{request.aggregate}"
    found = [
        folder
        for folder in bank.features()
        if folder.label.endswith(ending) and _agrees(folder.identity, request)
    ]
    return [folder for folder in found if code_agrees(request.encoder, folder.identity["encoder"])]


def _agrees(identity: dict[str, Any], request: FeatureRequest) -> bool:
    """Compare decoding, view and aggregate."""
    expected = {
        "kind": "computed",
        "decode": decode_policy(keep_truncated=keeps_truncated()),
        "view": parse_view(request.view).identity(),
        "aggregate": request.aggregate,
    }
    return canonical_json({name: identity.get(name) for name in expected}) == canonical_json(expected)


def remember_folder(bank: Bank, request: FeatureRequest, folder: FeatureFolder) -> None:
    """Note where a request leads; does nothing in a read-only bank or where it is known already."""
    if bank.is_read_only or request.encoder.partition(":")[0] not in NETWORK_FAMILIES:
        return
    known = _read(bank)
    if known.get(_spell(request)) == folder.digest:
        return
    content = {"environment": _environment(), "features": {**known, _spell(request): folder.digest}}
    with contextlib.suppress(OSError):
        text = json.dumps(content, indent=1, sort_keys=True)
        replace_file(bank.root / KNOWN_FEATURES_NAME, text.encode("ascii"))


def _spell(request: FeatureRequest) -> str:
    return f"{request.encoder}@{request.view}.{request.aggregate}"


def _read(bank: Bank) -> dict[str, str]:
    try:
        content = json.loads((bank.root / KNOWN_FEATURES_NAME).read_bytes())
        if content["environment"] != _environment():
            return {}
        return {str(name): str(digest) for name, digest in content["features"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _environment() -> str:
    """Digest everything that the identity of a network's feature is made of, other than its name and view."""
    folder = weights_folder()
    records = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(folder.glob("*/*.json"))
    }
    return digest_json({"installation": _installation(), "weights": records})


@cache
def _installation() -> str:
    code = Path(featbank.__file__).parent
    return digest_json(
        {
            "python": platform.python_version(),
            "libraries": {name: _version(name) for name in _LIBRARIES},
            "code": {
                path.relative_to(code).as_posix(): path.read_text(encoding="utf-8")
                for path in sorted(code.rglob("*.py"))
            },
        }
    )


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""
