"""One ONNX file that holds a whole model: the graphs of its encoders, the aggregation of crops, the readout.

What comes before, decoding and the view, is not in the file: its inputs are the crops of the views, as
`featbank.views` takes them from a photo, and its metadata say which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from featbank import __version__
from featbank.atomic import check_file, replacing
from featbank.digest import seed_from
from featbank.encoders.student import StudentEncoder, read_network
from featbank.errors import EncoderError, ImageError, RunError, first_few
from featbank.feature import UHD_HEIGHT_PX, UHD_WIDTH_PX, Feature
from featbank.images import Photo, Source, read_photo
from featbank.runs.score import Scorer
from featbank.views import View
from regressors.ensemble import BandEnsemble

PRODUCER: Final = "featbank"
OPSET: Final = 18
TOLERANCE: Final = 1e-4
"""Largest deviation from the scorer, in parts of the MOS scale."""
_SIZES: Final = ((UHD_HEIGHT_PX, UHD_WIDTH_PX), (700, 1000), (1000, 700))
"""Photos on which a view's crops must have one size, for networks that are written for one."""
_BLOCK: Final = 512
_HEAD_BYTES: Final = 256
_MAX_BYTES: Final = 2**31 - 1
"""What the format's library can write as one file."""


def is_exported(path: Path) -> bool:
    """Tell whether a file is one that `export_onnx` wrote."""
    with path.open("rb") as file:
        return b"\x12\x08" + PRODUCER.encode() in file.read(_HEAD_BYTES)


def export_onnx(scorer: Scorer, target: Path, photos: Iterable[Source] = ()) -> dict[str, Any]:
    """Write a model as one ONNX file, after comparing it with the scorer.

    Parameters
    ----------
    scorer : Scorer
    target : Path
        Replaced only if it is such a file.
    photos : iterable of str, Path, bytes, uint8 array or PIL.Image.Image
        Compared besides two made-up ones; refused if they cannot be read.

    Returns
    -------
    dict
        The contract that stands in the file's metadata under ``featbank``, with ``file``, ``megabytes``,
        ``compared`` (photos) and ``max_deviation`` (MOS points).

    Raises
    ------
    RunError
        If a band has no graph, the readout has none, or the file would give other scores than the scorer.
    OutputError
        If ``target`` cannot be written, or is somebody else's file.
    """
    check_file(target, "export --onnx", is_exported)
    without = [
        f"{entry['name']} ({feature.label})"
        for entry, feature in zip(scorer.manifest["bands"], scorer.features, strict=True)
        if not (isinstance(feature.encoder, StudentEncoder) or feature.encoder.has_graph)
    ]
    if without:
        raise RunError(
            f"export: {len(without)} of {len(scorer.features)} bands have no graph, as networks and students have: "
            f"{first_few(without)}. Fit a recipe of these to export it."
        )
    pictures = [_made_up(seed) for seed in range(2)] + list(photos)
    decoded = [_decode(picture) for picture in pictures]
    model, contract = _build(scorer)
    if model.ByteSize() > _MAX_BYTES:
        raise RunError(
            f"export: the file would have {model.ByteSize() / 1e9:.1f} GB, and one ONNX file holds 2.1 GB. Fit a "
            "recipe of fewer or smaller networks."
        )
    data = model.SerializeToString()
    expected = scorer.score(pictures)
    if failed := [reason for reason in expected["reason"] if reason]:
        raise RunError(f"export: a photo to compare on has no score: {failed[0]}.")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    predicted = np.array([run_exported(session, scorer.features, photo) for photo in decoded])
    deviation = float(np.abs(predicted - expected["predicted"].to_numpy()).max())
    low, high = scorer.manifest["mos_range"]
    if not deviation <= TOLERANCE * (high - low):
        raise RunError(
            f"export: the file must give the scorer's MOS to {TOLERANCE:g} of the scale {low:g} to {high:g}, but "
            f"deviates by {deviation:.2g}. Please report it with the recipe; no file was written."
        )
    with replacing(target, "export --onnx") as path:
        path.write_bytes(data)
    found = {"file": str(target), "megabytes": round(len(data) / 1e6, 3)}
    return {**contract, **found, "compared": len(pictures), "max_deviation": deviation}


