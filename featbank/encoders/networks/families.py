"""The families timm, torchvision, open_clip and checkpoint: from a name to a network, its weights, its encoder."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import open_clip
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights
from torchvision.ops.misc import FrozenBatchNorm2d

from featbank.encoders.macs import build_on_meta
from featbank.encoders.networks.catalogue import (
    LEARNED_PROMPTS,
    NORMALISATIONS,
    OPEN_CLIP_LICENCES,
    PACKAGES,
    SHEETS,
    STAGES_OF,
    Blueprint,
    checkpoint_source,
)
from featbank.encoders.networks.clip import N_CONTEXT, build_clip, build_image_tower
from featbank.encoders.networks.encoder import NetworkEncoder
from featbank.encoders.networks.loading import State, map_checkpoint, match_state, read_published, take_in
from featbank.encoders.spec import EncoderName, parse_encoder_name
from featbank.encoders.weights import WeightsSource, find_sources
from featbank.errors import EncoderError, first_few, unknown_name

_create = partial(timm.create_model, pretrained=False)

_NO_LICENCES: Final = (None, "", "unknown", "other")
_OPEN_LICENCES: Final = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})


def _read_dictionary(name: str, path: Path) -> dict[str, torch.Tensor]:
    """Read a published file that holds a dictionary of tensors, perhaps inside another one."""
    published = read_published(path)
    if isinstance(published, dict):
        inner = (published.get(wrapper) for wrapper in ("state_dict", "model", "state_dict_ema"))
        return next((value for value in inner if isinstance(value, dict)), published)
    raise EncoderError(f"weights: {name} must be a dictionary of tensors, got {type(published).__name__}.")


def _check_known(kind: str, name: str, known: list[str], listing: str) -> None:
    if name not in known:
        raise unknown_name(kind, name, known, listing)


@cache
def _config(model: str) -> Any:  # noqa: ANN401 - timm.models.PretrainedCfg
    architecture, dot, _ = model.partition(".")
    _check_known("timm architecture", architecture, timm.list_models(), "timm.list_models()")
    tags = f"{architecture}.*"
    if dot:
        _check_known("timm tag", model, list(timm.list_pretrained(tags)), f"timm.list_pretrained({tags!r})")
    return timm.get_pretrained_cfg(model)


def check_weights_named(name: EncoderName) -> None:
    """Refuse the name of an architecture without weights, unless random ones are asked for.

    Raises UnknownNameError if the family does not know the model; EncoderError if weights are wanted and none named.
    """
    sign = {"timm": ".", "open_clip": "/"}.get(name.family)
    if sign is None or sign in name.model or name.seed is not None:
        return
    FAMILIES[name.family].source(name.model)
    if name.family == "timm":
        known = list(timm.list_pretrained(f"{name.model}.*"))
    else:
        known = [f"{name.model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(name.model)]
    cure = (
        f"Write one of {first_few([f'{name.family}:{model}' for model in known])}, or"
        if known
        else "None are published;"
    )
    raise EncoderError(
        f"encoder {name.text!r} names an architecture and no weights. {cure} ask for random ones by "
        f"'{name.base}?random=0'."
    )


def timm_source(model: str) -> WeightsSource:
    """Return where the weights of a tag are published.

    Raises UnknownNameError if timm knows no such architecture or tag.
    """
    config = _config(model)
    licence = config.license if config.license not in _NO_LICENCES else "unstated"
    terms = "open" if licence in _OPEN_LICENCES else "unstated" if licence == "unstated" else "restricted"
    hub = config.hf_hub_id
    if hub == "timm/":
        hub += model
    if hub:
        page = f"https://huggingface.co/{hub}"
        url = f"{page}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    else:
        page = url = config.url
    return WeightsSource(f"timm:{model}", url, page, licence, terms)


def timm_blueprint(model: str) -> Blueprint:
    """Describe the network of a tag; builds it on the meta device to see its layout.

    Raises UnknownNameError if timm knows no such architecture or tag.
    """
    config = _config(model)
    architecture = model.partition(".")[0]
    whole = build_on_meta(partial(_create, architecture, num_classes=config.num_classes))
    # Position embeddings are resampled to the crop's grid; at the native size nothing changes.
    options = {"dynamic_img_size": True} if getattr(whole, "dynamic_img_size", None) is False else {}
    return Blueprint(
        title=f"timm {architecture}" + (f", {config.notes[0]}" if config.notes else ""),
        reference=config.paper_name or "timm",
        source=timm_source(model),
        build=partial(_create, architecture, num_classes=0, **options),
        mean=tuple(config.mean),
        std=tuple(config.std),
        native_size=(config.input_size[1], config.input_size[2]),
        channels_last=getattr(whole, "output_fmt", "NCHW") == "NHWC",
        n_prefix_tokens=int(getattr(whole, "num_prefix_tokens", 0)),
        n_params_published=sum(parameter.numel() for parameter in whole.parameters()),
    )


def convert_timm(model: str, path: Path) -> State:
    """Turn a published timm file into the state of the headless network.

    The file must hold exactly the tensors of the network with its head; where a publisher's own layout differs,
    timm's conversion for that architecture is applied first and the result must be exact.
    """
    config = _config(model)
    state: Mapping[str, torch.Tensor] = _read_dictionary(f"timm:{model}", path)
    architecture = model.partition(".")[0]
    whole = build_on_meta(partial(_create, architecture, num_classes=config.num_classes))
    headless = build_on_meta(partial(_create, architecture, num_classes=0))
    if set(state) != set(whole.state_dict()):
        entrypoint = timm.models.model_entrypoint(architecture)
        convert = getattr(sys.modules[entrypoint.__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            state = convert(dict(state), whole)
    return _take_off_head(f"timm:{model}", state, whole, headless)


def _take_off_head(
    name: str, state: Mapping[str, torch.Tensor], whole: nn.Module, headless: nn.Module
) -> State:
    """Demand exactly the tensors of the whole network, and keep those of the headless one."""
    state = match_state(name, state, whole.state_dict())
    expected = headless.state_dict()
    return match_state(name, {key: state[key] for key in expected if key in state}, expected)


_HEADS = ("fc", "head", "heads", "classifier")


def _weights(model: str) -> tuple[str, Any]:
    architecture, _, tag = model.partition("/")
    known = torchvision.models.list_models(module=torchvision.models)
    _check_known("torchvision architecture", architecture, known, "torchvision.models.list_models()")
    members = {weights.name: weights for weights in get_model_weights(architecture)}
    names = [f"{architecture}/{name}" for name in members]
    _check_known("torchvision weights", model, names, "torchvision.models")
    return architecture, members[tag]


def torchvision_source(model: str) -> WeightsSource:
    """Return where the weights of ``ARCHITECTURE/WEIGHTS`` are published; the file's name begins its digest.

    Raises UnknownNameError if torchvision knows no such architecture or weights.
    """
    _, weights = _weights(model)
    found = re.search(r"-([0-9a-f]{8})\.pth$", weights.url)
    is_swag = "swag" in weights.url.lower() or "SWAG" in weights.name
    licence, terms = ("CC-BY-NC-4.0", "restricted") if is_swag else ("BSD-3-Clause", "open")
    return WeightsSource(
        f"torchvision:{model}",
        weights.url,
        weights.meta.get("recipe", weights.url),
        licence,
        terms,
        found.group(1) if found else "",
        package=PACKAGES.get(f"torchvision:{model}"),
    )


def torchvision_blueprint(model: str) -> Blueprint:
    """Describe the network of ``ARCHITECTURE/WEIGHTS``.

    Raises UnknownNameError if torchvision knows no such architecture or weights; EncoderError if the
    architecture has no head that could be taken off.
    """
    architecture, weights = _weights(model)
    source = torchvision_source(model)
    contract = weights.transforms()
    side = int(contract.crop_size[0])
    build_on_meta(partial(build_headless, architecture))  # refuses an architecture without a known head
    return Blueprint(
        title=f"torchvision {architecture}, {weights.name}",
        reference="torchvision model zoo",
        source=source,
        build=partial(build_headless, architecture),
        mean=tuple(contract.mean),
        std=tuple(contract.std),
        native_size=(side, side),
        channels_last=architecture.startswith("swin"),
        n_prefix_tokens=1 if architecture.startswith("vit") else 0,
        n_params_published=int(weights.meta["num_params"]),
        stages=STAGES_OF.get(architecture, ()),
    )


def build_headless(architecture: str, **options: object) -> nn.Module:
    """Build a classification network whose forward ends before the last linear layer.

    Raises EncoderError if the architecture keeps its head in another place than the known ones.
    """
    network = torchvision.models.get_model(architecture, weights=None, **options)
    name = next((head for head in _HEADS if isinstance(getattr(network, head, None), nn.Module)), None)
    if name is None:
        raise EncoderError(
            f"torchvision:{architecture}: the head must be one of the attributes {', '.join(_HEADS)}; this "
            "architecture has none of them. Choose another one, or bring your own encoder (family `file:`)."
        )
    head = getattr(network, name)
    if isinstance(head, nn.Sequential) and isinstance(head[0], nn.LayerNorm):
        # ConvNeXt normalises and flattens inside its classifier: only the linear layer goes.
        head[-1] = nn.Identity()
    else:
        setattr(network, name, nn.Identity())
    return network


def convert_torchvision(model: str, path: Path) -> State:
    """Turn a published torchvision file into the state of the headless network.

    Raises EncoderError if its tensors are not exactly those of the whole network.
    """
    architecture, _ = _weights(model)
    published = _read_dictionary(f"torchvision:{model}", path)
    whole = build_on_meta(partial(torchvision.models.get_model, architecture, weights=None))
    headless = build_on_meta(partial(build_headless, architecture))
    # Files older than torch 0.4 do not count batches; the counter plays no part in evaluation.
    counters = {
        key: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for key, tensor in whole.state_dict().items()
        if key.endswith("num_batches_tracked")
    }
    return _take_off_head(f"torchvision:{model}", counters | published, whole, headless)


def _split(model: str) -> tuple[str, str, dict[str, Any]]:
    architecture, _, tag = model.partition("/")
    known = open_clip.list_models()
    _check_known("open_clip architecture", architecture, known, "open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    names = [f"{architecture}/{item}" for item in tags]
    if "multimodal_cfg" in open_clip.get_model_config(architecture):
        raise EncoderError(
            f"open_clip:{model} is a CoCa, whose image tower gives the tokens of a caption's decoder beside its "
            "embedding; there is no way to read it here. Take a CLIP of its size, such as "
            "'open_clip:ViT-B-32/laion2b_s34b_b79k' or 'open_clip:ViT-L-14/laion2b_s32b_b82k'."
        )
    if not tag:
        return architecture, "", {}
    _check_known("open_clip tag", model, names, "open_clip.list_pretrained()")
    config = open_clip.get_pretrained_cfg(architecture, tag)
    wants = bool(config.get("quick_gelu", False))
    has = bool(open_clip.get_model_config(architecture).get("quick_gelu", False))
    if wants != has:
        other = f"{architecture}-quickgelu" if wants else architecture.removesuffix("-quickgelu")
        raise EncoderError(
            f"open_clip:{model}: these weights were trained with {'the quick' if wants else 'the exact'} GELU, the "
            f"architecture uses the other one and would give wrong features. Write 'open_clip:{other}/{tag}'."
        )
    return architecture, tag, config


def open_clip_source(model: str) -> WeightsSource:
    """Return where the weights of ``ARCHITECTURE/TAG`` are published.

    Raises UnknownNameError if open_clip knows no such architecture or tag; EncoderError if the tag was
    trained with the other GELU, or its publisher offers no file that can be read.
    """
    _, tag, config = _split(model)
    licence, terms = OPEN_CLIP_LICENCES.get(tag, ("unstated", "unstated"))
    hub = str(config.get("hf_hub") or "")
    if hub:
        organisation, name, *rest = hub.split("/")
        file = next((part for part in rest if part), "open_clip_model.safetensors")
        page = f"https://huggingface.co/{organisation}/{name}"
        return WeightsSource(f"open_clip:{model}", f"{page}/resolve/main/{file}", page, licence, terms)
    url = str(config.get("url") or "")
    return WeightsSource(f"open_clip:{model}", url, url, licence, terms)


def open_clip_blueprint(model: str) -> Blueprint:
    """Describe the model of ``ARCHITECTURE/TAG``.

    Raises UnknownNameError, EncoderError as `open_clip_source`.
    """
    architecture, tag, config = _split(model)
    source = open_clip_source(model)
    whole = build_on_meta(partial(build_clip, architecture))
    size = whole.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return Blueprint(
        title=f"CLIP {architecture}" + (f", {tag}" if tag else ""),
        reference="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021; "
        "Ilharco et al., OpenCLIP, 2021",
        source=source,
        build=partial(build_image_tower, architecture),
        mean=tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
        native_size=(int(height), int(width)),
        n_prefix_tokens=1 if hasattr(whole.visual, "class_embedding") else 0,
        text_model=architecture,
        n_params_published=sum(parameter.numel() for parameter in whole.parameters()),
    )


def convert_open_clip(model: str, path: Path) -> State:
    """Turn a published open_clip file into the state of both towers; an EncoderError if its tensors do not fit."""
    name, architecture = f"open_clip:{model}", model.partition("/")[0]
    published = _read_dictionary(name, path)
    state = {str(key).removeprefix("module."): value for key, value in published.items()}
    expected = build_on_meta(partial(build_clip, architecture)).state_dict()
    for key, tensor in expected.items():
        # Published as one number or as a vector of one.
        if key in {"logit_scale", "logit_bias"} & set(state) and state[key].numel() == tensor.numel() == 1:
            state[key] = state[key].reshape(tensor.shape)
    return match_state(name, state, expected)


N_STORED_PROMPTS: Final = 14
"""QualiCLIP's seven pairs of opposite prompts."""

