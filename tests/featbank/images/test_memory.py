"""Peak memory of hostile files, measured in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests.support import tiny_formats as tiny
from tests.support.odd_files import write_odd_files

# VmHWM belongs to this process alone; ru_maxrss can carry over the size of the one that started it.
MEASURE = """
import json, resource, sys
from pathlib import Path
from featbank.errors import ImageError
from featbank.images import read_photo

def peak_mb():
    status = Path("/proc/self/status")
    if status.exists():
        line = next(l for l in status.read_text().splitlines() if l.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20

growth = {}
for path in sys.argv[1:]:
    before = peak_mb()
    try:
        read_photo(path)
        reason = "read"
    except ImageError as error:
        reason = error.reason
    growth[Path(path).name] = [reason, peak_mb() - before]
print(json.dumps(growth))
"""


def grow(paths: list[Path]) -> dict[str, tuple[str, float]]:
    command = [sys.executable, "-c", MEASURE, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: (reason, mb) for name, (reason, mb) in json.loads(run.stdout).items()}


def test_claims_and_bombs_cost_next_to_nothing(tmp_path: Path) -> None:
    files = write_odd_files(tmp_path)
    hostile = [file.path for file in files if "claims" in file.name or "bomb" in file.name]
    found = grow(hostile)
    assert {"claims_20000x20000.png", "claims_20000x20000.jpg", "claims_17000x17000.jpg"} <= set(found)
    assert len(found) >= 12
    assert max(mb for _, mb in found.values()) < 32, found


def test_reading_takes_a_few_times_three_bytes_per_pixel(tmp_path: Path) -> None:
    y, x = np.mgrid[0:1500, 0:2000]
    pixels = np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8)
    plain = tiny.save(pixels, "JPEG")
    wide = tiny.jpeg_icc(tiny.icc_rgb("Wide", tiny.WIDE_TO_D50, 1.8))
    files = {
        "plain.jpg": plain,
        "turned_wide.jpg": tiny.jpeg_with(plain, tiny.jpeg_exif(6), wide),
        "rgba.png": tiny.save(np.dstack([pixels, pixels[..., 0]]), "PNG", compress_level=1),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    size_mb = pixels.nbytes / 2**20
    for name, factor in {"plain.jpg": 2, "turned_wide.jpg": 4, "rgba.png": 6}.items():
        ((reason, mb),) = grow([tmp_path / name]).values()
        assert reason == "read"
        assert mb < factor * size_mb, name


@pytest.mark.slow
def test_the_largest_allowed_photo_is_read(tmp_path: Path) -> None:
    """300 million pixels, 860 MB: the limit is one that can be lived with."""
    pixels = np.zeros((15_000, 20_000, 3), np.uint8)
    pixels[:, ::2] = 90
    path = tmp_path / "largest.jpg"
    path.write_bytes(simplejpeg.encode_jpeg(pixels, quality=60))
    ((reason, mb),) = grow([path]).values()
    assert reason == "read"
    assert mb < 1.5 * pixels.nbytes / 2**20
