"""One process that extracts two folders through the command line and tells what the second one cost.

``python -m tests.support.hostile_extraction VALID HOSTILE BANK RECIPE`` prints a JSON object with the exit status and
the growth of the peak memory in MB while HOSTILE was extracted, after VALID had been: libraries are loaded by then.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from featbank.cli import main


def peak_mb() -> float:
    """Highest resident memory of this process so far; Linux alone tells it without the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def extract(folder: str, bank: str, recipe: str) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        return main(["features", folder, "--recipe", recipe, "--bank", bank, "--workers", "1"])


if __name__ == "__main__":
    valid, hostile, bank, recipe = sys.argv[1:]
    assert extract(valid, bank, recipe) == 0
    before = peak_mb()
    status = extract(hostile, bank, recipe)
    sys.stdout.write(json.dumps({"status": status, "growth_mb": peak_mb() - before}) + "\n")
