"""Makes ``featbank:whole``, the student that sees the whole photo, out of a network that a package carries.

It is EfficientNet-Lite0 as published (Apache-2.0), cut inside its sixth stage: what follows brought a ridge on rated
photographs next to nothing and holds two thirds of the weights, which are not trained further. The graph is written
layer by layer, as the paddings of this family depend on the size of the photo; weights of pointwise convolutions are
kept in eight bits, with a scale for each channel, the others in sixteen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from featbank.atomic import replacing_folder
from featbank.digest import digest_bytes
from featbank.distill.export import STUDENT
from featbank.encoders.networks.engines import OPSET
from featbank.encoders.networks.families import blueprint_of
from featbank.encoders.networks.modules import load_network
from featbank.encoders.student import (
    CARD_FILE,
    DESCRIPTION_FILE,
    NETWORK_FILE,
    LayerCost,
    StudentDescription,
)

SOURCE: Final = "checkpoint:efficientnet-lite0"
STAGES: Final = 5
"""Whole stages; of the next one, `LAST_BLOCKS` blocks."""
LAST_BLOCKS: Final = 2


class _Graph:
    """An ONNX graph in the making, with the cost of its layers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.layers: list[LayerCost] = []
        self.n_params = 0

    def add(self, kind: str, *inputs: str, **options: Any) -> str:  # noqa: ANN401 - attributes of ONNX
        """Add a node of one output; returns its name."""
        name = f"{len(self.nodes):x}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **options))
        return name

    def keep(self, values: ArrayLike) -> str:
        """Keep a constant; returns its name."""
        name = f"c{len(self.tensors):x}"
        self.tensors.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def convolve(self, x: str, conv: nn.Module, norm: nn.Module, stride: int) -> str:
        """Add a convolution and its normalisation, folded into one; ``stride`` is that of its outputs in pixels."""
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = (conv.weight * scale[:, None, None, None]).detach().numpy()
        bias = (norm.bias - norm.running_mean * scale).detach().numpy()
        kept = self._weight(weight, in_eight_bits=conv.kernel_size == (1, 1))
        self.layers.append(LayerCost(weight.size, stride))
        self.n_params += weight.size + bias.size
        y = self.add(
            "Conv", x, kept, self.keep(bias.astype(np.float32)), auto_pad="SAME_UPPER",
            strides=list(conv.stride), group=conv.groups, kernel_shape=list(conv.kernel_size),
        )  # fmt: skip
        if isinstance(norm.act, nn.ReLU6):
            y = self.add("Clip", y, self.keep(np.float32(0)), self.keep(np.float32(6)))
        return y

    def _weight(self, weight: NDArray[np.float32], *, in_eight_bits: bool) -> str:
        """Keep a weight in eight bits with a scale for each channel, or in sixteen; the graph widens it."""
        if not in_eight_bits:
            return self.add("Cast", self.keep(weight.astype(np.float16)), to=TensorProto.FLOAT)
        step = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12).astype(np.float32) / 127.0
        levels = np.rint(weight / step[:, None, None, None]).astype(np.int8)
        return self.add("DequantizeLinear", self.keep(levels), self.keep(step), axis=0)

    def moments(self, x: str) -> list[str]:
        """Add mean and deviation of every channel."""
        mean = self.add("GlobalAveragePool", x)
        apart = self.add("Sub", x, mean)
        square = self.add("GlobalAveragePool", self.add("Mul", apart, apart))
        return [mean, self.add("Sqrt", square)]


def _layers(block: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return a block's convolutions with their normalisations, in order; the first stage's has no expansion."""
    if hasattr(block, "conv_pwl"):
        return [(block.conv_pw, block.bn1), (block.conv_dw, block.bn2), (block.conv_pwl, block.bn3)]
    return [(block.conv_dw, block.bn1), (block.conv_pw, block.bn2)]


def whole_graph(network: nn.Module) -> tuple[bytes, tuple[LayerCost, ...], int, int]:
    """Write timm's ``tf_efficientnet_lite0`` as the graph of a student.

    Parameters
    ----------
    network : Module
        With its weights, in evaluation mode.

    Returns
    -------
    graph : bytes
        ONNX; ``crops`` uint8 (n, height, width, 3) to ``embedding`` float32 (n, n_features): mean and deviation of
        every channel at the end of five stages and of the last block.
    layers, n_params, n_features
        See `StudentDescription`.
    """
    graph, stride, found, n_features = _Graph(), 2, [], 0
    x = graph.add("Transpose", graph.add("Cast", "crops", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    # The publisher's normalisation: 0.5 is subtracted, and divided by, on the scale of 0 to 1.
    half = graph.keep(np.float32(127.5))
    x = graph.add("Div", graph.add("Sub", x, half), half)
    x = graph.convolve(x, network.conv_stem, network.bn1, stride)
    stages = [list(stage) for stage in list(network.blocks)[: STAGES + 1]]
    stages[-1] = stages[-1][:LAST_BLOCKS]
    for stage in stages:
        for block in stage:
            before = x
            for conv, norm in _layers(block):
                stride *= conv.stride[0]
                x = graph.convolve(x, conv, norm, stride)
            if block.has_skip:
                x = graph.add("Add", x, before)
        found += graph.moments(x)
        n_features += 2 * norm.num_features
    joined = graph.add("Concat", *found, axis=1)
    graph.nodes.append(helper.make_node("Flatten", [joined], ["embedding"]))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, "whole",
            [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", "height", "width", 3])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", n_features])],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)], producer_name="featbank", ir_version=9,
    )  # fmt: skip
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString()), tuple(graph.layers), graph.n_params, n_features


def write_whole(folder: Path, view: str, card: str) -> StudentDescription:
    """Write the student's folder from the kept weights of `SOURCE`, for photos through ``view``.

    Raises WeightsError if the weights are not here; OutputError if the folder cannot be written.
    """
    network = load_network(blueprint_of(SOURCE), None, "", "fp32", "cpu")
    data, layers, n_params, n_features = whole_graph(network)
    description = StudentDescription(
        name=folder.name,
        title="EfficientNet-Lite0 up to its sixth stage, on the whole photo",
        reference="Liu 2020 (EfficientNet-Lite), after Tan and Le 2019; weights as published, cut and rounded",
        licence="Apache-2.0",
        architecture=f"tf_efficientnet_lite0 up to blocks.{STAGES}.{LAST_BLOCKS - 1}, weights in eight bits",
        view=view,
        n_features=n_features,
        n_params=n_params,
        size_multiple=1,
        min_size=32,
        layers=layers,
        sha256=digest_bytes(data),
    )
    with replacing_folder(folder, STUDENT, "student") as scratch:
        (scratch / NETWORK_FILE).write_bytes(data)
        (scratch / CARD_FILE).write_text(card, encoding="utf-8")
        (scratch / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    return description
