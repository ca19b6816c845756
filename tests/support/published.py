"""Checkpoints in the layouts of their publishers, written from the structure of the code that saved them.

Nothing here reads the package's own key maps. Every tensor is one number spread over its shape, so that a file
of a hundred megabytes takes a few kilobytes and every tensor can be told from the others.
"""

from __future__ import annotations

import argparse
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import timm
import torch
import torchvision
from torch import nn

from featbank.encoders.networks.clip import build_clip

State = dict[str, torch.Tensor]


def value_of(key: str) -> float:
    """A number of its own for every key, small enough for half precision to hold exactly."""
    return (zlib.crc32(key.encode()) % 1021 + 1) / 1024


def spread(key: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    value = value_of(key) if dtype.is_floating_point else 1
    return torch.tensor(value, dtype=dtype, device="cpu").expand(shape)


def _state(module: nn.Module, prefix: str, keep: Callable[[str], bool] = lambda key: True) -> State:
    return {
        prefix + key: spread(prefix + key, tuple(tensor.shape), tensor.dtype)
        for key, tensor in module.state_dict().items()
        if keep(key)
    }


def _linear(name: str, n_in: int, n_out: int, bias: bool = True) -> State:
    shapes = {f"{name}.weight": (n_out, n_in)} | ({f"{name}.bias": (n_out,)} if bias else {})
    return {key: spread(key, shape, torch.float32) for key, shape in shapes.items()}


def _norm(name: str, n: int) -> State:
    keys = {
        k: spread(f"{name}.{k}", (n,), torch.float32)
        for k in ("weight", "bias", "running_mean", "running_var")
    }
    return {f"{name}.{k}": tensor for k, tensor in keys.items()} | {
        f"{name}.num_batches_tracked": torch.tensor(1)
    }


def _model(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, **options)


def _no_fc(key: str) -> bool:
    return not key.startswith("fc.")


def _no_head(key: str) -> bool:
    return not key.startswith("head.")


def arniqa() -> State:
    trunk = nn.Sequential(*list(_model("resnet50").children())[:-2])
    return _state(trunk, "model.") | _linear("projector.0", 2048, 2048) | _linear("projector.2", 2048, 128)


def contrique() -> State:
    trunk = nn.Sequential(*list(_model("resnet50").children())[:-2])
    return (
        _state(trunk, "encoder.")
        | _linear("projector.0", 2048, 2048, bias=False)
        | _norm("projector.1", 2048)
        | _linear("projector.3", 2048, 128, bias=False)
        | _norm("projector.4", 128)
    )


def reiqa() -> dict[str, object]:
    state = _state(_model("resnet50"), "module.encoder.", _no_fc)
    state |= _linear("module.head.0", 2048, 2048) | _linear("module.head.2", 2048, 128)
    return {"opt": argparse.Namespace(lr=0.6), "model": state, "optimizer": {"state": {}}, "epoch": 25}


def places(name: str) -> dict[str, object]:
    def keep(key: str) -> bool:  # torch 0.2 did not count batches
        return not key.endswith("num_batches_tracked")

    state = _state(_model(name, num_classes=365), "module.", keep)
    if name == "densenet161":
        for word in ("norm1", "norm2", "conv1", "conv2"):
            dotted = f"{word[:-1]}.{word[-1]}"
            state = {
                key.replace(f".{word}.", f".{dotted}.") if "denselayer" in key else key: value
                for key, value in state.items()
            }
    return {"epoch": 90, "arch": name, "state_dict": state, "best_prec1": 54.7}


def _detection(build: Callable[..., nn.Module]) -> State:
    def keep(key: str) -> bool:  # frozen normalisation has no counter
        return not key.endswith("num_batches_tracked")

    with torch.device("meta"):
        return _state(build(weights=None, weights_backbone=None), "", keep)


def uiqa() -> State:
    return (
        _state(_model("swin_t"), "feature_extraction.", _no_head)
        | _linear("quality.0", 768, 128)
        | _linear("quality.1", 128, 1)
    )


def uiqa_fitted(first: str) -> State:
    """The winner's file: three branches that differ by prefix, one of them first, and the readout of all of them."""
    branches = sorted(("aesthetics", "distortion", "saliency"), key=lambda name: name != first)
    trunks = [_state(_model("swin_t"), f"{name}_feature_extraction.", _no_head) for name in branches]
    return (
        trunks[0] | trunks[1] | trunks[2] | _linear("quality.0", 3 * 768, 128) | _linear("quality.1", 128, 1)
    )


def hyperiqa() -> State:
    state = _state(_model("resnet50"), "res.", _no_fc)
    for level, (n_in, n_mid, n_cells) in enumerate([(256, 16, 64), (512, 32, 16), (1024, 64, 4)], start=1):
        key = f"res.lda{level}_pool.0.weight"
        state[key] = spread(key, (n_mid, n_in, 1, 1), torch.float32)
        state |= _linear(f"res.lda{level}_fc", n_mid * n_cells, 16)
    state |= _linear("res.lda4_fc", 2048, 176)
    for i, (n_in, n_out) in zip((0, 2, 4), [(2048, 1024), (1024, 512), (512, 112)], strict=True):
        state[f"conv1.{i}.weight"] = torch.zeros(1).expand(n_out, n_in, 1, 1)
        state[f"conv1.{i}.bias"] = torch.zeros(1).expand(n_out)
    for name in (
        "fc1w_conv",
        "fc1b_fc",
        "fc2w_conv",
        "fc2b_fc",
        "fc3w_conv",
        "fc3b_fc",
        "fc4w_conv",
        "fc4b_fc",
        "fc5w_fc",
        "fc5b_fc",
    ):
        state |= _linear(name, 112, 16)
    assert len(state) == 355
    return state


def _clip(name: str, prefix: str = "") -> State:
    with torch.device("meta"):
        return _state(build_clip(name), prefix)


def qualiclip() -> State:
    return _clip("RN50-quickgelu", "clip_model.") | {
        "prompts_features": spread("prompts_features", (14, 1024), torch.float32)
    }


def mobilenet_iqa() -> State:
    with torch.device("meta"):
        trunk = timm.create_model("mobilenetv3_large_100", features_only=True)
    heads = _linear("LDA1.0", 16, 512) | _linear("MALs.0.q", 256, 256) | _linear("fusion_mal.q", 256, 256)
    return _state(trunk, "local_cnn.") | heads | _linear("cnn.0", 9, 9) | _linear("fc_score.0", 128, 1)


def _lite(number: int, repeats: tuple[int, ...]) -> State:
    """Flat block numbers, the names of the port to PyTorch; shapes of timm's network in its order."""
    with torch.device("meta"):
        shapes = timm.create_model(f"tf_efficientnet_lite{number}").state_dict()
    names = ["_conv_stem.weight", *_bn("_bn0")]
    for block in range(sum(repeats)):
        parts = ["_depthwise_conv.weight", *_bn("_bn1"), "_project_conv.weight", *_bn("_bn2")]
        if block:
            parts = ["_expand_conv.weight", *_bn("_bn0"), *parts]
        names += [f"_blocks.{block}.{part}" for part in parts]
    names += ["_conv_head.weight", *_bn("_bn1"), "_fc.weight", "_fc.bias"]
    return {
        name: spread(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in zip(names, shapes.values(), strict=True)
    }


def _bn(name: str) -> list[str]:
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{name}.{kind}" for kind in kinds]


LAYOUTS: dict[str, Callable[[], object]] = {
    "arniqa": arniqa,
    "contrique": contrique,
    "reiqa-quality": reiqa,
    "reiqa-content": reiqa,
    "places365-resnet50": lambda: places("resnet50"),
    "places365-resnet18": lambda: places("resnet18"),
    "places365-densenet161": lambda: places("densenet161"),
    "keypointrcnn-body": lambda: _detection(torchvision.models.detection.keypointrcnn_resnet50_fpn),
    "fasterrcnn-mobilenet-body": lambda: _detection(
        torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    ),
    "uiqa-ava-swin-t": uiqa,
    "uiqa-aesthetics": lambda: uiqa_fitted("aesthetics"),
    "uiqa-distortion": lambda: uiqa_fitted("distortion"),
    "uiqa-saliency": lambda: uiqa_fitted("saliency"),
    "hyperiqa": hyperiqa,
    "qualiclip": qualiclip,
    "liqe": lambda: _clip("ViT-B-32-quickgelu"),
    "clip-rn50": lambda: _clip("RN50-quickgelu"),
    "mobilenet-iqa": mobilenet_iqa,
    "efficientnet-lite0": lambda: _lite(0, (1, 2, 2, 3, 3, 4, 1)),
    "efficientnet-lite1": lambda: _lite(1, (1, 3, 3, 4, 4, 5, 1)),
    "efficientnet-lite2": lambda: _lite(2, (1, 3, 3, 4, 4, 5, 1)),
}
"""Writers by the name after ``checkpoint:``."""


def tensors_of(published: object) -> State:
    """The dictionary of tensors inside a published object, to be changed in place."""
    assert isinstance(published, dict)
    for key in ("model", "state_dict"):
        if isinstance(published.get(key), dict):
            return published[key]
    return published


class _Python2Pickler(pickle._Pickler):  # the pure Python one, whose writing of text can be replaced
    """Writes text as Python 2 did: as bytes without an encoding."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_text(self, text: str) -> None:
        data = text.encode("ascii")
        assert len(data) < 256
        self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)

    dispatch[str] = save_text


class _Python2Pickle:
    """Stands in for the pickle module where torch.save wants one."""

    Pickler = _Python2Pickler

    @staticmethod
    def dump(value: object, file: object, protocol: int) -> None:
        _Python2Pickler(file, protocol).dump(value)


def write(published: object, path: Path, *, python2: bool = False) -> Path:
    """Save as the publisher did; ``python2`` is the format before torch 1.6, from an interpreter of that time."""
    if python2:
        torch.save(published, path, pickle_module=_Python2Pickle, _use_new_zipfile_serialization=False)
    else:
        torch.save(published, path)
    return path
