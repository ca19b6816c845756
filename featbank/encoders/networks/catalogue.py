"""What is known of networks before any weights are there: how to build, feed and read them, published checkpoints.

Plain data, no deep-learning library; the families' own libraries are asked only for what they publish. Checkpoints
that differ in a few facts share a function. A role says what features are meant to describe and changes no number;
models that are not listed are taken as ``content``: what an image shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from featbank.encoders.spec import EncoderName
from featbank.encoders.weights import WeightsSource
from featbank.errors import EncoderError, unknown_name

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[float, float, float]

IMAGENET: Final[tuple[Triple, Triple]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Final[tuple[Triple, Triple]] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
NONE: Final[tuple[Triple, Triple]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Raw RGB in [0, 1]: means of 0 and deviations of 1."""


@dataclass(frozen=True)
class CheckpointSheet:
    """One published checkpoint; title, role and reference as in `EncoderSpec`.

    Attributes
    ----------
    architecture : str
        Name of the builder in `featbank.encoders.networks.families`.
    gmacs_224 : float
        Cost of one crop of 224 x 224 pixels.
    rules : tuple of (pattern, replacement)
        Regular expressions on whole keys; the first that matches maps the key.
    state_path : str
        Key of the published dictionary that holds the tensors; empty if it is the state itself.
    drop : tuple of str
        Patterns of keys that are left out: heads, projectors, text towers.
    filled : tuple of str
        Patterns of expected keys that the file may lack because they play no part: they become zeros.
    l2 : bool
        Whether the published features are divided by their norm.
    n_params_published : int
        Parameters of the whole published network, heads included; 0 where that is not known.
    """

    source: WeightsSource
    title: str
    role: str
    reference: str
    architecture: str
    n_features: int
    gmacs_224: float
    rules: tuple[tuple[str, str], ...]
    state_path: str = ""
    drop: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    normalisation: tuple[Triple, Triple] = IMAGENET
    l2: bool = False
    n_params_published: int = 0
    note: str = ""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network of a family, by name; equal names are equal networks, so that caches can hold one of each.

    Attributes
    ----------
    base : str
        Encoder name without options.
    build : callable
        Builds the headless image network, weights as its library initialises them; its forward takes float
        (n_crops, 3, height, width) and gives (n_crops, n_features). Works under any default device.
    mean, std : (r, g, b)
        Input normalisation of these very weights; zeros and ones mean raw RGB in [0, 1].
    native_size : (height, width)
        Crop size for which facts are stated.
    channels_last : bool
        Whether maps of inner layers are (n, height, width, channels).
    n_prefix_tokens : int
        Tokens in front of the patches' (class token, registers) in token lists of inner layers.
    stored_prefix, build_stored : str, callable
        Where the stored file holds more than the image network: the beginning of its keys, and what builds the whole.
    text_model : str
        Architecture name for the text tower, empty without one.
    """

    base: str
    title: str
    role: str
    reference: str
    licence: str
    source: WeightsSource
    build: Callable[[], nn.Module]
    mean: Triple
    std: Triple
    native_size: tuple[int, int]
    channels_last: bool = False
    n_prefix_tokens: int = 0
    l2: bool = False
    stored_prefix: str = ""
    build_stored: Callable[[], nn.Module] | None = None
    text_model: str = ""
    n_params_published: int = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blueprint) and other.base == self.base

    def __hash__(self) -> int:
        return hash(self.base)


PROMPTS: Final[dict[str, tuple[str, ...]]] = {
    # Report, section 2.8 (CLIP-IQA*): five ordinal prompts.
    "quality-levels": tuple(
        f"The quality of this photo is {word}." for word in ("bad", "poor", "fair", "good", "perfect")
    ),
    # CLIP-IQA's antonym pair.
    "good-bad": ("Good photo.", "Bad photo."),
    # Scenes of the UHD-IQA categories that are kept out of training, against everyday ones.
    "scenes": tuple(
        f"A photo of {what}."
        for what in (
            "the sea", "a beach", "a mountain landscape", "a city street", "a building", "a forest", "flowers",
            "an animal", "a person", "food", "an indoor room", "the night sky",
        )
    ),
}  # fmt: skip
"""Prompt lists encoded by the text tower of the encoder's own weights."""

