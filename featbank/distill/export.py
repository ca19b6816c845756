"""Turns a trained student into the files of an encoder: graph, weights, description, model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from featbank.atomic import FolderKind, replacing_folder
from featbank.digest import digest_bytes
from featbank.distill.network import MIN_SIZE, SIZE_MULTIPLE, StudentNetwork, to_input
from featbank.encoders.macs import count_forward
from featbank.encoders.networks.engines import export_graph
from featbank.encoders.student import (
    CARD_FILE,
    DESCRIPTION_FILE,
    NETWORK_FILE,
    LayerCost,
    StudentDescription,
)
from featbank.errors import RunError

_WIDENED: Final = ("pooled_norm.", "embed.weight")
"""What grows where a network sees statistics besides its trunk."""
_MIXER: Final = "mixer."

WEIGHTS_FILE: Final = "weights.safetensors"
RECEIPT_FILE: Final = "receipt.json"


STUDENT: Final = FolderKind("student")
_MIN_HALVED: Final = 64
"""Tensors with fewer elements stay in float32: norms and biases are small and delicate."""


class _Deployed(nn.Module):
    """The student as it is used: uint8 crops with channels last in, embeddings out."""

    def __init__(self, network: StudentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.network(to_input(crops))
        return embedding


def _stored_state(network: StudentNetwork, *, half: bool) -> dict[str, torch.Tensor]:
    return {
        key: value.half().contiguous()
        if half and value.is_floating_point() and value.numel() >= _MIN_HALVED
        else value.contiguous()
        for key, value in network.state_dict().items()
    }


def load_stored(path: Path, network: StudentNetwork) -> bool:
    """Start a network from a student's kept weights, where the architectures agree.

    A network that also sees statistics starts from one that does not, and gives at first what that gives. Without a
    mixer, it starts from what the one with a mixer reads off its trunk.

    Returns
    -------
    bool
        False, and nothing changed, if the file is of another architecture.
    """
    stored = load_file(path)
    expected = network.state_dict()
    if network.mixer is None:
        stored = {name: value for name, value in stored.items() if not name.startswith(_MIXER)}
    for name, value in expected.items():
        if name.startswith(_WIDENED) and name in stored and value.ndim:
            # What the kept network does not see has no say at first; what it sees besides is left out.
            kept = stored[name][..., : value.shape[-1]].to(value.dtype)
            blank = torch.zeros_like(value) if name.startswith("embed.") else value
            stored[name] = torch.cat([kept, blank[..., kept.shape[-1] :]], -1)
    if {k: tuple(v.shape) for k, v in stored.items()} != {k: tuple(v.shape) for k, v in expected.items()}:
        return False
    network.load_state_dict({key: value.to(expected[key].dtype) for key, value in stored.items()})
    return True


def layer_costs(network: StudentNetwork) -> tuple[LayerCost, ...]:
    """Return the cost of every layer that multiplies, in order, so that any crop size can be counted without torch.

    Strides are found by running two crop sizes on the meta device and seeing how the outputs grow.
    """
    sides, found = (256, 512), []
    module = network.like().to("meta").eval()

    def note(layer: nn.Module, _: Any, out: torch.Tensor) -> None:  # noqa: ANN401
        if isinstance(layer, nn.Conv2d | nn.Linear):
            found.append((layer.weight.numel(), out.shape[-1] if out.ndim == 4 else 1))

    for layer in module.modules():
        layer.register_forward_hook(note)
    for side in sides:
        module(torch.empty(1, 3, side, side, device="meta"))
    n_layers = len(found) // 2
    return tuple(
        LayerCost(macs, 0 if small == large else sides[0] // small)
        for (macs, small), (_, large) in zip(found[:n_layers], found[n_layers:], strict=True)
    )


def _halve_weights(model: onnx.ModelProto) -> None:
    """Keep large weights as float16 in the file; the graph widens them, so that all arithmetic stays float32."""
    casts, kept = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _MIN_HALVED:
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_half"))
        casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)


def _shorten_names(model: onnx.ModelProto) -> None:
    """Give numbers to what passes between nodes, and nodes no name."""
    # Names are for people alone; those between nodes made a seventh of the file.
    graph = model.graph
    numbers = {value.name: value.name for value in (*graph.input, *graph.output)}

    def short(name: str) -> str:
        return numbers.setdefault(name, f"{len(numbers):x}") if name else ""

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for node in graph.node:
        inputs, outputs = [short(name) for name in node.input], [short(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        node.ClearField("name")
    del graph.value_info[:]


def to_onnx(network: StudentNetwork, *, half: bool) -> bytes:
    """Write the student as an ONNX graph with free batch, height and width; ``half`` keeps its weights as float16."""
    crops = torch.zeros(2, 2 * MIN_SIZE, 2 * MIN_SIZE, 3, dtype=torch.uint8)
    free_sides = {"crops": {0: "n", 1: "height", 2: "width"}, "embedding": {0: "n"}}
    data = export_graph(_Deployed(network).eval(), crops, free_sides, "embedding")
    model = onnx.load_from_string(data)
    if half:
        _halve_weights(model)
    _shorten_names(model)
    model.producer_name, model.producer_version, model.doc_string = "featbank", "", ""
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def describe_network(
    network: StudentNetwork, facts: Mapping[str, str], sha256: str = ""
) -> StudentDescription:
    """Describe a network; ``facts`` are name, title, reference, licence and view, all else follows from itself.

    Raises RunError if the layers do not add up to what torch's counter sees.
    """
    side = 2 * MIN_SIZE
    count = count_forward(network.like().to("meta").eval(), torch.empty(1, 3, side, side, device="meta"))
    description = StudentDescription(
        **facts,
        architecture=f"{network.architecture}, stem unshuffle"
        + (", statistics" if network.statistics is not None else ""),
        n_features=network.n_features,
        n_params=count.n_params,
        size_multiple=SIZE_MULTIPLE,
        min_size=MIN_SIZE,
        layers=layer_costs(network),
        sha256=sha256,
    )
    if description.count_macs(side, side) != count.macs:
        raise RunError(
            f"export: the layers add up to {description.count_macs(side, side)} multiply-accumulates, the counter "
            f"sees {count.macs}; the architecture {network.architecture!r} has layers that are not listed."
        )
    return description


def write_student(
    folder: Path, network: StudentNetwork, facts: Mapping[str, str], card: str, *, half: bool = True
) -> StudentDescription:
    """Write a student's folder; it appears whole, or not at all.

    Parameters
    ----------
    folder : Path
        Replaced if it is there.
    facts : mapping
        See `describe_network`.
    card : str
        The model card, Markdown.
    half : bool
        Keep weights as float16 in the graph.

    Returns
    -------
    StudentDescription
        As written.

    Raises
    ------
    OutputError
        If the folder cannot be written.
    """
    network = network.cpu().eval()
    data = to_onnx(network, half=half)
    description = describe_network(network, facts, digest_bytes(data))
    with replacing_folder(folder, STUDENT, "student") as scratch:
        (scratch / NETWORK_FILE).write_bytes(data)
        save_file(_stored_state(network, half=half), scratch / WEIGHTS_FILE)
        # The library writes for the owner alone; an installed package is read by all.
        (scratch / WEIGHTS_FILE).chmod((scratch / NETWORK_FILE).stat().st_mode)
        (scratch / CARD_FILE).write_text(card, encoding="utf-8")
        (scratch / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    return description
