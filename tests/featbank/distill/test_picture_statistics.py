import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")

from scipy.ndimage import gaussian_filter  # noqa: E402 - torch may be missing

from featbank.distill.network import PictureStatistics  # noqa: E402
from featbank.encoders import make_encoder  # noqa: E402
from tests.support.textures import scene  # noqa: E402

N_STATISTICS = 212
N_LIGHT, N_FADING = 15, 18
"""The last of them: estimates of the light's colour, and how chroma fades with scale."""


def statistics(pictures):
    """Return the statistics of float pictures (n, height, width, 3) of levels."""
    crops = torch.from_numpy(np.stack(pictures)).float().permute(0, 3, 1, 2) / 255.0
    with torch.inference_mode():
        return PictureStatistics()(crops).numpy()


@pytest.fixture(scope="module")
def pictures():
    return [scene(128, 128, seed=seed).astype(np.float64) for seed in range(12)]


@pytest.mark.parametrize("shape", [(64, 64), (66, 98), (128, 256)])
@pytest.mark.parametrize("level", [0.0, 127.0, 255.0])
def test_flat_crops_of_any_size_have_finite_statistics(shape, level):
    found = statistics([np.full((*shape, 3), level)])
    assert found.shape == (1, N_STATISTICS)
    assert np.isfinite(found).all()


def test_a_crop_does_not_see_the_others(pictures):
    together = statistics(pictures)
    np.testing.assert_allclose(statistics(pictures[3:4])[0], together[3], rtol=1e-4, atol=1e-4)


def test_turning_left_and_right_about_changes_little(pictures):
    there, back = statistics(pictures), statistics([picture[:, ::-1].copy() for picture in pictures])
    assert np.median(np.abs(there - back).max(axis=0)) < 0.05


@pytest.mark.parametrize(
    "worsen",
    [
        lambda picture, rng: np.clip(picture + rng.normal(0.0, 12.0, picture.shape), 0.0, 255.0),
        lambda picture, rng: gaussian_filter(picture, (1.5, 1.5, 0.0)),
        lambda picture, rng: 0.4 * picture,
    ],
)
def test_noise_blur_and_darkness_move_the_same_statistics_on_every_scene(pictures, worsen):
    rng = np.random.default_rng(0)
    moved = statistics([worsen(picture, rng) for picture in pictures]) - statistics(pictures)
    # Scenes move as one: some statistics have the same sign on all of them, by far more than their spread.
    steady = np.abs(moved.mean(axis=0)) / (moved.std(axis=0) + 1e-3)
    assert np.sort(steady)[-10:].min() > 2.0


def test_they_tell_noise_as_the_encoder_of_natural_scene_statistics_does(pictures):
    rng = np.random.default_rng(0)
    noisy = [
        np.rint(np.clip(picture + rng.normal(0.0, 2.0 * k, picture.shape), 0.0, 255.0))
        for k, picture in enumerate(pictures)
    ]
    reference = make_encoder("classic:nss").encode(np.stack(noisy).astype(np.uint8))
    own = statistics(noisy)
    # An independent implementation of the same families: every column of theirs that varies with noise has a near
    # relative here.
    correlation = np.corrcoef(reference.T + 1e-9 * rng.normal(size=reference.T.shape), own.T)
    nearest = np.abs(np.nan_to_num(correlation[: reference.shape[1], reference.shape[1] :])).max(axis=1)
    assert np.median(nearest) > 0.85


def test_a_cast_moves_every_estimate_of_the_light_by_its_octaves(pictures):
    gains = np.array([2.0**0.5, 1.0, 2.0**-0.25])
    dark = [picture * 0.6 for picture in pictures]  # no channel is clipped by the gains
    before, after = (
        statistics(each)[:, -N_LIGHT - N_FADING : -N_FADING] for each in (dark, [gains * p for p in dark])
    )
    moved = (after - before)[:, :12].reshape(-1, 4, 3)
    np.testing.assert_allclose(moved[..., 0], 0.5, atol=0.06)
    np.testing.assert_allclose(moved[..., 1], -0.25, atol=0.06)
    np.testing.assert_array_equal(after[:, 12:], before[:, 12:])


def test_grey_light_has_no_size_and_white_is_counted_by_channel(pictures):
    grey = [np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) for picture in pictures]
    light = statistics(grey)[:, -N_LIGHT - N_FADING : -N_FADING]
    np.testing.assert_allclose(light[:, :12], 0.0, atol=2e-3)
    half = np.zeros((64, 64, 3))
    half[:32, :, 0] = 255.0
    white = statistics([half])[0, -N_FADING - 3 : -N_FADING]
    np.testing.assert_allclose(white, np.log2([0.5 + 2.0**-7, 2.0**-7, 2.0**-7]), atol=1e-5)


def test_blurred_colour_lacks_fine_detail_beside_luma(pictures):
    rng = np.random.default_rng(0)
    weights = np.array([0.299, 0.587, 0.114])
    moved = []
    for picture in pictures:
        coloured = np.clip(0.5 * picture + rng.uniform(0.0, 60.0, picture.shape), 0.0, 255.0)
        luma = (coloured @ weights)[..., np.newaxis]
        smeared = luma + gaussian_filter(coloured - luma, (4.0, 4.0, 0.0))
        sharp, blurred = (statistics([each])[0, -N_FADING:] for each in (coloured, smeared))
        moved.append(blurred - sharp)
    steps, beside = np.split(np.array(moved), [8], axis=1)
    # Two colours at five scales, finest first: far below luma where the blur reaches, as before where it does not.
    assert (beside[:, :4] < -2.0).all()
    assert (np.abs(beside[:, -2:]) < np.abs(beside[:, :2])).all()
    assert (steps[:, :2] > 0.0).all()
