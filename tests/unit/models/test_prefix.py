"""Entering a model at its first trained block, and where that is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from tests import tiny
from tests.unit.models.test_checkpoints import load
from tlhub.data.activations import Layout
from tlhub.models.assembly import lay_out
from tlhub.models.blocks import blocks
from tlhub.models.freezing import freeze_all_but
from tlhub.models.prefix import (
    ACTIVATIONS,
    EXACT,
    CannotEnterError,
    entering,
    entry_activations,
    find_entry,
    fixed_activations,
    prove,
)

LABELS = ("x", "y", "z")
ENTRIES = {
    "bert": ["encoder.layer.1"], "roberta": ["encoder.layer.1"], "distilbert": ["transformer.layer.1"],
    "gpt2": ["h.1"], "vit": ["layers.1"], "resnet": ["stages.1.layers.0", "stages.0.layers.1"],
    # A stage's downsampling is trained with its first block, so the stage itself is entered.
    "convnextv2": ["stages.1.layers.1", "stages.1"], "swin": ["layers.1.blocks.1", "layers.1.blocks.0"],
    "timm_resnet": ["layer4.0", "layer3.0", "layer2.0"], "timm_vit": ["blocks.1"],
    "timm_convnext": ["stages.3.blocks.1", "stages.3", "stages.2.blocks.3"],
    "timm_efficientnet": ["blocks.4.0", "blocks.3.0"], "timm_vgg": ["features.18", "features.16", "features.13"],
}


def last_trained(model: Any, k: int) -> Any:
    """Freeze all but the last k blocks and the head."""
    trained = {name for block in blocks(model)[-k - 1:] for name in block.prefixes}
    freeze_all_but(model, trained.__contains__)
    return model


def lengths(batch: dict[str, torch.Tensor]) -> np.ndarray | None:
    return batch["attention_mask"].sum(1).numpy() if "attention_mask" in batch else None


@pytest.mark.parametrize("kind", ENTRIES)
def test_the_entered_model_gives_the_same_logits(kind: str) -> None:
    model = lay_out(tiny.model(kind, LABELS, **({"pad_token_id": 0} if kind == "gpt2" else {})))
    batch = tiny.inputs(kind)
    for k, expected in enumerate(ENTRIES[kind], start=1):
        ran: list[str] = []
        entry = find_entry(last_trained(model, k), batch)
        assert entry.name.endswith(f".{expected}")
        activations = fixed_activations(model, entry, batch)
        layout = Layout.of(activations, batch, lengths(batch))
        assert layout is not None
        arguments = layout.arguments(activations, batch, ACTIVATIONS)
        prove(model, entry, batch, arguments, tolerance=EXACT)
        below = [module.register_forward_hook(lambda *_, ran=ran: ran.append("ran")) for name in entry.passed
                 for module in model.get_submodule(name).children()]
        assert below or "features" in expected
        other = {**arguments, ACTIVATIONS: activations.roll(1, 0)}
        with entering(model, entry), torch.no_grad():
            entered = model(**other).logits
        assert ran == []
        assert not torch.allclose(entered, model(**batch).logits, atol=1e-4), "what is given is what is read"
        for hook in below:
            hook.remove()
    with pytest.raises(CannotEnterError):
        prove(model, entry, batch, other, tolerance=EXACT)


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper", "ast"])
def test_models_of_sound_are_entered_where_clips_have_one_length(kind: str, tmp_path: Path) -> None:
    model, batch = last_trained(load(tiny.checkpoint(tmp_path, kind), kind).model, 1), tiny.inputs(kind)
    entry = find_entry(model, batch)
    assert entry.name.endswith("layers.1")
    activations = fixed_activations(model, entry, batch)
    layout = Layout.of(activations, batch, None)
    assert layout is not None
    arguments = layout.arguments(activations, batch, ACTIVATIONS)
    assert all(len(value) == 1 for name, value in arguments.items() if name != ACTIVATIONS)
    prove(model, entry, batch, arguments, tolerance=EXACT)


def test_frames_of_clips_of_several_lengths_are_refused(tmp_path: Path) -> None:
    model, batch = last_trained(load(tiny.checkpoint(tmp_path, "hubert"), "hubert").model, 1), tiny.inputs("hubert")
    entry = find_entry(model, batch)
    assert Layout.of(fixed_activations(model, entry, batch), batch, lengths(batch)) is None


@pytest.mark.parametrize("kind", ["bert", "swin"])
def test_gradients_are_those_of_the_whole_model(kind: str) -> None:
    model, batch = last_trained(tiny.model(kind, LABELS), 1), tiny.inputs(kind)
    entry = find_entry(model, batch)
    activations = entry_activations(model, entry, batch)
    layout = Layout.of(activations, batch, lengths(batch))
    assert layout is not None
    gradients = []
    for entered in (False, True):
        model.zero_grad()
        if entered:
            with entering(model, entry):
                model(**layout.arguments(activations, batch, ACTIVATIONS)).logits.square().sum().backward()
        else:
            model(**batch).logits.square().sum().backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()
                          if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 10
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=1e-5, rtol=1e-4)


def test_an_error_inside_leaves_the_model_whole() -> None:
    model, batch = last_trained(tiny.model("vit", LABELS), 1), tiny.inputs("vit")
    whole = model(**batch).logits
    with pytest.raises(KeyError), entering(model, find_entry(model, batch)):
        model(**batch)
    assert torch.equal(model(**batch).logits, whole)


def test_a_prefix_that_is_random_in_training_is_refused() -> None:
    model, batch = last_trained(tiny.model("bert", LABELS), 1), tiny.inputs("bert")
    entry = find_entry(model, batch)
    fixed_activations(model, entry, batch)
    vars(model.bert.encoder.layer[0].output.dropout).pop("train")
    vars(model.bert.encoder.layer[0].output).pop("train")
    vars(model.bert.encoder.layer[0]).pop("train")
    with pytest.raises(CannotEnterError, match="not the same in training"):
        fixed_activations(model, entry, batch)
    assert not model.training


def test_a_block_that_is_run_more_than_once_is_refused() -> None:
    settings = transformers.AlbertConfig(hidden_size=16, embedding_size=8, num_attention_heads=2, intermediate_size=32,
                                         num_hidden_layers=3, vocab_size=100, num_labels=3)
    model = last_trained(transformers.AlbertForSequenceClassification(settings).eval(), 1)
    with pytest.raises(CannotEnterError, match=r"albert_layer_groups\.0 is run more than once"):
        find_entry(model, tiny.inputs("bert"))


class Block(nn.Module):
    """A layer, or one that returns more than its states."""

    def __init__(self, returns: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.returns = returns

    def forward(self, states: torch.Tensor) -> Any:
        return self.returns(self.linear(states))


class Chain(nn.Module):
    """Three layers and a head; `joined` says what the head reads of the states after each layer."""

    def __init__(self, joined: Any, returns: Any = lambda states: states) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_labels=2)
        self.layers = nn.ModuleList(Block(returns) for _ in range(3))
        self.head = nn.Linear(4, 2)
        self.joined = joined

    def forward(self, states: torch.Tensor) -> Any:
        each = [states]
        for layer in self.layers:
            output = layer(each[-1])
            each.append(output["states"] if isinstance(output, dict) else output)
        return SimpleNamespace(logits=self.head(self.joined(each)))


def test_a_head_that_reads_the_frozen_blocks_is_refused() -> None:
    batch = {"states": torch.randn(5, 4)}
    for joined, fits in ((lambda each: each[-1], True), (lambda each: sum(each), False)):
        model = Chain(joined)
        freeze_all_but(model, lambda name: name.startswith(("layers.2", "head")))
        entry = find_entry(model, batch)
        assert (entry.name, list(entry.passed)) == ("layers.2", ["layers.0", "layers.1"])
        arguments = {"states": batch["states"][:1], ACTIVATIONS: entry_activations(model, entry, batch)}
        if fits:
            prove(model, entry, batch, arguments, tolerance=EXACT)
        else:
            with pytest.raises(CannotEnterError, match=r"at layers\.2.* outputs differ by"):
                prove(model, entry, batch, arguments, tolerance=EXACT)


def test_a_block_that_returns_something_else_is_refused() -> None:
    model = Chain(lambda each: each[-1], returns=lambda states: {"states": states})
    freeze_all_but(model, lambda name: name.startswith(("layers.2", "head")))
    with pytest.raises(CannotEnterError, match=r"layers\.0 returns a dict"):
        find_entry(model, {"states": torch.randn(5, 4)})
