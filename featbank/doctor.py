"""What this machine and this installation offer, and what would make them faster."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featbank.remote import Place, RemotePath

_NETWORK_LIBRARIES = ("torch", "torchvision", "timm", "open_clip_torch")
_COMPUTING = ("numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "pillow", "simplejpeg", "numba")
LIBRARIES = (*_COMPUTING, "onnxruntime", "openvino", *_NETWORK_LIBRARIES)
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE")
# OpenBLAS kernels for processors of AVX-512, by the names that it reports.
_WIDE_KERNELS = frozenset({"SkylakeX", "Cooperlake", "Sapphirerapids"})
_GEMM_SIZE = 1000
_TRIAL_NAME = ".featbank-doctor"
_EXTRAS = {"openvino": "openvino", "onnxruntime": "onnx"}
_VECTOR_MACHINES = ("x86_64", "AMD64")


def examine(bank: Place) -> dict[str, Any]:
    """Look at the machine, the libraries, BLAS, torch, the weights folder and the bank."""
    from threadpoolctl import threadpool_info

    from featbank import __version__
    from featbank.encoders.weights import WEIGHTS_VARIABLE, weights_folder

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    weights = weights_folder()
    files = [path for path in weights.rglob("*") if path.is_file()] if weights.is_dir() else []
    torch = _torch()
    document: dict[str, Any] = {
        "featbank": __version__,
        "machine": _machine(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "blas": [
            {
                "used_by": _owner(pool["filepath"]),
                "name": pool["internal_api"],
                "version": pool["version"],
                "kernels": pool.get("architecture"),
                "threads": pool["num_threads"],
            }
            for pool in pools
        ],
        "gemm_gflops": _gemm_rate(),
        "environment": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "torch": torch,
        "engines": _engines(torch),
        "weights": {
            "folder": str(weights),
            "named_by": WEIGHTS_VARIABLE if os.environ.get(WEIGHTS_VARIABLE) else "the default",
            "exists": weights.is_dir(),
            "files": len(files),
            "gigabytes": sum(path.stat().st_size for path in files) / 1e9,
        },
        "bank": {"folder": str(bank), "exists": bank.is_dir(), "writable": is_writable(bank)},
    }
    document["problems"], document["advice"] = advise(document)
    return document


def advise(document: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Judge what `examine` found."""
    problems, advice = [], []
    if not document["bank"]["writable"]:
        problems.append(
            f"the bank folder {document['bank']['folder']} cannot be written; give another one by --bank"
        )
    machine, cores = document["machine"], document["machine"]["usable_cores"]
    for blas in document["blas"]:
        if machine["avx512"] and blas["name"] == "openblas" and blas["kernels"] not in _WIDE_KERNELS:
            advice.append(
                f"{blas['used_by']}'s OpenBLAS uses {blas['kernels']} kernels on a processor with AVX-512; with "
                "OPENBLAS_CORETYPE=SkylakeX set before the start its products of matrices may be twice as "
                "fast (results then move in their last bits)"
            )
    if not document["blas"]:
        advice.append(
            "no BLAS was recognised behind numpy; its wheels bring OpenBLAS, a source build may lack it"
        )
    threads = [blas["threads"] for blas in document["blas"]]
    if threads and max(threads) > cores:
        advice.append(
            f"BLAS may start {max(threads)} threads on {cores} usable cores; set OPENBLAS_NUM_THREADS={cores} or less"
        )
    if cores > 1 and threads and max(threads) == 1:
        advice.append(
            f"BLAS is held to one thread: `featbank fit` fills the {cores} cores by --workers, other work will not"
        )
    if document["libraries"]["numba"] is None:
        advice.append(
            "support-vector regression is several times as fast with numba: pip install 'featbank[numba]'"
        )
    missing = [name for name in _NETWORK_LIBRARIES if document["libraries"][name] is None]
    if missing:
        advice.append(
            f"network encoders lack {', '.join(missing)}: pip install 'featbank[encoders]'; the recipe starter "
            "needs none of them"
        )
    elif not document["weights"]["files"]:
        advice.append(
            "no weights of networks are here yet: `featbank weights list` says where each comes from"
        )
    return problems, advice


