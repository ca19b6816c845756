"""The quality encoder ``classic:nss``: natural-scene statistics, sharpness, noise, blocking, exposure and colour.

Looks at native pixels: a lattice of windows is cut into blocks, blocks are ranked by their coarse contrast, and
statistics are pooled over textured and over smooth blocks apart, because blur shows in the former and noise in
the latter. Most features are ratios across scales or before and after a second blur, in octaves, so that they
respond to the distortion more than to the scene.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featbank.encoders.classic import filters, scene_statistics, sharpness
from featbank.encoders.classic.filters import ClassicEncoder

SCALES = (1, 2, 4)
_CHROMA_SCALE = 2
_CHROMA = ("red_green", "yellow_blue")
# Shares of the blocks, by coarse contrast, that count as textured and as smooth.
_TEXTURED_SHARE = 0.25
_SMOOTH_SHARE = 0.25
# Blocks whose mean is nearer to black or white than this are clipped: they show no noise.
# Half levels: no plain area lies on a border.
_CLIPPED_LEVELS = 9.5
_INTENSITY_BINS = (("dark", 0.0, 69.5), ("mid", 69.5, 149.5), ("bright", 149.5, 256.0))
# Rounding to 8 bits adds a variance of 1/12 levels squared: octaves below it mean nothing.
_POWER_FLOOR = 1 / 12
_LEVEL_FLOOR = _POWER_FLOOR**0.5
# Shares of less than 1/128 are not told apart.
_SHARE_FLOOR = 2.0**-7
# Noise shows in the quietest fifth of the blocks; fewer blocks than this have no quietest fifth.
_QUIET_SHARE = 0.2
_MIN_BIN_BLOCKS = 8

Columns = dict[str, NDArray[np.float32]]


class NssEncoder(ClassicEncoder):
    """Quality statistics of native pixels; one crop is one photo or a large part of it."""

    epoch = 3

    def parameters(self) -> dict[str, Any]:
        """Return lattice, block and scale settings."""
        return {
            "window_px": filters.WINDOW_PX,
            "max_windows": filters.MAX_WINDOWS,
            "block_px": filters.BLOCK_PX,
            "scales": list(SCALES),
            "textured_share": _TEXTURED_SHARE,
            "smooth_share": _SMOOTH_SHARE,
        }

    def describe(self, crop: NDArray[np.uint8]) -> dict[str, float]:
        """Return the named statistics of one crop of shape (height, width, 3)."""
        features = filters.describe_photometry(crop)
        padded = filters.pad_crop(crop)
        height, width = filters.window_shape(*padded.shape[:2])
        measured = [
            _measure_window(padded[row : row + height, column : column + width])
            for row, column in filters.window_corners(*padded.shape[:2])
        ]
        blocks = {name: np.concatenate([m.blocks[name] for m in measured]) for name in measured[0].blocks}
        pools = _rank_blocks(blocks)
        features |= _scene_features(blocks, pools)
        features |= _sharpness_features(blocks, pools)
        features |= _noise_features(blocks, pools)
        features |= _compression_features(blocks, pools, np.mean([m.grid for m in measured], axis=0))
        features |= _spectrum_features(measured)
        return features

    def count_macs(self, height: int, width: int) -> int:
        """Return the filter arithmetic for one crop: all linear filters and transforms, counted as for networks.

        Grows with the number of windows and stays the same once there are 36 of them.
        """
        self.check_size(height, width)
        padded = max(height, 64), max(width, 64)
        side_y, side_x = filters.window_shape(*padded)
        n_pixels = side_y * side_x
        total = sharpness.dct_macs(n_pixels) + sharpness.band_macs(side_y, side_x)
        for scale in SCALES:
            n_scaled = n_pixels // scale**2
            total += scene_statistics.macs(n_scaled) + sharpness.gradient_macs(n_scaled)
            total += sharpness.noise_macs(n_scaled)
            if scale < SCALES[-1]:
                total += sharpness.reblur_macs(n_scaled)
        n_chroma = n_pixels // _CHROMA_SCALE**2
        total += 2 * scene_statistics.macs(n_chroma)
        n_windows = len(filters.window_corners(*padded))
        return total * n_windows + sharpness.log_gabor_macs(side_y // 2, side_x // 2) * _n_textured(n_windows)


class _Window(NamedTuple):
    """What one window contributes."""

    blocks: Columns
    grid: NDArray[np.float64]
    bands: NDArray[np.float64]
    half: filters.Image
    contrast: float


def _n_textured(n_windows: int) -> int:
    return max(round(n_windows / 3), 1)


def _measure_window(pixels: NDArray[np.uint8]) -> _Window:
    colours = pixels.astype(np.float32)
    luma = filters.luminance(colours)
    blocks: Columns = {"luma": filters.block_mean(luma, filters.BLOCK_PX).ravel()}
    grid, bands = sharpness.block_edge_profile(luma), sharpness.band_energies(luma)
    _add(blocks, "dct", sharpness.collect_dct(luma, filters.BLOCK_PX))
    plane = luma
    for scale in SCALES:
        if scale > 1:
            plane = filters.halve(plane)
        if scale == 2:
            half = plane
        block = filters.BLOCK_PX // scale
        _add(blocks, f"x{scale}", scene_statistics.collect_moments(plane, block))
        _add(blocks, f"x{scale}", sharpness.collect_gradients(plane, block))
        _add(blocks, f"x{scale}", sharpness.collect_noise(plane, block))
        if scale < SCALES[-1]:
            _add(blocks, f"x{scale}", sharpness.collect_reblur(plane, block))
    block = filters.BLOCK_PX // _CHROMA_SCALE
    for name, plane in zip(_CHROMA, filters.opponent_colours(filters.halve(colours)), strict=True):
        _add(blocks, name, scene_statistics.collect_moments(plane, block, with_pairs=False))
    contrast = float(blocks["x4_variance"].mean(dtype=np.float64))
    return _Window(blocks, grid, bands, half, contrast)


def _add(blocks: Columns, prefix: str, columns: dict[str, NDArray[np.float32]]) -> None:
    for name, values in columns.items():
        blocks[f"{prefix}_{name}"] = values.ravel()


def _rank_blocks(blocks: Columns) -> dict[str, NDArray[np.intp]]:
    """Return the numbers of the textured, smooth and unclipped blocks; none of the three is empty."""
    luma = blocks["luma"]
    usable = np.flatnonzero((luma >= _CLIPPED_LEVELS) & (luma <= 255 - _CLIPPED_LEVELS))
    if usable.size < 4:
        usable = np.arange(luma.size)
    # Contrast at a quarter of the resolution: hardly moved by noise, fine blur or compression.
    # Below the variance of rounding to 8 bits all blocks are alike, whatever the last digits of a filter.
    contrast = np.maximum(blocks["x4_variance"][usable], np.float32(_POWER_FLOOR))
    order = usable[np.argsort(contrast, kind="stable")]
    n_textured = max(round(order.size * _TEXTURED_SHARE), 1)
    n_smooth = max(round(order.size * _SMOOTH_SHARE), 1)
    return {"textured": order[-n_textured:], "smooth": order[:n_smooth], "usable": usable}


def _octaves(values: NDArray[Any], floor: float) -> NDArray[np.float64]:
    return np.log2(values.astype(np.float64) + floor)


def _pool(blocks: Columns, prefix: str, rows: NDArray[np.intp]) -> dict[str, float]:
    start = len(prefix) + 1
    return {
        name[start:]: float(values[rows].mean(dtype=np.float64))
        for name, values in blocks.items()
        if name.startswith(f"{prefix}_")
    }


def _scene_features(blocks: Columns, pools: dict[str, NDArray[np.intp]]) -> dict[str, float]:
    features: dict[str, float] = {}
    for pool in ("textured", "smooth"):
        for plane in ("x1", "x2", "x4", *_CHROMA):
            moments = _pool(blocks, plane, pools[pool])
            features[f"{plane}_{pool}_shape"] = scene_statistics.fit_shape(moments)
            if plane not in _CHROMA:
                products = scene_statistics.fit_products(moments)
                features |= {f"{plane}_{pool}_{name}": value for name, value in products.items()}
    return features


def _sharpness_features(blocks: Columns, pools: dict[str, NDArray[np.intp]]) -> dict[str, float]:
    features: dict[str, float] = {}
    for pool in ("textured", "smooth"):
        moments = {scale: _pool(blocks, f"x{scale}", pools[pool]) for scale in SCALES}
        level = {scale: math.log2(moments[scale]["gradient"] + _LEVEL_FLOOR) for scale in SCALES}
        features[f"x1_x2_{pool}_gradient_ratio"] = level[1] - level[2]
        features[f"x2_x4_{pool}_gradient_ratio"] = level[2] - level[4]
        for scale, m in moments.items():
            energy = m["xx"] + m["yy"]
            # 1 for a constant gradient, small for rare strong edges.
            features[f"x{scale}_{pool}_gradient_evenness"] = m["gradient"] ** 2 / (energy + _POWER_FLOOR)
            # 0 where gradients point all ways, 1 where all point along one line, as after a motion blur.
            spread = math.hypot(m["xx"] - m["yy"], 2 * m["xy"])
            features[f"x{scale}_{pool}_direction"] = spread / (energy + _POWER_FLOOR)
    rows = pools["textured"]
    for scale in SCALES[:-1]:
        lost = _lost_share(blocks, f"x{scale}")[rows]
        before = blocks[f"x{scale}_xx"][rows] + blocks[f"x{scale}_yy"][rows]
        fall = _octaves(before, _POWER_FLOOR) - _octaves(blocks[f"x{scale}_soft"][rows], _POWER_FLOOR)
        for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9)):
            features[f"x{scale}_reblur_{name}"] = float(np.quantile(lost, share))
            features[f"x{scale}_edge_{name}"] = float(np.quantile(fall, share))
    return features


def _lost_share(blocks: Columns, prefix: str) -> NDArray[np.float32]:
    """Return per block the share of change that a second blur takes away, along the blurrier of the two axes."""
    along_x, along_y = (
        blocks[f"{prefix}_lost_{axis}"] / (blocks[f"{prefix}_change_{axis}"] + np.float32(_LEVEL_FLOOR))
        for axis in ("x", "y")
    )
    return np.minimum(along_x, along_y)


def _noise_features(blocks: Columns, pools: dict[str, NDArray[np.intp]]) -> dict[str, float]:
    features: dict[str, float] = {}
    level = {scale: _octaves(blocks[f"x{scale}_noise"], _LEVEL_FLOOR) for scale in SCALES}
    for pool in ("textured", "smooth"):
        mean = {scale: float(level[scale][pools[pool]].mean()) for scale in SCALES}
        # White noise halves with every halving of the image; texture does not.
        features[f"x1_x2_{pool}_noise_ratio"] = mean[1] - mean[2]
        features[f"x2_x4_{pool}_noise_ratio"] = mean[2] - mean[4]
    usable = pools["usable"]
    luma = blocks["luma"][usable]
    for name, low, high in _INTENSITY_BINS:
        chosen = usable[(luma >= low) & (luma < high)]
        if chosen.size < _MIN_BIN_BLOCKS:
            chosen = usable
        features[f"noise_{name}"] = float(np.quantile(level[1][chosen], _QUIET_SHARE))
    return features


def _compression_features(
    blocks: Columns, pools: dict[str, NDArray[np.intp]], grid: NDArray[np.float64]
) -> dict[str, float]:
    features: dict[str, float] = {}
    for axis, (excess, step) in zip(("x", "y"), grid, strict=True):
        # The phase is left open: a crop need not begin where the file's blocks do.
        phase = int(excess.argmax())
        stands_out = float(excess[phase] - np.delete(excess, phase).mean())
        features[f"grid_{axis}"] = math.log2(1 + stands_out / (float(step.mean()) + _LEVEL_FLOOR))
    for pool in ("textured", "smooth"):
        dct = _pool(blocks, "dct", pools[pool])
        for band in ("low", "mid", "high"):
            features[f"dct_{pool}_zero_{band}"] = dct[f"zero_{band}"]
        above = [math.log2(dct[f"above{t}"] + _SHARE_FLOOR) for t in sharpness.DCT_THRESHOLDS]
        features[f"dct_{pool}_gap_low"] = above[0] - above[1]
        features[f"dct_{pool}_gap_high"] = above[1] - above[2]
    return features


def _spectrum_features(measured: list[_Window]) -> dict[str, float]:
    contrast = np.maximum([window.contrast for window in measured], _POWER_FLOOR)
    order = np.argsort(contrast, kind="stable")
    textured = order[-_n_textured(order.size) :]
    features: dict[str, float] = {}
    # (filters, bands, directions), octaves of power
    bands = _octaves(np.array([window.bands for window in measured]), _POWER_FLOOR)
    # Against the lowest band: the whole fall grows with blur, while single steps fall and rise again.
    level = bands.mean(axis=(0, 2))
    for k in range(1, sharpness.N_BANDS):
        features[f"band{k}_level"] = float(level[k] - level[0])
    by_direction = bands[textured].mean(axis=0)
    for k in range(2, sharpness.N_BANDS, 2):
        features[f"band{k}_direction"] = float(by_direction[k].max() - by_direction[k].min())
    # (centres, directions, moments)
    gabor = np.mean([sharpness.log_gabor_moments(measured[i].half) for i in textured], axis=0)
    for c in range(len(sharpness.LOG_GABOR_CENTRES)):
        shapes = [np.log((m[0] ** 2 + _POWER_FLOOR) / (m[1] + _POWER_FLOOR)) for m in gabor[c]]
        power = _octaves(gabor[c, :, 2], _POWER_FLOOR)
        features[f"gabor{c}_evenness"] = float(np.mean(shapes))
        features[f"gabor{c}_direction"] = float(power.max() - power.min())
    features["gabor_ratio"] = float(
        _octaves(gabor[0, :, 2].mean(), _POWER_FLOOR) - _octaves(gabor[1, :, 2].mean(), _POWER_FLOOR)
    )
    return features
