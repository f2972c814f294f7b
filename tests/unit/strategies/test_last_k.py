"""The last blocks: the frozen ones are run once, and it makes no difference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.bench import fit
from tests.workbench import make_workbench
from tlhub.errors import UsageError
from tlhub.models.blocks import blocks
from tlhub.training.callbacks import read_history
from tlhub.workbench import Workbench

ONCE, AGAIN = "were run once", "are run in every epoch"
KINDS = (*tiny.TEXT_KINDS, *tiny.IMAGE_KINDS, *tiny.TIMM_KINDS)


@pytest.fixture
def carry_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Any]:
    """Return what carries out a run and returns its workbench, the fitted model, the losses and what was told."""
    def run(kind: str, out: str = "run", **values: Any) -> tuple[Workbench, Any, np.ndarray, str]:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="tlhub"):
            bench = make_workbench(tmp_path, "last_k", kind, strategy__k=values.pop("k", 1), out=out, **values)
            fitted = fit(bench)
        lines = read_history(tmp_path / out / "history.jsonl")
        losses = [line["loss"] for line in lines if "loss" in line]
        scores = [line["validation"]["loss"] for line in lines if "validation" in line]
        return bench, fitted, np.array([*losses, *scores]), caplog.text

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_prefix_changes_nothing(kind: str, carry_out: Any) -> None:
    bench, cached, losses, told = carry_out(kind, "cached")
    _, whole, expected, told_of_whole = carry_out(kind, "whole", data__cache_limit_gib=0.0)
    assert ONCE in told
    assert AGAIN in told_of_whole
    assert "data.cache_limit_gib" in told_of_whole
    assert len(losses) == 6 + 2
    np.testing.assert_allclose(losses, expected, atol=1e-5, rtol=1e-5)
    assert np.ptp(losses) > 1e-3
    before = make_workbench(bench.folder.path.parent, "last_k", kind).checkpoint.model
    trained = {name for block in blocks(before)[-2:] for name in block.prefixes}
    after = cached.model.state_dict()
    moved = {name for name, value in before.state_dict().items() if not torch.equal(after[name], value)}
    norms = {name for name in moved - trained if f"{name.rpartition('.')[0]}.weight" in trained}
    assert moved - norms <= trained, "a frozen tensor or a frozen BatchNorm's statistics moved"
    assert len(moved & trained) > len(trained) / 2
    batch = bench.sample()
    torch.testing.assert_close(cached.model.eval()(**batch).logits, whole.model.eval()(**batch).logits, atol=1e-4,
                               rtol=1e-4)


def test_the_model_is_plain_afterwards(carry_out: Any) -> None:
    _, fitted, _, _ = carry_out("vit")
    for module in fitted.model.modules():
        assert "forward" not in vars(module)
        assert not module._forward_pre_hooks


def test_an_mlp_on_pooled_features_is_entered_too(carry_out: Any) -> None:
    for kind, pool in (("bert", "mean"), ("resnet", "mean"), ("vit", "flatten")):
        _, fitted, losses, told = carry_out(kind, f"{kind}-cached", model__head="5", model__pool=pool)
        _, _, expected, _ = carry_out(kind, f"{kind}-whole", model__head="5", model__pool=pool,
                                      data__cache_limit_gib=0.0)
        assert ONCE in told
        np.testing.assert_allclose(losses, expected, atol=1e-5)
        assert [name for name, value in fitted.model.named_parameters() if value.requires_grad][-1] == "head.2.bias"


def test_the_prefix_is_kept_for_the_next_run(carry_out: Any, tmp_path: Path) -> None:
    def entries() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("cache/*/rows.npy")}

    carry_out("bert", "first", train__max_steps=1)
    kept = entries()
    assert len(kept) == 2
    _, _, _, told = carry_out("bert", "second", train__max_steps=1, seed=3, train__learning_rate=0.1)
    assert ONCE in told
    assert entries() == kept


def test_weights_that_were_drawn_are_not_those_of_another_seed(carry_out: Any, tmp_path: Path) -> None:
    """Part of the frozen prefix is not in the checkpoint: it is another one with every seed."""
    folder = tiny.checkpoint(tmp_path / "bert", "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.0.output" not in name}
    assert len(kept) == len(weights) - 4
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    losses = {}
    for seed, limit in ((0, 4.0), (1, 4.0), (1, 0.0)):
        _, _, losses[seed, limit], told = carry_out("bert", f"{seed}-{limit}", seed=seed, data__cache_limit_gib=limit)
        assert (ONCE if limit else AGAIN) in told
        assert "does not bring 'bert.encoder.layer.0.output.LayerNorm.bias' and 3 more tensors of the frozen" in told
    np.testing.assert_allclose(losses[1, 4.0], losses[1, 0.0], atol=1e-5)


def test_kept_activations_of_other_weights_are_refused(carry_out: Any, tmp_path: Path) -> None:
    carry_out("bert", "first", train__max_steps=1)
    for path in tmp_path.glob("cache/*/rows.npy"):
        rows = np.load(path)
        np.save(path, rows + 0.05 * np.abs(rows).max())
    _, _, _, told = carry_out("bert", "second", train__max_steps=1)
    assert "what is kept for bert.encoder.layer.1 differs by" in told


def test_augmentation_runs_the_prefix(carry_out: Any) -> None:
    for values in ({"data__flip": True}, {"data__mixup": 0.4}):
        bench, fitted, _, told = carry_out("vit", str(values), train__max_steps=1, **values)
        assert "augmentation changes what they read" in told
        assert fitted.inputs is bench.inputs


def test_nothing_lies_before_the_first_block(carry_out: Any) -> None:
    _, fitted, _, told = carry_out("bert", k=2, train__max_steps=1)
    assert "no block lies before" in told
    frozen = {name for name, value in fitted.model.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, _ in fitted.model.named_parameters() if ".embeddings." in name}


def test_more_blocks_than_there_are_are_refused(carry_out: Any) -> None:
    with pytest.raises(UsageError, match=r"--strategy.k 3 .* the 2 of checkpoint .*bert'; take at most 2"):
        carry_out("bert", k=3)
