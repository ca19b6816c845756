"""Views worth knowing, each with its purpose: a listing for people, not a limit."""

from __future__ import annotations

from typing import NamedTuple


class ViewExample(NamedTuple):
    """A view by its spelling, and what it is for."""

    name: str
    purpose: str


_EXAMPLES = (
    ViewExample(
        "native", "the whole image at native sampling, for weight-free and fully convolutional encoders"
    ),
    ViewExample(
        "short_512/center_480", "SJTU, global branch: short side 512, centre 480 (bilinear in the original)"
    ),
    ViewExample("short_512~bilinear/center_416", "SJTU within the budget: the global branch at 416"),
    ViewExample("fragments_15x32", "SJTU, distortion branch: 15 x 15 windows of 32 pixels, 480 x 480"),
    ViewExample("fragments_13x32", "SJTU within the budget: 13 x 13 windows, 416 x 416"),
    ViewExample("center_480", "SJTU, saliency branch: the centre at native sampling"),
    ViewExample("fragments_16x24x10", "GS-PIQA: ten draws of 16 x 16 windows of 24 pixels, 384 x 384"),
    ViewExample("width_3840/tiles_224", "CIPLAB, finest scale: 153 tiles of a 16:9 photo"),
    ViewExample("width_960/tiles_224", "CIPLAB, middle scale: 8 tiles"),
    ViewExample("width_256/five_144", "CIPLAB, coarsest scale: five overlapping crops that fit 256 x 144"),
    ViewExample("squash_1366x768", "EQCNet: the whole image, mildly reduced"),
    ViewExample("squash_1907x1231", "MobileNet-IQA: width 1907, height 1231, aspect ignored"),
    ViewExample("squash_512x512", "MobileViT-IQA, the teacher"),
    ViewExample("center_720", "NF-RegNets, scale 1:1"),
    ViewExample("down_2/center_720", "NF-RegNets, scale 1:2"),
    ViewExample("down_3/center_720", "NF-RegNets, scale 1:3"),
    ViewExample("squash_224x224", "CLIP-IQA*: the whole image for a CLIP encoder"),
    ViewExample("tiles_3x3/squash_224x224", "CLIP-IQA*: nine regions of the image"),
    ViewExample("mosaic_3x3/squash_224x224", "CLIP-IQA*: the nine regions shuffled"),
    ViewExample("center_1920x960/squash_1280x720", "challenge baseline: half of the image, mildly squashed"),
    ViewExample("center_320+half", "ICL, quality encoder: native centre and its half-scale"),
    ViewExample(
        "square_320+half", "ICL, content, scene and keypoint encoders: the largest square and its half"
    ),
    ViewExample(
        "squash_384x512/five_224", "HyperIQA: five crops of the image squashed to width 384, height 512"
    ),
    ViewExample("squash_1024x768", "Effnet-2C-MLSP, fine column"),
    ViewExample("squash_512x384", "Effnet-2C-MLSP, coarse column"),
    ViewExample(
        "squash_800x448+half", "CONTRIQUE and Re-IQA within the budget: the whole image and its half"
    ),
    ViewExample(
        "five_224+halfimage", "ARNIQA: five crops, each with the crop of the halved image at its place"
    ),
    ViewExample("squash_800x448", "CLIP-IQA+ and QualiCLIP within the budget"),
)


def list_views() -> list[ViewExample]:
    """List views worth knowing; any other that follows the grammar works as well.

    Returns
    -------
    list of ViewExample
        Name and purpose, in the order of the report's systems.
    """
    return list(_EXAMPLES)
