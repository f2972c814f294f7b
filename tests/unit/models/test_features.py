"""Features of frozen checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.unit.models.test_checkpoints import load
from tlhub.models.features import FeatureExtractor, available_features, extract_features
from tlhub.models.heads import output_layer

EXPECTED = {
    "bert": ("native", "first", "mean", "layer_mean"),
    "roberta": ("first", "mean", "layer_mean"),
    "distilbert": ("first", "mean", "layer_mean"),
    "gpt2": ("native", "mean", "layer_mean"),
    "vit": ("native", "first", "mean", "layer_mean"),
    "resnet": ("native", "mean"),
    "convnextv2": ("native", "mean"),
    "swin": ("native", "mean"),
    "wav2vec2": ("mean", "layer_mean"),
    "wavlm": ("mean", "layer_mean"),
    "whisper": ("mean", "layer_mean"),
    "ast": ("native", "first", "mean", "layer_mean"),
}


@dataclass
class Texts:
    """Rows of tokens of different lengths, as `data.batches.Inputs`."""

    rows: list[list[int]]
    lengths: np.ndarray | None = None
    sizes: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        rows = [self.rows[index] for index in indices]
        width = max(map(len, rows))
        self.sizes.append(width)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        return {"input_ids": ids, "attention_mask": mask} if not mask.all() else {"input_ids": ids}


class Store(dict[str, dict[str, np.ndarray]]):
    """A cache in memory."""

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        self[key] = arrays


@pytest.mark.parametrize("kind", EXPECTED)
def test_kinds_and_the_native_one(kind: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, kind), kind)
    kinds = available_features(checkpoint.model, checkpoint.new_parameters)
    assert kinds == EXPECTED[kind]
    model = checkpoint.model.train()
    before = {name: module.training for name, module in model.named_modules()}
    batch = tiny.inputs(kind)
    features = FeatureExtractor(model, kinds)(batch)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(values.shape == (4, tiny.HIDDEN) for values in features.values())
    if "native" in kinds:
        logits = model.eval()(**batch).logits
        assert torch.allclose(output_layer(model)[1](features["native"]), logits, atol=1e-6)
    for alone in kinds:
        assert torch.equal(FeatureExtractor(model, [alone])(batch)[alone], features[alone])


def test_a_trained_head_makes_its_input_native(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, "roberta", ("a", "b", "c")), "roberta")
    assert "native" in available_features(checkpoint.model, checkpoint.new_parameters)


def test_image_tokens_leave_the_class_token_out(tmp_path: Path) -> None:
    model = load(tiny.checkpoint(tmp_path, "vit"), "vit").model
    batch = tiny.inputs("vit")
    states = model.vit(**batch).last_hidden_state
    features = FeatureExtractor(model, ("first", "mean"))(batch)
    assert torch.allclose(features["first"], states[:, 0])
    assert torch.allclose(features["mean"], states[:, 1:].mean(1), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_extraction_keeps_the_order_and_ignores_padding(batch_size: int, tmp_path: Path) -> None:
    model = load(tiny.checkpoint(tmp_path, "bert"), "bert").model
    rows = [[2, *range(5, 6 + (7 * index) % 11), 3] for index in range(10)]
    inputs = Texts(rows, np.array([len(row) for row in rows]))
    kinds = ("native", "mean", "layer_mean")
    found = extract_features(model, inputs, kinds, device=torch.device("cpu"), batch_size=batch_size)
    assert inputs.sizes == sorted(inputs.sizes)
    for index, row in enumerate(rows):
        alone = FeatureExtractor(model, kinds)({"input_ids": torch.tensor([row])})
        for kind in kinds:
            assert found[kind].dtype == np.float32
            np.testing.assert_allclose(found[kind][index], alone[kind][0].numpy(), atol=1e-5)


def test_the_cache_is_asked_first(tmp_path: Path) -> None:
    model = load(tiny.checkpoint(tmp_path, "bert"), "bert").model
    inputs, store = Texts([[2, 5, 3], [2, 6, 3]]), Store()
    cpu = torch.device("cpu")
    first = extract_features(model, inputs, ["mean"], device=cpu, batch_size=2, cache=store, key="k")
    again = extract_features(model, inputs, ["mean"], device=cpu, batch_size=2, cache=store, key="k")
    assert again["mean"] is first["mean"]
    assert len(inputs.sizes) == 1
    extract_features(model, inputs, ["mean"], device=cpu, batch_size=2, cache=store, key="other")
    assert len(inputs.sizes) == 2
