"""An architecture's ordered blocks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from tests import tiny
from tests.unit.models.test_checkpoints import load
from tlhub.config import ModelConfig, StrategyConfig
from tlhub.errors import CheckpointError
from tlhub.models.adapters import add_adapter
from tlhub.models.blocks import WITHOUT_BLOCKS, block_index, blocks, known_blocks, unit_modules
from tlhub.models.checkpoints import load_checkpoint
from tlhub.models.heads import HeadForm, pooled_classifier
from tlhub.registry import STRATEGIES

EXPECTED = {
    "bert": ["bert.encoder.layer.0", "bert.encoder.layer.1"],
    "roberta": ["roberta.encoder.layer.0", "roberta.encoder.layer.1"],
    "distilbert": ["distilbert.transformer.layer.0", "distilbert.transformer.layer.1"],
    "gpt2": ["transformer.h.0", "transformer.h.1"],
    "vit": ["vit.layers.0", "vit.layers.1"],
    "resnet": [f"resnet.encoder.stages.{place}" for place in ("0.layers.0", "0.layers.1", "1.layers.0")],
    "convnextv2": [f"convnextv2.encoder.stages.{place}" for place in ("0.layers.0", "1.layers.0", "1.layers.1")],
    "swin": [f"swin.encoder.layers.{place}" for place in ("0.blocks.0", "1.blocks.0", "1.blocks.1")],
    "wav2vec2": ["wav2vec2.encoder.layers.0", "wav2vec2.encoder.layers.1"],
    "hubert": ["hubert.encoder.layers.0", "hubert.encoder.layers.1"],
    "whisper": ["encoder.layers.0", "encoder.layers.1"],
    "ast": ["audio_spectrogram_transformer.layers.0", "audio_spectrogram_transformer.layers.1"],
}
JOINED = {
    "bert.pooler.dense.weight": "bert.encoder.layer.1",
    "transformer.ln_f.weight": "transformer.h.1",
    "vit.layernorm.bias": "vit.layers.1",
    "convnextv2.encoder.stages.1.downsampling_layer.1.weight": "convnextv2.encoder.stages.1.layers.0",
    "swin.encoder.layers.0.downsample.reduction.weight": "swin.encoder.layers.0.blocks.0",
    "wav2vec2.encoder.layer_norm.weight": "stem",
    "hubert.encoder.layer_norm.weight": "hubert.encoder.layers.1",
    "encoder.layer_norm.weight": "encoder.layers.1",
    "pre_classifier.weight": "head",
    "projector.weight": "head",
    "classifier.dense.weight": "head",
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_order_and_membership(kind: str, tmp_path: Path) -> None:
    model = load(tiny.checkpoint(tmp_path, kind), kind).model
    found = blocks(model)
    assert [block.name for block in found] == ["stem", *EXPECTED[kind], "head"]
    index = block_index(model)
    assert list(index) == [name for block in found for name in block.prefixes]
    assert sorted(index) == sorted(name for name, _ in model.named_parameters())
    for name, block in JOINED.items():
        if name in index:
            assert found[index[name]].name == block


@pytest.mark.parametrize("kind", ["bert", "gpt2", "resnet", "swin"])
def test_adapters_stay_in_their_blocks(kind: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, kind), kind)
    model = add_adapter(checkpoint.model, StrategyConfig(rank=2), seed=0, new_parameters=checkpoint.new_parameters)
    names = [block.name for block in blocks(model)]
    assert names == ["stem", *(f"base_model.model.{name}" for name in EXPECTED[kind]), "head"]
    for name, place in block_index(model).items():
        if "lora_" in name:
            own = name.startswith(names[place].removesuffix(".blocks.0"))
            assert own or ("pooler" in name and place == len(names) - 2)
        assert ("modules_to_save" in name) <= (names[place] == "head")


@pytest.mark.parametrize("feature", ["native", "mean"])
def test_a_head_of_our_own(feature: str, tmp_path: Path) -> None:
    model = pooled_classifier(load(tiny.checkpoint(tmp_path, "bert"), "bert").model, feature, HeadForm((8,)), seed=0)
    found = blocks(model)
    assert len(found) == 4
    assert set(found[-1].prefixes) == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}


@pytest.mark.parametrize(("name", "first", "count"), [("test_resnet", "timm_model.layer1.0", 4),
                                                      ("test_vit", "timm_model.blocks.0", 6),
                                                      ("test_convnext", "timm_model.stages.0.blocks.0", 9)])
def test_models_of_timm(name: str, first: str, count: int, tmp_path: Path) -> None:
    save_for_hf(timm.create_model(name, num_classes=7), tmp_path, safe_serialization=True)
    model = load_checkpoint(ModelConfig(name=str(tmp_path)), auto_model="AutoModelForImageClassification",
                            auto_processor="AutoImageProcessor", label_names=("x", "y"), pretrained=True, seed=0).model
    found = blocks(model)
    assert [found[0].name, found[1].name, found[-1].name] == ["stem", first, "head"]
    assert len(found) == count + 2
    assert sorted(block_index(model)) == sorted(parameter for parameter, _ in model.named_parameters())
    assert len(found[-1].prefixes) == 2


@pytest.mark.parametrize(("name", "first", "count"), [
    ("vgg11_bn", ["features.0", "features.4", "features.8"], 8), ("test_efficientnet", ["blocks.0.0", "blocks.1.0"], 5),
    ("inception_v3", ["Conv2d_1a_3x3", "Conv2d_2a_3x3"], 16), ("densenet121", ["features.denseblock1"], 7),
    ("regnety_002", ["s1.b1", "s2.b1"], 13), ("swin_tiny_patch4_window7_224", ["layers.0.blocks.0"], 12)])
def test_other_architectures_of_timm(name: str, first: list[str], count: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    model.config = SimpleNamespace(num_labels=7)
    found = [block.name for block in blocks(model) if block.name not in ("stem", "head")]
    assert found[:len(first)] == first
    assert len(found) == count
    if name == "vgg11_bn":  # a convolution and its norm are one block
        assert block_index(model)["features.1.weight"] == block_index(model)["features.0.weight"]
        assert unit_modules(model)[:3] == ("features.0", "features.1", "features.4")


def test_an_architecture_without_known_blocks_names_what_remains() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model.config = SimpleNamespace(num_labels=2)
    assert [block.name for block in blocks(model)] == ["stem", "head"]
    with pytest.raises(CheckpointError, match=r"last_k needs the blocks.* in Sequential none are known; take one of: "
                                              r"full, scratch, head, linear_probe, lp_ft, lora$"):
        known_blocks(model, "last_k")
    assert {*WITHOUT_BLOCKS, "last_k", "gradual_unfreezing"} == set(STRATEGIES.names())
