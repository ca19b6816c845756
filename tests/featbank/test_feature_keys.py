"""The keys of features: what a bank holds under them is found again by every later version."""

from __future__ import annotations

import pytest

from featbank.digest import digest_json
from featbank.encoders import make_encoder
from featbank.images import DECODE_POLICY
from featbank.views import list_views, parse_view

# Beginnings of digests of what goes into a key. A change here makes users compute their features again.
ENCODERS = {
    "classic:nss": "065bfce79c7a0686",
    "classic:layout": "8d1ce56294360d97",
    "classic:gist": "42ef9ab54e1d9a00",
    "classic:keypoint": "907ba844721d5ea1",
    "featbank:mobile": "b4f38471d0e972d9",
}
NETWORKS = {
    "timm:mobilenetv3_small_100.lamb_in1k?random=0": "21f8940cce7dd62e",
    "timm:mobilenetv3_large_100.ra_in1k?random=0&taps=blocks.2,blocks.6&pool=mean+std": "3991be8c94bb89ee",
    "torchvision:swin_t/IMAGENET1K_V1?random=1&precision=bf16": "b1cb986a938f88ff",
    "open_clip:ViT-B-32-quickgelu/openai?random=0&prompts=scenes": "763430a77cd1b637",
    "checkpoint:arniqa?random=0": "329651c9883317f1",
    "checkpoint:hyperiqa?random=0&until=trunk.layer4": "7e454ea59912807a",
    "checkpoint:qualiclip?random=0&prompts=stored": "fe869db21edf9410",
    "checkpoint:clip-rn50?random=0&prompts=clip-iqa-plus": "cac32283cd7c7736",
}


@pytest.mark.parametrize("name", [*ENCODERS, *NETWORKS])
def test_keys_of_encoders_stay(name: str) -> None:
    if name in NETWORKS:
        pytest.importorskip("torch")
        pytest.importorskip("timm")
    encoder = make_encoder(name)
    found = digest_json([encoder.identity(), encoder.pass_identity()])[:16]
    assert found == {**ENCODERS, **NETWORKS}[name]


def test_keys_of_views_and_decoding_stay() -> None:
    # Without the probes, which follow the installed libraries.
    views = []
    for name in [*(view.name for view in list_views()), "squash_224x224~fast/five_64+half"]:
        identity = dict(parse_view(name).identity())
        resize = identity["resize"]
        assert isinstance(resize, dict)
        views.append({**identity, "resize": {key: resize[key] for key in resize if key != "probes"}})
    assert digest_json(views)[:16] == "318f104d48e405ab"
    policy = {key: value for key, value in DECODE_POLICY.items() if key != "probe"}
    assert digest_json(policy)[:16] == "d245101be9aa85d6"
