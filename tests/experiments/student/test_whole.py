import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
timm = pytest.importorskip("timm", reason="needs the optional packages of network encoders")
pytest.importorskip("onnx", reason="needs the optional packages of students")

from experiments.student.whole import LAST_BLOCKS, STAGES, whole_graph  # noqa: E402 - torch may be missing
from featbank.encoders.macs import count_forward  # noqa: E402


class CutNetwork(torch.nn.Module):
    """timm's own layers up to the cut, pooled by torch."""

    def __init__(self, network):
        super().__init__()
        self.stem, self.norm = network.conv_stem, network.bn1
        self.stages = network.blocks[:STAGES]
        self.last = network.blocks[STAGES][:LAST_BLOCKS]

    def forward(self, crops):
        x, found = self.norm(self.stem(crops)), []
        for stage in (*self.stages, self.last):
            x = stage(x)
            found += [x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)]
        return torch.cat(found, dim=1)


@pytest.fixture(scope="module")
def network():
    """Random weights that the graph's rounding keeps: eighths in depthwise layers, steps of 1/127 in pointwise ones."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
                layer.weight.copy_(torch.sqrt(layer.running_var + layer.eps))
                layer.bias.normal_()
            elif isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1):
                layer.weight.copy_(torch.randint(-2, 3, layer.weight.shape) / 8.0)
            elif isinstance(layer, torch.nn.Conv2d):
                levels = torch.randint(-127, 128, layer.weight.shape).float()
                levels.flatten(1)[:, 0] = 127.0
                layer.weight.copy_(levels / 127.0 / layer.in_channels**0.5)
    return network


@pytest.mark.parametrize("size", [(64, 96), (61, 130)])
def test_the_graph_gives_the_numbers_of_timms_layers(network, size):
    data, _, _, n_features = whole_graph(network)
    crops = np.random.default_rng(1).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    [found] = onnxruntime.InferenceSession(data).run(None, {"crops": crops})
    with torch.no_grad():
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255.0
        expected = CutNetwork(network)((pixels - 0.5) / 0.5).numpy()
    assert found.shape == (2, n_features)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_its_cost_is_what_the_counter_sees(network):
    _, layers, _, _ = whole_graph(network)
    cut = CutNetwork(timm.create_model("tf_efficientnet_lite0", num_classes=0)).to("meta").eval()
    counted = count_forward(cut, torch.empty(1, 3, 288, 512, device="meta"))
    assert sum(layer.count(288, 512) for layer in layers) == counted.macs