LEARNED: Final = "clip-iqa-plus"
"""Name of CLIP-IQA+'s learned prompts, which need a file of their own."""

STORED: Final = "stored"
"""Name of the prompt features that a checkpoint brings along."""


_SEQUENTIAL_RESNET: Final = (
    # Sequential(*resnet.children()[:-2]): 0 is the stem, 1 its normalisation, 4 to 7 the stages.
    (r"0\.", "conv1."),
    (r"1\.", "bn1."),
    (r"4\.", "layer1."),
    (r"5\.", "layer2."),
    (r"6\.", "layer3."),
    (r"7\.", "layer4."),
)


def _drive(identifier: str) -> str:
    return f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t"


def _indexed(prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((rf"{prefix}\.{pattern}(.+)", rf"{name}\1") for pattern, name in _SEQUENTIAL_RESNET)


_PLACES_PAGE = "https://github.com/CSAILVision/places365"
_REIQA_PAGE = "https://github.com/avinabsaha/ReIQA"
_REIQA = (
    "Saha, Mishra, Bovik, Re-IQA: Unsupervised Learning for Image Quality Assessment in the Wild, CVPR 2023"
)
_PLACES = "Zhou, Lapedriza, Khosla, Oliva, Torralba, Places: A 10 Million Image Database, TPAMI 2018"


def _places(
    arch: str,
    title: str,
    facts: tuple[int, float, int],
    rules: tuple[tuple[str, str], ...],
    head: str,
) -> CheckpointSheet:
    return CheckpointSheet(
        source=WeightsSource(
            f"checkpoint:places365-{arch}",
            f"http://places2.csail.mit.edu/models_places365/{arch}_places365.pth.tar",
            _PLACES_PAGE,
            "CC-BY",
            "open",
        ),
        title=title,
        role="scene",
        reference=_PLACES,
        architecture=arch,
        n_features=facts[0],
        gmacs_224=facts[1],
        state_path="state_dict",
        rules=rules,
        drop=(rf"module\.{head}\..+",),
        # Written by torch 0.2, which did not count batches yet; the counter is not used in evaluation.
        filled=(r".+\.num_batches_tracked",),
        n_params_published=facts[2],
    )


def _reiqa(
    module: str, drive: str, title: str, normalisation: tuple[Triple, Triple], note: str = ""
) -> CheckpointSheet:
    return CheckpointSheet(
        WeightsSource(f"checkpoint:reiqa-{module}", _drive(drive), _REIQA_PAGE, "MIT", "open"),
        title=title,
        role=module,
        reference=_REIQA,
        architecture="resnet50",
        n_features=2048,
        gmacs_224=4.087,
        state_path="model",
        rules=((r"module\.encoder\.(.+)", r"\1"),),
        drop=(r"module\.head\..+",),
        normalisation=normalisation,
        n_params_published=27_966_656,
        note=note,
    )


def _detection_body(
    names: tuple[str, str, str],
    sha256: str,
    size_bytes: int,
    *,
    title: str,
    reference: str,
    architecture: str,
    facts: tuple[int, float, int],
    target: str,
    note: str = "",
) -> CheckpointSheet:
    """Describe the body of a torchvision detector: its own name, its file's, its page's."""
    name, file, page = names
    terms = "the licence is the code's; the publisher leaves to the user what COCO's images demand"
    return CheckpointSheet(
        WeightsSource(
            f"checkpoint:{name}",
            f"https://download.pytorch.org/models/{file}",
            f"https://docs.pytorch.org/vision/stable/models/{page}.html",
            "BSD-3-Clause",
            "open",
            sha256,
            size_bytes,
        ),
        title=title,
        role="keypoint",
        reference=reference,
        architecture=architecture,
        n_features=facts[0],
        gmacs_224=facts[1],
        rules=((r"backbone\.body\.(.+(?<!num_batches_tracked))", target),),
        drop=(r"backbone\.fpn\..+", r"rpn\..+", r"roi_heads\..+", r"backbone\.body\..+\.num_batches_tracked"),
        n_params_published=facts[2],
        note=f"{note}; {terms}" if note else terms,
    )


SHEETS: Final[dict[str, CheckpointSheet]] = {
    sheet.source.name.partition(":")[2]: sheet
    for sheet in (
        CheckpointSheet(
            WeightsSource(
                "checkpoint:arniqa",
                "https://github.com/miccunifi/ARNIQA/releases/download/weights/ARNIQA.pth",
                "https://github.com/miccunifi/ARNIQA",
                "Apache-2.0",
                "open",
                "ad2022e59b1040d5bab24f9325c10d0215956a2061248a36c15edaec3e60fcd1",
                112_155_914,
            ),
            title="ResNet-50 trained to tell distortions apart (KADIS-700k)",
            role="quality",
            reference="Agnolucci et al., ARNIQA: Learning Distortion Manifold for Image Quality Assessment, WACV 2024",
            architecture="resnet50",
            n_features=2048,
            gmacs_224=4.087,
            rules=_indexed("model"),
            drop=(r"projector\..+",),
            l2=True,
            note="the published digest comes from third-party records; the licence is the repository's",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:contrique",
                "https://utexas.box.com/shared/static/rhpa8nkcfzpvdguo97n2d5dbn4qb03z8.tar",
                "https://github.com/pavancm/CONTRIQUE",
                "unstated",
                "unstated",
            ),
            title="ResNet-50 trained by contrast of distortions",
            role="quality",
            reference="Madhusudana et al., Image Quality Assessment using Contrastive Learning, TIP 2022",
            architecture="resnet50",
            n_features=2048,
            gmacs_224=4.087,
            rules=_indexed("encoder"),
            drop=(r"projector\..+",),
            normalisation=NONE,
            l2=True,
            note="a torch file in spite of its ending; takes raw RGB",
        ),
        _reiqa(
            "quality",
            "1DYMx8omn69yXUmBFL728JD3qMLNogFt8",
            "Re-IQA quality module, ResNet-50",
            NONE,
            "takes raw RGB, as its author confirms",
        ),
        _reiqa(
            "content",
            "1TO-5fmZFT2_nt99j4IZen6vmXUb_UL3n",
            "Re-IQA content module, ResNet-50 (MoCo v2 on ImageNet)",
            IMAGENET,
        ),
        _places(
            "resnet50",
            "ResNet-50 on 365 scene categories",
            (2048, 4.087, 24_255_917),
            ((r"module\.(?!fc\.)(.+)", r"\1"),),
            "fc",
        ),
        _places(
            "resnet18",
            "ResNet-18 on 365 scene categories",
            (512, 1.814, 11_363_757),
            ((r"module\.(?!fc\.)(.+)", r"\1"),),
            "fc",
        ),
        _places(
            "densenet161",
            "DenseNet-161 on 365 scene categories",
            (2208, 7.73, 27_278_285),
            (
                # Layers were called norm.1 and conv.2 before torch 0.4 forbade dots.
                (r"module\.(features\..+\.(?:norm|conv))\.([12])\.(.+)", r"\1\2.\3"),
                (r"module\.(?!classifier\.)(.+)", r"\1"),
            ),
            "classifier",
        ),
        _detection_body(
            ("keypointrcnn-body", "keypointrcnn_resnet50_fpn_coco-fc266e95.pth", "keypoint_rcnn"),
            "fc266e953d2b302cdcbb9ae66f71f6b0d4649928bf02dc573961e361e4918926",
            237_034_793,
            title="ResNet-50 body of Keypoint R-CNN (COCO person keypoints)",
            reference="He, Gkioxari, Dollar, Girshick, Mask R-CNN, ICCV 2017",
            architecture="resnet50-frozen-norm",
            facts=(2048, 4.087, 59_137_258),
            target=r"\1",
            note="its frozen normalisation adds no epsilon to the variance",
        ),
        _detection_body(
            (
                "fasterrcnn-mobilenet-body",
                "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
                "faster_rcnn",
            ),
            "907ea3f9",
            0,
            title="MobileNetV3 body of Faster R-CNN (COCO objects)",
            reference="Howard et al., Searching for MobileNetV3, ICCV 2019; Ren et al., Faster R-CNN, NeurIPS 2015",
            architecture="mobilenet-v3-frozen-norm",
            facts=(960, 0.214, 19_386_354),
            target=r"features.\1",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:uiqa-ava-swin-t",
                "",
                "https://github.com/sunwei925/UIQA",
                "Apache-2.0-badge-only",
                "unstated",
            ),
            title="Swin-T trained on the aesthetics of AVA, as in UIQA",
            role="quality",
            reference="Sun et al., Assessing UHD Image Quality from Aesthetics, Distortions, and Saliency, ECCVW 2024",
            architecture="swin_t",
            n_features=768,
            gmacs_224=4.49,
            rules=((r"feature_extraction\.(.+)", r"\1"),),
            drop=(r"quality\..+",),
            note="linked from the README; a badge names Apache-2.0, there is no licence file",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:hyperiqa",
                _drive("1OOUmnbvpGea0LIGpIWEbOyxfWx6UCiiE"),
                "https://github.com/SSL92/hyperIQA",
                "MIT",
                "open",
            ),
            title="HyperIQA's distortion-aware ResNet-50, trained on KonIQ-10k",
            role="quality",
            reference="Su et al., Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network, "
            "CVPR 2020",
            architecture="resnet50-distortion-aware",
            n_features=224,
            gmacs_224=4.126,
            # The hyper network's own conv1 stands beside res.conv1, the stem.
            rules=((r"res\.(lda.+)", r"\1"), (r"res\.(.+)", r"trunk.\1")),
            drop=(r"conv[123]\..+", r"fc[1-5][wb]_.+"),
            n_params_published=27_375_369,
            note="224 x 224 crops; its trunk alone, on any size: ?until=trunk.layer4",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:qualiclip",
                "https://github.com/miccunifi/QualiCLIP/releases/download/weights/qualiclip.pth",
                "https://github.com/miccunifi/QualiCLIP",
                "CC-BY-NC-4.0",
                "restricted",
                "5818e085ac4b3d297cdd183fd2b1d8a4ddb2242e5bb7fd24b2cd66d7d132bc7e",
                408_494_502,
            ),
            title="CLIP ResNet-50 tuned to rank degradations, image tower and stored prompts",
            role="quality",
            reference="Agnolucci, Galteri, Bertini, Quality-Aware Image-Text Alignment for Real-World IQA, 2024",
            architecture="clip-rn50",
            n_features=1024,
            gmacs_224=5.793,
            rules=(
                (r"clip_model\.visual\.((?!attnpool\.positional_embedding).+)", r"\1"),
                (r"(prompts_features)", r"\1"),
            ),
            drop=(
                # The pool works without positions, so that any size is taken.
                r"clip_model\.visual\.attnpool\.positional_embedding",
                r"clip_model\.(?!visual\.).+",
            ),
            normalisation=CLIP,
            n_params_published=102_007_137,
            note="pool without positional embedding; 14 stored prompt features (?prompts=stored)",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:liqe",
                _drive("1GoKwUKNR-rvX11QbKRN8MuBZw2hXKHGh"),
                "https://github.com/zwx8981/LIQE",
                "MIT",
                "open",
            ),
            title="CLIP ViT-B/32 tuned on six quality databases",
            role="quality",
            reference="Zhang et al., Blind Image Quality Assessment via Vision-Language Correspondence, CVPR 2023",
            architecture="clip-vit-b32",
            n_features=512,
            gmacs_224=4.409,
            rules=((r"visual\.(.+)", r"\1"),),
            drop=(r"(?!visual\.).+",),
            normalisation=CLIP,
            n_params_published=151_277_313,
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:clip-rn50",
                "https://huggingface.co/timm/resnet50_clip.openai/resolve/main/open_clip_model.safetensors",
                "https://github.com/openai/CLIP",
                "MIT",
                "open",
            ),
            title="OpenAI CLIP ResNet-50 with a position-free attention pool, as CLIP-IQA reads it",
            role="content",
            reference="Radford et al., CLIP, ICML 2021; Wang, Chan, Loy, Exploring CLIP for Assessing the Look and "
            "Feel of Images, AAAI 2023",
            architecture="clip-rn50-with-text",
            n_features=1024,
            gmacs_224=5.793,
            rules=((r"(.+)", r"\1"),),
            normalisation=CLIP,
            n_params_published=102_007_137,
            note="any size; the position-free pool asks one query, whose result equals the published all-query pool's",
        ),
        CheckpointSheet(
            WeightsSource(
                "checkpoint:mobilenet-iqa",
                _drive("15HJrBMgfG3tjRUbDIh6qFLNnPKeunz19"),
                "https://github.com/chencn2020/MobileIQA",
                "unstated",
                "unstated",
            ),
            title="MobileNet-IQA's backbone, distilled on UHD-IQA",
            role="mobile",
            reference="Chen et al., MobileIQA: Exploiting Mobile-level Diverse Opinion Network, ECCVW 2024",
            architecture="mobilenetv3-trunk",
            n_features=960,
            gmacs_224=0.214,
            rules=((r"local_cnn\.(.+)", r"trunk.\1"),),
            drop=(r"LDA\d\..+", r"MALs\..+", r"fusion_mal\..+", r"cnn\..+", r"fc_score\..+"),
            n_params_published=81_478_000,
            note="fitted to UHD-IQA's training MOS: cross-validation on that split is optimistic",
        ),
    )
}
"""All checkpoints by the name after ``checkpoint:``."""

