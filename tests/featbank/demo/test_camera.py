import io

import numpy as np
import pytest
from PIL import Image

from featbank.demo import camera
from featbank.demo.camera import CameraSettings, take_photo


def _rng(seed=0):
    return np.random.default_rng(seed)


def _plain(value, height=320, width=480):
    return np.full((height, width, 3), value, dtype=np.uint8)


@pytest.fixture(scope="module")
def scene():
    """Blocks and noise: edges and detail at all scales."""
    blocks = _rng(3).integers(40, 200, (40, 60, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(blocks + _rng(4).normal(0, 8, blocks.shape), 0, 255).astype(np.uint8)


def _detail(picture):
    return np.abs(np.diff(picture.astype(float), axis=1)).mean()


def test_white_noise_is_normal_white_and_differs_between_channels():
    noise = camera.white_noise((200, 300, 3), 20.0, _rng()).astype(float)
    assert abs(noise.mean()) < 0.3
    assert noise.std() == pytest.approx(20.0, abs=0.3)
    for a, b in ((noise[:, 1:], noise[:, :-1]), (noise[1:], noise[:-1]), (noise[..., 1], noise[..., 0])):
        assert abs((a * b).mean()) < 0.02 * 400
    assert camera.white_noise((100, 100), 1.0, _rng()).std() == pytest.approx(1.0, abs=0.1)


def test_photon_noise_follows_the_light_and_rises_in_the_shadows():
    deviation = camera.photon_deviation(10.0)
    white = (127.5 / 10.0) ** 2
    counts = _rng().poisson(white * (180 / 255) ** 2, 200_000) + _rng(1).normal(0.0, 2.0, 200_000)
    assert (255 * np.sqrt(counts.clip(0) / white)).std() == pytest.approx(deviation[180], rel=0.02)
    assert deviation[255] == pytest.approx(10.0, rel=0.02)
    assert np.all(np.diff(deviation[30:]) < 0)
    assert deviation[30] > 1.15 * deviation[255]
    noisy = camera.add_noise(_plain(30), deviation, _rng()).astype(float)
    assert noisy.std() == pytest.approx(deviation[30], rel=0.05)


def test_one_stop_doubles_the_light_until_white_and_a_veil_lifts_black():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(camera.expose(ramp, 0.0), ramp)
    light = (ramp / 255.0) ** 2
    doubled = (camera.expose(ramp, 1.0) / 255.0) ** 2
    np.testing.assert_allclose(doubled, np.minimum(2 * light, 1.0), atol=0.005)
    veiled = camera.expose(ramp, 0.0, veil=0.4)
    assert veiled.min() > 80
    assert np.ptp(veiled.astype(int)) < 160
    assert np.all(np.diff(camera.expose(ramp, 0.0, contrast=0.5).ravel().astype(int)[::3]) >= 0)


@pytest.mark.parametrize("width", [1.0, 6.0, 12.0])
@pytest.mark.parametrize("kind", ["disc", "path"])
def test_blur_adds_up_light_about_its_centre(kind, width):
    def kernel(scale):
        if kind == "disc":
            return camera.disc_kernel(width * scale)
        return camera.path_kernel(np.outer(np.linspace(-0.5, 0.5, 200), [0.6, 0.8]) * 2 * width * scale)

    assert kernel(1.0).sum() == pytest.approx(1.0, rel=1e-4)
    point = _plain(40, 120, 160)
    point[59:61, 79:81] = 255
    blurred = (camera.filter_light(point, kernel) / 255.0) ** 2
    light = (point / 255.0) ** 2
    assert blurred.mean() == pytest.approx(light.mean(), rel=0.02)
    excess = np.maximum(blurred[..., 0] - light[0, 0, 0] - 0.002, 0)
    y, x = np.indices(excess.shape)
    assert (excess * y).sum() / excess.sum() == pytest.approx(59.5, abs=0.8)
    assert (excess * x).sum() / excess.sum() == pytest.approx(79.5, abs=0.8)
    np.testing.assert_array_equal(camera.filter_light(_plain(77), kernel), 77)


def test_noise_reduction_takes_noise_and_leaves_edges():
    step = _plain(60)
    step[:, 240:] = 180
    noisy = camera.add_noise(step, 12.0, _rng())
    smooth = camera.smooth_noise(noisy, 1.0).astype(float)
    assert smooth[:, 20:200].std() < 0.4 * noisy[:, 20:200].astype(float).std()
    assert smooth[:, 242].mean() - smooth[:, 237].mean() > 110


LADDERS = {
    "blur": [{"blur": v} for v in (10.0, 20.0, 40.0)],
    "defocus": [{"defocus": v} for v in (8.0, 20.0, 60.0)],
    "motion": [{"motion": v, "bend": 1.0} for v in (20.0, 60.0, 160.0)],
    "exposure": [{"exposure": v} for v in (-0.5, -1.2, -2.0)],
    "veil": [{"veil": v} for v in (0.1, 0.3, 0.6)],
    "noise": [{"noise": v} for v in (4.0, 15.0, 45.0)],
    "smear": [{"noise": v, "denoise": 1.0} for v in (4.0, 15.0, 45.0)],
    "sharpen": [{"sharpen": v} for v in (0.5, 1.5, 3.0)],
    "shrink": [{"shrink": v} for v in (1.5, 2.5, 4.0)],
    "quality": [{"quality": v} for v in (60, 25, 8)],
}


@pytest.mark.parametrize("name", LADDERS)
def test_a_photo_leaves_the_flawless_one_with_every_setting(scene, name):
    before = scene.copy()
    photos = [np.asarray(Image.open(io.BytesIO(take_photo(scene, s, _rng())))).astype(float)
              for s in (CameraSettings(), *(CameraSettings(**o) for o in LADDERS[name]))]  # fmt: skip
    errors = [np.mean((photo - photos[0]) ** 2) for photo in photos[1:]]
    assert errors[0] > 0.5
    assert errors == sorted(errors)
    np.testing.assert_array_equal(scene, before)
    assert take_photo(scene, CameraSettings(**LADDERS[name][1]), _rng(1)) == take_photo(
        scene, CameraSettings(**LADDERS[name][1]), _rng(1)
    )


def test_a_grayscale_photo_has_one_channel(scene):
    data = take_photo(scene, CameraSettings(is_grayscale=True, noise=5.0, sharpen=1.0, shrink=2.0), _rng())
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.mode, picture.size) == ("L", scene.shape[1::-1])
