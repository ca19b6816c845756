"""The keys of features: what a bank holds under them is found again by every later version."""

from __future__ import annotations

import pytest

from featbank.digest import digest_json
from featbank.encoders import make_encoder
from featbank.images import DECODE_POLICY
from featbank.views import list_views, parse_view

# Beginnings of digests of what goes into a key. A change here makes users compute their features again.
ENCODERS = {
    "classic:nss": "3375a7ae979ff61f",
    "classic:layout": "8d1ce56294360d97",
    "classic:gist": "42ef9ab54e1d9a00",
    "classic:keypoint": "500652cdf4087426",
    "featbank:mobile": "b4f38471d0e972d9",
}
NETWORKS = {
    "timm:mobilenetv3_small_100.lamb_in1k?random=0": "3b0b79d9d20d597e",
    "timm:mobilenetv3_large_100.ra_in1k?random=0&taps=blocks.2,blocks.6&pool=mean+std": "8acfab0205abf40f",
    "torchvision:swin_t/IMAGENET1K_V1?random=1&precision=bf16": "2787b59abcb2367c",
    "open_clip:ViT-B-32-quickgelu/openai?random=0&prompts=scenes": "47d36e779be583ff",
    "checkpoint:arniqa?random=0": "e90b7570015c93bb",
    "checkpoint:hyperiqa?random=0&until=trunk.layer4": "d6caee6c791c6771",
    "checkpoint:qualiclip?random=0&prompts=stored": "05f5b4dcb11ce4a3",
    "checkpoint:clip-rn50?random=0&prompts=clip-iqa-plus": "cce2a3f2b5d83aed",
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
