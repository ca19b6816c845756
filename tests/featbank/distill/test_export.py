import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the optional packages of network encoders")
onnx = pytest.importorskip("onnx", reason="needs the optional packages of students")

from featbank.distill.export import describe_network, load_stored, write_student  # noqa: E402 - torch may be missing
from featbank.distill.network import StudentNetwork  # noqa: E402
from featbank.encoders import make_encoder  # noqa: E402
from featbank.encoders.macs import count_forward  # noqa: E402
from featbank.encoders.student import describe_student, students_folder  # noqa: E402
from featbank.errors import EncoderError, UnknownNameError  # noqa: E402

FACTS = {
    "name": "pupil", "title": "A student", "reference": "none", "licence": "Apache-2.0", "view": "tiles_3x3/center_64",
}  # fmt: skip


def _network(architecture="mobilenetv3_small_050"):
    torch.manual_seed(1)
    network = StudentNetwork(architecture, 24)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def _counted(network, height, width):
    return count_forward(
        network.like().to("meta").eval(), torch.empty(1, 3, height, width, device="meta")
    ).macs


@pytest.fixture(scope="module")
def pupil(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    network = _network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATBANK_WEIGHTS", str(folder))
        write_student(students_folder() / "pupil", network, FACTS, "# card\n", half=False)
    return folder, network


@pytest.fixture
def encoder(pupil, monkeypatch):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(pupil[0]))
    return make_encoder("featbank:pupil")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, 66, 98, 3), dtype=np.uint8)


def test_the_written_student_computes_what_torch_computes(encoder, pupil, crops):
    with torch.inference_mode():
        expected = pupil[1](torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255.0).numpy()
    found = encoder.encode(crops)
    assert found.shape == (5, 24)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_crop_alone_in_company_and_in_any_order_gives_the_same(encoder, crops):
    together = encoder.encode(crops)
    np.testing.assert_allclose(encoder.encode(crops[::-1])[::-1], together, rtol=1e-5, atol=1e-6)
    for k in range(len(crops)):
        np.testing.assert_allclose(encoder.encode(crops[k : k + 1])[0], together[k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["mobilenetv3_small_050", "mobilenetv4_conv_small_035"])
def test_the_description_counts_what_torch_counts(architecture):
    network = _network(architecture)
    facts = describe_network(network, FACTS)
    for size in ((64, 64), (66, 98), (224, 224), (130, 1000)):
        assert facts.count_macs(*size) == _counted(network, *size)
    assert facts.n_params == sum(p.numel() for p in network.parameters())


def test_half_precision_halves_the_file_and_moves_the_numbers_little(pupil, tmp_path, monkeypatch, crops):
    whole = pupil[0] / "featbank" / "pupil" / "network.onnx"
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    facts = FACTS | {"name": "halved"}
    write_student(students_folder() / "halved", pupil[1], facts, "", half=True)
    halved = students_folder() / "halved" / "network.onnx"
    assert halved.stat().st_size < 0.6 * whole.stat().st_size
    with torch.inference_mode():
        expected = pupil[1](torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255.0).numpy()
    assert (
        np.abs(make_encoder("featbank:halved").encode(crops) - expected).max() < 0.01 * np.abs(expected).max()
    )


def test_the_file_spends_nothing_on_names(pupil):
    graph = onnx.load(pupil[0] / "featbank" / "pupil" / "network.onnx").graph
    ends = {value.name for value in (*graph.input, *graph.output)}
    assert ends == {"crops", "embedding"}
    written = [name for node in graph.node for name in node.output]
    assert len(set(written)) == len(written)
    assert max(len(name) for name in {*written, *(t.name for t in graph.initializer)} - ends) <= 4
    assert not any(node.name for node in graph.node)


def test_kept_weights_start_a_network_of_the_same_architecture_only(pupil):
    path = pupil[0] / "featbank" / "pupil" / "weights.safetensors"
    fresh = StudentNetwork("mobilenetv3_small_050", 24)
    assert load_stored(path, fresh)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, pupil[1].state_dict()[name]), name
    assert not load_stored(path, StudentNetwork("mobilenetv3_small_075", 24))


def test_a_student_that_sees_statistics_is_written_counted_and_started_alike(
    pupil, tmp_path, monkeypatch, crops
):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    wider = StudentNetwork("mobilenetv3_small_050", 24, statistics=True).eval()
    assert load_stored(pupil[0] / "featbank" / "pupil" / "weights.safetensors", wider)
    batch = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255.0
    with torch.inference_mode():
        # Before it learns, what it sees besides has no say.
        torch.testing.assert_close(wider(batch), pupil[1](batch), rtol=1e-5, atol=1e-5)
        wider.embed.weight[:, -100:] = 0.01
        expected = wider(batch).numpy()
        assert not np.allclose(expected, pupil[1](batch).numpy(), atol=1e-3)
    facts = write_student(students_folder() / "wider", wider, FACTS | {"name": "wider"}, "", half=False)
    encoder = make_encoder("featbank:wider")
    for chosen in (slice(None), slice(2, 3)):
        np.testing.assert_allclose(encoder.encode(crops[chosen]), expected[chosen], rtol=1e-3, atol=1e-3)
    assert facts.count_macs(66, 98) == _counted(wider, 66, 98)


def test_a_changed_file_is_refused(pupil, tmp_path, monkeypatch, crops):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    facts = FACTS | {"name": "changed"}
    write_student(students_folder() / "changed", pupil[1], facts, "")
    path = students_folder() / "changed" / "network.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(EncoderError, match=r"SHA-256 of .* must be"):
        make_encoder("featbank:changed").encode(crops)


def test_sizes_that_do_not_fit_are_refused(encoder):
    for height, width in ((32, 64), (65, 64), (64, 97)):
        with pytest.raises(EncoderError, match=r"multiples of 2.*Use its own view"):
            encoder.check_size(height, width)


def test_an_unknown_student_is_named_with_near_ones(pupil, monkeypatch):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(pupil[0]))
    with pytest.raises(UnknownNameError, match="pupil"):
        make_encoder("featbank:pupl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "version 1"),
        ('{"version": 2}', "version 1"),
        ('{"version": 1}', "cannot be read"),
    ],
)
def test_a_description_that_is_none_is_refused(pupil, tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    folder = students_folder() / "broken"
    folder.mkdir(parents=True)
    (folder / "student.json").write_text(text)
    with pytest.raises(EncoderError, match=message):
        describe_student("broken")


def test_only_mobilenets_are_taken():
    with pytest.raises(EncoderError, match="MobileNet V3 or V4"):
        StudentNetwork("resnet18")
