"""Runs a network's forward pass by torch, or its exported graph by ONNX Runtime or OpenVINO.

A graph goes from normalised crops to pooled vectors and holds the weights. It is exported once for each network,
weights, taps, pooling and crop size, and kept in the weights folder under the digest of all that, together with what
torch gave for two probe crops. Whenever a process opens the graph the engine must repeat those numbers, or it is
refused: an engine that is wrong on one machine or in one release never fills a bank.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featbank.atomic import FolderKind, replacing_folder
from featbank.digest import digest_bytes, digest_json
from featbank.encoders.networks.modules import TapReader
from featbank.encoders.weights import weights_folder
from featbank.errors import EncoderSetupError

Forward = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""From normalised crops (n, 3, height, width) to one float32 (n, n_columns) for each read."""

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""The same on arrays."""

EPOCH: Final = 2
"""Raised with any change of what is exported."""
TOLERANCE: Final = {"fp32": 1e-5, "bf16": 0.1}
"""Largest deviation from torch in fp32, in parts of the largest number of a vector. A bfloat16 has 8 bits: networks
answer with deviations of 0.004 to 0.05, whatever the engine."""

OPSET: Final = 18
_GRAPH, _PROBE = "graph.onnx", "probe.npz"
_KEPT: Final = FolderKind("kept graph", lambda folder: (_GRAPH, _PROBE))
_N_PROBE: Final = 2


class _Exported(NamedTuple):
    graph: bytes
    expected: list[NDArray[np.float32]]


def open_engine(
    engine: str,
    precision: str,
    reader: Callable[[], TapReader],
    identity: dict[str, Any],
    size: tuple[int, int],
) -> Forward:
    """Return the forward pass of a network by an engine, after the probe.

    ``reader`` builds the network in fp32 on the processor and is called only if its graph is not kept yet;
    ``identity`` is what decides the numbers besides ``size`` (height, width): network, weights, layers, pooling.

    Raises EncoderSetupError if the network cannot be exported, the engine cannot run it, or it gives
    other numbers than torch.
    """
    who = f"engine {engine}: {identity['name']} at {size[0]} x {size[1]}"
    exported = _export_once(reader, digest_json({**identity, "size": list(size), "epoch": EPOCH}), size, who)
    try:
        run = _RUNNERS[engine](exported.graph, precision)
        found = run(_probe(size))
    except RuntimeError as error:  # what both libraries' own errors derive from
        raise EncoderSetupError(
            f"{who}: it cannot run the network ({first_line(error)}). Use --engine torch."
        ) from error
    deviation = max(
        float(np.abs(a - b).max() / max(float(np.abs(b).max()), np.finfo(np.float32).tiny))
        for a, b in zip(found, exported.expected, strict=True)
    )
    if not deviation <= TOLERANCE[precision]:
        raise EncoderSetupError(
            f"{who}: it must give what torch gives to {TOLERANCE[precision]:g} of the largest number ({precision}), "
            f"the probe deviates by {deviation:.1e}. Use --engine torch, or another version of {engine}."
        )
    return lambda crops: [torch.from_numpy(block) for block in run(crops.float().contiguous().numpy())]


def _probe(size: tuple[int, int]) -> NDArray[np.float32]:
    """Return two normalised crops: noise, and smooth waves with some noise."""
    height, width = size
    noise = np.random.default_rng(0).standard_normal((_N_PROBE, 3, height, width))
    y, x = np.mgrid[:height, :width]
    noise[1] = np.sin(x / 17.0 + y / 29.0) + 0.1 * noise[1]
    return noise.astype(np.float32)


def _export_once(reader: Callable[[], TapReader], digest: str, size: tuple[int, int], who: str) -> _Exported:
    """Return the kept graph, or export it and keep it."""
    folder = weights_folder() / "engines" / digest
    if known := _read_kept(folder):
        return known
    exported = _export(reader(), size, who)
    # Where it cannot be written, the graph at hand is as good.
    with contextlib.suppress(OSError), replacing_folder(folder, _KEPT, "engine") as scratch:
        (scratch / _GRAPH).write_bytes(exported.graph)
        kept: dict[str, Any] = {f"block_{k}": block for k, block in enumerate(exported.expected)}
        np.savez(scratch / _PROBE, sha256=np.array(digest_bytes(exported.graph)), **kept)
    return exported


def _read_kept(folder: Path) -> _Exported | None:
    try:
        graph = (folder / _GRAPH).read_bytes()
        with np.load(io.BytesIO((folder / _PROBE).read_bytes()), allow_pickle=False) as probe:
            if str(probe["sha256"]) != digest_bytes(graph):
                return None
            blocks = [probe[f"block_{k}"] for k in range(len(probe.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return _Exported(graph, blocks)


def _export(reader: TapReader, size: tuple[int, int], who: str) -> _Exported:
    crops = torch.from_numpy(_probe(size))
    try:
        with torch.inference_mode(), _exportable_operators():
            expected = reader.eval()(crops)
            graph = export_graph(reader, crops, {"crops": {0: "n"}})
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise EncoderSetupError(
            f"{who}: torch cannot export the network ({first_line(error)}). Use --engine torch."
        ) from error
    return _Exported(graph, [block.numpy() for block in expected])


def export_whole(encoder: nn.Module, size: tuple[int, int], who: str) -> bytes:
    """Write a module from uint8 ``crops`` (n, height, width, 3) to vectors as an ONNX graph with n free.

    Raises EncoderSetupError if torch cannot export it.
    """
    crops = torch.zeros(_N_PROBE, *size, 3, dtype=torch.uint8)
    try:
        with torch.inference_mode(), _exportable_operators():
            return export_graph(encoder.eval(), crops, {"crops": {0: "n"}}, "vectors")
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise EncoderSetupError(f"{who}: torch cannot export the network ({first_line(error)}).") from error


def export_graph(
    module: nn.Module, crops: torch.Tensor, free_sides: dict[str, dict[int, str]], *output: str
) -> bytes:
    """Write a module as an ONNX graph of the input ``crops``; ``free_sides`` are the axes of any length, by name."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, and constants of this size
        torch.onnx.export(
            module, (crops,), file, input_names=["crops"], output_names=[*output], dynamo=False,
            dynamic_axes=free_sides, opset_version=OPSET,
        )  # fmt: skip
    return file.getvalue()


