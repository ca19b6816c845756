"""A feature joins a view and an encoder: its width, identity, cost and vector follow from both."""

import numpy as np
import pytest
from numpy.typing import NDArray

from featbank.encoders import Encoder, EncoderSpec, make_encoder
from featbank.errors import EncoderError, EncoderSetupError, UnknownNameError, ViewError
from featbank.feature import Feature, compute_features, make_feature
from featbank.images import Photo
from featbank.views import parse_view


@pytest.fixture(scope="module")
def photo() -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return Photo(pixels=pixels, digest="ab" * 32, format="PNG", mode="RGB", actions=())


def vector_of(feature: Feature, photo: Photo) -> NDArray[np.float32]:
    return compute_features([feature], photo)[0][0]


def test_mean_and_deviation_are_those_of_the_crops(photo: Photo) -> None:
    encoder, view = make_encoder("classic:layout"), parse_view("tiles_3x3/squash_32x32")
    crops = encoder.encode(view.scales(photo.pixels, 0)[0]).astype(np.float64)
    mean = vector_of(Feature(encoder, view, "mean"), photo)
    both = vector_of(Feature(encoder, view, "mean+std"), photo)
    joined = vector_of(Feature(encoder, view, "concat"), photo)
    assert crops.shape[0] == 9
    assert np.allclose(mean, crops.mean(axis=0), atol=1e-6)
    assert np.allclose(both, np.concatenate([crops.mean(axis=0), crops.std(axis=0)]), atol=1e-6)
    assert np.array_equal(joined, crops.reshape(-1).astype(np.float32))


@pytest.mark.parametrize("aggregate", ["mean", "mean+std", "concat"])
@pytest.mark.parametrize("view", ["squash_32x32", "center_32+half", "five_32", "fragments_4x8x3"])
def test_the_declared_width_is_the_true_one(photo: Photo, view: str, aggregate: str) -> None:
    feature = make_feature("classic:layout", view, aggregate)
    assert vector_of(feature, photo).shape == (feature.n_features,)


def test_scales_lie_side_by_side(photo: Photo) -> None:
    encoder = make_encoder("classic:layout")
    view = parse_view("center_32+half")
    full, half = (encoder.encode(crops)[0] for crops in view.scales(photo.pixels, 0))
    assert np.allclose(vector_of(Feature(encoder, view), photo), np.concatenate([full, half]))


def test_identity_tells_features_apart() -> None:
    features = [
        make_feature("classic:layout", "squash_32x32"),
        make_feature("classic:layout", "squash_32x48"),
        make_feature("classic:layout", "squash_32x32~bilinear"),
        make_feature("classic:layout", "squash_32x32", "mean+std"),
        make_feature("classic:keypoint", "squash_32x32"),
    ]
    from featbank.digest import digest_json

    assert len({digest_json(feature.identity) for feature in features}) == len(features)


def test_a_shared_pass_has_one_id_whatever_the_aggregate() -> None:
    plain, deviation = (make_feature("classic:layout", "five_32", how) for how in ("mean", "mean+std"))
    assert plain.pass_id == deviation.pass_id
    assert plain.pass_id != make_feature("classic:layout", "five_64").pass_id


def test_cost_adds_over_crops_and_scales() -> None:
    one = make_feature("classic:keypoint", "center_64").gmacs()
    assert make_feature("classic:keypoint", "five_64").gmacs() == pytest.approx(5 * one)
    half = make_encoder("classic:keypoint").count_macs(32, 32) / 1e9
    assert make_feature("classic:keypoint", "center_64+half").gmacs() == pytest.approx(one + half)


def test_one_view_is_taken_once_for_all_its_encoders(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    from featbank.views import View

    taken: list[str] = []
    scales = View.scales

    def counted(self: View, *arguments: object) -> object:
        taken.append(self.name)
        return scales(self, *arguments)

    monkeypatch.setattr(View, "scales", counted)
    features = [make_feature(name, "squash_32x32") for name in ("classic:layout", "classic:keypoint")]
    features.append(make_feature("classic:layout", "center_32"))
    compute_features(features, photo)
    assert sorted(taken) == ["center_32", "squash_32x32"]


def test_random_views_depend_on_the_photo_and_not_on_the_call(photo: Photo) -> None:
    feature = make_feature("classic:layout", "fragments_4x8")
    again = Photo(photo.pixels, photo.digest, "JPEG", "RGB", ())
    other = Photo(photo.pixels, "cd" * 32, "PNG", "RGB", ())
    assert np.array_equal(vector_of(feature, photo), vector_of(feature, again))
    assert not np.array_equal(vector_of(feature, photo), vector_of(feature, other))


def test_wrong_names_and_combinations_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="classic:nss"):
        make_feature("classic:nsss", "native")
    with pytest.raises(ViewError):
        make_feature("classic:nss", "centre_320")
    with pytest.raises(EncoderError, match="aggregate must be one of"):
        make_feature("classic:nss", "native", "median")
    with pytest.raises(EncoderError, match="fixed number of crops"):
        make_feature("classic:layout", "tiles_224", "concat")


class Picky(Encoder):
    """Gives the mean colour, or a value that is not finite; all of them share one forward pass."""

    def __init__(self, name: str, value: float | Exception) -> None:
        super().__init__(
            EncoderSpec(f"test:{name}", "quality", "mean colour", "none", "none", "none", n_features=3)
        )
        self.value = value

    def identity(self) -> dict[str, object]:
        return {"name": self.spec.name}

    def pass_identity(self) -> dict[str, object]:
        return {"name": "one pass"}

    def count_macs(self, height: int, width: int) -> int:
        return height * width

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if isinstance(self.value, Exception):
            raise self.value
        return (crops.mean(axis=(1, 2)) * self.value).astype(np.float32)


@pytest.mark.parametrize("value", [np.nan, MemoryError()])
def test_a_feature_that_fails_takes_no_other_with_it(photo: Photo, value: float | Exception) -> None:
    view = parse_view("squash_32x32")
    features = [
        Feature(Picky("good", 1.0), view),
        Feature(Picky("bad", value), view),
        make_feature("classic:layout", "squash_32x32"),
        Feature(Picky("other", 2.0), view),
    ]
    assert features[0].pass_id == features[1].pass_id
    good, bad, layout, other = compute_features(features, photo)[0]
    assert isinstance(bad, MemoryError if isinstance(value, MemoryError) else EncoderError)
    np.testing.assert_allclose(2 * good, other)
    assert np.array_equal(layout, vector_of(features[2], photo))


def test_a_view_that_fails_takes_only_its_own_features(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    from featbank.views import View

    scales = View.scales

    def fussy(self: View, *arguments: object) -> object:
        if self.name == "center_32":
            raise ViewError("center_32: not on this photo")
        return scales(self, *arguments)

    monkeypatch.setattr(View, "scales", fussy)
    names = ("center_32", "squash_32x32", "center_32")
    found, _ = compute_features([make_feature("classic:layout", name) for name in names], photo)
    assert [isinstance(result, ViewError) for result in found] == [True, False, True]


def test_an_encoder_that_cannot_run_here_is_no_fault_of_the_photo(photo: Photo) -> None:
    feature = Feature(Picky("lost", EncoderSetupError("no such device")), parse_view("squash_32x32"))
    with pytest.raises(EncoderSetupError, match="no such device"):
        compute_features([feature], photo)
