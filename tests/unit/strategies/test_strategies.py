"""What each strategy trains, on which inputs, and what it returns; the loop is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests import tiny
from tlhub.config import ModelConfig, RunConfig, replace
from tlhub.data.batches import ArrayInputs, Inputs
from tlhub.errors import CheckpointError
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.heads import PooledClassifier
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import FeatureHead

LABELS = np.arange(30) % 3


@dataclass
class Bench:
    """A workbench whose features are known and whose training only notes what it is given."""

    config: RunConfig
    checkpoint: Checkpoint
    classes: int = 3
    inputs: Mapping[str, Inputs] = field(default_factory=lambda: {
        split: ArrayInputs(np.zeros((30, 1), np.float32), LABELS) for split in ("train", "validation")})
    trained: list[tuple[nn.Module, set[str], Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def features(self, kinds: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Make `mean` tell the classes apart and the other kinds not."""
        random = np.random.default_rng(0)
        found = {}
        for kind in kinds:
            values = random.standard_normal((30, tiny.HIDDEN)).astype(np.float32)
            if kind == "mean":
                values[:, :3] += 8 * np.eye(3, dtype=np.float32)[LABELS]
            found[kind] = {"train": values, "validation": values}
        return found

    def train(self, model: nn.Module, inputs: Mapping[str, Inputs], *, whole: nn.Module | None = None) -> None:
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.trained.append((model, names, inputs))

    def tell(self, line: str) -> None:
        self.told.append(line)


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def build(strategy: str, kind: str = "bert", **values: Any) -> Bench:
        folder = tiny.checkpoint(tmp_path / kind, kind)
        auto_model, auto_processor = tiny.auto_names(kind)
        checkpoint = load_checkpoint(ModelConfig(name=str(folder)), auto_model=auto_model,
                                     auto_processor=auto_processor, label_names=("a", "b", "c"),
                                     pretrained=STRATEGIES.get(strategy).pretrained, seed=0)
        config = replace(RunConfig(task="x"), {"strategy.name": strategy,
                                               **{name.replace("__", "."): value for name, value in values.items()}})
        return Bench(config, checkpoint)
    return build


def fit(bench: Bench) -> Any:
    return STRATEGIES.get(bench.config.strategy.name)().fit(bench)


@pytest.mark.parametrize("strategy", ["full", "scratch"])
def test_everything_is_trained(make: Any, strategy: str) -> None:
    bench = make(strategy)
    fitted = fit(bench)
    (model, names, inputs), = bench.trained
    assert fitted.model is fitted.scorer is model is bench.checkpoint.model
    assert names == {name for name, _ in model.named_parameters()}
    assert inputs is bench.inputs


def test_only_scratch_starts_fresh() -> None:
    fresh = [name for name in STRATEGIES.names() if not STRATEGIES.get(name).pretrained]
    assert fresh == ["scratch"]


def test_lora_trains_adapters_and_the_head(make: Any) -> None:
    bench = make("lora", strategy__rank=2)
    fit(bench)
    (_, names, _), = bench.trained
    assert names
    assert all("lora_" in name or "classifier" in name for name in names)


def test_lora_trains_what_the_checkpoint_lacks_also_below_an_mlp(make: Any) -> None:
    """RoBERTa's dense layer is fresh; frozen, the head would read through random weights."""
    for head in ("linear", "5"):
        bench = make("lora", "roberta", strategy__rank=2, model__head=head)
        fit(bench)
        (_, names, _), = bench.trained
        assert [name for name in names if "classifier" in name and "dense" in name], head
        assert any("head" in name for name in names) == (head == "5")


@pytest.mark.parametrize(("features", "widths"), [("native", "linear"), ("mean", "linear"), ("native", "7"),
                                                  ("auto", "7")])
def test_the_head_alone_is_trained_on_cached_features(make: Any, features: str, widths: str) -> None:
    bench = make("head", strategy__features=features, model__head=widths)
    fitted = fit(bench)
    (head, names, inputs), = bench.trained
    assert isinstance(head, FeatureHead)
    assert names == {name for name, _ in head.named_parameters()}
    assert inputs["train"].features.shape == (30, tiny.HIDDEN)
    pooled = isinstance(fitted.model, PooledClassifier)
    assert pooled == (features != "native" or widths != "linear")
    assert not pooled or fitted.model.kind == ("native" if features == "native" else "mean")
    with torch.no_grad():
        next(head.parameters()).fill_(0.25)
    inside = {name for name, value in fitted.model.named_parameters() if (value == 0.25).all()}
    assert inside, "the head is a part of the model that is saved"
    frozen = [value for name, value in fitted.model.named_parameters() if not value.requires_grad]
    assert len(frozen) > len(names)


def test_augmentation_runs_the_frozen_backbone(make: Any) -> None:
    bench = make("head", "vit", data__flip=True, strategy__features="mean")
    fitted = fit(bench)
    (model, names, inputs), = bench.trained
    assert model is fitted.model
    assert inputs is bench.inputs
    assert names == {name for name, _ in model.named_parameters() if name.startswith("head.")}


@pytest.mark.parametrize("features", ["auto", "native", "mean"])
def test_a_probe_is_fitted_and_written_into_the_model(make: Any, features: str) -> None:
    bench = make("linear_probe", strategy__features=features)
    fitted = fit(bench)
    assert bench.trained == []
    chosen = "mean" if features == "auto" else features
    values = bench.features((chosen,))[chosen]["train"] if features != "auto" else fitted.inputs["train"].features
    scored = fitted.scorer(torch.from_numpy(values)).logits.argmax(dim=1).numpy()
    assert ((scored == LABELS).mean() == 1.0) == (chosen == "mean")
    assert isinstance(fitted.model, PooledClassifier) == (chosen != "native")
    assert any(chosen in line for line in bench.told)


def test_features_that_are_not_there_are_refused(make: Any) -> None:
    with pytest.raises(CheckpointError, match=r"'native' is not offered.*first, mean, layer_mean"):
        fit(make("linear_probe", "roberta", strategy__features="native"))
