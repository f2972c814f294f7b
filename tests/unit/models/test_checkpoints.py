"""Loading checkpoints with a head for the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ModelConfig
from tlhub.errors import CheckpointError
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.heads import output_layer, output_parameters

LABELS = ("x", "y", "z")


def load(folder: Path, kind: str, labels: tuple[str, ...] = LABELS, **choices: Any) -> Checkpoint:
    model, processor = tiny.auto_names(kind)
    pretrained, seed = choices.pop("pretrained", True), choices.pop("seed", 0)
    problem_type = choices.pop("problem_type", SINGLE_LABEL)
    return load_checkpoint(ModelConfig(name=str(folder), **choices), auto_model=model, auto_processor=processor,
                           label_names=labels, problem_type=problem_type, pretrained=pretrained, seed=seed)


@pytest.mark.parametrize("kind", tiny.TEXT_KINDS + tiny.IMAGE_KINDS)
def test_a_backbone_gets_a_fresh_head(kind: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, kind)
    first, again, other = load(folder, kind), load(folder, kind), load(folder, kind, seed=1)
    assert output_parameters(first.model) <= first.new_parameters
    assert first.model.config.id2label == dict(enumerate(LABELS))
    assert not first.model.training
    states = [checkpoint.model.state_dict() for checkpoint in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    differing = {name for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert differing
    assert differing <= first.new_parameters
    assert first.model(**tiny.inputs(kind)).logits.shape == (4, 3)


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "resnet"])
def test_a_head_for_the_same_labels_is_kept_by_name(kind: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, kind, ("z", "x", "y"))
    checkpoint = load(folder, kind)
    before = tiny.auto_model(kind).from_pretrained(folder).eval()
    if kind == "gpt2":
        before.config.pad_token_id = checkpoint.model.config.pad_token_id
    batch = tiny.inputs(kind)
    assert torch.allclose(checkpoint.model(**batch).logits, before(**batch).logits[:, [1, 2, 0]], atol=1e-6)
    assert checkpoint.new_parameters == frozenset()
    assert checkpoint.model.config.label2id == {"x": 0, "y": 1, "z": 2}


@pytest.mark.parametrize("labels", [("a", "b", "c"), ("x", "y")])
def test_a_head_for_other_labels_is_fresh(labels: tuple[str, ...], tmp_path: Path) -> None:
    other = load(tiny.checkpoint(tmp_path / "1", "vit", labels), "vit")
    none = load(tiny.checkpoint(tmp_path / "2", "vit"), "vit")
    assert other.new_parameters == none.new_parameters == {"classifier.weight", "classifier.bias"}
    assert torch.equal(output_layer(other.model)[1].weight, output_layer(none.model)[1].weight)


@pytest.mark.parametrize(("before", "now", "kept"), [
    (None, SINGLE_LABEL, True), (SINGLE_LABEL, SINGLE_LABEL, True), (MULTI_LABEL, MULTI_LABEL, True),
    (MULTI_LABEL, SINGLE_LABEL, False), (SINGLE_LABEL, MULTI_LABEL, False), (REGRESSION, REGRESSION, True)])
def test_a_head_for_another_kind_of_target_is_fresh(before: str | None, now: str, kept: bool, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "vit", LABELS, problem_type=before)
    checkpoint = load(folder, "vit", problem_type=now)
    assert (checkpoint.new_parameters == frozenset()) == kept
    assert checkpoint.model.config.problem_type == now


def test_scratch_keeps_the_architecture_only(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert", LABELS)
    fresh, pretrained = load(folder, "bert", pretrained=False), load(folder, "bert")
    assert fresh.new_parameters == {name for name, _ in fresh.model.named_parameters()}
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(fresh.model.state_dict()[name], pretrained.model.state_dict()[name])
    assert torch.equal(fresh.model.state_dict()[name], load(folder, "bert", pretrained=False).model.state_dict()[name])


def test_half_precision_files_train_in_single(tmp_path: Path) -> None:
    tiny.model("bert").half().save_pretrained(tmp_path)
    tiny.processor("bert").save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load(tmp_path, "bert").model.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "swin"])
def test_dropout_is_overridden_everywhere(kind: str, tmp_path: Path) -> None:
    changes = {"drop_path_rate": 0.2, "hidden_dropout_prob": 0.5} if kind == "swin" else {}
    folder = tiny.checkpoint(tmp_path, kind, **changes)
    batch = tiny.inputs(kind)
    torch.manual_seed(0)
    ordinary, silent = load(folder, kind).model.train(), load(folder, kind, dropout=0.0).model.train()
    assert not torch.equal(ordinary(**batch).logits, ordinary(**batch).logits)
    assert torch.equal(silent(**batch).logits, silent(**batch).logits)


def test_a_decoder_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, "gpt2"), "gpt2")
    assert checkpoint.processor.pad_token == "<|endoftext|>"
    assert checkpoint.model.config.pad_token_id == checkpoint.processor.pad_token_id
    alone = checkpoint.processor(["rain"], return_tensors="pt")
    padded = checkpoint.processor(["rain", "the film is very good and fine"], padding=True, return_tensors="pt")
    assert torch.allclose(checkpoint.model(**alone).logits[0], checkpoint.model(**padded).logits[0], atol=1e-6)


def test_the_wrong_kind_of_checkpoint(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "vit")
    tiny.processor("bert").save_pretrained(folder)
    with pytest.raises(CheckpointError, match="of type 'vit', which transformers has no SequenceClassification"):
        load_checkpoint(ModelConfig(name=str(folder)), auto_model="AutoModelForSequenceClassification",
                        auto_processor="AutoTokenizer", label_names=LABELS, pretrained=True, seed=0)


def test_damage_is_one_line(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load(folder, "bert")
    assert "\n" not in str(caught.value)
    weights.write_bytes(whole)
    state = load_file(weights)
    state["embeddings.LayerNorm.weight"] = torch.ones(5)
    save_file(state, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="another shape"):
        load(folder, "bert")
    save_file({"something.else": torch.ones(5)}, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="hold 0% of what"):
        load(folder, "bert")
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder, "bert")