LEARNED_PROMPTS: Final = WeightsSource(
    "checkpoint:clip-iqa-plus-prompts",
    "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/CLIP-IQA+_learned_prompts-603f3273.pth",
    "https://github.com/IceClear/CLIP-IQA",
    "S-Lab-1.0",
    "restricted",
    "603f3273b6e8a75b309297c85781170c067c6b474f66818c2f253a46a6534447",
    17_144,
)
"""CLIP-IQA+'s 16 learned context tokens: a bare half-precision tensor, read with the text tower of ``clip-rn50``."""


_LISTING = "featbank list encoders"


def sources_of(name: EncoderName) -> tuple[WeightsSource, ...]:
    """Return the files that an encoder needs, the network's first.

    Raises UnknownNameError if the family does not know the model; EncoderError if the family's library
    is not installed.
    """
    source = _network_source(name)
    return (source, LEARNED_PROMPTS) if name.options.get("prompts") == LEARNED else (source,)


def checkpoint_source(name: str) -> WeightsSource:
    """Return the source of ``checkpoint:name``.

    Raises UnknownNameError if there is no such checkpoint.
    """
    if f"checkpoint:{name}" == LEARNED_PROMPTS.name:
        return LEARNED_PROMPTS
    if name not in SHEETS:
        raise unknown_name(
            "checkpoint", f"checkpoint:{name}", [f"checkpoint:{key}" for key in SHEETS], _LISTING
        )
    return SHEETS[name].source


