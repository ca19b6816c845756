"""Run as a program: reads one variable of a MAT file that may end the process; imports nothing of this package."""

from __future__ import annotations

import io
import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat, whosmat

MAX_MEMORY_BYTES = 1 << 29


def serve() -> None:
    """Read the MAT file on standard input and write one variable to standard output; the child of the LIVE reader."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").is_file() else 0
    if pages:
        limit = pages * resource.getpagesize() + MAX_MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    name, file = sys.argv[1], io.BytesIO(sys.stdin.buffer.read())
    try:
        content = loadmat(file, variable_names=[name])
        if name in content:
            array = np.asarray(content[name]).ravel()
            # A cell array arrives as an object array whose elements are arrays of one string.
            cells = array.tolist() if array.dtype.kind in "fiu" else [_only_text(cell) for cell in array]
            answer: dict[str, Any] = {"dtype": str(array.dtype), "values": cells}
        else:
            answer = {"found": [variable for variable, _, _ in whosmat(file)]}
    except Exception as error:  # noqa: BLE001 - scipy has no error of its own: the parent tells this one
        answer = {"error": str(error)[:200] or type(error).__name__}
    sys.stdout.write(json.dumps(answer))


def _only_text(cell: object) -> str:
    values = np.asarray(cell).ravel()
    return str(values[0]).strip() if len(values) == 1 else ""


if __name__ == "__main__":
    serve()
