"""Full-reference measures of a photo against the flawless photo of the same scene.

MS-SSIM [1]_ and VIF in the pixel domain [2]_, both on luma. Each sees what the other is blind to: MS-SSIM
the mean (exposure) and noise on plain areas, VIF the loss of fine detail. Their product with fixed
exponents is used; the form, a product of powers of published measures, is that of Okarma [3]_.

Both definitions were made for pictures seen at about 32 pixels per degree of visual angle [1]_; a 4K
picture at its design distance of 1.5 picture heights has 60 (ITU-R BT.2022), so pictures wider than 2,880
pixels are halved before they are measured, as the authors of SSIM advise.

References
----------
.. [1] Z. Wang, E. P. Simoncelli and A. C. Bovik, "Multi-scale structural similarity for image quality
   assessment", Asilomar Conference on Signals, Systems and Computers (2003) 1398, equations 2 to 7.
.. [2] H. R. Sheikh and A. C. Bovik, "Image information and visual quality", IEEE Trans. Image Processing
   15 (2006) 430; pixel-domain variant of the authors' release, four scales.
.. [3] K. Okarma, "Combined full-reference image quality metric linearly correlated with subjective
   assessment", ICAISC, LNCS 6113 (2010) 539.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featbank.demo.filters import Plane, correlate_valid, gaussian_taps, halve, strips

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang 2003, section 3.2)."""

MIN_SIDE = 176
"""Shortest side in pixels that leaves an 11-pixel window on the coarsest of five scales."""

_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2
_VISUAL_NOISE = 2.0
_TINY = 1e-10
_LN2 = float(np.log(2.0))


def _moments(x: Plane, y: Plane, taps: np.ndarray) -> Iterator[tuple[Plane, Plane, Plane, Plane, Plane]]:
    """Yield local means, variances and covariance under a separable window, by blocks of rows.

    Each block is (mean_x, mean_y, var_x, var_y, cov); together they cover the "valid" part once. Blocks
    are small enough to stay in the processor's cache through all the arithmetic on them.
    """
    n_taps = len(taps)
    for rows in strips(x.shape[0] - n_taps + 1, 64):
        u, v = x[rows.start : rows.stop + n_taps - 1], y[rows.start : rows.stop + n_taps - 1]
        mean_x, mean_y = correlate_valid(u, taps), correlate_valid(v, taps)
        var_x = correlate_valid(u * u, taps)
        var_x -= mean_x * mean_x
        var_y = correlate_valid(v * v, taps)
        var_y -= mean_y * mean_y
        cov = correlate_valid(u * v, taps)
        cov -= mean_x * mean_y
        yield mean_x, mean_y, var_x, var_y, cov


def _check_pair(name: str, reference: Plane, picture: Plane, min_side: int) -> None:
    if reference.ndim != 2 or reference.shape != picture.shape:
        raise ValueError(
            f"{name}: reference and picture must be planes of one shape, got {reference.shape} and {picture.shape}"
        )
    if min(reference.shape) < min_side:
        raise ValueError(
            f"{name}: the shorter side must have at least {min_side} pixels, got {reference.shape}"
        )


def ssim_maps_mean(reference: Plane, picture: Plane) -> tuple[float, float]:
    """Return the means of SSIM and of its contrast-structure part at one scale.

    Parameters
    ----------
    reference, picture : float32 arrays of shape (height, width) in [0, 255]

    Returns
    -------
    tuple of two floats
        (mean SSIM, mean contrast times structure), each 1 for equal pictures.

    Raises
    ------
    ValueError
        If the shapes differ or a side is shorter than the 11-pixel window.
    """
    _check_pair("ssim_maps_mean", reference, picture, 11)
    # Means are taken about mid-grey: float32 keeps the variances of bright plain areas exact that way.
    x, y = reference - np.float32(128.0), picture - np.float32(128.0)
    n = similarity = structure = 0.0
    for mean_x, mean_y, var_x, var_y, cov in _moments(x, y, gaussian_taps(1.5, 11)):
        mean_x += np.float32(128.0)
        mean_y += np.float32(128.0)
        contrast = (np.float32(2.0) * cov + np.float32(_C2)) / (var_x + var_y + np.float32(_C2))
        luminance = np.float32(2.0) * mean_x * mean_y + np.float32(_C1)
        luminance /= mean_x * mean_x + mean_y * mean_y + np.float32(_C1)
        n += contrast.size
        structure += float(contrast.sum(dtype=np.float64))
        similarity += float((luminance * contrast).sum(dtype=np.float64))
    return similarity / n, structure / n