def run_exported(session: onnxruntime.InferenceSession, features: Sequence[Feature], photo: Photo) -> float:
    """Score one photo by an exported file, as any other program would: take the views, run the graph."""
    crops: dict[str, NDArray[np.uint8]] = {}
    for name, (view, scale) in _inputs(features).items():
        crops[name] = view.scales(photo.pixels, seed_from(photo.digest, view.name))[scale]
    return float(session.run(["score"], crops)[0][0])


def _decode(picture: Source) -> Photo:
    try:
        return read_photo(picture)
    except ImageError as error:
        raise RunError(f"export: a photo to compare on cannot be read: {error}") from error


def _made_up(seed: int) -> NDArray[np.uint8]:
    """Return waves with noise, shape (600, 800, 3)."""
    y, x = np.mgrid[:600, :800]
    waves = [110 + 70 * np.sin(x / (30 + 9 * k) + seed) * np.cos(y / (50 + 7 * k)) for k in range(3)]
    noise = np.random.default_rng(seed).normal(0, 4 + 16 * seed, (600, 800, 3))
    clipped: NDArray[np.uint8] = np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    return clipped


def _inputs(features: Sequence[Feature]) -> dict[str, tuple[View, int]]:
    """Name the inputs: one for each scale of each view."""
    views = {feature.view.name: feature.view for feature in features}
    return {
        f"crops_{place}_{scale}": (view, scale)
        for place, view in enumerate(views.values())
        for scale in range(len(view.geometry(*_SIZES[0])))
    }


@dataclass
class _Graph:
    """A graph that grows by nodes; names are numbers."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - as the operator has them
        """Add a node and return the name of what it gives."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:  # noqa: ANN401 - anything numpy takes
        """Add numbers, floats as float64."""
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(values), name)
        return name

    def insert(self, data: bytes, encoder: str, crops: str) -> str:
        """Add an encoder's graph on an input; weights that its graph for another input has brought are shared."""
        model, place = onnx.load_from_string(data), f"e{len(self.nodes)}/"
        own = {tensor.name: tensor for tensor in model.graph.initializer}
        has_others = any(self._differs(f"{encoder}/{name}", tensor) for name, tensor in own.items())
        kept, given = place if has_others else f"{encoder}/", {model.graph.input[0].name: crops, "": ""}

        def new(name: str) -> str:
            return given.get(name, f"{kept if name in own else place}{name}")

        _rename(model.graph, new)
        self.nodes += model.graph.node
        self.constants |= {tensor.name: tensor for tensor in model.graph.initializer}
        return str(model.graph.output[0].name)

    def _differs(self, name: str, tensor: onnx.TensorProto) -> bool:
        """Tell whether a name stands for other numbers already."""
        known = self.constants.get(name)
        return known is not None and not (
            known.dims == tensor.dims
            and known.data_type == tensor.data_type
            and numpy_helper.to_array(known).tobytes() == numpy_helper.to_array(tensor).tobytes()
        )


def _rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
    for node in graph.node:
        inputs, outputs = [new(name) for name in node.input], [new(name) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        node.ClearField("name")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, new)


