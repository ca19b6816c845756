"""The role of a model of an open family, and a list of proven encoders to choose from.

A role says what features are meant to describe and changes no number. Models that are not listed here are
taken as ``content``: what an image shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Suggestion:
    """A proven encoder of an open family.

    Attributes
    ----------
    name : str
        Without options.
    role, title : str
    n_features : int
        Length of its own vector.
    side_px : int
        Side of the square crop for which the cost is stated.
    gmacs : float
        Cost of one such crop, in units of 1e9 multiply-accumulates, as `featbank.encoders.macs` counts it.
    licence : str
        Of the weights.
    """

    name: str
    role: str
    title: str
    n_features: int
    side_px: int
    gmacs: float
    licence: str


SUGGESTIONS: Final = (
    Suggestion(
        "open_clip:ViT-B-32-quickgelu/openai", "content", "OpenAI CLIP ViT-B/32", 512, 224, 4.409, "MIT"
    ),
    Suggestion(
        "open_clip:ViT-B-32/datacomp_xl_s13b_b90k",
        "content",
        "DataComp-XL CLIP ViT-B/32",
        512,
        224,
        4.409,
        "MIT",
    ),
    Suggestion(
        "open_clip:ViT-B-32-SigLIP2-256/webli", "content", "SigLIP 2 ViT-B/32", 768, 256, 5.744, "Apache-2.0"
    ),
    Suggestion(
        "timm:vit_base_patch32_siglip_256.v2_webli",
        "content",
        "SigLIP 2 ViT-B/32, image tower",
        768,
        256,
        5.744,
        "apache-2.0",
    ),
    Suggestion(
        "timm:vit_medium_patch32_clip_224.tinyclip_laion400m",
        "content",
        "TinyCLIP 40M/32",
        512,
        224,
        1.995,
        "mit",
    ),
    Suggestion(
        "timm:fastvit_mci0.apple_mclip",
        "content",
        "MobileCLIP-S0 image tower",
        1024,
        256,
        2.392,
        "apple-amlr",
    ),
    Suggestion(
        "timm:vit_small_patch14_dinov2.lvd142m", "keypoint", "DINOv2 ViT-S/14", 384, 518, 46.697, "apache-2.0"
    ),
    Suggestion(
        "timm:tf_efficientnet_b0.ns_jft_in1k",
        "content",
        "EfficientNet-B0, noisy student",
        1280,
        224,
        0.385,
        "apache-2.0",
    ),
    Suggestion(
        "timm:tf_efficientnetv2_s.in21k", "content", "EfficientNetV2-S", 1280, 300, 5.306, "apache-2.0"
    ),
    Suggestion(
        "timm:mobilevitv2_200.cvnets_in22k_ft_in1k",
        "content",
        "MobileViTv2-2.0",
        1024,
        256,
        7.155,
        "cvnets-license",
    ),
    Suggestion(
        "timm:nf_regnet_b1.ra2_in1k",
        "content",
        "NF-RegNet-B1, no batch normalisation",
        960,
        256,
        0.79,
        "apache-2.0",
    ),
    Suggestion("timm:ghostnetv2_160.in1k", "mobile", "GhostNetV2 1.6x", 1280, 224, 0.397, "apache-2.0"),
    Suggestion(
        "timm:mobilenetv3_large_100.ra_in1k", "mobile", "MobileNetV3-Large", 1280, 224, 0.215, "apache-2.0"
    ),
    Suggestion(
        "timm:mobilenetv3_large_100.miil_in21k",
        "mobile",
        "MobileNetV3-Large, ImageNet-21k",
        1280,
        224,
        0.215,
        "apache-2.0",
    ),
    Suggestion(
        "timm:mobilenetv4_conv_medium.e250_r384_in12k",
        "mobile",
        "MobileNetV4-Conv-Medium",
        1280,
        384,
        2.426,
        "apache-2.0",
    ),
    Suggestion(
        "timm:tiny_vit_11m_224.dist_in22k",
        "mobile",
        "TinyViT-11M, distilled from CLIP",
        448,
        224,
        2.016,
        "apache-2.0",
    ),
    Suggestion(
        "torchvision:mobilenet_v3_large/IMAGENET1K_V1",
        "mobile",
        "MobileNetV3-Large",
        960,
        224,
        0.214,
        "BSD-3-Clause",
    ),
    Suggestion("torchvision:swin_t/IMAGENET1K_V1", "content", "Swin-T", 768, 224, 4.49, "BSD-3-Clause"),
    Suggestion(
        "torchvision:resnet50/IMAGENET1K_V2", "content", "ResNet-50", 2048, 224, 4.087, "BSD-3-Clause"
    ),
)
"""Encoders that the recipes use or that are known to work well at their cost."""


def role_of(name: str) -> str:
    """Return the role of a model by its name without options."""
    return next((item.role for item in SUGGESTIONS if item.name == name), "content")
