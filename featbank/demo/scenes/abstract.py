"""Cut paper: large smooth shapes with crisp edges and hardly any texture, as in graphic and studio photos."""

from __future__ import annotations

import numpy as np

from featbank.demo.canvas import Canvas, Planes, mix, rgb, set_exposure
from featbank.demo.filters import strips
from featbank.demo.texture import grain, smooth_field, smoothstep

_PAPERS = (
    (rgb(24, 28, 44), rgb(200, 216, 240)),
    (rgb(70, 20, 40), rgb(250, 210, 180)),
    (rgb(10, 50, 60), rgb(230, 240, 210)),
    (rgb(30, 30, 30), rgb(240, 238, 232)),
)


def paint_papercut(canvas: Canvas) -> Planes:
    """Paint sheets of paper cut along smooth curves and stacked, each casting a soft shadow on the next."""
    rng = canvas.rng
    height, width = canvas.height, canvas.width
    dark, light = _PAPERS[rng.integers(len(_PAPERS))]
    field = smooth_field(height, width, float(rng.uniform(6.0, 8.0)), rng)
    n_sheets = int(rng.integers(4, 9))
    order = rng.permutation(n_sheets) / max(1, n_sheets - 1)
    sheets = np.stack([mix(dark, light, float(share)) for share in order])
    # Sheets are cut at evenly filled levels of one field, so that their edges run side by side.
    levels = np.quantile(field[::16, ::16], np.arange(1, n_sheets) / n_sheets)
    slope = float(np.abs(np.diff(field[::16, ::16], axis=0)).mean()) / 16.0
    shadow = float(rng.uniform(20.0, 70.0)) * canvas.scale * slope
    fibre = grain(height, width, 1.2, rng)
    lamp = np.linspace(rng.uniform(0.7, 1.2), rng.uniform(0.7, 1.2), width, dtype=np.float32)[None, :]
    strength = float(rng.choice([0.0, 0.012, 0.03]))
    out = np.empty((3, height, width), dtype=np.float32)
    for rows in strips(height, 64):
        part = field[rows]
        sheet = np.digitize(part, levels).astype(np.int8)
        shade = lamp * (np.float32(1.0) + np.float32(strength) * fibre[rows])
        for level in levels:
            above = part - np.float32(level)
            # The upper sheet lies on the side of higher values and shades the strip below its edge.
            shade = shade * np.where(
                above < 0.0, np.float32(0.55) + np.float32(0.45) * smoothstep(-above, 0.0, shadow), 1.0
            )
        for channel in range(3):
            out[channel, rows] = np.take(sheets[:, channel], sheet) * shade
    return set_exposure(out, float(rng.uniform(0.08, 0.3)))
