"""Sharpness, noise and blocking per block of an image, its power spectrum in bands, and log-Gabor responses."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featbank.encoders.classic import filters
from featbank.encoders.classic.filters import Image
from featbank.encoders.classic.scene_statistics import BlockColumns

# Immerkaer's operator is the outer product of the second difference with itself, of norm 6.
_LAPLACIAN_NORM = np.float32(np.sqrt(np.pi / 2) / 6)
_SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])
# Crete et al. blur along one axis with nine equal taps: four before the pixel, itself, four after.
_BOX_RADIUS = 4
_REBLUR_TAPS = filters.gaussian_taps(1.0, 3)
_DCT_PX = 8
_COSINES = fft.dct(np.eye(_DCT_PX), axis=0, norm="ortho").astype(np.float32)
# Coefficients of a decoded JPEG that were quantised to zero come back as rounding noise below this.
_DCT_ZERO = np.float32(0.5)
DCT_THRESHOLDS = (1, 4, 12)


def collect_gradients(image: Image, block: int) -> BlockColumns:
    """Return per block the mean gradient magnitude and the gradient's second moments.

    Returns
    -------
    dict of float32 arrays of shape (height // block, width // block)
        ``gradient`` (mean magnitude), ``xx``, ``yy``, ``xy`` (structure tensor), in levels per pixel.
    """
    along_x, along_y = filters.gradient(image)
    xx, yy = along_x * along_x, along_y * along_y
    return {
        "gradient": filters.block_mean(np.sqrt(xx + yy), block),
        "xx": filters.block_mean(xx, block),
        "yy": filters.block_mean(yy, block),
        "xy": filters.block_mean(along_x * along_y, block),
    }


def collect_noise(image: Image, block: int) -> BlockColumns:
    """Return per block Immerkaer's estimate of the deviation of additive white Gaussian noise, in levels.

    The operator is blind to planes and to straight vertical or horizontal edges; texture adds to the estimate, so
    that low percentiles over the blocks of a photo tell the noise.

    References
    ----------
    Immerkaer (1996), Fast noise variance estimation, Computer Vision and Image Understanding 64(2), equation 5.
    """
    response = filters.separable(image, _SECOND_DIFFERENCE)
    return {"noise": filters.block_mean(np.abs(response), block) * _LAPLACIAN_NORM}


def collect_reblur(image: Image, block: int) -> BlockColumns:
    """Return per block what is left of neighbour differences and gradients after a second blur.

    ``change_x``, ``change_y``: mean absolute neighbour differences; ``lost_x``, ``lost_y``: the part of them that a
    nine-tap mean along the same axis takes away (Crete et al., where 1 - lost / change is the blur measure);
    ``soft``: mean squared gradient after a Gaussian of 1 pixel, whose ratio to the gradient before tells the width of
    the edges.

    References
    ----------
    Crete, Dolmiere, Ladret and Nicolas (2007), The blur effect, SPIE 6492.
    Zhuo and Sim (2011), Defocus map estimation from a single image, Pattern Recognition 44(9), section 3.
    """
    columns: BlockColumns = {}
    height, width = image.shape
    margin = _BOX_RADIUS + 1
    padded = cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT)

    def step(axis: int, after: int, before: int) -> Image:
        """Return the absolute differences of pixels so far after and before each."""
        moved = [
            padded[margin + dy :, margin + dx :][:height, :width]
            for dy, dx in ((0, offset) if axis else (offset, 0) for offset in (after, -before))
        ]
        return cv2.absdiff(*moved)

    for name, axis in (("x", 1), ("y", 0)):
        change = step(axis, 0, 1)
        # The step between two neighbouring means of nine is a ninth of the pixel that enters less the one that leaves.
        lost = cv2.scaleAdd(step(axis, _BOX_RADIUS, margin), -1 / (2 * _BOX_RADIUS + 1), change)
        columns[f"change_{name}"] = filters.block_mean(change, block)
        columns[f"lost_{name}"] = filters.block_mean(np.maximum(lost, 0, out=lost), block)
    soft_x, soft_y = filters.gradient(filters.separable(image, _REBLUR_TAPS))
    columns["soft"] = filters.block_mean(soft_x * soft_x + soft_y * soft_y, block)
    return columns


def collect_dct(image: Image, block: int) -> BlockColumns:
    """Return per block which coefficients of the 8 x 8 cosine transform vanish and which stand out.

    Quantisation empties the space around zero. ``zero_low``, ``zero_mid``, ``zero_high``: share of coefficients
    below half a level with frequency order u + v in 1..4, 5..9, 10..14. ``above1``, ``above4``, ``above12``: share of
    coefficients of
    order 1..4 with at least so many levels. The image begins at a corner of the file's 8-pixel grid; ``block`` is a
    multiple of 8.

    References
    ----------
    Fan and de Queiroz (2003), Identification of bitmap compression history, IEEE TIP 12(2), section III.
    """
    height, width = image.shape
    # (n_down, 8 frequencies, n_across, 8 frequencies), by small products that never start threads
    down = _COSINES @ image.reshape(height // _DCT_PX, _DCT_PX, width)
    both = down.reshape(height // _DCT_PX, width, _DCT_PX) @ _COSINES.T
    magnitude = np.abs(both).reshape(height // _DCT_PX, _DCT_PX, width // _DCT_PX, _DCT_PX)
    order = np.add.outer(np.arange(_DCT_PX), np.arange(_DCT_PX))
    low, mid, high = (order >= 1) & (order <= 4), (order >= 5) & (order <= 9), order >= 10
    zero = _share_by_frequency(magnitude < _DCT_ZERO, block)
    columns = {
        f"zero_{name}": zero[..., chosen].mean(axis=-1)
        for name, chosen in (("low", low), ("mid", mid), ("high", high))
    }
    for threshold in DCT_THRESHOLDS:
        above = _share_by_frequency(magnitude >= np.float32(threshold), block)
        columns[f"above{threshold}"] = above[..., low].mean(axis=-1)
    return columns


def _share_by_frequency(holds: NDArray[np.bool_], block: int) -> NDArray[np.float32]:
    """Return per block and frequency, (down, across, 8, 8), the share of transforms for which something holds."""
    n_down, _, n_across, _ = holds.shape
    per_block = block // _DCT_PX
    # At most 255 transforms per row of tiles in a block: counts fit into bytes, which add fast.
    count = holds.view(np.uint8).reshape(n_down // per_block, per_block, _DCT_PX, n_across * _DCT_PX)
    count = count.sum(axis=1, dtype=np.uint8)
    shape = n_down // per_block, _DCT_PX, n_across // per_block, per_block, _DCT_PX
    share = count.reshape(shape).sum(axis=3, dtype=np.float32) / np.float32(per_block**2)
    return share.transpose(0, 2, 1, 3)


def block_edge_profile(image: Image) -> NDArray[np.float64]:
    """Return how much the steps between neighbours stand out at each position of the 8-pixel grid, float64 (2, 2, 8).

    First index: steps along x, along y. Second: the mean excess of a step over the mean of its two neighbours, each
    step limited to 8 levels so that real edges do not drown the grid; and the mean step. Third: column (row) number
    modulo 8 of the pixel before the step, so that 7 is the grid of a JPEG file.

    References
    ----------
    Wang, Sheikh and Bovik (2002), No-reference perceptual quality assessment of JPEG compressed images, ICIP,
    equation 2.
    """
    profiles = []
    for axis, one, other in ((0, image[:, 1:], image[:, :-1]), (1, image[1:], image[:-1])):
        step = np.minimum(cv2.absdiff(one, other), np.float32(8))
        mean_step = step.mean(axis=axis, dtype=np.float64)
        excess = mean_step.copy()
        excess[1:-1] -= (mean_step[:-2] + mean_step[2:]) / 2
        # Column 0 and the last have one neighbour only: leave them out of both profiles.
        position = np.arange(1, mean_step.size - 1) % _DCT_PX
        count = np.bincount(position, minlength=_DCT_PX)
        profiles.append(
            [
                np.bincount(position, weights=values[1:-1], minlength=_DCT_PX) / count
                for values in (excess, mean_step)
            ]
        )
    return np.array(profiles)


def gradient_macs(n_pixels: int) -> int:
    """Filter arithmetic of `collect_gradients`."""
    return filters.gradient_macs(n_pixels)


def noise_macs(n_pixels: int) -> int:
    """Filter arithmetic of `collect_noise`: three taps, twice."""
    return filters.separable_macs(n_pixels, 3)


def reblur_macs(n_pixels: int) -> int:
    """Filter arithmetic of `collect_reblur`: two differences per axis; a Gaussian and its gradient."""
    differences = 4 * filters.difference_macs(n_pixels)
    return differences + filters.separable_macs(n_pixels, _REBLUR_TAPS.size) + filters.gradient_macs(n_pixels)


def dct_macs(n_pixels: int) -> int:
    """Arithmetic of `collect_dct`: eight products per coefficient and axis."""
    return filters.separable_macs(n_pixels, _DCT_PX)


# Half octaves from 1/32 cycles per pixel to the Nyquist frequency, then the corners of the frequency square.
BAND_EDGES = (*(2.0 ** (-5 + k / 2) for k in range(9)), 0.7072)
N_BANDS = len(BAND_EDGES) - 1
N_DIRECTIONS = 4
# Log-Gabor filters: centres in cycles per pixel, radial bandwidth of about 1.5 octaves, four orientations.
LOG_GABOR_CENTRES = (1 / 3, 1 / 6)
_LOG_RADIAL_DEVIATION = np.log(0.65)
_ANGULAR_DEVIATION = np.pi / N_DIRECTIONS / 1.5


def band_energies(image: Image) -> NDArray[np.float64]:
    """Return the mean power of a Hann-weighted image, at least 64 by 64 pixels, by band and direction, (9, 4).

    Bands from low to high; directions along x, 45 degrees, along y, 135 degrees. White noise of variance v gives v.
    """
    taper, index, weight = _layout(*image.shape)
    weighted = (
        image - np.float32((image * taper).sum(dtype=np.float64) / taper.sum(dtype=np.float64))
    ) * taper
    spectrum = fft.rfft2(weighted)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    n_bins = N_BANDS * N_DIRECTIONS
    energy = np.bincount(index, weights=(power * weight).ravel(), minlength=n_bins + 1)[:n_bins]
    return energy.astype(np.float64).reshape(N_BANDS, N_DIRECTIONS)


def log_gabor_moments(image: Image) -> NDArray[np.float64]:
    """Return moments of log-Gabor responses, float64 (2, 4, 3).

    By centre frequency (1/3, 1/6 cycles per pixel) and direction: mean absolute value and mean square of the even
    response, mean square of the amplitude.

    References
    ----------
    Field (1987), JOSA A 4(12), equation 14. Zhang, Zhang and Bovik (2015), IEEE TIP 24(8), section III-D.
    """
    spectrum = fft.fft2(image)
    moments = []
    for kernel in _log_gabor(*image.shape):
        response = fft.ifft2(spectrum * kernel, overwrite_x=True)
        even2 = np.square(response.real).mean(dtype=np.float64)
        odd2 = np.square(response.imag).mean(dtype=np.float64)
        moments.append((np.abs(response.real).mean(dtype=np.float64), even2, even2 + odd2))
    return np.array(moments).reshape(len(LOG_GABOR_CENTRES), N_DIRECTIONS, 3)


def band_macs(height: int, width: int) -> int:
    """Arithmetic of `band_energies`: taper, real transform, weighting of the half spectrum."""
    return height * width + filters.fft_macs(height, width) // 2 + height * (width // 2 + 1)


def log_gabor_macs(height: int, width: int) -> int:
    """Arithmetic of `log_gabor_moments`: transform, and per filter a product and an inverse transform."""
    n_filters = len(LOG_GABOR_CENTRES) * N_DIRECTIONS
    one = filters.fft_macs(height, width)
    # A real kernel times a complex spectrum: two products per sample.
    return one + n_filters * (2 * height * width + one)


@lru_cache(maxsize=32)
def _layout(height: int, width: int) -> tuple[Image, NDArray[np.int64], NDArray[np.float32]]:
    """Return the taper, the bin of each sample of the half spectrum, and its weight in the bin's mean."""
    taper = np.outer(_hann(height), _hann(width))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    band = np.searchsorted(BAND_EDGES, np.hypot(fy, fx), side="right") - 1
    angle = np.arctan2(fy, fx)
    direction = np.floor(angle / (np.pi / N_DIRECTIONS) + 0.5).astype(np.int64) % N_DIRECTIONS
    n_bins = N_BANDS * N_DIRECTIONS
    inside = (band >= 0) & (band < N_BANDS)
    index = np.where(inside, band * N_DIRECTIONS + direction, n_bins).ravel()
    # The other half of the plane holds the same power, except on its own column 0 and on the Nyquist column.
    doubled = np.full(fx.size, 2.0)
    doubled[0] = 1.0
    if width % 2 == 0:
        doubled[-1] = 1.0
    multiplicity = np.broadcast_to(doubled, (height, fx.size)).ravel()
    samples = np.bincount(index, weights=multiplicity, minlength=n_bins + 1)
    weight = (multiplicity / samples[index] / np.square(taper).sum()).reshape(height, fx.size)
    return taper.astype(np.float32), index, weight.astype(np.float32)


def _hann(n: int) -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)


@lru_cache(maxsize=8)
def _log_gabor(height: int, width: int) -> NDArray[np.float32]:
    """Return one-sided kernels in the frequency plane, shape (8, height, width)."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    angle = np.arctan2(fy, fx)
    kernels = []
    for centre in LOG_GABOR_CENTRES:
        radial = np.exp(-(np.log(radius / centre) ** 2) / (2 * _LOG_RADIAL_DEVIATION**2))
        radial[0, 0] = 0.0
        for k in range(N_DIRECTIONS):
            turn = np.pi * k / N_DIRECTIONS
            distance = np.abs(np.angle(np.exp(1j * (angle - turn))))
            kernels.append(radial * np.exp(-(distance**2) / (2 * _ANGULAR_DEVIATION**2)))
    return np.array(kernels, dtype=np.float32)
