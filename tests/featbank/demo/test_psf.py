import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featbank.demo.psf import combine, disc_psf, gaussian_psf, motion_psf


def _moments(kernel):
    y, x = np.mgrid[: kernel.shape[0], : kernel.shape[1]]
    y, x = y - kernel.shape[0] // 2, x - kernel.shape[1] // 2
    cx, cy = (kernel * x).sum(), (kernel * y).sum()
    return cx, cy, (kernel * (x - cx) ** 2).sum(), (kernel * (y - cy) ** 2).sum()


KERNELS = st.one_of(
    st.builds(gaussian_psf, st.floats(0.0, 5.0)),
    st.builds(disc_psf, st.floats(0.0, 12.0)),
    st.builds(motion_psf, st.floats(0.0, 40.0), st.floats(0.0, 3.2), st.floats(0.0, 4.0)),
)


@given(KERNELS)
def test_every_kernel_conserves_light_and_is_centred(kernel):
    assert kernel.sum() == pytest.approx(1.0)
    assert kernel.min() >= 0.0
    assert kernel.shape[0] % 2 == kernel.shape[1] % 2 == 1
    cx, cy, _, _ = _moments(kernel)
    assert abs(cx) < 0.02
    assert abs(cy) < 0.02


@given(KERNELS, KERNELS)
def test_blurs_one_after_the_other_add_their_variances(first, second):
    joint = combine(first, second)
    assert joint.sum() == pytest.approx(1.0)
    for axis in (2, 3):
        assert _moments(joint)[axis] == pytest.approx(
            _moments(first)[axis] + _moments(second)[axis], abs=1e-6
        )


@pytest.mark.parametrize("radius", [3.0, 5.0, 8.5])
def test_a_disc_has_the_variance_of_a_disc(radius):
    # Pixels of unit width add their own variance of a twelfth on each axis.
    assert _moments(disc_psf(radius))[2] == pytest.approx(radius**2 / 4.0 + 1.0 / 12.0, rel=0.05)


def test_straight_motion_is_a_line_of_its_length():
    along = motion_psf(12.0, 0.0, 0.0)
    _, _, var_x, var_y = _moments(along)
    assert var_x == pytest.approx(12.0**2 / 12.0, rel=0.05)
    assert var_y < 0.3
    down = motion_psf(12.0, np.pi / 2, 0.0)
    assert _moments(down)[3] == pytest.approx(var_x, rel=0.02)


@pytest.mark.parametrize("make", [gaussian_psf, disc_psf, lambda size: motion_psf(size, 0.3, 0.0)])
def test_no_blur_is_the_single_pixel(make):
    np.testing.assert_array_equal(make(0.0), [[1.0]])