_LOCAL_STAGES: Final = ((256, 16, 64), (512, 32, 16), (1024, 64, 4))


class PositionFreeAttentionPool(nn.Module):
    """CLIP ResNet's attention pool without positional embedding: one vector from a map of any size.

    The mean of the map asks, the mean and all positions answer. Keys and weights are CLIP's own. CLIP-IQA
    computes an answer for every position and keeps this one; the others never influence it.

    References
    ----------
    Wang, Chan, Loy, Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023, section 3.1.
    """

    def __init__(self, n_channels: int, n_heads: int, n_features: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(n_channels, n_channels)
        self.q_proj = nn.Linear(n_channels, n_channels)
        self.v_proj = nn.Linear(n_channels, n_channels)
        self.c_proj = nn.Linear(n_channels, n_features)
        self.n_heads = n_heads

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Pool maps of shape (n, channels, height, width) to (n, n_features)."""
        positions = maps.flatten(2).transpose(1, 2)
        mean = positions.mean(dim=1, keepdim=True)
        tokens = torch.cat([mean, positions], dim=1)
        pooled = nn.functional.scaled_dot_product_attention(
            self._split(self.q_proj(mean)), self._split(self.k_proj(tokens)), self._split(self.v_proj(tokens))
        )
        return self.c_proj(pooled.transpose(1, 2).flatten(2)[:, 0])

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n, n_tokens, channels) to (n, n_heads, n_tokens, channels / n_heads)."""
        n, n_tokens, n_channels = tokens.shape
        return tokens.reshape(n, n_tokens, self.n_heads, n_channels // self.n_heads).transpose(1, 2)


class PooledTrunk(nn.Module):
    """A trunk that gives a list of maps; the last one is averaged to a vector."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Average the last map."""
        return self.trunk(crops)[-1].mean(dim=(2, 3))


class DistortionAwareResNet(nn.Module):
    """HyperIQA's image network: a ResNet-50 whose four stages are each squeezed to a few numbers.

    Grids of averages over 7 x 7 positions and linear layers give 16 numbers for each of the first three stages and
    176 for the last, which makes crops of 224 x 224 pixels the only size. The 224 numbers together are what its
    hyper network reads. Layers of the trunk can be tapped on crops of any size with ``until``.

    References
    ----------
    Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, CVPR 2020,
    section 3.2 (local distortion aware module).
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = build_headless("resnet50")
        # Of each stage: channels after its 1 x 1 convolution and cells of its grid; the last has no convolution.
        for level, (n_channels, n_squeezed, n_cells) in enumerate(_LOCAL_STAGES, start=1):
            squeeze = nn.Conv2d(n_channels, n_squeezed, 1, bias=False)
            setattr(self, f"lda{level}_pool", nn.Sequential(squeeze, nn.AvgPool2d(7)))
            setattr(self, f"lda{level}_fc", nn.Linear(n_squeezed * n_cells, 16))
        self.lda4_pool = nn.AvgPool2d(7)
        self.lda4_fc = nn.Linear(2048, 176)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Give (n, 224) for crops (n, 3, 224, 224)."""
        maps = self.trunk.maxpool(self.trunk.relu(self.trunk.bn1(self.trunk.conv1(crops))))
        # The whole trunk comes first, so that a pass which ends with it meets none of the fixed-size layers.
        stages = []
        for level in range(1, 5):
            maps = getattr(self.trunk, f"layer{level}")(maps)
            stages.append(maps)
        cells = [getattr(self, f"lda{level}_pool")(stage).flatten(1) for level, stage in enumerate(stages, 1)]
        parts = [getattr(self, f"lda{level}_fc")(cell) for level, cell in enumerate(cells, 1)]
        return torch.cat(parts, dim=1)


def _clip_rn50(*, with_prompts: bool = False) -> nn.Module:
    tower = build_image_tower("RN50-quickgelu")
    tower.attnpool = PositionFreeAttentionPool(2048, 32, 1024)
    if with_prompts:
        tower.register_buffer("prompts_features", torch.ones(N_STORED_PROMPTS, 1024))
    return tower


ARCHITECTURES: Final[dict[str, Callable[[], nn.Module]]] = {
    **{name: partial(build_headless, name) for name in ("resnet18", "resnet50", "densenet161", "swin_t")},
    "resnet50-distortion-aware": DistortionAwareResNet,
    # The detection models were trained and are published with a normalisation that adds no epsilon.
    "resnet50-frozen-norm": partial(
        build_headless, "resnet50", norm_layer=partial(FrozenBatchNorm2d, eps=0.0)
    ),
    "mobilenet-v3-frozen-norm": partial(build_headless, "mobilenet_v3_large", norm_layer=FrozenBatchNorm2d),
    "clip-rn50": partial(_clip_rn50, with_prompts=True),
    "clip-rn50-with-text": _clip_rn50,
    "clip-vit-b32": partial(build_image_tower, "ViT-B-32-quickgelu"),
    **{
        f"efficientnet-lite{n}": partial(_create, f"tf_efficientnet_lite{n}", num_classes=0) for n in range(3)
    },
    "mobilenetv3-trunk": lambda: PooledTrunk(timm.create_model("mobilenetv3_large_100", features_only=True)),
}
"""Builders by the name that a sheet uses."""


def checkpoint_blueprint(name: str) -> Blueprint:
    """Describe the network of a published checkpoint.

    Raises UnknownNameError if there is no such checkpoint; EncoderError if the file is no network of
    its own.
    """
    source = checkpoint_source(name)
    if source == LEARNED_PROMPTS:
        raise EncoderError(
            f"{source.name} holds prompts, not a network; write 'checkpoint:clip-rn50?prompts=clip-iqa-plus'."
        )
    sheet = SHEETS[name]
    mean, std = NORMALISATIONS[sheet.normalisation]
    return Blueprint(
        title=sheet.title,
        reference=sheet.reference,
        source=source,
        build=ARCHITECTURES[sheet.architecture],
        mean=mean,
        std=std,
        native_size=(sheet.side_px, sheet.side_px),
        channels_last=sheet.architecture == "swin_t",
        n_prefix_tokens=1 if sheet.architecture == "clip-vit-b32" else 0,
        l2=sheet.l2,
        text_model=sheet.text_model,
        n_params_published=sheet.n_params_published,
        stages=STAGES_OF.get(sheet.architecture, ()),
    )


def convert_checkpoint(name: str, path: Path) -> State:
    """Turn a published checkpoint into the state that is kept.

    Raises EncoderError if the file is refused or its tensors do not fit exactly.
    """
    if checkpoint_source(name) == LEARNED_PROMPTS:
        return _convert_context(path)
    sheet = SHEETS[name]
    published = read_published(path)
    return map_checkpoint(sheet, published, stored_tensors(checkpoint_blueprint(name)))


def stored_tensors(blueprint: Blueprint) -> State:
    """Return the tensors of what is kept of a network, on the meta device: with a text tower, both towers."""
    build = partial(build_clip, blueprint.text_model) if blueprint.text_model else blueprint.build
    return build_on_meta(build).state_dict()


def _convert_context(path: Path) -> State:
    published = read_published(path)
    (tensor,) = published.values() if isinstance(published, dict) and len(published) == 1 else (published,)
    if not isinstance(tensor, torch.Tensor):
        raise EncoderError(
            f"weights: {LEARNED_PROMPTS.name} must be one tensor, got {type(published).__name__}. "
            "This is another file than the published one."
        )
    expected = {"ctx": torch.empty(N_CONTEXT, 512, device="meta")}
    return match_state(LEARNED_PROMPTS.name, {"ctx": tensor}, expected)


class Family(NamedTuple):
    """What a network family can do with a model's name: where its weights are, its network, its file's tensors."""

    source: Callable[[str], WeightsSource]
    blueprint: Callable[[str], Blueprint]
    convert: Callable[[str, Path], State]


FAMILIES: Final = {
    "timm": Family(timm_source, timm_blueprint, convert_timm),
    "torchvision": Family(torchvision_source, torchvision_blueprint, convert_torchvision),
    "open_clip": Family(open_clip_source, open_clip_blueprint, convert_open_clip),
    "checkpoint": Family(checkpoint_source, checkpoint_blueprint, convert_checkpoint),
}


@lru_cache(maxsize=256)
def blueprint_of(base: str) -> Blueprint:
    """Return the blueprint of ``family:model``.

    Raises UnknownNameError, EncoderError if the family does not know the model, or cannot read it as an
    encoder.
    """
    name = parse_encoder_name(base)
    return FAMILIES[name.family].blueprint(name.model)


@lru_cache(maxsize=256)
def build_network_encoder(text: str) -> NetworkEncoder:
    """Build the encoder called ``text``, one for the whole process; loads no weights.

    Raises UnknownNameError, EncoderError if the name breaks the grammar, is not known, or an option
    does not fit.
    """
    name = parse_encoder_name(text)
    check_weights_named(name)
    return NetworkEncoder(name, blueprint_of(name.base))


def take_in_weights(base: str, path: Path, accepted: str = "") -> dict[str, object]:
    """Check and convert a published file and put it into the weights folder; returns the record.

    ``base`` is an encoder's name, whose options are ignored, ``accepted`` the licence that was accepted by name.

    Raises EncoderError if the licence was not accepted or the file does not fit.
    """
    name = parse_encoder_name(base)
    sources = find_sources(name.base)
    if not sources:
        raise EncoderError(f"weights: encoder {base!r} needs no weights file.")
    return take_in(path, sources[0], partial(FAMILIES[name.family].convert, name.model), accepted)
