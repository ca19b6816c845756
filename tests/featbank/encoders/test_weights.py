"""What is missing is said completely, without a deep-learning library, and nothing random is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from featbank.encoders import (
    check_weights,
    find_sources,
    has_random_weights,
    missing_weights,
    random_weights_note,
)
from featbank.encoders.networks.catalogue import LEARNED_PROMPTS, SHEETS
from featbank.encoders.weights import (
    TERMS,
    content_digest,
    is_present,
    read_record,
    weights_folder,
    weights_path,
)
from featbank.errors import EncoderError, UnknownNameError

ICL = (
    "checkpoint:reiqa-quality",
    "checkpoint:reiqa-content",
    "checkpoint:places365-resnet50",
    "checkpoint:keypointrcnn-body",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_all_missing_files_come_in_one_message(folder: Path) -> None:
    with pytest.raises(EncoderError) as caught:
        check_weights([*ICL, ICL[0], "classic:nss"])
    text = str(caught.value)
    assert text.startswith("weights: 4 weights files are missing")
    for name in ICL:
        sheet = SHEETS[name.partition(":")[2]]
        for part in (name, sheet.source.url, sheet.source.licence, str(folder / sheet.source.filename)):
            assert part in text
        assert text.count(f"featbank weights fetch {name}\n") == 1


def test_finding_what_is_missing_loads_no_deep_learning_library() -> None:
    code = (
        f"import sys; from featbank.encoders import missing_weights; missing_weights({ICL!r});"
        "sys.exit(', '.join({'torch', 'timm', 'torchvision', 'open_clip', 'safetensors'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_random_and_weight_free_encoders_need_nothing(folder: Path) -> None:
    assert missing_weights(["classic:nss", "checkpoint:arniqa?random=0", "file:mine.py:Mine"]) == []


def test_options_change_no_source_and_learned_prompts_add_one() -> None:
    assert find_sources("checkpoint:arniqa?taps=layer2&pool=max") == (SHEETS["arniqa"].source,)
    assert find_sources("checkpoint:clip-rn50?prompts=clip-iqa-plus")[1] == LEARNED_PROMPTS


def test_an_unknown_checkpoint_gets_near_names() -> None:
    with pytest.raises(UnknownNameError, match="checkpoint:arniqa"):
        find_sources("checkpoint:arnica")


def test_a_file_counts_with_its_record_alone(folder: Path) -> None:
    source = SHEETS["arniqa"].source
    path = weights_path(source)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert not is_present(source)
    path.with_suffix(".json").write_text(json.dumps({"version": 1, "content_sha256": "ab"}))
    assert is_present(source)
    path.unlink()
    # The digest is known although the file lies elsewhere: fitting on a finished bank needs no more.
    assert not is_present(source)
    assert content_digest(source) == "ab"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}'])
def test_a_broken_record_says_what_to_delete(folder: Path, text: str) -> None:
    path = weights_path(SHEETS["arniqa"].source).with_suffix(".json")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(EncoderError, match="Delete it"):
        read_record(SHEETS["arniqa"].source)


def test_the_folder_follows_the_variable_then_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEATBANK_WEIGHTS", str(tmp_path))
    assert weights_folder() == tmp_path
    monkeypatch.delenv("FEATBANK_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert weights_folder() == tmp_path / "cache" / "featbank" / "weights"


def test_every_sheet_states_its_terms() -> None:
    for sheet in SHEETS.values():
        source = sheet.source
        assert source.terms in TERMS
        assert (source.terms == "open") == (source.licence in {"Apache-2.0", "MIT", "BSD-3-Clause", "CC-BY"})
        assert source.page.startswith("https://")
        assert len(source.sha256) in {0, 8, 64}
        assert ("--accept-licence" in source.command) == (source.terms != "open")


def test_random_weights_are_seen_by_the_name_alone() -> None:
    assert has_random_weights("checkpoint:arniqa?taps=layer2&random=0")
    assert not has_random_weights("checkpoint:arniqa?taps=layer2")
    assert not has_random_weights("classic:nss")
    assert not has_random_weights("file:random=0.py:Mine")
    assert random_weights_note([]) == ""
    assert "RANDOM WEIGHTS in a, b" in random_weights_note(["a", "b"])
