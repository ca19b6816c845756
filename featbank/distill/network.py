"""The student: a MobileNet trunk of timm, read at every stage, ending in one embedding.

Two things differ from an ImageNet classifier, because quality lies in the finest detail. The stem keeps the
pixel grid: blocks of 2 x 2 pixels become channels (Shi et al. 2016, pixel shuffle reversed) instead of being
skipped by a strided filter, at the cost of the strided one; the eight-pixel grid of JPEG survives. And a
locally normalised luma (MSCN; Mittal, Moorthy and Bovik 2012) is a fourth input channel, so that weak noise
and weak blur are of the same size as strong edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import timm
import torch
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn import functional

from featbank.distill.picture_statistics import PictureStatistics
from featbank.errors import EncoderError

STEMS: Final = ("unshuffle", "strided")
MIN_SIZE: Final = 64
"""Shortest side of a crop in pixels: leaves at least 2 x 2 positions at the deepest stage."""

_LUMA: Final = (0.299, 0.587, 0.114)
_WINDOW: Final = 7
_STD_FLOOR: Final = 1e-6
_MOST_DEVIATIONS: Final = 4.0
_CONTRAST_FLOOR: Final = 1.0 / 255.0


class StudentNetwork(nn.Module):
    """Crops to embeddings.

    Parameters
    ----------
    architecture : str
        timm's name of a MobileNet V3 or V4, for example ``mobilenetv3_small_075``.
    stem : {"unshuffle", "strided"}
        How pixels reach the first stage, see above; ``strided`` is timm's own.
    n_embedding : int
        Length of the embedding.
    statistics : bool
        Whether the embedding also sees `PictureStatistics`.
    n_mixed, n_read : int
        Units of a layer that mixes statistics and what is read off the trunk, and what is read off the mixture, see
        `Mixer`. The embedding is then statistics, mixture and readings side by side. 0 reads it off trunk and
        statistics at once, linearly. Asks for ``statistics``.

    Raises
    ------
    EncoderError
        If timm does not know the architecture, or it is not a MobileNet.
    """

    def __init__(
        self,
        architecture: str,
        stem: str = "unshuffle",
        n_embedding: int = 128,
        statistics: bool = False,
        n_mixed: int = 0,
        n_read: int = 0,
    ) -> None:
        super().__init__()
        if stem not in STEMS:
            raise EncoderError(f"student: stem must be one of {', '.join(STEMS)}, got {stem!r}.")
        if not timm.models.is_model(architecture) or not architecture.startswith("mobilenet"):
            known = ", ".join(timm.list_models("mobilenetv[34]*small*"))
            raise EncoderError(
                f"student: the architecture must be a MobileNet V3 or V4 of timm, got {architecture!r}. "
                f"For example one of {known}."
            )
        trunk = timm.create_model(architecture, pretrained=False, num_classes=0)
        if not isinstance(trunk, MobileNetV3):
            raise EncoderError(
                f"student: {architecture!r} is not built like a MobileNet V3 or V4; choose another."
            )
        self.architecture, self.stem_kind, self.n_embedding = architecture, stem, n_embedding
        self.statistics = PictureStatistics() if statistics else None
        n_stem = trunk.conv_stem.out_channels
        if stem == "unshuffle":
            self.stem: nn.Module = nn.Conv2d(16, n_stem, 3, padding=1, bias=False)
        else:
            self.stem = nn.Conv2d(4, n_stem, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(self.stem.weight, mode="fan_out", nonlinearity="relu")
        self.stem_norm = trunk.bn1
        self.stages = trunk.blocks
        with torch.no_grad():
            was_training = self.training
            self.eval()
            n_pooled = self.pooled(torch.zeros(1, 3, MIN_SIZE, MIN_SIZE)).shape[1]
            self.train(was_training)
        # Statistics of stages differ by orders of magnitude.
        self.pooled_norm = nn.BatchNorm1d(n_pooled)
        if n_mixed and self.statistics is None:
            raise EncoderError("student: a mixer needs statistics to mix in; ask for both or neither.")
        n_apart = self.statistics.count() if n_mixed and self.statistics is not None else 0
        self.embed = nn.Linear(n_pooled - n_apart, n_embedding)
        self.mixer = Mixer(n_embedding, n_apart, n_mixed, n_read) if n_mixed else None

    @property
    def n_features(self) -> int:
        """Length of the embedding: ``n_embedding``, with a mixer the statistics, as much, and the readings."""
        return self.n_embedding if self.mixer is None else self.mixer.first.in_features + self.mixer.n_read

    @property
    def size_multiple(self) -> int:
        """Crops' sides must be a multiple of this many pixels."""
        return 2 if self.stem_kind == "unshuffle" else 1

    def like(self) -> StudentNetwork:
        """Return an untrained network of the same build."""
        return StudentNetwork(
            self.architecture,
            self.stem_kind,
            self.n_embedding,
            self.statistics is not None,
            *((0, 0) if self.mixer is None else (self.mixer.n_mixed, self.mixer.n_read)),
        )

    def pooled(self, crops: torch.Tensor) -> torch.Tensor:
        """Return mean and log deviation of the channels of stem and stages, then the statistics if it has them.

        Parameters
        ----------
        crops : float Tensor of shape (n, 3, height, width)
            sRGB in [0, 1].

        Returns
        -------
        Tensor of shape (n, n_pooled)
        """
        luma = sum(weight * crops[:, k : k + 1] for k, weight in enumerate(_LUMA))
        maps = torch.cat([(crops - 0.5) * 4.0, _normalised(luma)], dim=1)
        if self.stem_kind == "unshuffle":
            maps = functional.pixel_unshuffle(maps, 2)
        maps = self.stem_norm(self.stem(maps))
        pooled = _moments(maps)
        for stage in self.stages:
            maps = stage(maps)
            pooled += _moments(maps)
        if self.statistics is not None:
            pooled.append(self.statistics(crops))
        return torch.cat(pooled, dim=1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return embeddings of shape (n, n_features) of crops (n, 3, height, width) in [0, 1]."""
        seen = self.seen(crops)
        if self.mixer is None:
            return seen
        # What is read off the trunk is in the mixture: beside it, it brought ridges on the weak set nothing.
        return torch.cat([seen[..., self.n_embedding :], *self.mixer(seen)], dim=-1)

    def seen(self, crops: torch.Tensor) -> torch.Tensor:
        """Return what a mixer sees of crops, shape (n, n_seen); without one, the embedding."""
        return self.seen_in(self.pooled(crops))

    def seen_in(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the same of what is pooled of crops (n, n_pooled)."""
        standard = standardise(self.pooled_norm, pooled)
        n_trunk = self.embed.in_features
        first = embed_standard(self.embed, standard[..., :n_trunk])
        return first if self.mixer is None else torch.cat([first, standard[..., n_trunk:]], dim=-1)


class Mixer(nn.Module):
    """Statistics and what was read off the trunk to a mixture, through one hidden layer, and to readings of it.

    What a statistic says of quality depends on the others: the share of equal neighbours means one thing in a
    sharp picture and another in a blurred one. A ridge on the embedding cannot learn that, this layer can. The
    readings are what it learned to tell. Where few photos are rated, or none of them shows a fault, they say from the
    start which way is worse.

    Parameters
    ----------
    n_embedding : int
        Read off the trunk, and given.
    n_statistics : int
    n_mixed : int
        Units of the hidden layer.
    n_read : int
        Readings.
    """

    def __init__(self, n_embedding: int, n_statistics: int, n_mixed: int, n_read: int) -> None:
        super().__init__()
        self.n_mixed, self.n_read = n_mixed, n_read
        self.first = nn.Linear(n_embedding + n_statistics, n_mixed)
        self.second = nn.Linear(n_mixed, n_embedding)
        self.readings = nn.Linear(n_embedding, n_read)

    def forward(
        self, seen: torch.Tensor, drop_seen: float = 0.0, drop_mixed: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixtures (n, n_embedding) of what is seen (n, n_embedding + n_statistics), and readings (n, n_read).

        In training, shares ``drop_seen`` of what is seen and ``drop_mixed`` of the hidden units are left out.
        """
        seen = functional.dropout(seen, drop_seen, self.training)
        mixed = functional.dropout(functional.hardswish(self.first(seen)), drop_mixed, self.training)
        mixture = functional.hardswish(self.second(mixed))
        return mixture, self.readings(mixture)


def standardise(norm: nn.Module, pooled: torch.Tensor) -> torch.Tensor:
    """Normalise statistics (n, n_pooled), as the embedding sees them."""
    # Some channels are silent on most pictures: on the others they would be many deviations away.
    return norm(pooled).clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)


def embed_standard(embed: nn.Module, standard: torch.Tensor) -> torch.Tensor:
    """Return embeddings (..., n_embedding) of standardised statistics (..., n_pooled)."""
    return functional.hardswish(embed(standard))


def _moments(maps: torch.Tensor) -> list[torch.Tensor]:
    """Return mean and log deviation of each channel of maps (n, n_channels, height, width), both (n, n_channels)."""
    mean = maps.mean(dim=(2, 3), keepdim=True)
    spread = ((maps - mean) ** 2).mean(dim=(2, 3))
    # In plain tiles, most of a 4K photo, deviations differ by factors: on their own scale all would be near zero.
    return [mean.flatten(1), 0.5 * torch.log(spread + _STD_FLOOR)]


def _normalised(luma: torch.Tensor) -> torch.Tensor:
    """Subtract the local mean and divide by the local deviation; windows at the border see what is inside."""

    def local(values: torch.Tensor) -> torch.Tensor:
        # The window is a product of two, which are faster one after the other.
        pad = _WINDOW // 2
        for window, padding in (((_WINDOW, 1), (pad, 0)), ((1, _WINDOW), (0, pad))):
            values = functional.avg_pool2d(values, window, stride=1, padding=padding, count_include_pad=False)
        return values

    mean = local(luma)
    contrast = torch.sqrt(functional.relu(local(luma * luma) - mean * mean) + _STD_FLOOR)
    return (luma - mean) / (contrast + _CONTRAST_FLOOR)


class Heads(nn.Module):
    """What is read off the embedding during training, linearly, as a ridge will; not part of the student.

    Parameters
    ----------
    n_embedding : int
    widths : mapping of str to int
        Number of outputs by name of the head.
    """

    def __init__(self, n_embedding: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(n_embedding, width) for name, width in widths.items()})

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs (n, width) by name."""
        return {name: layer(embedding) for name, layer in self.layers.items()}
