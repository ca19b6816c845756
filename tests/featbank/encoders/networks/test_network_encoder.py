"""Network encoders keep the contract of all encoders, read many layers in one pass, and never load in part."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from featbank.encoders import Encoder, make_encoder
from featbank.encoders.macs import build_on_meta
from featbank.encoders.networks import encoder as encoder_module
from featbank.encoders.networks import modules
from featbank.encoders.networks.catalogue import STAGES_OF
from featbank.encoders.networks.families import ARCHITECTURES, build_headless
from featbank.encoders.networks.modules import load_network
from featbank.encoders.weights import find_sources
from featbank.errors import EncoderError, UnknownNameError
from featbank.feature import compute_features, make_feature
from featbank.images import Photo
from tests.support.encoder_contract import EncoderContract
from tests.support.network_encoders import network_encoders, small_size

MOBILE = "timm:mobilenetv3_large_100.ra_in1k"
TAPS = "blocks.0,blocks.2,blocks.6"


class _NetworkContract(EncoderContract):
    height = 64
    width = 96
    sizes = ((33, 65),)
    bad_size: tuple[int, int] | None = None
    tolerance = 1e-5
    name = ""

    @pytest.fixture
    def encoder(self) -> Encoder:
        return make_encoder(self.name)

    def assert_same(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        # Relative to the vector's size: a single feature near zero has no relative accuracy.
        assert np.linalg.norm(found - expected) <= self.tolerance * max(np.linalg.norm(expected), 1e-12)

    def test_declares_what_the_registry_lists(self, encoder: Encoder) -> None:
        assert encoder.spec.name == self.name
        assert "RANDOM" in encoder.spec.weights
        assert encoder.spec.reference
        assert encoder.spec.title

    def test_refuses_a_size_it_cannot_take(self, encoder: Encoder) -> None:
        if self.bad_size is None:
            encoder.check_size(1, 1)
            return
        for attempt in (
            lambda: encoder.encode(np.zeros((1, *self.bad_size, 3), dtype=np.uint8)),
            lambda: encoder.count_macs(*self.bad_size),
        ):
            with pytest.raises(EncoderError, match=re.escape(self.name)):
                attempt()


class TestMobile(_NetworkContract):
    name = f"{MOBILE}?taps={TAPS}&pool=mean+std&random=0"


class TestTorchvision(_NetworkContract):
    name = "torchvision:mobilenet_v3_large/IMAGENET1K_V1?random=3"


class TestCheckpoint(_NetworkContract):
    name = "checkpoint:places365-resnet18?random=1"


@pytest.mark.slow
class TestArniqa(_NetworkContract):
    name = "checkpoint:arniqa?random=1"


@pytest.mark.slow
class TestClip(_NetworkContract):
    name = "open_clip:ViT-B-32-quickgelu/openai?random=1"
    height = width = 224
    sizes = ()
    bad_size = (200, 224)

    def test_cost_is_a_count_that_grows_with_the_crop(self, encoder: Encoder) -> None:
        assert encoder.count_macs(224, 224) == 4_408_811_520


@pytest.mark.slow
class TestSwin(_NetworkContract):
    name = "checkpoint:uiqa-ava-swin-t?random=1"
    bad_size = (3, 64)


@pytest.fixture
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_large_crops_are_run_in_small_batches(
    crops: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(f"{MOBILE}?random=0")
    whole = encoder.encode(crops)
    monkeypatch.setattr(encoder_module, "BATCH_PIXELS", 3 * 64 * 64)
    assert relative(encoder.encode(crops), whole) <= 1e-5


def encode_elsewhere(name: str, crops: NDArray[np.uint8], folder: Path) -> NDArray[np.float32]:
    """Encode in a process of its own."""
    np.save(folder / "crops.npy", crops)
    code = (
        "import sys, numpy as np; from featbank.encoders import make_encoder; _, name, folder = sys.argv;"
        "np.save(folder + '/out.npy', make_encoder(name).encode(np.load(folder + '/crops.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, name, str(folder)], check=True)
    return np.load(folder / "out.npy")


def check_invariance(name: str, crops: NDArray[np.uint8], folder: Path) -> None:
    """One crop alone, a batch of eight, any order, twice, one thread or two, a new process: the same numbers."""
    encoder = make_encoder(name)

    def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        # A cosine is a product of unit vectors: its own scale is 1, however near to 0 it lies.
        scale = 1.0 if "prompts=" in name else np.linalg.norm(expected)
        assert np.linalg.norm(found - expected) <= 1e-5 * scale

    n_before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        batch = encoder.encode(crops)
        np.testing.assert_array_equal(encoder.encode(crops), batch)
        order = np.random.default_rng(1).permutation(len(crops))
        assert_close(encoder.encode(crops[order]), batch[order])
        for i in range(len(crops)):
            assert_close(encoder.encode(crops[i : i + 1]), batch[i : i + 1])
        torch.set_num_threads(2)
        assert_close(encoder.encode(crops), batch)
    finally:
        torch.set_num_threads(n_before)
    assert_close(encode_elsewhere(name, crops, folder), batch)


def test_neither_company_nor_order_nor_threads_nor_a_restart_matter(
    crops: NDArray[np.uint8], tmp_path: Path
) -> None:
    check_invariance(f"{MOBILE}?random=7", crops, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", network_encoders())
def test_neither_company_nor_order_nor_threads_nor_a_restart_matter_for_any_recipe(
    name: str, tmp_path: Path
) -> None:
    encoder = make_encoder(name)
    crops = np.random.default_rng(0).integers(0, 256, (8, *small_size(encoder), 3), dtype=np.uint8)
    check_invariance(name, crops, tmp_path)


def test_several_layers_come_from_one_pass(crops: NDArray[np.uint8]) -> None:
    together = make_encoder(f"{MOBILE}?taps={TAPS}&random=0")
    assert together.spec.n_features == 16 + 40 + 960
    single = [make_encoder(f"{MOBILE}?taps={tap}&random=0").encode(crops) for tap in TAPS.split(",")]
    np.testing.assert_allclose(together.encode(crops), np.concatenate(single, axis=1), rtol=1e-5, atol=1e-6)
    assert together.count_macs(64, 64) == make_encoder(f"{MOBILE}?random=0").count_macs(64, 64)


def test_patterns_name_every_block() -> None:
    encoder = make_encoder("timm:tf_efficientnet_b0.ns_jft_in1k?taps=blocks.*.*&random=0")
    assert len(encoder.taps) == 16
    assert encoder.spec.n_features == 1808


LITE, MOBILE_V2 = "checkpoint:efficientnet-lite0", "torchvision:mobilenet_v2/IMAGENET1K_V1"


@pytest.mark.parametrize(
    ("base", "layers", "n_features"),
    [
        (LITE, "blocks.*", 1568),
        (MOBILE_V2, "features.1,features.3,features.6,features.10,features.13,features.16,features.17", 1424),
        ("checkpoint:arniqa", "layer*", 7680),
        ("timm:convnext_tiny.in12k", "stages.*", 2880),
    ],
)
def test_stages_are_a_short_spelling_of_the_layers_that_end_them(
    base: str, layers: str, n_features: int
) -> None:
    short = make_encoder(f"{base}?taps=stages&random=0")
    assert short.identity() == make_encoder(f"{base}?taps={layers}&pool=mean+std&random=0").identity()
    assert short.spec.n_features == n_features
    with_last = make_encoder(f"{base}?taps=stages,out&random=0")
    assert with_last.taps == (*short.taps, "out")


def test_every_architecture_with_known_stages_has_their_layers() -> None:
    for architecture, stages in STAGES_OF.items():
        build = ARCHITECTURES.get(architecture, partial(build_headless, architecture))
        assert len(modules.expand_taps(build_on_meta(build), ["stages"], "x", stages)) >= max(4, len(stages))


def test_a_pass_that_ends_early_costs_less_and_reads_the_same(crops: NDArray[np.uint8]) -> None:
    whole = make_encoder(f"{MOBILE}?taps=blocks.2&random=0")
    early = make_encoder(f"{MOBILE}?until=blocks.2&random=0")
    assert early.taps == ("blocks.2",)
    np.testing.assert_array_equal(early.encode(crops), whole.encode(crops))
    assert early.count_macs(64, 64) < whole.count_macs(64, 64)
    assert early.n_params < whole.n_params
    assert early.pass_identity() != whole.pass_identity()


def test_features_that_share_a_pass_run_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    photo = Photo(pixels, "0" * 64, "JPEG", "RGB", ())
    features = [
        make_feature(f"{MOBILE}?random=0", "center_64"),
        make_feature(f"{MOBILE}?taps=blocks.2&pool=max&random=0", "center_64"),
        make_feature("classic:layout", "center_64"),
        make_feature(f"{MOBILE}?l2=1&random=0", "center_32"),
    ]
    assert features[0].pass_id == features[1].pass_id != features[3].pass_id
    expected = [feature.vector(feature.view.scales(pixels, 0)) for feature in features]
    calls = []
    run = modules.run_taps
    monkeypatch.setattr(modules, "run_taps", lambda *args: calls.append(1) or run(*args))
    vectors, timing = compute_features(features, photo)
    assert len(calls) == 2
    for found, wanted in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert set(timing.encode_s) == {feature.label for feature in features}


def test_encoders_of_other_passes_are_not_mixed(crops: NDArray[np.uint8]) -> None:
    first, second = make_encoder(f"{MOBILE}?random=0"), make_encoder(f"{MOBILE}?random=1")
    with pytest.raises(EncoderError, match="one forward pass"):
        first.encode_together([first, second], crops)
    empty = first.encode_together([first], crops[:0])
    assert empty[0].shape == (0, 1280)


def test_l2_gives_unit_vectors_for_every_tap(crops: NDArray[np.uint8]) -> None:
    vectors = make_encoder(f"{MOBILE}?taps=blocks.0,blocks.2&l2=1&random=0").encode(crops)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :16], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 16:], axis=1), 1, rtol=1e-5)


def test_every_choice_that_changes_numbers_changes_the_identity() -> None:
    names = [
        f"{MOBILE}?random=0",
        f"{MOBILE}?random=1",
        f"{MOBILE}?l2=1&random=0",
        f"{MOBILE}?pool=max&random=0",
        f"{MOBILE}?taps=blocks.2&random=0",
        f"{MOBILE}?until=blocks.2&random=0",
        f"{MOBILE}?precision=bf16&random=0",
        "timm:mobilenetv3_large_100.miil_in21k?random=0",
    ]
    identities = [make_encoder(name).identity() for name in names]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    assert make_encoder(f"{MOBILE}?l2=0&random=0").identity() == identities[0]


def test_input_contract_comes_from_the_tag() -> None:
    raw = make_encoder("timm:mobilenetv3_large_100.miil_in21k?random=0").identity()["normalisation"]
    assert raw == {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    half = make_encoder("timm:tf_efficientnetv2_s.in21k?random=0").identity()["normalisation"]
    assert half == {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    assert make_encoder(f"{MOBILE}?random=0").identity()["normalisation"]["mean"] == [0.485, 0.456, 0.406]


def test_the_network_is_frozen_and_global_randomness_untouched(crops: NDArray[np.uint8]) -> None:
    encoder = make_encoder(f"{MOBILE}?random=5")
    state = torch.random.get_rng_state()
    encoder.encode(crops[:1])
    assert torch.equal(torch.random.get_rng_state(), state)
    module = load_network(encoder.blueprint, 5, encoder._weights_digest(), "fp32", "cpu")
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_half_precision_is_close_and_named(crops: NDArray[np.uint8]) -> None:
    full = make_encoder(f"{MOBILE}?random=0")
    half = make_encoder(f"{MOBILE}?precision=bf16&random=0")
    assert half.identity()["numerics"] == "bf16"
    assert 0 < relative(half.encode(crops), full.encode(crops)) < 0.1


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm:vit_base_patch32_siglip_256.v2_webli?random=0", (250, 256)),
        ("timm:mobilenetv3_large_100.ra_in1k?random=0", (0, 64)),
    ],
)
def test_sizes_that_the_architecture_refuses_are_errors(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(EncoderError):
        make_encoder(name).check_size(*size)
    with pytest.raises(EncoderError):
        make_encoder(name).count_macs(*size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm:resnet50_clip.openai?random=0", (250, 224)),
        ("open_clip:ViT-B-32-quickgelu/openai?random=0", (256, 256)),
        ("open_clip:RN50-quickgelu/openai?random=0", (256, 256)),
        ("checkpoint:liqe?random=0", (192, 224)),
    ],
)
def test_position_embeddings_and_patches_decide_sizes(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(EncoderError, match="does not take crops"):
        make_encoder(name).check_size(*size)


@pytest.mark.parametrize(
    ("name", "error", "expected"),
    [
        ("timm:resnet5", UnknownNameError, "timm architecture"),
        ("timm:resnet50", EncoderError, "names an architecture and no weights. Write one of timm:resnet50"),
        ("open_clip:ViT-S-32", EncoderError, "None are published; ask for random ones by"),
        ("open_clip:coca_ViT-B-32/laion2b_s13b_b90k?random=0", EncoderError, "is a CoCa"),
        ("timm:resnet50.a1_in2k", UnknownNameError, "timm tag"),
        ("torchvision:resnet50/V9", UnknownNameError, "IMAGENET1K"),
        ("torchvision:resnet51/V1", UnknownNameError, "torchvision architecture"),
        ("open_clip:ViT-B-32/openai", EncoderError, "ViT-B-32-quickgelu/openai"),
        ("open_clip:ViT-B-33/openai", UnknownNameError, "open_clip architecture"),
        ("checkpoint:arniqua", UnknownNameError, "checkpoint:arniqa"),
        ("checkpoint:clip-iqa-plus-prompts", EncoderError, "holds prompts"),
        ("checkpoint:arniqa?taps=layer9&random=0", EncoderError, "layer4"),
        ("checkpoint:arniqa?pool=cls&taps=layer4&random=0", EncoderError, "class token"),
        ("checkpoint:arniqa?prompts=quality-levels&random=0", EncoderError, "text tower"),
        ("checkpoint:arniqa?prompts=stored&random=0", EncoderError, "prompt features"),
        ("checkpoint:arniqa?until=layer2&taps=out&random=0", EncoderError, "never reached"),
        ("checkpoint:arniqa?until=layer2&taps=layer3&random=0", EncoderError, "did not run"),
        ("checkpoint:arniqa?until=layer*&random=0", EncoderError, "one layer"),
        ("checkpoint:clip-rn50?prompts=quality&random=0", UnknownNameError, "prompt list"),
        ("checkpoint:clip-rn50?prompts=good-bad&taps=layer4&random=0", EncoderError, "alone"),
        ("checkpoint:qualiclip?prompts=clip-iqa-plus&random=0", EncoderError, "text tower"),
        (
            "torchvision:alexnet/IMAGENET1K_V1?taps=stages&random=0",
            EncoderError,
            "stages are known.*features",
        ),
    ],
)
def test_what_does_not_fit_is_said_with_the_cure(name: str, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        make_encoder(name)


def test_without_weights_the_message_says_what_to_do(weights_home: Path, crops: NDArray[np.uint8]) -> None:
    encoder = make_encoder("checkpoint:arniqa")
    assert encoder.count_macs(224, 224) == 4_087_136_256
    for attempt in (encoder.identity, lambda: encoder.encode(crops)):
        with pytest.raises(EncoderError, match="featbank weights fetch checkpoint:arniqa"):
            attempt()


@pytest.mark.slow
def test_similarities_with_prompts_are_cosines_of_the_embedding() -> None:
    base = "open_clip:ViT-B-32-quickgelu/openai"
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    similarities = make_encoder(f"{base}?prompts=quality-levels&random=0")
    assert similarities.feature_names()[0] == "The quality of this photo is bad."
    found = similarities.encode(crops)
    assert found.shape == (2, 5)
    assert np.abs(found).max() <= 1
    assert len({round(float(value), 7) for value in found[0]}) == 5
    assert similarities.pass_identity() == make_encoder(f"{base}?random=0").pass_identity()
    assert similarities.identity() != make_encoder(f"{base}?random=0").identity()


@pytest.mark.slow
def test_position_free_pool_equals_the_published_pool_asked_everywhere() -> None:
    """CLIP-IQA lets every position ask and keeps the answer of the mean; one query must give the same."""
    from featbank.encoders.networks.families import PositionFreeAttentionPool

    torch.manual_seed(0)
    pool = PositionFreeAttentionPool(32, 4, 6)
    maps = torch.randn(2, 32, 3, 5)
    tokens = maps.flatten(2).permute(2, 0, 1)
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens])
    everywhere, _ = torch.nn.functional.multi_head_attention_forward(
        tokens,
        tokens,
        tokens,
        32,
        4,
        None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        None,
        None,
        False,
        0.0,
        pool.c_proj.weight,
        pool.c_proj.bias,
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    torch.testing.assert_close(pool(maps), everywhere[0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_learned_prompts_are_built_as_published() -> None:
    """Placeholders, class name and full stop are tokenised; the name moves between the halves of the context."""
    from featbank.encoders.networks.clip import LEARNED_CLASSES, PromptTower, build_clip, prompt_tokens
    from featbank.encoders.networks.modules import fill_randomly

    model = "RN50-quickgelu"
    clip = build_clip(model)
    fill_randomly(clip, 0)
    clip.eval()
    context = torch.randn(16, 512, generator=torch.Generator().manual_seed(0)) / 50
    expected = []
    with torch.no_grad():
        for name in ("Good photo.", "Bad photo."):
            tokens = prompt_tokens(model, [f"{'X ' * 16}{name}."])
            n_name = int(prompt_tokens(model, [name]).argmax()) - 1
            start, _, rest = clip.token_embedding(tokens)[0].split([1, 16, 60])
            row = torch.cat([start, context[:8], rest[:n_name], context[8:], rest[n_name:]])
            x = clip.ln_final(
                clip.transformer((row + clip.positional_embedding)[None], attn_mask=clip.attn_mask)
            )
            expected.append(x[0, int(tokens.argmax())] @ clip.text_projection)
        found = PromptTower(clip, context)(prompt_tokens(model, LEARNED_CLASSES))
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_prompts_are_the_published_words() -> None:
    from featbank.encoders.networks.clip import prompt_texts, prompt_tokens

    ends = [row[row.argmax() - 1] for row in prompt_tokens("RN50-quickgelu", prompt_texts("clip-iqa-plus"))]
    assert [int(token) for token in ends] == [852, 852]  # "..", one token
    words = ("bad", "poor", "fair", "good", "perfect")
    assert prompt_texts("quality-levels") == tuple(f"The quality of this photo is {word}" for word in words)


@pytest.mark.slow
def test_vision_transformers_take_other_grids() -> None:
    encoder = make_encoder("timm:vit_small_patch14_dinov2.lvd142m?random=0")
    crops = np.random.default_rng(0).integers(0, 256, (1, 112, 140, 3), dtype=np.uint8)
    assert encoder.encode(crops).shape == (1, 384)
    with pytest.raises(EncoderError, match="does not take"):
        encoder.check_size(100, 100)


@pytest.mark.slow
def test_channels_last_maps_are_pooled_over_positions() -> None:
    encoder = make_encoder(
        "torchvision:swin_t/IMAGENET1K_V1?taps=features.1,features.3,features.5,features.7&random=0"
    )
    assert encoder.spec.n_features == 96 + 192 + 384 + 768


def test_random_weights_keep_signals_in_scale(crops: NDArray[np.uint8]) -> None:
    """Rounding errors must not grow: gates behind exploding signals would turn them into errors of per cents."""
    for name in ("timm:nf_regnet_b1.ra2_in1k?random=7", "timm:ghostnetv2_160.in1k?random=7"):
        encoder = make_encoder(name)
        vectors = encoder.encode(crops)
        assert 1e-6 < np.abs(vectors).max() < 1e3
        assert relative(encoder.encode(crops[:1]), vectors[:1]) <= 1e-5
    module = make_encoder("timm:nf_regnet_b1.ra2_in1k?random=7").blueprint.build()
    modules.fill_randomly(module, 7)
    gains = [tensor for name, tensor in module.named_parameters() if name.endswith(".gain")]
    assert gains
    assert all(bool((gain == gain.reshape(-1)[0]).all()) for gain in gains)


def test_architectures_without_weights_can_be_asked_for_at_random(crops: NDArray[np.uint8]) -> None:
    encoder = make_encoder("timm:test_vit?random=0")
    assert encoder.spec.weights.startswith("RANDOM")
    assert encoder.encode(np.zeros((1, 160, 160, 3), np.uint8)).shape == (1, 64)
    with pytest.raises(EncoderError, match="names an architecture and no weights"):
        find_sources("timm:test_vit")


def test_random_networks_of_one_architecture_differ_by_name(crops: NDArray[np.uint8]) -> None:
    scene = make_encoder("checkpoint:places365-resnet18?random=7").encode(crops[:1])
    other = make_encoder("torchvision:resnet18/IMAGENET1K_V1?random=7").encode(crops[:1])
    assert scene.shape == other.shape
    assert relative(scene, other) > 0.1


def test_random_prompts_differ_from_each_other(crops: NDArray[np.uint8]) -> None:
    found = make_encoder("checkpoint:qualiclip?prompts=stored&random=7").encode(crops[:1])[0]
    assert len(np.unique(found.round(6))) == 14
