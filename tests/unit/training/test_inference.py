"""Logits of a split: every example once, in order, without dropout, also over two processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from accelerate import Accelerator
from torch import nn

from tests.unit.training.processes import numbers_of_two
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


def test_two_processes_give_what_one_gives_with_the_first_one_s_statistics(tmp_path: Path) -> None:
    counts = (1, 13)
    torch.multiprocessing.spawn(numbers_of_two, (str(tmp_path), counts), nprocs=2)
    for count in counts:
        first, second = (np.load(tmp_path / f"{count}-{rank}.npy") for rank in (0, 1))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, np.load(tmp_path / f"{count}-alone.npy"), atol=1e-6)
        assert first.shape == (count, 3)
