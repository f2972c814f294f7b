"""Heads fitted to cached features: what they predict, and what fine-tuning starts from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.bench import CLASSES, fit, make_bench
from tlhub.config import replace
from tlhub.errors import CheckpointError, UsageError
from tlhub.models.features import FeatureExtractor
from tlhub.models.heads import PooledClassifier
from tlhub.models.outputs import IDENTITY, standardising
from tlhub.models.probes import fit_probe
from tlhub.strategies.base import probe_features
from tlhub.training.objectives import balanced_weights, positive_weights

LABELS = np.stack([CLASSES == 0, CLASSES != 1, np.arange(30) % 5 == 0], axis=1)
VALUES = np.random.default_rng(0).normal(size=(30, 3)) * [0.01, 1, 100] + [0, 5, -1000]
RARE = np.repeat([0, 1, 2], [18, 9, 3])


@pytest.fixture
def make(tmp_path: Path) -> Any:
    return functools.partial(make_bench, tmp_path)


def scored(fitted: Any, split: str = "train") -> np.ndarray:
    """Return the final outputs for a split of cached features."""
    features = torch.from_numpy(fitted.inputs[split].features)
    with torch.no_grad():
        return fitted.outputs.apply(fitted.scorer(features).logits.numpy())


@pytest.mark.parametrize("features", ["auto", "native", "mean"])
def test_a_probe_is_fitted_and_written_into_the_model(make: Any, features: str) -> None:
    bench = make("linear_probe", strategy__features=features)
    fitted = fit(bench)
    assert bench.trained == []
    chosen = "mean" if features == "auto" else features
    values = bench.features((chosen,))[chosen]["train"] if features != "auto" else fitted.inputs["train"].features
    scored = fitted.scorer(torch.from_numpy(values)).logits.argmax(dim=1).numpy()
    assert ((scored == CLASSES).mean() == 1.0) == (chosen == "mean")
    assert isinstance(fitted.model, PooledClassifier) == (chosen != "native")
    assert any(chosen in line for line in bench.told)


def test_groups_are_held_out_whole(make: Any) -> None:
    bench = make("linear_probe", strategy__features="mean")
    fit(bench)
    bench.groups = CLASSES  # each class is said by one speaker: without that one nothing tells it
    fit(bench)
    alone, whole = (line for line in bench.told if line.startswith("probe on mean features"))
    assert float(alone.split()[-1]) == 1 > 0.4 > float(whole.split()[-1])
    bench.config = replace(bench.config, {"strategy.features": "auto"})
    fit(bench)
    assert "mean 0.0" in next(line for line in bench.told if line.startswith("features by leave-one-out"))


def test_features_that_are_not_there_are_refused(make: Any) -> None:
    with pytest.raises(CheckpointError, match=r"'native' is not offered.*first, mean, layer_mean"):
        fit(make("linear_probe", "roberta", strategy__features="native"))


@pytest.mark.parametrize(("kind", "preferred"), [("gpt2", "mean"), ("bert", "native")])
def test_of_kinds_that_are_alike_a_decoder_reads_the_mean(make: Any, kind: str, preferred: str) -> None:
    bench = make("linear_probe", kind)
    same = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    bench.features = lambda kinds: {name: dict.fromkeys(("train", "validation"), same) for name in kinds}
    assert probe_features(bench)[0] == preferred


@pytest.mark.parametrize("labels", [LABELS, VALUES], ids=["labels", "values"])
def test_a_probe_gives_several_labels_and_values_in_their_own_units(make: Any, labels: np.ndarray) -> None:
    bench = make("linear_probe", labels=labels, outputs=standardising(VALUES, centre=True))
    fitted = fit(bench)
    assert fitted.outputs is IDENTITY
    assert fitted.model.kind == "mean"
    assert any(line.startswith("features by leave-one-out R2: native -") and "mean 0.9" in line for line in bench.told)
    if labels is LABELS:
        assert ((scored(fitted) > 0) == labels).all()
    else:
        assert (np.abs(scored(fitted) - labels) < 0.5 * labels.std(axis=0)).all()


@pytest.mark.parametrize("labels", [RARE, LABELS], ids=["classes", "labels"])
def test_class_weights_and_smoothing_are_those_of_training(make: Any, labels: np.ndarray) -> None:
    weights = balanced_weights(labels, 3) if labels is RARE else positive_weights(labels)
    bench = make("linear_probe", labels=labels, strategy__features="mean", train__class_weights="balanced",
                 train__label_smoothing=0.1)
    expected = fit_probe(bench.features(["mean"])["mean"]["train"], labels, 3, class_weights=weights,
                         label_smoothing=0.1)
    head = fit(bench).model.head[0]
    assert (head.weight.detach().numpy() == expected.weight.astype(np.float32)).all()
    assert (head.bias.detach().numpy() == expected.bias.astype(np.float32)).all()


@pytest.mark.parametrize("strategy", ["linear_probe", "lp_ft"])
def test_logit_adjustment_takes_the_log_frequencies_from_the_bias(make: Any, strategy: str) -> None:
    heads = [fit(make(strategy, labels=RARE, strategy__features="mean", train__logit_adjustment=tau)).model.head[0]
             for tau in (0.0, 1.5)]
    assert (heads[0].weight == heads[1].weight).all()
    change = (heads[1].bias - heads[0].bias).detach().numpy()
    assert change == pytest.approx(-1.5 * np.log([0.6, 0.3, 0.1]), abs=1e-6)


@pytest.mark.parametrize("strategy", ["linear_probe", "lp_ft"])
def test_logit_adjustment_of_a_layer_without_bias_is_refused(make: Any, strategy: str) -> None:
    bench = make(strategy, "gpt2", strategy__features="native", train__logit_adjustment=1.0)
    with pytest.raises(UsageError, match=r"logit_adjustment 1 .*'.*gpt2' has none; take --strategy.features mean"):
        fit(bench)
    fit(make(strategy, "gpt2", strategy__features="mean", train__logit_adjustment=1.0))


def with_real_features(bench: Any, kind: str, batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the bench's features be those of its checkpoint."""
    found = FeatureExtractor(bench.checkpoint.model, (kind,))(batch)[kind].numpy()
    monkeypatch.setattr(bench, "features", lambda kinds: {kind: {"train": found, "validation": found}})
    return found


