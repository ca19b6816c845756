"""Statistics of a crop that need no learning, as one part of a network: what a trunk of few photographs misses.

The families are those of natural-scene statistics: contrast-normalised coefficients and products of their
neighbours (Mittal, Moorthy and Bovik 2012, BRISQUE), gradients and what a second blur leaves of them (Crete et
al. 2007; Zhuo and Sim 2011), Immerkaer's noise operator (1996), steps on the eight-pixel grid of JPEG (Wang,
Sheikh and Bovik 2002), exposure and colour: estimates of the light's own colour, which tell a wrong white
balance (van de Weijer, Gevers and Gijsenij 2007, grey edge), and how quickly the chroma's detail fades with
scale beside the luma's. Everything is a sum, a product, a maximum or a logarithm, continuous in the pixels:
blocks are not ranked by contrast but weighed by it, and most ratios are left to the layer above, which subtracts
logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

import timm
import torch
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn import functional

from featbank.errors import EncoderError

_BLOCK_PX: Final = 32
_SCALES: Final = (1, 2, 4)
_FADING_SCALES: Final = 5
"""Steps of two through which chroma detail is followed: blurs of it by up to some 14 pixels show."""
_LUMA: Final = (0.299, 0.587, 0.114)
_GRID_PX: Final = 8
_POWER_FLOOR: Final = 1.0 / 12.0
"""Rounding to 8 bits adds this variance, in levels squared: octaves below it mean nothing."""
_LEVEL_FLOOR: Final = _POWER_FLOOR**0.5
_COEFFICIENT_FLOOR: Final = 2.0**-6
_SHARE_FLOOR: Final = 2.0**-7


class PictureStatistics(nn.Module):
    """Crops to statistics; has no weights. Crops need sides of at least 64 pixels."""

    def count(self) -> int:
        """Return the number of statistics."""
        with torch.inference_mode():
            return int(self(torch.zeros(1, 3, 64, 64)).shape[1])

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return statistics (n, n_statistics) of crops (n, 3, height, width) in [0, 1]."""
        levels = crops * 255.0
        luma = sum(weight * levels[:, k : k + 1] for k, weight in enumerate(_LUMA))
        red, green, blue = levels[:, 0:1], levels[:, 1:2], levels[:, 2:3]
        colours = torch.cat([red - green, (red + green) * 0.5 - blue], dim=1)
        planes = [luma]
        for _ in _SCALES[1:]:
            planes.append(functional.avg_pool2d(planes[-1], 2))
        contrast = _blocks(_normalised(planes[-1])[1], _SCALES[-1])
        textured = contrast / (contrast.sum(dim=(2, 3), keepdim=True) + _POWER_FLOOR)
        smooth = 1.0 / (contrast + 1.0)
        pools = [textured, smooth / smooth.sum(dim=(2, 3), keepdim=True)]
        found = [_photometry(luma, levels, colours), _grid(luma)]
        for scale, plane in zip(_SCALES, planes, strict=True):
            found.append(_scene(*_normalised(plane), scale, pools))
            found.append(_sharpness(plane, scale, pools))
        half = functional.avg_pool2d(colours, 2)
        found += [_shape(half[:, k : k + 1], 2, pools) for k in (0, 1)]
        found += [_light(levels), _fading(torch.cat([colours, luma], dim=1))]
        return torch.cat(found, dim=1)


def _octaves(values: torch.Tensor, floor: float) -> torch.Tensor:
    return torch.log2(functional.relu(values) + floor)


