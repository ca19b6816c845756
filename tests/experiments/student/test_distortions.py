import numpy as np
import pytest
from scipy import ndimage

from experiments.student.distortions import CHAINS, DISTORTIONS, HELD_OUT_CHAINS, N_LEVELS, distort


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(96, 128, 3))
    smooth = sum(ndimage.gaussian_filter(noise, (s, s, 0)) * s for s in (1, 2, 4, 8, 16))
    scaled = (smooth - smooth.min()) / np.ptp(smooth)
    return np.uint8(np.rint(20 + 215 * scaled))


@pytest.mark.parametrize("kind", [*DISTORTIONS, *CHAINS])
def test_a_kind_keeps_the_shape_repeats_with_its_generator_and_grows_with_the_level(picture, kind):
    before = picture.copy()
    errors = []
    for level in range(1, N_LEVELS + 1):
        spoilt = distort(picture, kind, level, np.random.default_rng(3))
        assert spoilt.shape == picture.shape
        assert spoilt.dtype == np.uint8
        assert np.array_equal(spoilt, distort(picture, kind, level, np.random.default_rng(3)))
        errors.append(np.mean((spoilt.astype(float) - picture) ** 2))
    assert np.array_equal(picture, before)
    assert errors[0] > 0
    if kind in DISTORTIONS:
        assert np.all(np.diff(errors) > 0)
    assert errors[-1] > 1.5 * errors[0]


def test_blurs_keep_the_mean_light_and_take_detail(picture):
    for kind in ("defocus", "motion_blur", "handshake"):
        spoilt = distort(picture, kind, 5, np.random.default_rng(0))
        light, blurred = (np.mean((p / 255.0) ** 2.2) for p in (picture, spoilt))
        assert blurred == pytest.approx(light, rel=0.03)
        assert (
            np.abs(np.diff(spoilt.astype(float), axis=1)).mean()
            < 0.6 * np.abs(np.diff(picture.astype(float), axis=1)).mean()
        )


def test_a_plain_picture_stays_plain_under_blur():
    plain = np.full((64, 64, 3), 77, dtype=np.uint8)
    for kind in ("gaussian_blur", "defocus", "motion_blur", "handshake", "resampled", "pixelated"):
        assert np.array_equal(distort(plain, kind, 4, np.random.default_rng(1)), plain)


def test_there_are_as_many_kinds_as_promised_and_chains_are_made_of_them():
    assert len(DISTORTIONS) >= 25
    assert {step for steps in CHAINS.values() for step in steps} <= set(DISTORTIONS)
    assert set(HELD_OUT_CHAINS) < set(CHAINS)


@pytest.mark.parametrize(
    ("kind", "level", "word"), [("fog", 1, "kind"), ("jpeg", 0, "level"), ("jpeg", 6, "level")]
)
def test_wrong_requests_are_refused(picture, kind, level, word):
    with pytest.raises(ValueError, match=f"{word} must be"):
        distort(picture, kind, level, np.random.default_rng(0))
