from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.textures import scene


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve sharp scenes, large enough for patches of 96 pixels."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for seed in range(12):
        path = folder / f"scene{seed:02d}.png"
        Image.fromarray(scene(200, 300, seed=seed)).save(path)
        paths.append(path)
    flat = folder / "studio.png"
    Image.fromarray(np.full((200, 300, 3), 128, dtype=np.uint8)).save(flat)
    small = folder / "stamp.png"
    Image.fromarray(scene(60, 80)).save(small)
    broken = folder / "torn.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    return [*paths, flat, small, broken]
