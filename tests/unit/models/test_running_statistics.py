"""BatchNorm's running statistics put back: where they move, all of them, and decided by a tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlhub.models.running_statistics import RunningStatistics


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, momentum=None),
                         nn.Flatten(), nn.BatchNorm1d(20, track_running_stats=False), nn.LayerNorm(20))


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


@pytest.mark.parametrize(("where", "moves"), [(None, False), (torch.tensor(True), False), (torch.tensor(False), True)])
def test_they_are_put_back_where_asked(where: torch.Tensor | None, moves: bool) -> None:
    model = network()
    model(torch.randn(2, 3, 6, 6))
    statistics, before = RunningStatistics(model), buffers(model)
    places = {name: value.data_ptr() for name, value in model.named_buffers()}
    statistics.keep()
    model(torch.full((2, 3, 6, 6), float("nan")) if not moves else torch.randn(2, 3, 6, 6))
    seen = buffers(model)
    assert len(before) == 6
    assert not any(torch.equal(value, before[name]) for name, value in seen.items())
    statistics.put_back(where)
    wanted = seen if moves else before
    assert all(torch.equal(value, wanted[name]) for name, value in model.named_buffers())
    assert {name: value.data_ptr() for name, value in model.named_buffers()} == places


def test_those_that_stand_still_are_left_alone() -> None:
    model = network()
    statistics = RunningStatistics(model)
    model[1].eval()
    statistics.keep()
    assert {dtype: len(kept) for dtype, kept in statistics._kept.items()} == {torch.float32: 10, torch.int64: 1}
    model.eval()
    statistics.keep()
    statistics.put_back(torch.tensor(True))
    assert statistics._kept == {}
