"""Which inference engine runs networks: chosen by an environment variable, so that worker processes inherit it.

torch is the reference on every platform. ONNX Runtime and OpenVINO run the same graph on processors, faster; their
numbers are compared with torch's before they are used, see `featbank.encoders.networks.engines`. The engine is
logged and is no part of a feature's key: the class of numerics (fp32, bf16) is.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Final

from featbank.errors import EncoderSetupError

ENGINE_VARIABLE: Final = "FEATBANK_ENGINE"
_NEEDS: Final = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
}
"""What each imports: torch writes graphs by ``onnx``."""
ENGINES: Final = tuple(_NEEDS)
_EXTRAS: Final = {"torch": "encoders", "onnxruntime": "onnx", "openvino": "openvino"}


def choose_engine(precision: str = "fp32", device: str = "cpu") -> str:
    """Return the engine named by ``FEATBANK_ENGINE``, torch where it is not set.

    It must offer the class of numerics ``precision`` (fp32, bf16) and run on ``device`` (cpu, cuda).

    Raises EncoderSetupError if the name is unknown, the library is not installed, or the engine cannot
    do what is asked.
    """
    engine = os.environ.get(ENGINE_VARIABLE) or "torch"
    check_engine(engine)
    if engine == "torch":
        return engine
    if device != "cpu":
        raise EncoderSetupError(
            f"engine {engine}: it runs on processors here, the device is {device}. Use --engine torch, or --device cpu."
        )
    if precision == "bf16" and engine != "openvino":
        raise EncoderSetupError(
            f"engine {engine}: it offers fp32, the encoder asks for bf16. Use --engine openvino or torch."
        )
    return engine


def check_engine(engine: str) -> None:
    """Refuse an engine that is unknown or not installed.

    Raises EncoderSetupError: With the command that installs it.
    """
    if engine not in ENGINES:
        raise EncoderSetupError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}.")
    if absent := _absent(engine):
        raise EncoderSetupError(
            f"engine {engine}: {' and '.join(absent)} must be installed. "
            f"Run `pip install 'featbank[{_EXTRAS[engine]}]'`, or leave --engine out."
        )


def installed_engines() -> list[str]:
    """Return the engines that can run here, the reference first."""
    return [engine for engine in ENGINES if not _absent(engine)]


def _absent(engine: str) -> list[str]:
    return [name for name in _NEEDS[engine] if importlib.util.find_spec(name) is None]