def _build(scorer: Scorer) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Join encoders, aggregation and readout; return the model and its contract."""
    graph, inputs = _Graph([], {}), _inputs(scorer.features)
    vectors: dict[tuple[str, str], str] = {}
    bands = [_add_band(graph, feature, inputs, vectors) for feature in scorer.features]
    table = graph.add("Concat", *bands, axis=1) if len(bands) > 1 else bands[0]
    score = graph.add("Reshape", _add_readout(graph, table, scorer.ensemble), graph.constant(np.array([1])))
    graph.nodes.append(helper.make_node("Cast", [score], ["score"], to=TensorProto.DOUBLE))
    manifest = scorer.manifest
    contract = {
        "recipe": manifest["recipe"],
        "dataset": manifest["dataset"],
        "simulation": manifest["simulation"],
        "mos_range": manifest["mos_range"],
        "interval": manifest.get("interval"),
        "bands": [
            {"name": entry["name"], "feature": feature.label, "digest": entry["digest"]}
            for entry, feature in zip(manifest["bands"], scorer.features, strict=True)
        ],
        "inputs": [
            {
                "name": name,
                "view": view.name,
                "scale": scale,
                "crops_of_3840x2160": list(view.geometry(*_SIZES[0])[scale]),
                "layout": "uint8, (n_crops, height, width, 3), upright sRGB in 0 to 255",
                "normalisation": "in the graph",
            }
            for name, (view, scale) in inputs.items()
        ],
        "output": "score: float64 of shape (1,), predicted MOS of the one photo whose crops are given, not clipped",
        "featbank": __version__,
    }
    sizes = {name: {view.geometry(*size)[scale] for size in _SIZES} for name, (view, scale) in inputs.items()}
    values = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [*_sides(name, shapes), 3])
        for name, shapes in sizes.items()
    ]
    output = helper.make_tensor_value_info("score", TensorProto.DOUBLE, [1])
    body = helper.make_graph(graph.nodes, PRODUCER, values, [output], list(graph.constants.values()))
    model = helper.make_model(
        body,
        producer_name=PRODUCER,
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    model.ir_version = 9  # of the opset's time, for runtimes of today
    model.doc_string = (
        "Predicted MOS of one photo. Inputs are the crops of featbank's views: "
        "featbank.views.parse_view(view).scales(featbank.images.read_photo(path).pixels, seed=0)[scale]."
    )
    helper.set_model_props(model, {PRODUCER: json.dumps(contract)})
    return model, contract


def _sides(name: str, shapes: set[tuple[int, int, int]]) -> list[int | str]:
    """Return the sides of an input: a number where all photos agree, else a name."""
    words = ("n", "height", "width")
    return [
        sides.pop()
        if len(sides := {shape[axis] for shape in shapes}) == 1 and axis
        else f"{name}_{words[axis]}"
        for axis in range(3)
    ]


def _add_band(
    graph: _Graph,
    feature: Feature,
    inputs: dict[str, tuple[View, int]],
    vectors: dict[tuple[str, str], str],
) -> str:
    """Add one feature, float64 of shape (1, n_features)."""
    encoder = feature.encoder
    blocks = []
    for name, (view, scale) in inputs.items():
        if view.name != feature.view.name:
            continue
        key = encoder.spec.name, name
        if key not in vectors:
            sizes = {view.geometry(*size)[scale][1:] for size in _SIZES}
            data = _graph_of(feature, sizes)
            vectors[key] = graph.add(
                "Cast", graph.insert(data, encoder.spec.name, name), to=TensorProto.DOUBLE
            )
        blocks.append(vectors[key])
    crops = graph.add("Concat", *blocks, axis=1) if len(blocks) > 1 else blocks[0]
    if feature.aggregate == "concat":
        vector = graph.add("Reshape", crops, graph.constant(np.array([1, -1])))
    else:
        axis = graph.constant(np.array([0]))
        vector = mean = graph.add("ReduceMean", crops, axis)
        if feature.aggregate == "mean+std":
            centred = graph.add("Sub", crops, mean)
            variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axis)
            vector = graph.add("Concat", mean, graph.add("Sqrt", variance), axis=1)
    # Features are float32 wherever they are kept.
    rounded = graph.add("Cast", vector, to=TensorProto.FLOAT)
    return graph.add("Cast", rounded, to=TensorProto.DOUBLE)


def _graph_of(feature: Feature, sizes: set[tuple[int, int]]) -> bytes:
    """Return the encoder's graph, from uint8 crops to vectors."""
    encoder = feature.encoder
    if isinstance(encoder, StudentEncoder):
        return read_network(encoder.description)
    if len(sizes) > 1:
        raise RunError(
            f"export: {feature.label}: the network is written for crops of one size, but the view gives "
            f"{' and '.join('{} x {}'.format(*size) for size in sorted(sizes))}. Use a view that ends in crops."
        )
    try:
        return encoder.write_graph(*sizes.pop())
    except EncoderError as error:
        raise RunError(f"export: {error}") from error


