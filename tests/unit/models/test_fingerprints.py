"""Digests change with what they stand for, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tlhub.data import audio, frontends, image
from tlhub.models.fingerprints import file_digests, processing_digest, settings_digest
from tlhub.models.origin import resolve_origin
from tlhub.registry import TASKS


def test_settings() -> None:
    model = tiny.model("bert")
    before = settings_digest(model)
    model.config._name_or_path = "elsewhere"
    assert settings_digest(model) == before
    model.config.hidden_act = "relu"
    assert settings_digest(model) != before


def test_processing() -> None:
    tokenizer = tiny.processor("bert")
    before = processing_digest(tokenizer, 64)
    assert processing_digest(tiny.processor("bert"), 64) == before
    assert processing_digest(tokenizer, 32) != before
    tokenizer.chat_template = "{{ messages }}"
    assert processing_digest(tokenizer, 64) != before


def test_features_do_not_outlive_the_code_that_made_what_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"audio-classification": ("wavlm", [(audio, "DECODING"), (frontends, "_VERSION")]),
               "image-classification": ("vit", [(image, "DECODING")])}
    for task, (kind, versions) in changes.items():
        processor, front = tiny.processor(kind), TASKS.get(task)().front
        seen = {front(processor)}
        for owner, name in versions:
            monkeypatch.setattr(owner, name, "another")
            seen.add(front(processor))
        assert len(seen) == 1 + len(versions)
    assert TASKS.get("text-classification")().front(tiny.processor("bert")) == ""


def test_files_beside_the_weights(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "model", "bert")
    (folder / "README.md").write_text("words")
    digests = file_digests(resolve_origin(str(folder)))
    assert set(digests) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    changed = file_digests(resolve_origin(str(folder)))
    assert [name for name in digests if digests[name] != changed[name]] == ["config.json"]
