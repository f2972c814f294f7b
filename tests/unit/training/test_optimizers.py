"""Optimizers: parameters whose gradients begin at different steps, and a first step that is skipped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlhub.config import TrainConfig
from tlhub.training import optimizers


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_a_parameter_may_get_its_first_gradient_later_than_another(name: str) -> None:
    early, late, alone = (nn.Parameter(torch.ones(300)) for _ in range(3))
    config = TrainConfig(optimizer=name, learning_rate=0.1, momentum=0.9, weight_decay=0.0)
    both, one = (optimizers.build([{"params": some, "lr": 0.1, "weight_decay": 0.0}], config)
                 for some in ([early, late], [alone]))
    for step in range(3):
        early.grad = torch.ones(300)
        if step:
            late.grad, alone.grad = torch.full((300,), 2.0), torch.full((300,), 2.0)
            one.step()
        both.step()
        assert torch.equal(late, alone)
    assert not torch.equal(late, torch.ones(300))
    assert not torch.equal(late, early)