def ms_ssim(reference: Plane, picture: Plane) -> float:
    """Multi-scale structural similarity.

    Parameters
    ----------
    reference, picture : float32 arrays of shape (height, width) in [0, 255]
        Luma.

    Returns
    -------
    float in [0, 1]
        1 for equal pictures; negative means of a scale count as 0.

    Raises
    ------
    ValueError
        If the shapes differ or a side is shorter than 176 pixels.
    """
    _check_pair("ms_ssim", reference, picture, MIN_SIDE)
    product = 1.0
    last = len(MS_SSIM_WEIGHTS) - 1
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        full, contrast = ssim_maps_mean(reference, picture)
        product *= max(full if scale == last else contrast, 0.0) ** weight
        if scale < last:
            reference, picture = halve(reference), halve(picture)
    return product


def vif(reference: Plane, picture: Plane) -> float:
    """Visual information fidelity in the pixel domain.

    Parameters
    ----------
    reference, picture : float32 arrays of shape (height, width) in [0, 255]
        Luma.

    Returns
    -------
    float
        Information that the picture keeps of the reference, 1 for equal pictures, 0 for none; above 1
        where contrast was raised. 1 by convention for a reference without any detail.

    Raises
    ------
    ValueError
        If the shapes differ or a side is shorter than 176 pixels.
    """
    _check_pair("vif", reference, picture, MIN_SIDE)
    kept = total = 0.0
    x, y = reference - np.float32(128.0), picture - np.float32(128.0)
    for scale in range(4):
        n_taps = 2 ** (4 - scale) + 1
        taps = gaussian_taps(n_taps / 5.0, n_taps)
        if scale > 0:
            x = np.ascontiguousarray(correlate_valid(x, taps)[::2, ::2])
            y = np.ascontiguousarray(correlate_valid(y, taps)[::2, ::2])
        for _, _, var_x, var_y, cov in _moments(x, y, taps):
            bits = _vif_bits(var_x, var_y, cov)
            kept += bits[0]
            total += bits[1]
    return 1.0 if total == 0.0 else kept / total


def _vif_bits(var_x: Plane, var_y: Plane, cov: Plane) -> tuple[float, float]:
    """Information that picture and reference carry in one block of one scale, in bits (kept, total)."""
    np.maximum(var_x, 0.0, out=var_x)
    np.maximum(var_y, 0.0, out=var_y)
    gain = cov / (var_x + np.float32(_TINY))
    noise = var_y - gain * cov
    # The special cases of the authors' release: plain areas, lost areas, inverted areas.
    plain, lost = var_x < _TINY, var_y < _TINY
    inverted = (gain < 0.0) & ~lost
    gain[plain | lost | inverted] = 0.0
    np.copyto(noise, var_y, where=plain | inverted)
    noise[lost] = 0.0
    var_x[plain] = 0.0
    np.maximum(noise, np.float32(_TINY), out=noise)
    noise += np.float32(_VISUAL_NOISE)
    gain *= gain
    gain *= var_x
    gain /= noise
    kept = np.log1p(gain, out=gain).sum(dtype=np.float64)
    var_x *= np.float32(1.0 / _VISUAL_NOISE)
    total = np.log1p(var_x, out=var_x).sum(dtype=np.float64)
    return float(kept) / _LN2, float(total) / _LN2


def viewing_size(plane: Plane) -> Plane:
    """Halve a plane wider than 2,880 pixels; narrower ones are measured as they are."""
    return halve(plane) if plane.shape[1] > 2880 else plane


MS_SSIM_POWER = 7.0
VIF_POWER = 0.3
"""Exponents of the joint measure: they bring blur, noise, compression and exposure errors that are seen
as equally bad to about equal values (see ``tests/featbank/demo/test_measure.py``)."""


def fidelity(reference: Plane, picture: Plane) -> tuple[float, float, float]:
    """Joint measure that simulated raters go by: ``MS-SSIM**7 * min(VIF, 1)**0.3``.

    Parameters
    ----------
    reference, picture : float32 arrays of shape (height, width) in [0, 255]
        Luma of the flawless photo and of the photo, full size.

    Returns
    -------
    tuple of three floats
        (joint measure in [0, 1], MS-SSIM, VIF), all 1 for equal pictures. In the joint measure VIF counts
        up to 1: contrast raised by overexposure is no gain.

    Raises
    ------
    ValueError
        If the shapes differ or a side is shorter than 176 pixels.
    """
    small, seen = viewing_size(reference), viewing_size(picture)
    similarity, information = ms_ssim(small, seen), vif(small, seen)
    return similarity**MS_SSIM_POWER * min(information, 1.0) ** VIF_POWER, similarity, information
