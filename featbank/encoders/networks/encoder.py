"""The one encoder class behind all network families: feed, run, read, pool.

Counting, sizes and widths come from the network on the meta device, so they need no weights; only encoding
loads them, once a process for all encoders that share a network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from featbank.encoders.engine import choose_engine
from featbank.encoders.networks import modules
from featbank.encoders.networks.catalogue import LEARNED, LEARNED_PROMPTS, PROMPTS, STORED, Blueprint
from featbank.encoders.networks.clip import EPOCHS as TEXT_EPOCHS
from featbank.encoders.networks.clip import LEARNED_CLASSES, encode_prompts
from featbank.encoders.networks.engines import Forward, export_whole, first_line, open_engine
from featbank.encoders.networks.modules import (
    DTYPES,
    OUT,
    Read,
    TapReader,
    Trial,
    expand_taps,
    load_network,
    skeleton,
    try_pass,
)
from featbank.encoders.registry import LISTING
from featbank.encoders.spec import Encoder, EncoderName, EncoderSpec
from featbank.encoders.weights import content_digest
from featbank.errors import EncoderError, EncoderSetupError, unknown_name

EPOCH: Final = 1
"""Raised with any change of the code here, in `modules` or in `reading` that moves the features."""

DEVICE_VARIABLE: Final = "FEATBANK_DEVICE"
BATCH_PIXELS: Final = 2**21
"""Crops run together while they have at most this many pixels: bounds memory whatever the view."""


class NetworkEncoder(Encoder):
    """A frozen network read at named layers.

    Parameters
    ----------
    name : EncoderName
        With its options.
    blueprint : Blueprint
        The network.

    Raises
    ------
    EncoderError
        If an option does not fit the network.
    UnknownNameError
        If the prompt list is not known.
    """

    def __init__(self, name: EncoderName, blueprint: Blueprint) -> None:
        self.name = name
        self.blueprint = blueprint
        self.until = name.options.get("until", "")
        self.prompts = name.options.get("prompts", "")
        self.precision = name.options.get("precision", "fp32")
        self.l2 = name.options.get("l2", "1" if blueprint.l2 else "0") == "1"
        bare = skeleton(blueprint)
        if self.until:
            self.until, *others = expand_taps(bare, [self.until], name.text)
            if others:
                names = ", ".join((self.until, *others))
                raise EncoderError(f"encoder {name.text!r}: until must name one layer, got {names}.")
        self.taps = expand_taps(bare, name.taps or (self.until or OUT,), name.text, blueprint.stages)
        if self.until and OUT in self.taps:
            raise EncoderError(
                f"encoder {name.text!r}: the tap {OUT!r} is never reached until {self.until!r}."
            )
        n_features = sum(self._try(*blueprint.native_size).widths)
        if self.prompts:
            n_features = self._check_prompts(bare)
        licence, weights = blueprint.source.licence, blueprint.base
        if name.seed is not None:
            licence, weights = "none (random weights)", f"RANDOM, seed {name.seed}: features mean nothing"
        title, reference = blueprint.title, blueprint.reference
        super().__init__(
            EncoderSpec(name.text, blueprint.role, title, reference, licence, weights, n_features)
        )

    @property
    def n_params(self) -> int:
        """Number of parameters that the forward pass reads."""
        return self._try(*self.blueprint.native_size).cost.n_params

    def identity(self) -> dict[str, Any]:
        """Return everything that can change the numbers.

        Raises EncoderError if nothing is known of the weights here, so that their digest cannot be
        stated.
        """
        identity = self.pass_identity() | {
            "weights": self._weights_digest(),
            "taps": list(self.taps),
            "pooling": list(self.name.pool),
            "l2": self.l2,
        }
        if self.prompts:
            texts: Any = list(PROMPTS.get(self.prompts, (self.prompts,)))
            if self.prompts == LEARNED and self.name.seed is None:
                texts = {LEARNED: content_digest(LEARNED_PROMPTS)}
            identity["prompts"] = {"texts": texts, "epoch": TEXT_EPOCHS.get(self.prompts, 1)}
        return identity

    def _weights_digest(self) -> str:
        if self.name.seed is None:
            return content_digest(self.blueprint.source)
        return f"random:{self.name.seed}:{modules.RANDOM_EPOCH}"

    def pass_identity(self) -> dict[str, Any]:
        """Return what decides the forward pass: network, weights, normalisation, how far it goes, numerics."""
        return {
            "name": self.blueprint.base,
            "weights": self.spec.weights,
            "normalisation": {"mean": list(self.blueprint.mean), "std": list(self.blueprint.std)},
            "until": self.until,
            "numerics": self.precision,
            "epoch": EPOCH,
        }

    def count_macs(self, height: int, width: int) -> int:
        """Return the multiply-accumulates for one crop; see `featbank.encoders.macs`.

        Raises EncoderError if the network does not take this size.
        """
        super().check_size(height, width)  # some releases of torch count an empty crop without a word
        return self._try(height, width).cost.macs

    def check_size(self, height: int, width: int) -> None:
        """Ask the network itself, on the meta device, whether it takes crops of this size.

        Raises EncoderError if it does not.
        """
        super().check_size(height, width)
        self._try(height, width)

    def feature_names(self) -> list[str] | None:
        """Return prompts as names of their columns, else None: a network's columns have no names."""
        return list(PROMPTS[self.prompts]) if self.prompts in PROMPTS else None

    @property
    def has_graph(self) -> bool:
        """Whether `write_graph` can write the encoder: in fp32 alone, which every engine has."""
        return self.precision == "fp32"

    def write_graph(self, height: int, width: int) -> bytes:
        """Write normalisation, network, pooling and prompts as an ONNX graph; see `Encoder.write_graph`."""
        return export_whole(_Whole(self), (height, width), self.spec.name)

    def _encode(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._encode_together([self], crops)[0]

    def _encode_together(
        self, encoders: Sequence[Encoder], crops: NDArray[np.uint8]
    ) -> list[NDArray[np.float32]]:
        """Run all crops in batches of bounded size and read every encoder's vectors."""
        own = self.pass_identity()
        networks = [e for e in encoders if isinstance(e, NetworkEncoder) and e.pass_identity() == own]
        if len(networks) < len(encoders):
            raise EncoderError(f"{self.spec.name}: encode_together needs encoders of one forward pass.")
        device = choose_device()
        reads = tuple(dict.fromkeys(read for network in networks for read in network._reads))
        forward = self._forward(reads, device, crops.shape[1:3])
        mean = torch.tensor(self.blueprint.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(self.blueprint.std, device=device).view(1, 3, 1, 1)
        n_batch = max(1, BATCH_PIXELS // (crops.shape[1] * crops.shape[2]))
        blocks: list[list[torch.Tensor]] = [[] for _ in networks]
        with torch.inference_mode():
            for start in range(0, len(crops), n_batch):
                # A copy: crops may be read-only or a view of other memory, and are never changed.
                pixels = torch.from_numpy(np.array(crops[start : start + n_batch])).to(device)
                batch = (pixels.permute(0, 3, 1, 2).float() / 255.0 - mean) / std
                pooled = dict(zip(reads, forward(batch), strict=True))
                for block, network in zip(blocks, networks, strict=True):
                    block.append(network._join(pooled, device).cpu())
        return [torch.cat(block).numpy() for block in blocks]

    @property
    def _reads(self) -> tuple[Read, ...]:
        return tuple((tap, self.name.pool) for tap in self.taps)

    def _forward(self, reads: tuple[Read, ...], device: torch.device, size: tuple[int, int]) -> Forward:
        """Return the forward pass by the chosen engine."""
        engine = choose_engine(self.precision, device.type)
        if engine != "torch":
            weights = self.blueprint, self.name.seed, self._weights_digest()
            return _by_engine(engine, self.precision, weights, reads, self.until, size)
        reader = TapReader(self._network(device), self.blueprint, reads, self.until)
        dtype = DTYPES[self.precision]
        return lambda batch: reader(batch.to(dtype, memory_format=torch.channels_last))

    def _network(self, device: torch.device) -> nn.Module:
        return load_network(
            self.blueprint, self.name.seed, self._weights_digest(), self.precision, str(device)
        )

    def _join(self, pooled: Mapping[Read, torch.Tensor], device: torch.device) -> torch.Tensor:
        """Turn pooled layers into (n, n_features) float32."""
        vectors = [pooled[read] for read in self._reads]
        if self.l2:
            vectors = [nn.functional.normalize(vector, dim=1) for vector in vectors]
        joined = torch.cat(vectors, dim=1)
        if not self.prompts:
            return joined
        features = self._prompt_features(device).to(joined.device)
        return nn.functional.normalize(joined, dim=1) @ features.T

    def _try(self, height: int, width: int) -> Trial:
        try:
            return try_pass(self.blueprint, self.taps, self.until, self.name.pool, height, width)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            if isinstance(error, EncoderError):
                raise
            native = "{} x {}".format(*self.blueprint.native_size)
            raise EncoderError(
                f"{self.name.text}: the architecture does not take crops of {height} x {width} pixels "
                f"({first_line(error)}). Its own size is {native} pixels; choose a view that ends in such crops, for "
                "example with /squash_224x224."
            ) from error

    def _check_prompts(self, bare: nn.Module) -> int:
        """Return how many prompts there are, after checking that this network can be compared with them."""
        known, wanted = {**PROMPTS, LEARNED: LEARNED_CLASSES}, ""
        if self.taps != (OUT,):
            wanted = f"the tap {OUT!r} alone"
        elif self.prompts == STORED and not hasattr(bare, "prompts_features"):
            wanted = "prompt features in the checkpoint, as 'checkpoint:qualiclip' has them"
        elif self.prompts != STORED and not self.blueprint.text_model:
            wanted = "a text tower, as open_clip encoders and 'checkpoint:clip-rn50' have it"
        elif self.prompts == LEARNED and self.blueprint.base != "checkpoint:clip-rn50":
            wanted = "the encoder 'checkpoint:clip-rn50' alone, to which the learned prompts belong"
        if wanted:
            raise EncoderError(f"encoder {self.name.text!r}: prompts={self.prompts} needs {wanted}.")
        if self.prompts == STORED:
            return int(bare.prompts_features.shape[0])
        if self.prompts not in known:
            raise unknown_name("prompt list", self.prompts, [*known, STORED], LISTING)
        return len(known[self.prompts])

    def _prompt_features(self, device: torch.device) -> torch.Tensor:
        if self.prompts == STORED:
            return nn.functional.normalize(self._network(device).prompts_features.float(), dim=1)
        return encode_prompts(self.blueprint, self.prompts, self.name.seed)


class _Whole(nn.Module):
    """An encoder as one module on the processor: uint8 crops of shape (n, height, width, 3) to vectors."""

    def __init__(self, encoder: NetworkEncoder) -> None:
        super().__init__()
        self.encoder, cpu = encoder, torch.device("cpu")
        self.reader = TapReader(encoder._network(cpu), encoder.blueprint, encoder._reads, encoder.until)
        self.mean = torch.tensor(encoder.blueprint.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(encoder.blueprint.std).view(1, 3, 1, 1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        batch = (crops.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std
        pooled = dict(zip(self.encoder._reads, self.reader(batch), strict=True))
        return self.encoder._join(pooled, batch.device)


def choose_device() -> torch.device:
    """Return the device named by ``FEATBANK_DEVICE`` (auto, cpu or cuda; auto where it is not set).

    Raises EncoderSetupError if cuda was asked for and there is none.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "auto")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EncoderSetupError(
            "device cuda was asked for, but torch sees no CUDA device. Use --device auto or cpu."
        )
    is_cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    if is_cuda:
        # The key says float32: no silent shortening of products.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if is_cuda else "cpu")


@lru_cache(maxsize=16)
def _by_engine(
    engine: str,
    precision: str,
    weights: tuple[Blueprint, int | None, str],
    reads: tuple[Read, ...],
    until: str,
    size: tuple[int, int],
) -> Forward:
    """Open the network's graph by another engine; torch's own network is only loaded to export it."""
    blueprint, _, digest = weights
    taps = [[tap, list(kinds)] for tap, kinds in reads]
    identity = {"name": blueprint.base, "weights": digest, "reads": taps, "until": until}

    def reader() -> TapReader:
        return TapReader(load_network(*weights, "fp32", "cpu"), blueprint, reads, until)

    return open_engine(engine, precision, reader, identity, size)
