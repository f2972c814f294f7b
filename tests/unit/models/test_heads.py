"""Heads of tlhub's own, what they read, and output layers of any number of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import tiny
from tests.unit.models.test_adapters import adapted, trained
from tests.unit.models.test_checkpoints import LABELS, load
from tlhub.config import ModelConfig
from tlhub.errors import CheckpointError, UsageError
from tlhub.models.assembly import head_module, head_parameters, with_head, with_linear_head, with_pooled_head
from tlhub.models.blocks import blocks
from tlhub.models.features import FeatureExtractor, check_kind
from tlhub.models.heads import HeadForm, PooledClassifier, output_layer
from tlhub.models.outputs import one_sigmoid
from tlhub.models.saving import load_saved, save_model

KINDS = (*tiny.TEXT_KINDS, *tiny.IMAGE_KINDS, "timm_resnet", "timm_vit")


def headed(folder: Path, kind: str, **choices: Any) -> Any:
    """Return a tiny checkpoint and its model with the head that options ask for."""
    checkpoint = load(tiny.checkpoint(folder, kind), kind)
    return checkpoint, with_head(checkpoint, ModelConfig(**choices), seed=0, sample=tiny.inputs(kind, 1))


def test_form() -> None:
    head = HeadForm((6, 4), "tanh", 0.25).build(8, 3)
    hidden = [nn.Linear, nn.Tanh, nn.Dropout]
    assert [type(layer) for layer in head] == [*hidden, *hidden, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)] == [(6, 8), (4, 6), (3, 4)]
    assert {layer.p for layer in head if isinstance(layer, nn.Dropout)} == {0.25}
    assert [type(layer) for layer in HeadForm((5,), "silu").build(8, 3)] == [nn.Linear, nn.SiLU, nn.Linear]
    assert HeadForm().build(8, 3, bias=False)[0].bias is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_mlp_on_every_backbone(kind: str, tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path, kind)
    batch, sample = tiny.inputs(kind), tiny.inputs(kind, 1)
    for feature in ("native", "mean"):
        options = ModelConfig(head="6,5", pool=feature, activation="gelu")
        model, again = (with_head(load(tmp_path, kind), options, seed=0, sample=sample) for _ in range(2))
        assert isinstance(model, PooledClassifier)
        assert model.kind == feature
        assert model(**batch).logits.shape == (4, 3)
        assert torch.equal(again(**batch).logits, model(**batch).logits)
        chosen = head_parameters(model)
        assert {name for name, _ in model.named_parameters() if chosen(name)} == {
            name for name in blocks(model)[-1].prefixes if not name.startswith("backbone.")}


def test_auto_and_native_linear_heads_are_those_of_transformers(tmp_path: Path) -> None:
    for pool in ("auto", "native"):
        checkpoint, model = headed(tmp_path, "bert", pool=pool)
        assert model is checkpoint.model
    checkpoint, model = headed(tmp_path, "bert", pool="mean")
    assert isinstance(model, PooledClassifier)
    assert [type(layer) for layer in model.head] == [nn.Linear]
    _, model = headed(tmp_path, "bert", head="7")
    assert model.kind == "native"


@pytest.mark.parametrize(("kind", "width"), [("vit", 256), ("swin", 256), ("resnet", 256), ("timm_resnet", 256)])
def test_flattened_features_keep_every_place(kind: str, width: int, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, kind), kind)
    batch = tiny.inputs(kind)
    features = FeatureExtractor(checkpoint.model, ("mean", "flatten"))(batch)
    model = with_head(checkpoint, ModelConfig(head="4", pool="flatten"), seed=0, sample=tiny.inputs(kind, 1))
    assert head_module(model)[0].in_features == width
    with torch.no_grad():
        assert torch.allclose(model.features(**batch), features["flatten"], atol=1e-6)
    places = (4, tiny.HIDDEN, -1) if kind in ("resnet", "timm_resnet") else (4, -1, tiny.HIDDEN)
    means = features["flatten"].reshape(places).mean(2 if kind in ("resnet", "timm_resnet") else 1)
    assert torch.allclose(means, features["mean"], atol=1e-5)


@pytest.mark.parametrize(("kind", "pool", "words"), [
    ("bert", "flatten", "'flatten' cannot be had.*'bert'; take one of: native, first, mean$"),
    ("gpt2", "first", "'first' cannot be had"), ("resnet", "first", "take one of: native, mean, flatten"),
    ("timm_resnet", "first", "take one of: native, mean, flatten")])
def test_features_that_the_architecture_has_not(kind: str, pool: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        headed(tmp_path, kind, pool=pool)


def test_features_that_the_checkpoint_does_not_bring(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "1", "roberta"), "roberta")
    check_kind(checkpoint.model, checkpoint.new_parameters, "mean")
    with pytest.raises(CheckpointError, match=r"'native' is not offered .* features are: first, mean$"):
        check_kind(checkpoint.model, checkpoint.new_parameters, "native")
    fresh = load(tiny.checkpoint(tmp_path / "2", "vit"), "vit", pretrained=False)
    with pytest.raises(CheckpointError, match="features are: none"):
        check_kind(fresh.model, fresh.new_parameters, "flatten")


def test_widths_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'0' is neither"):
        headed(tmp_path, "vit", head="0")


def test_dropout_of_the_head_alone(tmp_path: Path) -> None:
    _, model = headed(tmp_path, "vit", head="64", head_dropout=0.5)
    batch = tiny.inputs("vit")
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    model.train()
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_a_fitted_linear_head(tmp_path: Path) -> None:
    for kind in ("native", "mean"):
        checkpoint = load(tiny.checkpoint(tmp_path, "timm_resnet"), "timm_resnet")
        batch, weight, bias = tiny.inputs("timm_resnet"), torch.randn(3, tiny.HIDDEN), torch.randn(3)
        features = FeatureExtractor(checkpoint.model, (kind,))(batch)[kind]
        model = with_linear_head(checkpoint, kind, weight, bias)
        assert torch.allclose(model(**batch).logits, features @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize(("kind", "form"), [*((kind, "full") for kind in KINDS), ("roberta", "lora"),
                                            ("gpt2", "lora"), ("timm_vit", "lora"), ("vit", "mlp")])
def test_one_output_becomes_two(kind: str, form: str, tmp_path: Path) -> None:
    """A sigmoid is trained as one output, of the whole model or of adapters, and kept as the two that it stands for."""
    checkpoint = load(tiny.checkpoint(tmp_path / "base", kind), kind, ("yes",))
    model: Any = checkpoint.model
    assert output_layer(model)[1].out_features == 1
    if form == "lora":
        model = adapted(checkpoint)
    elif form == "mlp":
        model = with_pooled_head(checkpoint, "mean", ModelConfig(head="4"), seed=0, sample=tiny.inputs(kind, 1))
    batch = tiny.inputs(kind)
    with torch.no_grad():
        single = model.eval()(**batch).logits
        assert single.shape == (4, 1)
        one_sigmoid().fold(model)
        pair = model(**batch).logits
    np.testing.assert_allclose(pair.numpy(), one_sigmoid().apply(single.numpy()), atol=1e-5)
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=("no", "yes"))
    again, _ = load_saved(tmp_path / "out", *tiny.auto_names(kind))
    with torch.no_grad():
        assert torch.allclose(again(**batch).logits, pair, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_adapters_below_pooled_features_are_merged(pool: str, tmp_path: Path) -> None:
    for kind in ("vit", "timm_vit"):
        checkpoint, model = headed(tmp_path / kind, kind, head="6", pool=pool)
        checkpoint.model = model
        model = trained(adapted(checkpoint), kind)
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any("lora_" in name for name in names)
        assert all("lora_" in name or ".head." in name for name in names)
        batch = tiny.inputs(kind)
        save_model(model, checkpoint.processor, tmp_path / kind / "out", origin=checkpoint.origin, label_names=LABELS)
        again, _ = load_saved(tmp_path / kind / "out", *tiny.auto_names(kind))
        assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-5)