def _network_source(name: EncoderName) -> WeightsSource:
    if name.family == "checkpoint":
        return checkpoint_source(name.model)
    try:
        from featbank.encoders.networks.families import FAMILIES

        return FAMILIES[name.family].source(name.model)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "featbank":
            raise
        raise EncoderError(
            f"encoder {name.text!r} needs the package {error.name!r}, which is not installed. "
            "Install the optional packages of network encoders: pip install 'featbank[encoders]'."
        ) from error


@dataclass(frozen=True)
class Suggestion:
    """A proven encoder of an open family: ``gmacs`` are for one square crop of ``side_px``."""

    name: str
    role: str
    title: str
    n_features: int
    side_px: int
    gmacs: float
    licence: str


SUGGESTIONS: Final = tuple(
    Suggestion(*row)
    for row in (
        ("open_clip:ViT-B-32-quickgelu/openai", "content", "OpenAI CLIP ViT-B/32", 512, 224, 4.409, "MIT"),
        ("open_clip:ViT-B-32/datacomp_xl_s13b_b90k", "content", "DataComp-XL CLIP ViT-B/32", 512, 224, 4.409, "MIT"),
        ("open_clip:ViT-B-32-SigLIP2-256/webli", "content", "SigLIP 2 ViT-B/32", 768, 256, 5.744, "Apache-2.0"),
        ("timm:vit_base_patch32_siglip_256.v2_webli", "content", "SigLIP 2 ViT-B/32, image tower",
         768, 256, 5.744, "apache-2.0"),
        ("timm:vit_medium_patch32_clip_224.tinyclip_laion400m", "content", "TinyCLIP 40M/32", 512, 224, 1.995, "mit"),
        ("timm:fastvit_mci0.apple_mclip", "content", "MobileCLIP-S0 image tower", 1024, 256, 2.392, "apple-amlr"),
        ("timm:vit_small_patch14_dinov2.lvd142m", "keypoint", "DINOv2 ViT-S/14", 384, 518, 46.697, "apache-2.0"),
        ("timm:tf_efficientnet_b0.ns_jft_in1k", "content", "EfficientNet-B0, noisy student",
         1280, 224, 0.385, "apache-2.0"),
        ("timm:tf_efficientnetv2_s.in21k", "content", "EfficientNetV2-S", 1280, 300, 5.306, "apache-2.0"),
        ("timm:mobilevitv2_200.cvnets_in22k_ft_in1k", "content", "MobileViTv2-2.0",
         1024, 256, 7.155, "cvnets-license"),
        ("timm:nf_regnet_b1.ra2_in1k", "content", "NF-RegNet-B1, no batch normalisation",
         960, 256, 0.79, "apache-2.0"),
        ("timm:ghostnetv2_160.in1k", "mobile", "GhostNetV2 1.6x", 1280, 224, 0.397, "apache-2.0"),
        ("timm:mobilenetv3_large_100.ra_in1k", "mobile", "MobileNetV3-Large", 1280, 224, 0.215, "apache-2.0"),
        ("timm:mobilenetv3_large_100.miil_in21k", "mobile", "MobileNetV3-Large, ImageNet-21k",
         1280, 224, 0.215, "apache-2.0"),
        ("timm:mobilenetv4_conv_medium.e250_r384_in12k", "mobile", "MobileNetV4-Conv-Medium",
         1280, 384, 2.426, "apache-2.0"),
        ("timm:tiny_vit_11m_224.dist_in22k", "mobile", "TinyViT-11M, distilled from CLIP",
         448, 224, 2.016, "apache-2.0"),
        ("torchvision:mobilenet_v3_large/IMAGENET1K_V1", "mobile", "MobileNetV3-Large",
         960, 224, 0.214, "BSD-3-Clause"),
        ("torchvision:swin_t/IMAGENET1K_V1", "content", "Swin-T", 768, 224, 4.49, "BSD-3-Clause"),
        ("torchvision:resnet50/IMAGENET1K_V2", "content", "ResNet-50", 2048, 224, 4.087, "BSD-3-Clause"),
    )
)  # fmt: skip
"""Encoders that the recipes use or that are known to work well at their cost."""


def role_of(name: str) -> str:
    """Return the role of a model by its name without options."""
    return next((item.role for item in SUGGESTIONS if item.name == name), "content")
