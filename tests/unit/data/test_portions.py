"""Portions that memory suffices for."""

from __future__ import annotations

import gc
import logging
import weakref

import numpy as np
import pytest
import torch

from tlhub.data.portions import Portions, within_memory
from tlhub.errors import TlhubError

ERRORS = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
          RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to "
                       "allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)"),
          MemoryError("Unable to allocate 8.00 GiB for an array"), MemoryError(),
          RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]


@pytest.fixture(autouse=True)
def _without_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect nothing: with all that tests have imported it takes a third of a second."""
    monkeypatch.setattr("tlhub.data.portions.gc.collect", lambda: 0)


class Small:
    """Squares as many numbers at a time as there is memory for."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.sizes = most, error, list[int]()

    def __call__(self, part: np.ndarray) -> np.ndarray:
        self.sizes.append(len(part))
        if len(part) > self.most:
            raise self.error
        return part**2


@pytest.mark.parametrize("error", ERRORS)
def test_portions_are_halved_until_they_fit_and_stay_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    portions, compute = Portions(), Small(5, error)
    with caplog.at_level(logging.WARNING):
        first = list(portions.run(np.arange(13), compute))
    assert compute.sizes == [13, 6, 3, 3, 3, 3, 1]
    assert caplog.messages == ["out of memory with 13 examples at a time; it goes on with 6",
                               "out of memory with 6 examples at a time; it goes on with 3"]
    assert np.concatenate([part for part, _ in first]).tolist() == list(range(13))
    assert np.concatenate([values for _, values in first]).tolist() == [number**2 for number in range(13)]
    second = Small(5, error)
    assert len(list(portions.run(np.arange(4), second))) == 2
    assert second.sizes == [3, 1]


def test_one_example_that_does_not_fit_is_told() -> None:
    with pytest.raises(TlhubError, match="does not suffice for one example at a time"):
        list(Portions().run(np.arange(3), Small(0, MemoryError())))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        list(Portions().run(np.arange(3), Small(0, error)))


def test_what_was_held_is_freed() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def compute() -> None:
        held = torch.zeros(10)
        seen.append(weakref.ref(held))
        raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        assert within_memory(compute) is None
    finally:
        gc.enable()
    assert seen[0]() is None
