"""Logits of a split: every example once, in order, without dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tlhub.data.batches import ArrayInputs
from tlhub.strategies.base import FeatureHead
from tlhub.training.inference import predict_logits


def data(count: int) -> ArrayInputs:
    random = np.random.default_rng(0)
    inputs = ArrayInputs(random.standard_normal((count, 6)).astype(np.float32), np.zeros(count, dtype=np.int64))
    inputs.lengths = random.integers(1, 9, count)
    return inputs


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_example_is_at_its_place(batch_size: int) -> None:
    inputs = data(13)
    model = FeatureHead(nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.9)))
    model.train()
    found = predict_logits(model, inputs, Accelerator(cpu=True), batch_size=batch_size)
    expected = model.head[0](torch.from_numpy(inputs.features)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert model.training
    assert model.head[1].training


def test_a_frozen_mode_is_left_as_it_was() -> None:
    model = FeatureHead(nn.Linear(6, 3)).eval()
    predict_logits(model, data(5), Accelerator(cpu=True))
    assert not model.training
