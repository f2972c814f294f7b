"""The outputs that a model is trained on, and those it is kept with: the folded layer gives what the map does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from tlhub.models.heads import output_layer
from tlhub.models.outputs import IDENTITY, OutputMap, one_sigmoid, standardising, temperature

VALUES = np.array([[1.0, 300.0], [3.0, 100.0], [8.0, 200.0]])


def outputs(model: torch.nn.Module, kind: str) -> np.ndarray:
    with torch.no_grad():
        return model(**tiny.inputs(kind)).logits.numpy()


@pytest.mark.parametrize("kind", ["bert", "resnet", "vit"])
def test_a_folded_layer_gives_final_outputs(kind: str) -> None:
    model = tiny.model(kind, ["length", "width"])
    undo = standardising(VALUES, centre=True)
    expected = undo.apply(outputs(model, kind))
    undo.fold(model)
    np.testing.assert_allclose(outputs(model, kind), expected, rtol=1e-5)
    undo.inverse().fold(model)
    undo.fold(model)
    np.testing.assert_allclose(outputs(model, kind), expected, rtol=1e-4)


def test_standardised_targets_have_mean_0_and_deviation_1() -> None:
    undo = standardising(VALUES, centre=True)
    standard = undo.standardise(VALUES)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(axis=0), 1)
    np.testing.assert_allclose(undo.apply(standard), VALUES)


def test_a_layer_without_bias_is_only_scaled() -> None:
    model = tiny.model("gpt2", ["length", "width"])
    assert output_layer(model)[1].bias is None
    undo = standardising(VALUES, centre=False)
    assert not undo.shift.any()
    model.config.pad_token_id = 0
    expected = undo.apply(outputs(model, "gpt2"))
    undo.fold(model)
    np.testing.assert_allclose(outputs(model, "gpt2"), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="bias"):
        standardising(VALUES, centre=True).fold(model)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "vit", "resnet"])
def test_one_sigmoid_becomes_two_outputs_with_the_same_probability(kind: str) -> None:
    model = tiny.model(kind, ["spam"])
    model.config.pad_token_id = 0
    single = outputs(model, kind)
    assert single.shape == (4, 1)
    one_sigmoid().fold(model)
    assert model.config.num_labels == 2
    pair = torch.from_numpy(outputs(model, kind))
    np.testing.assert_allclose(pair.numpy(), one_sigmoid().apply(single), atol=1e-6)
    np.testing.assert_allclose(pair.softmax(1)[:, 1], torch.from_numpy(single[:, 0]).sigmoid(), atol=1e-6)


def test_a_temperature_divides_the_logits() -> None:
    model = tiny.model("bert", ["a", "b", "c"])
    before = outputs(model, "bert")
    temperature(2.5).fold(model)
    np.testing.assert_allclose(outputs(model, "bert"), before / 2.5, atol=1e-6)
    assert np.array_equal(IDENTITY.apply(before), before)


def test_a_constant_target_is_left_in_its_units() -> None:
    undo = standardising(np.full((4, 1), 7.0), centre=True)
    assert (undo.scale.tolist(), undo.shift.tolist()) == ([1.0], [7.0])
    assert isinstance(undo, OutputMap)