@contextmanager
def _exportable_operators() -> Iterator[None]:
    """Let networks use what ONNX can say, and engines run well: see the replacements inside."""
    before, interpolate = torch.backends.mha.get_fastpath_enabled(), nn.functional.interpolate
    layer_norm = nn.functional.layer_norm

    def resize(values: torch.Tensor, *sizes: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401 - torch's own
        resized: torch.Tensor = interpolate(values, *sizes, **options)
        # What does not come from the crops, of which there are several, is the same for any: position embeddings,
        # whose antialiased resizing has no form in ONNX.
        return torch.from_numpy(resized.detach().numpy().copy()) if len(values) == 1 else resized

    def normalise(values: torch.Tensor, shape: Sequence[int], *rest: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401
        # OpenVINO normalises (n, tokens, channels) in one step, (n, height, width, channels) in several.
        if values.ndim <= 3 or len(shape) != 1:
            return layer_norm(values, shape, *rest, **options)
        sides = [int(side) for side in values.shape[1:]]
        return layer_norm(values.flatten(1, -2), shape, *rest, **options).reshape(-1, *sides)

    # Plain products for attention.
    torch.backends.mha.set_fastpath_enabled(False)
    nn.functional.interpolate, nn.functional.layer_norm = resize, normalise
    try:
        yield
    finally:
        nn.functional.interpolate, nn.functional.layer_norm = interpolate, layer_norm
        torch.backends.mha.set_fastpath_enabled(before)


def first_line(error: Exception) -> str:
    """Return the beginning of an error's text, or its name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _onnxruntime(graph: bytes, precision: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda crops: list(session.run(None, {"crops": crops}))


def _openvino(graph: bytes, precision: str) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Several processes would be bound to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    # Copies: the arrays belong to the engine, which fills them again.
    return lambda crops: [np.array(block, dtype=np.float32) for block in compiled(crops).values()]


_RUNNERS: Final[dict[str, Callable[[bytes, str], Run]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