@pytest.mark.parametrize(("backbone", "kind"), [("bert", "native"), ("bert", "first"), ("bert", "layer_mean"),
                                                ("roberta", "mean"), ("gpt2", "native"), ("vit", "mean"),
                                                ("resnet", "native"), ("swin", "mean")])
def test_fine_tuning_starts_where_the_probe_ends(make: Any, monkeypatch: pytest.MonkeyPatch, backbone: str,
                                                 kind: str) -> None:
    """Kumar et al. 2022: the loss of step 0 is the probe's."""
    # The longest texts are cut to what the models have positions for; pictures have 3 channels.
    batch = {name: values[:, :60] for name, values in tiny.inputs(backbone, 30).items()}
    bench = make("lp_ft", backbone, strategy__features=kind)
    features = with_real_features(bench, kind, batch, monkeypatch)
    fitted = fit(bench)
    (model, names, inputs), = bench.trained
    assert model is fitted.model is fitted.scorer
    assert fitted.inputs is inputs is bench.inputs
    assert names == {name for name, _ in model.named_parameters()}
    expected = fit_probe(features, CLASSES, 3, bias=(backbone, kind) != ("gpt2", "native"))
    with torch.no_grad():
        outputs = model.eval()(**batch).logits.numpy()
    assert outputs == pytest.approx(features @ expected.weight.T + (0 if expected.bias is None else expected.bias),
                                    abs=1e-3)


def test_fine_tuning_of_values_starts_in_the_units_that_are_trained(make: Any,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    batch, outputs = tiny.inputs("vit", 30), standardising(VALUES, centre=True)
    probe, bench = (make(strategy, "vit", labels=VALUES, outputs=outputs, strategy__features="mean")
                    for strategy in ("linear_probe", "lp_ft"))
    for each in (probe, bench):
        with_real_features(each, "mean", batch, monkeypatch)
    expected, fitted = scored(fit(probe)), fit(bench)
    assert fitted.outputs is outputs
    with torch.no_grad():
        found = fitted.outputs.apply(fitted.model(**batch).logits.numpy())
    assert np.abs((found - expected) / VALUES.std(axis=0)).max() < 1e-4
