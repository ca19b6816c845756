"""What extraction cost in seconds: one line a run in the bank, from which receipts take measured times."""

from __future__ import annotations

import json
import logging
import os
import platform
import time

from featbank.encoders.engine import ENGINE_VARIABLE
from featbank.remote import Place, RemotePath

EXTRACTION_LOG = "extractions.jsonl"


def log_extraction(root: Place, n_computed: int, workers: int, seconds: dict[str, float]) -> None:
    """Append one extraction's seconds to the log.

    Parameters
    ----------
    root : Path or RemotePath
        The bank's folder.
    n_computed : int
        Photos that were decoded.
    workers : int
        Processes that shared the work.
    seconds : dict
        Seconds of work by stage and feature label, and ``wall``.
    """
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
    """Mean seconds of work for one photo, over all logged extractions.

    Parameters
    ----------
    root : Path or RemotePath
        The bank's folder.

    Returns
    -------
    dict of str to float
        ``decode``, ``views`` and one entry for each feature label; empty for a bank without a log.
    """
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
