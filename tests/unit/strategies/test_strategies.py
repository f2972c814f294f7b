"""What each strategy trains, on which inputs, and what it returns; the loop is left out."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.bench import fit, make_bench
from tlhub.errors import CheckpointError, UsageError
from tlhub.models.heads import PooledClassifier
from tlhub.models.outputs import one_sigmoid
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import FeatureHead


@pytest.fixture
def make(tmp_path: Path) -> Any:
    return functools.partial(make_bench, tmp_path)


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
    bench = make("head", "vit", strategy__features="mean")
    bench.inputs["train"].augmented = True
    fitted = fit(bench)
    (model, names, inputs), = bench.trained
    assert model is fitted.model
    assert inputs is bench.inputs
    assert names == {name for name, _ in model.named_parameters() if name.startswith("head.")}


@pytest.mark.parametrize(("kind", "pool"), [("vit", "flatten"), ("vit", "first"), ("timm_resnet", "flatten"),
                                            ("bert", "mean"), ("bert", "native")])
@pytest.mark.parametrize("augmented", [False, True])
def test_the_head_reads_what_the_model_section_names(make: Any, kind: str, pool: str, augmented: bool) -> None:
    bench = make("head", kind, model__pool=pool, model__head="7", strategy__features="auto")
    bench.inputs["train"].augmented = augmented
    fitted = fit(bench)
    (trained, names, inputs), = bench.trained
    assert fitted.model.kind == pool
    assert (trained is fitted.model) == augmented == (inputs is bench.inputs)
    assert {name.removeprefix("head.")[:1] for name in names} == {"0", "2"}
    assert not any("leave-one-out" in line for line in bench.told), "the probe is not asked"


def test_a_named_kind_of_features_has_to_be_there(make: Any) -> None:
    with pytest.raises(CheckpointError, match=r"--model.pool 'native' is not offered"):
        fit(make("head", "roberta", model__pool="native"))
    with pytest.raises(UsageError, match=r"'mean' and --strategy.features 'first' name different features"):
        fit(make("head", "bert", model__pool="mean", strategy__features="first"))


def test_merged_adapters_need_their_base(make: Any) -> None:
    with pytest.raises(UsageError, match=r"--model.save_base False cannot be had with strategy lora under a head"):
        fit(make("lora", model__head="5", model__save_base=False))


def test_adapters_that_are_kept_with_their_base_say_so(make: Any) -> None:
    with pytest.raises(UsageError, match=r"--model.save_base False cannot be had with strategy lora over '.*timm"):
        fit(make("lora", "timm_resnet", model__save_base=False, model__name="timm"))
    assert fit(make("lora", "timm_resnet", model__save_base=True)).model


@pytest.mark.parametrize("strategy", ["head", "full"])
def test_a_pool_that_is_not_there_names_those_that_can_be_asked_for(make: Any, strategy: str) -> None:
    with pytest.raises(CheckpointError, match=r"--model.pool 'flatten' .*: native, first, mean$"):
        fit(make(strategy, model__pool="flatten"))


@pytest.mark.parametrize("strategy", ["full", "scratch", "lora", "head"])
def test_outputs_are_undone_as_they_were_trained(make: Any, strategy: str) -> None:
    outputs = one_sigmoid()
    bench = make(strategy, outputs=outputs)
    assert fit(bench).outputs is outputs
