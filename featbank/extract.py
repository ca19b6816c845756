"""Computes the features a bank lacks: the one place where photographs become rows of the bank.

Each photo is decoded once for all its views and encoders. Workers compute, the calling process writes, so
a killed run loses at most the shard in hand and never anything that was finished. Reads paths and
image names, never a MOS.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from joblib import cpu_count
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray
from tqdm import tqdm

from featbank.bank import Bank, FeatureFolder, ImageRecord
from featbank.cluster import run_on_cluster
from featbank.digest import seed_from
from featbank.encoders.custom import code_is_allowed
from featbank.errors import BankError, ImageError
from featbank.extraction_log import log_extraction
from featbank.images.source import check_place
from featbank.jobs import DECODE_EPOCH, FeatureRequest, Job, Outcome, built, run_jobs
from featbank.keys import keys_of_files
from featbank.known_features import known_folder, remember_folder
from featbank.remote import as_place

__all__ = ["ExtractionSummary", "FeatureRequest", "extract", "open_folder", "take_shard"]

RETRIED_REASONS = ("memory", "missing", "unreadable", "not-a-file")
"""Failures that do not lie in the image's bytes, so the image is tried again."""

FLUSH_ROWS = 256
FLUSH_S = 30.0
"""A shard is written when this many rows wait, or when the oldest has waited this long."""


@dataclass
class ExtractionSummary:
    """What one extraction did.

    Attributes
    ----------
    n_images, n_computed, n_cached : int
        Distinct images asked for; whose features were all computed now; already complete in the bank.
    missing : list of str
        Images without a readable file.
    copies : list of (str, str)
        Images whose file equals that of an earlier one byte for byte, and that one: computed once.
    failures : list of dict
        ``image``, ``reason`` and ``message`` of every image that gave no feature, now or earlier, and of every
        feature of a readable image that could not be computed now.
    seconds : dict
        Wall seconds under ``wall``; seconds of work summed over workers under ``decode``, ``views``,
        ``write`` and one entry for each feature label.
    """

    n_images: int = 0
    n_computed: int = 0
    n_cached: int = 0
    missing: list[str] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
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
        for outcome in run_on_cluster(jobs, cluster) if cluster and jobs else run_jobs(jobs, workers):
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
    except TerminatedWorkerError as error:
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
    """Take one of several disjoint parts of a dataset, for schedulers that start the same command many times.

    Parameters
    ----------
    images : sequence of (image_id, path)
    index, count : int
        Which part, from 0, of how many.

    Returns
    -------
    list of (image_id, path)
        Those whose name falls to this part. The name alone decides, so images added later move no other one,
        no file is read to split the work, and the parts are of about equal size.
    """
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
            except ImageError as error:
                if (
                    error.reason != "missing"
                ):  # a pipe, a sparse file of a terabyte: there, and not to be read
                    summary.failures.append(
                        {"image": image_id, "reason": error.reason, "message": f"{path} {error}"}
                    )
                    continue
            summary.missing.append(image_id)
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
            jobs[key] = Job(path, image_id, key, wanted, digests, code_is_allowed())
        else:
            summary.n_cached += 1
    summary.n_images = len(seen)
    return list(jobs.values())


def _known_failures(bank: Bank) -> dict[str, ImageRecord]:
    """Find images whose bytes these decoding rules cannot read: trying again cannot help, unlike a lack of memory."""
    frame = bank.images.failures()
    frame = frame[(frame["epoch"] == DECODE_EPOCH) & ~frame["reason"].isin(RETRIED_REASONS)]
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
