"""Twenty thousand photos in one process: memory at the end is what it was in the middle."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from featbank.bank import Bank

RECIPE = """
recipe_version = 1
[[band]]
name = "layout"
encoder = "classic:layout"
view = "squash_64x64"
[[band]]
name = "quality"
encoder = "classic:nss"
view = "center_64"
"""

N_PHOTOS = 20_000
SAMPLE_S = 0.1
MOST_BYTES_A_PHOTO = 300
"""Less than what could be kept by mistake: a vector, a record, a path with its name. What is kept on purpose measures
as 0; 500 bytes a photo, kept as a trial of this test, measured as 442."""


def write_photos(folder: Path) -> None:
    """Write small JPEGs of 64 to 160 pixels a side, no two alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(160), np.arange(160))[:, :, None]
    for number in range(N_PHOTOS):
        height, width = rng.integers(64, 161, 2)
        colour, noise = rng.integers(0, 200, 3), rng.integers(0, 56, (height, width, 1))
        pixels = ((ramp[:height, :width] * (number % 7) + colour) % 200 + noise).astype(np.uint8)
        (folder / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, quality=85))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 once it is over."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (FileNotFoundError, ProcessLookupError):
        return 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of another process from /proc")
def test_memory_does_not_grow_with_the_number_of_photos(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = [
        "features",
        str(tmp_path / "photos"),
        "--recipe",
        str(tmp_path / "recipe.toml"),
        "--workers",
        "1",
    ]
    with (tmp_path / "out.json").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "featbank", *command, "--bank", str(tmp_path / "bank"), "--json"],
            stdout=out,
        )
        started, moments, memory = time.monotonic(), [], []
        while process.poll() is None:
            moments.append(time.monotonic() - started)
            memory.append(resident_bytes(process.pid))
            time.sleep(SAMPLE_S)
    assert process.returncode == 0
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["computed"] == N_PHOTOS
    wall_s = document["seconds"]["wall"]
    # The second half of the extraction; what comes after it, the output, is left out by its last second.
    end = moments[-1] - 1
    chosen = (np.array(moments) > end - wall_s / 2) & (np.array(moments) < end)
    assert chosen.sum() > 50
    slope_a_second = np.polyfit(np.array(moments)[chosen], np.array(memory)[chosen], 1)[0]
    slope_a_photo = slope_a_second * wall_s / N_PHOTOS
    summary = f"{slope_a_photo:.1f} bytes a photo, top {max(memory) / 2**20:.0f} MB, {wall_s:.0f} s"
    sys.stdout.write(summary + "\n")
    assert slope_a_photo < MOST_BYTES_A_PHOTO, summary
    assert all(len(feature.keys()) == N_PHOTOS for feature in Bank(tmp_path / "bank").features())
