"""`strategy.freeze_stem`: what stands before the first block stays as it is, and the audit knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.bench import Bench, fit, make_bench
from tests.unit.models.test_checkpoints import load
from tests.workbench import make_workbench
from tlhub.errors import CheckpointError, TlhubError
from tlhub.models.blocks import blocks
from tlhub.models.freezing import TrainabilityAudit, freeze_stem, frozen_modules, trainable_report
from tlhub.training import callbacks


@pytest.mark.parametrize(("strategy", "kind"), [("full", "resnet"), ("lp_ft", "bert"), ("gradual_unfreezing", "bert")])
def test_the_stem_stays_as_it_is(strategy: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audits: list[TrainabilityAudit] = []

    class Noted(TrainabilityAudit):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            audits.append(self)

    monkeypatch.setattr(callbacks, "TrainabilityAudit", Noted)
    bench = make_workbench(tmp_path, strategy, kind, strategy__freeze_stem=True)
    before = {name: value.clone() for name, value in bench.checkpoint.model.state_dict().items()}
    model = fit(bench).model
    index = {name: block.name for block in blocks(model) for name in block.prefixes}
    inside = getattr(model, "own_name", str)
    after = dict(model.named_parameters())
    still = {name for name, value in before.items()
             if inside(name) in after and torch.equal(after[inside(name)], value)}
    stem = {name for name, block in index.items() if block == "stem"}
    assert stem
    assert stem <= {inside(name) for name in still}
    assert {name for name, value in after.items() if not value.requires_grad} == stem
    assert audits
    assert all(stem.isdisjoint(audit.trainable) for audit in audits)
    assert trainable_report(model)[0].trainable == 0


def test_without_it_the_stem_moves(tmp_path: Path) -> None:
    bench = make_workbench(tmp_path, "full", "bert")
    before = bench.checkpoint.model.bert.embeddings.word_embeddings.weight.detach().clone()
    assert not torch.equal(fit(bench).model.bert.embeddings.word_embeddings.weight, before)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "whisper", "ast"])
def test_the_stem_of_models_of_sound(kind: str, tmp_path: Path) -> None:
    """wav2vec2's convolutions would ask for the gradient of the waveform while they train."""
    model = load(tiny.checkpoint(tmp_path, kind), kind).model
    freeze_stem(model, "full")
    model.train()
    stem = blocks(model)[0]
    assert {name for name, value in model.named_parameters() if not value.requires_grad} == set(stem.prefixes)
    owners = {name.rpartition(".")[0] for name in stem.prefixes} - {"audio_spectrogram_transformer.embeddings"}
    frozen = set(frozen_modules(model))
    assert all(model.get_submodule(name) in frozen for name in owners)
    if kind in tiny.WAVE_KINDS:
        extractor = model.base_model.feature_extractor
        assert not extractor(tiny.inputs(kind)["input_values"]).requires_grad
    audit = TrainabilityAudit(model)
    with torch.no_grad():
        model.get_parameter(stem.prefixes[0]).view(-1)[0] += 1.0
    with pytest.raises(TlhubError, match="declared frozen"):
        audit.check(model)


def test_an_architecture_without_known_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench: Bench = make_bench(tmp_path, "full", strategy__freeze_stem=True)
    monkeypatch.setattr("tlhub.models.blocks.UNITS", re.compile("(?!)"))
    with pytest.raises(CheckpointError, match=r"--strategy full with --strategy.freeze_stem needs the blocks"):
        fit(bench)