def _blocks(maps: torch.Tensor, scale: int) -> torch.Tensor:
    return functional.avg_pool2d(maps, _BLOCK_PX // scale)


def _pooled(maps: list[torch.Tensor], scale: int, pools: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the maps' means (n, n_maps) over blocks weighed in turn by each pool."""
    # Whole maps are not joined: copying them would take as long as the rest.
    blocks = torch.cat([_blocks(values, scale) for values in maps], dim=1)
    return [(blocks * pool).sum(dim=(2, 3)) for pool in pools]


def _local(values: torch.Tensor, *windows: int | tuple[int, int]) -> torch.Tensor:
    """Return means over windows, one after the other; at the border they see what is inside."""
    for window in windows:
        padding = window // 2 if isinstance(window, int) else (window[0] // 2, window[1] // 2)
        values = functional.avg_pool2d(values, window, stride=1, padding=padding, count_include_pad=False)
    return values


def _normalised(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return contrast-normalised coefficients and local variance; the window is a 3 x 3 mean applied twice."""
    centred = plane - plane.mean(dim=(2, 3), keepdim=True)
    mean = _local(centred, 3, 3)
    variance = functional.relu(_local(centred * centred, 3, 3) - mean * mean)
    return (centred - mean) / (torch.sqrt(variance + 1e-6) + 1.0), variance


def _spread(values: torch.Tensor) -> list[torch.Tensor]:
    """Return shape and size of coefficients, whose mean magnitude and square are the first columns of values."""
    magnitude, square = values[:, 0:1], values[:, 1:2]
    return [
        _octaves(magnitude * magnitude / (square + _COEFFICIENT_FLOOR), _COEFFICIENT_FLOOR),
        _octaves(square, _COEFFICIENT_FLOOR),
    ]


def _scene(
    coefficients: torch.Tensor, variance: torch.Tensor, scale: int, pools: list[torch.Tensor]
) -> torch.Tensor:
    c = coefficients[:, :, :-1, 1:-1]
    right, down = coefficients[:, :, :-1, 2:], coefficients[:, :, 1:, 1:-1]
    main, anti = coefficients[:, :, 1:, 2:], coefficients[:, :, 1:, :-2]
    maps = [coefficients.abs(), coefficients * coefficients]
    found = []
    for first, second in ((right, down), (main, anti)):
        products = []
        for neighbour in (first, second):
            # Products lack a row and two columns: they are put back, empty, so that blocks are the same.
            product = functional.pad(c * neighbour, (1, 1, 0, 1))
            high = functional.relu(product)
            low = high - product
            products.append((product, high + low, low * low, high * high))
        maps += [(one + other) * 0.5 for one, other in zip(*products, strict=True)]
    for values in _pooled(maps, scale, pools):
        found += _spread(values)
        for start in (2, 6):
            mean, size, low, high = (values[:, start + k : start + k + 1] for k in range(4))
            found += [
                mean,
                _octaves(size, _COEFFICIENT_FLOOR),
                _octaves(low, _COEFFICIENT_FLOOR**2),
                _octaves(high, _COEFFICIENT_FLOOR**2),
                _octaves(size * size / (low + high + _COEFFICIENT_FLOOR**2), _COEFFICIENT_FLOOR),
            ]
    found += [_octaves(value, _POWER_FLOOR) for value in _pooled([variance], scale, pools)]
    return torch.cat(found, dim=1)


def _shape(plane: torch.Tensor, scale: int, pools: list[torch.Tensor]) -> torch.Tensor:
    coefficients, variance = _normalised(plane)
    maps = [coefficients.abs(), coefficients * coefficients, variance]
    found = []
    for values in _pooled(maps, scale, pools):
        found += [*_spread(values), _octaves(values[:, 2:3], _POWER_FLOOR)]
    return torch.cat(found, dim=1)


def _gradient(plane: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return central differences along x and y, with an empty border."""
    along_x = functional.pad((plane[:, :, :, 2:] - plane[:, :, :, :-2]) * 0.5, (1, 1, 0, 0))
    along_y = functional.pad((plane[:, :, 2:] - plane[:, :, :-2]) * 0.5, (0, 0, 1, 1))
    return along_x, along_y


def _sharpness(plane: torch.Tensor, scale: int, pools: list[torch.Tensor]) -> torch.Tensor:
    x, y = _gradient(plane)
    xx, yy = x * x, y * y
    soft_x, soft_y = _gradient(_local(plane, 3))
    noise = plane[:, :, 2:] - 2.0 * plane[:, :, 1:-1] + plane[:, :, :-2]
    noise = functional.pad((noise[..., 2:] - 2.0 * noise[..., 1:-1] + noise[..., :-2]).abs(), (1, 1, 1, 1))
    change_x = functional.pad((plane[..., 1:] - plane[..., :-1]).abs(), (0, 1, 0, 0))
    change_y = functional.pad((plane[:, :, 1:] - plane[:, :, :-1]).abs(), (0, 0, 0, 1))
    box_x = functional.pad((plane[..., 9:] - plane[..., :-9]).abs() / 9.0, (4, 5, 0, 0))
    box_y = functional.pad((plane[:, :, 9:] - plane[:, :, :-9]).abs() / 9.0, (0, 0, 4, 5))
    maps = [
        torch.sqrt(xx + yy + 1e-6), xx, yy, x * y, soft_x * soft_x + soft_y * soft_y, noise,
        change_x, change_y, functional.relu(change_x - box_x), functional.relu(change_y - box_y),
    ]  # fmt: skip
    found = []
    for values in _pooled(maps, scale, pools):
        size, xx, yy, xy, soft_energy, level, *changes = values.split(1, dim=1)
        energy = xx + yy + _POWER_FLOOR
        found += [
            _octaves(size, _LEVEL_FLOOR),
            _octaves(energy, _POWER_FLOOR),
            size * size / energy,
            torch.sqrt((xx - yy) ** 2 + 4.0 * xy * xy + 1e-6) / energy,
            _octaves(soft_energy, _POWER_FLOOR),
            _octaves(level, _LEVEL_FLOOR),
            *(_octaves(change, _LEVEL_FLOOR) for change in changes),
            changes[2] / (changes[0] + _LEVEL_FLOOR),
            changes[3] / (changes[1] + _LEVEL_FLOOR),
        ]
    # Noise shows in the quietest block, whatever the scene.
    blocks = _octaves(_blocks(noise, scale), _LEVEL_FLOOR).flatten(1)
    found += [blocks.mean(dim=1, keepdim=True), blocks.amin(dim=1, keepdim=True)]
    return torch.cat(found, dim=1)


def _grid(luma: torch.Tensor) -> torch.Tensor:
    """Return how much steps between neighbours stand out at one position of the eight-pixel grid, along x and y."""
    found = []
    for plane in (luma, luma.transpose(2, 3)):
        step = (plane[..., 1:] - plane[..., :-1]).abs().clamp(max=8.0).mean(dim=2)
        excess = step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) * 0.5
        phases = torch.cat([excess[..., k::_GRID_PX].mean(dim=2) for k in range(_GRID_PX)], dim=1)
        stands_out = phases.amax(dim=1, keepdim=True) - phases.mean(dim=1, keepdim=True)
        found.append(torch.log2(1.0 + stands_out / (step.mean(dim=(1, 2)).unsqueeze(1) + _LEVEL_FLOOR)))
    return torch.cat(found, dim=1)


def _photometry(luma: torch.Tensor, levels: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    highest, lowest = levels.amax(dim=1, keepdim=True), levels.amin(dim=1, keepdim=True)
    maps = torch.cat(
        [
            luma / 255.0,
            functional.relu(3.5 - luma).clamp(max=1.0),
            functional.relu(luma - 251.5).clamp(max=1.0),
            (highest - lowest) / (highest + 1.0),
        ],
        dim=1,
    ).mean(dim=(2, 3))
    spread = torch.cat([luma, colours], dim=1)
    spread = ((spread - spread.mean(dim=(2, 3), keepdim=True)) ** 2).mean(dim=(2, 3))
    return torch.cat(
        [
            maps[:, 0:1],
            _octaves(maps[:, 1:3], _SHARE_FLOOR),
            maps[:, 3:4],
            _octaves(spread, 16.0),
            colours.mean(dim=(2, 3)).abs() / 64.0,
        ],
        dim=1,
    )


def _light(levels: torch.Tensor) -> torch.Tensor:
    """Return estimates of the light's colour in octaves of the channels, and how much of each channel is white.

    Each estimate assumes that one thing is grey on the whole: edges, strong edges, the brightest place, bright places.
    A wrong white balance moves all of them alike, a coloured scene seldom does.
    """
    half = functional.avg_pool2d(levels, 2)
    quarter = functional.avg_pool2d(half, 2)
    along_x = (half[..., 1:] - half[..., :-1]).abs()
    along_y = (half[..., 1:, :] - half[..., :-1, :]).abs()
    estimates = (
        along_x.mean(dim=(2, 3)) + along_y.mean(dim=(2, 3)),
        ((along_x**4).mean(dim=(2, 3)) + (along_y**4).mean(dim=(2, 3))) ** 0.25,
        quarter.amax(dim=(2, 3)),
        255.0 * ((quarter / 255.0) ** 6).mean(dim=(2, 3)) ** (1.0 / 6.0),
    )
    found = []
    for estimate in estimates:
        channels = torch.log2(estimate + _LEVEL_FLOOR)
        red, green, blue = channels.split(1, dim=1)
        apart = channels - channels.mean(dim=1, keepdim=True)
        # Beside the two signed differences their size: a cast is as bad in one direction as in another.
        found += [red - green, blue - green, torch.sqrt((apart * apart).sum(dim=1, keepdim=True) + 1e-6)]
    white = functional.relu(levels - 251.5).clamp(max=1.0).mean(dim=(2, 3))
    return torch.cat([*found, _octaves(white, _SHARE_FLOOR)], dim=1)


def _fading(planes: torch.Tensor) -> torch.Tensor:
    """Return how the detail of two colours fades from scale to scale, and what it is beside that of luma, the last."""
    energies = []
    for _ in range(_FADING_SCALES):
        along_x, along_y = planes[..., 1:] - planes[..., :-1], planes[..., 1:, :] - planes[..., :-1, :]
        energy = (along_x * along_x).mean(dim=(2, 3)) + (along_y * along_y).mean(dim=(2, 3))
        energies.append(_octaves(energy, _POWER_FLOOR))
        planes = functional.avg_pool2d(planes, 2)
    steps = [coarse[:, :2] - fine[:, :2] for fine, coarse in pairwise(energies)]
    beside = [energy[:, :2] - energy[:, 2:] for energy in energies]
    return torch.cat([*steps, *beside], dim=1)


MIN_SIZE: Final = 64
"""Shortest side of a crop in pixels: leaves at least 2 x 2 positions at the deepest stage."""
SIZE_MULTIPLE: Final = 2
"""Both sides of a crop are a multiple of this many pixels."""

_WINDOW: Final = 7
_STD_FLOOR: Final = 1e-6
_MOST_DEVIATIONS: Final = 4.0
_CONTRAST_FLOOR: Final = 1.0 / 255.0


class StudentNetwork(nn.Module):
    """Crops to embeddings.

    Parameters
    ----------
    architecture : str
        timm's name of a MobileNet V3 or V4, for example ``mobilenetv3_small_075``. Its stem is replaced by one that
        keeps the pixel grid.
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
        n_embedding: int = 128,
        statistics: bool = False,
        n_mixed: int = 0,
        n_read: int = 0,
    ) -> None:
        super().__init__()
        is_known = architecture.startswith("mobilenet") and timm.models.is_model(architecture)
        trunk = timm.create_model(architecture, pretrained=False, num_classes=0) if is_known else None
        if not isinstance(trunk, MobileNetV3):
            raise EncoderError(
                f"student: the architecture must be a MobileNet V3 or V4 of timm, got {architecture!r}. "
                f"For example one of {', '.join(timm.list_models('mobilenetv[34]*small*'))}."
            )
        self.build = (architecture, n_embedding, statistics, n_mixed, n_read)
        self.architecture, self.n_embedding = architecture, n_embedding
        self.statistics = PictureStatistics() if statistics else None
        self.stem = nn.Conv2d(16, trunk.conv_stem.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.stem.weight, mode="fan_out", nonlinearity="relu")
        self.stem_norm = trunk.bn1
        self.stages = trunk.blocks
        with torch.no_grad():
            n_pooled = self.eval().pooled(torch.zeros(1, 3, MIN_SIZE, MIN_SIZE)).shape[1]
        self.train()
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
        return self.n_embedding if self.mixer is None else self.mixer.first.in_features + self.build[-1]

    def like(self) -> StudentNetwork:
        """Return an untrained network of the same build."""
        return StudentNetwork(*self.build)

    def pooled(self, crops: torch.Tensor) -> torch.Tensor:
        """Return mean and log deviation of the channels of stem and stages, then statistics if it has them.

        Shape (n, n_pooled), for ``crops`` float (n, 3, height, width), sRGB in [0, 1].
        """
        luma = sum(weight * crops[:, k : k + 1] for k, weight in enumerate(_LUMA))
        maps = torch.cat([(crops - 0.5) * 4.0, _normalised_luma(luma)], dim=1)
        maps = self.stem_norm(self.stem(functional.pixel_unshuffle(maps, SIZE_MULTIPLE)))
        pooled = _moments(maps)
        for stage in self.stages:
            maps = stage(maps)
            pooled += _moments(maps)
        if self.statistics is not None:
            pooled.append(self.statistics(crops))
        return torch.cat(pooled, dim=1)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Return embeddings of shape (n, n_features) of crops (n, 3, height, width) in [0, 1]."""
        seen = self.seen(self.pooled(crops))
        if self.mixer is None:
            return seen
        # What is read off the trunk is in the mixture: beside it, it brought ridges on the weak set nothing.
        return torch.cat([seen[..., self.n_embedding :], *self.mixer(seen)], dim=-1)

    def seen(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return what a mixer sees of what is pooled (n, n_pooled), shape (n, n_seen); without one, the embedding."""
        standard = standardise(self.pooled_norm, pooled)
        n_trunk = self.embed.in_features
        first = functional.hardswish(self.embed(standard[..., :n_trunk]))
        return first if self.mixer is None else torch.cat([first, standard[..., n_trunk:]], dim=-1)


class Mixer(nn.Module):
    """Statistics and what was read off the trunk to a mixture, through one hidden layer, and to readings of it.

    What a statistic says of quality depends on the others: the share of equal neighbours means one thing in a
    sharp picture and another in a blurred one. A ridge on the embedding cannot learn that, this layer can. The
    readings are what it learned to tell.
    """

    def __init__(self, n_embedding: int, n_statistics: int, n_mixed: int, n_read: int) -> None:
        super().__init__()
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


def to_input(crops: torch.Tensor) -> torch.Tensor:
    """Turn uint8 crops (n, height, width, 3) into what the network takes."""
    return crops.permute(0, 3, 1, 2).float() / 255.0


def _moments(maps: torch.Tensor) -> list[torch.Tensor]:
    """Return mean and log deviation of each channel of maps (n, n_channels, height, width), both (n, n_channels)."""
    mean = maps.mean(dim=(2, 3), keepdim=True)
    spread = ((maps - mean) ** 2).mean(dim=(2, 3))
    # In plain tiles, most of a 4K photo, deviations differ by factors: on their own scale all would be near zero.
    return [mean.flatten(1), 0.5 * torch.log(spread + _STD_FLOOR)]


def _normalised_luma(luma: torch.Tensor) -> torch.Tensor:
    """Subtract the local mean and divide by the local deviation."""
    windows = (_WINDOW, 1), (1, _WINDOW)  # whose product is square, faster one after the other
    mean = _local(luma, *windows)
    contrast = torch.sqrt(functional.relu(_local(luma * luma, *windows) - mean * mean) + _STD_FLOOR)
    return (luma - mean) / (contrast + _CONTRAST_FLOOR)


class Heads(nn.Module):
    """What is read off the embedding during training, linearly, as a ridge will; not part of the student."""

    def __init__(self, n_embedding: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(n_embedding, width) for name, width in widths.items()})

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs (n, width) by name."""
        return {name: layer(embedding) for name, layer in self.layers.items()}