def _add_readout(graph: _Graph, table: str, ensemble: BandEnsemble) -> str:
    """Add what turns features into MOS, all of it in float64."""
    if ensemble.is_additive_:
        # A constant and one number for each column: the ensemble is asked for them, whatever its members are.
        centre = np.asarray(ensemble.column_means_, dtype=np.float64)
        at_centre = _predict(ensemble, centre[None])[0]
        slopes = np.empty(len(centre))
        for start in range(0, len(centre), _BLOCK):
            columns = np.arange(start, min(start + _BLOCK, len(centre)))
            slopes[columns] = (
                _predict(ensemble, centre + np.eye(len(columns), len(centre), start)) - at_centre
            )
        centred = graph.add("Sub", table, graph.constant(centre[None]))
        product = graph.add("MatMul", centred, graph.constant(slopes[:, None]))
        return graph.add("Add", product, graph.constant(at_centre))
    if ensemble.n_crops > 1:
        raise RunError(
            'export: a kernel readout over rows = "crops" has no graph. Fit a recipe with a linear one.'
        )
    total = graph.constant(np.array([float(ensemble.intercept_)]))
    for k in np.flatnonzero(ensemble.weights_):
        member = _add_member(graph, table, ensemble.members_[k], ensemble)
        total = graph.add("Add", total, graph.add("Mul", member, graph.constant(float(ensemble.weights_[k]))))
    return total


def _add_member(graph: _Graph, table: str, member: Any, ensemble: BandEnsemble) -> str:  # noqa: ANN401 - a pipeline
    """Add one kernel regressor: columns, offset and scale of each, distances to the support vectors."""
    regress = member.named_steps["regress"]
    if getattr(regress, "kernel", "") != "rbf" or not hasattr(regress, "total_variance_"):
        raise RunError(
            f"export: the readout {type(regress).__name__} has no graph; ridges, linear and RBF support-vector "
            "regressors have one."
        )
    n_columns = len(ensemble.feature_names_in_)
    probe = pd.DataFrame(np.arange(n_columns, dtype=np.float64)[None], columns=ensemble.feature_names_in_)
    places = np.asarray(member.named_steps["select"].transform(probe)).ravel().astype(np.int64)
    rows = pd.DataFrame(np.zeros((2, n_columns)), columns=ensemble.feature_names_in_)
    rows.iloc[1] = 1.0
    # Each column is scaled for itself: two rows tell how.
    zero, one = np.asarray(member[:-1].transform(rows), dtype=np.float64)
    width = np.sqrt(regress.total_variance_)
    columns = graph.add("Gather", table, graph.constant(places), axis=1)
    scaled = graph.add("Mul", columns, graph.constant((one - zero)[None] / width))
    point = graph.add("Add", scaled, graph.constant((zero - regress.x_mean_)[None] / width))
    vectors = graph.add(
        "Cast", graph.constant(regress.support_vectors_.astype(np.float32)), to=TensorProto.DOUBLE
    )
    apart = graph.add("Sub", vectors, point)
    distance = graph.add(
        "ReduceSum", graph.add("Mul", apart, apart), graph.constant(np.array([1])), keepdims=0
    )
    kernel = graph.add("Exp", graph.add("Mul", distance, graph.constant(-float(regress.gamma))))
    unit = graph.add("MatMul", kernel, graph.constant(regress.dual_coef_.reshape(-1, 1) * regress.y_scale_))
    return graph.add(
        "Add", unit, graph.constant(float(regress.y_mean_ + regress.y_scale_ * regress.intercept_))
    )


def _predict(ensemble: BandEnsemble, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    predicted: NDArray[np.float64] = ensemble.predict(pd.DataFrame(rows, columns=ensemble.feature_names_in_))
    return predicted