def render(document: Mapping[str, Any]) -> str:
    """Write what `examine` found for people."""
    machine, torch, weights, bank = (document[name] for name in ("machine", "torch", "weights", "bank"))
    memory = f", {machine['memory_gb']:.0f} GB of memory" if machine["memory_gb"] else ""
    lines = [
        f"featbank {document['featbank']}, Python {machine['python']}, {machine['system']}",
        f"processor: {machine['processor']}, {machine['usable_cores']} usable cores{memory}",
        "libraries: "
        + ", ".join(f"{name} {version or 'absent'}" for name, version in document["libraries"].items()),
        *(
            f"BLAS of {blas['used_by']}: {blas['name']} {blas['version']}, {blas['kernels']} kernels, "
            f"{blas['threads']} threads"
            for blas in document["blas"]
        ),
        f"matrix product: {document['gemm_gflops']:.0f} billion operations a second on one thread",
        f"torch: {torch['summary']}",
        f"engines: {document['engines']['summary']}",
        f"weights: {weights['folder']} ({weights['named_by']}), {weights['files']} files, "
        f"{weights['gigabytes']:.2f} GB",
        f"bank: {bank['folder']}, {'there' if bank['exists'] else 'not there yet'}, "
        f"{'writable' if bank['writable'] else 'NOT writable'}",
        *(f"problem: {text}" for text in document["problems"]),
        *(f"advice: {text}" for text in document["advice"]),
    ]
    if not document["problems"] and not document["advice"]:
        lines.append("nothing to improve")
    return "\n".join(lines)


def is_writable(folder: Place) -> bool:
    """Say whether files can be made in a folder, or in the one above it where it would be made."""
    if isinstance(folder, RemotePath):
        trial = folder / _TRIAL_NAME
        try:
            trial.write_bytes(b"")
            trial.unlink()
        except OSError:
            return False
        return True
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        # Permissions lie on network folders and under root; only a file tells.
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False


def _machine() -> dict[str, Any]:
    from joblib import cpu_count

    processor, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        rows = [line.partition(":") for line in info.read_text().splitlines()]
        names = {name.strip(): value.strip() for name, _, value in reversed(rows)}
        processor, flags = names.get("model name", processor), names.get("flags", "")
    memory = None
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {
        "processor": processor,
        "usable_cores": cpu_count(),
        "memory_gb": memory,
        "avx512": "avx512f" in flags.split(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def _owner(library: str) -> str:
    """Name the package whose wheel brings a library; the library itself where none does."""
    path = Path(library)
    return (
        path.parent.name.partition(".")[0] if path.parent.name.endswith((".libs", ".dylibs")) else path.name
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gemm_rate() -> float:
    """Billions of operations a second of a matrix product on one thread."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix = np.random.default_rng(0).normal(size=(_GEMM_SIZE, _GEMM_SIZE))
    best = float("inf")
    with threadpool_limits(limits=1, user_api="blas"):
        for _ in range(3):
            started = time.perf_counter()
            matrix @ matrix
            best = min(best, time.perf_counter() - started)
    return 2 * _GEMM_SIZE**3 / best / 1e9


def _torch() -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        return {"present": False, "cuda": [], "summary": "absent"}
    import torch

    devices = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    summary = (
        f"{torch.__version__}, {', '.join(devices) or 'no CUDA device'}, {torch.get_num_threads()} threads"
    )
    return {"present": True, "cuda": devices, "threads": torch.get_num_threads(), "summary": summary}


def _engines(torch: dict[str, Any]) -> dict[str, Any]:
    """Say which inference engines are here and which suits the machine."""
    from featbank.encoders.engine import installed_engines

    installed = installed_engines()
    if torch["cuda"] or "torch" not in installed:
        advised = "torch"
    else:
        # Measured on x86 with AVX-512: OpenVINO and ONNX Runtime 1.2 to 2.2 times as fast as torch, and OpenVINO
        # alone has bfloat16.
        advised = "openvino" if platform.machine() in _VECTOR_MACHINES else "onnxruntime"
    if "torch" not in installed:
        summary = "no network runs here; students run by onnxruntime"
    elif advised == "torch":
        summary = f"{', '.join(installed)}; torch suits this machine: networks run on the GPU"
    elif advised in installed:
        summary = f"{', '.join(installed)}; --engine {advised} suits this machine"
    else:
        cure = f"pip install 'featbank[{_EXTRAS[advised]}]'"
        summary = f"{', '.join(installed)}; {advised} would suit this machine: {cure}"
    return {"installed": installed, "advised": advised, "summary": summary}
