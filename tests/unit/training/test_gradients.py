"""Out of memory in training: the same batch in smaller passes, with the same result."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.training.test_loop import StopAt, data, losses, make_job
from tlhub.errors import TlhubError
from tlhub.training.job import Job, Progress
from tlhub.training.loop import train
from tlhub.training.store import CheckpointStore

ERRORS = {"GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
          "host": RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
          "numpy": MemoryError("Unable to allocate 8.00 GiB")}


@pytest.fixture(autouse=True)
def _without_collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect nothing: with all that tests have imported it takes a third of a second."""
    monkeypatch.setattr("tlhub.data.portions.gc.collect", lambda: 0)


class Failing(torch.autograd.Function):
    """Hands on what it is given, and in the backward pass raises an error."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, error: Exception) -> torch.Tensor:
        ctx.error = error
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise ctx.error


class Limited(nn.Module):
    """A model with memory for so many examples in a pass that is to give gradients."""

    def __init__(self, model: nn.Module, most: int, error: Exception, place: str) -> None:
        super().__init__()
        self.model, self.most, self.error, self.place = model, most, error, place
        self.sizes: list[int] = []

    def forward(self, features: torch.Tensor) -> Any:
        self.sizes.append(len(features))
        output = self.model(features)
        if len(features) > self.most and self.place == "forward":
            raise self.error
        if len(features) > self.most:
            output.logits = Failing.apply(output.logits, self.error)
        return output


def limited(job: Job, most: int, kind: str = "GPU", place: str = "forward") -> Job:
    return dataclasses.replace(job, model=Limited(job.model, most, ERRORS[kind], place))


@pytest.mark.parametrize("place", ["forward", "backward"])
@pytest.mark.parametrize("kind", ERRORS)
def test_a_batch_that_does_not_fit_is_run_in_smaller_passes(kind: str, place: str,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    whole = make_job(data())
    wanted = losses(whole)
    job, progress = limited(make_job(data()), 2, kind, place), Progress()
    with caplog.at_level(logging.WARNING):
        found = losses(job, progress=progress)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    for one, two in zip(whole.parameters, job.parameters, strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=0)
    assert progress.micro_batch == 2
    assert job.model.sizes[:7] == [8, 4, 2, 2, 2, 2, 2]
    assert max(job.model.sizes[3:]) == 2
    assert [message[:60] for message in caplog.messages] == [
        f"out of memory in step 1 with {size} examples at a time: the batch" for size in (8, 4)]


def test_what_the_failed_passes_changed_is_taken_back() -> None:
    """Dropout draws the same, and BatchNorm has seen only the passes that count: equal to the bit to small ones."""
    jobs = {"small": make_job(data(48), dropout=0.4, norm=True, micro_batch_size=2, max_steps=5),
            "limited": limited(make_job(data(48), dropout=0.4, norm=True, max_steps=5), 3, place="backward")}
    found = {name: losses(job) for name, job in jobs.items()}
    assert found["small"] == found["limited"]
    bare = {"small": jobs["small"].model, "limited": jobs["limited"].model.model}
    wanted, states = bare["small"].state_dict(), bare["limited"].state_dict()
    assert len(wanted) == 9
    assert int(wanted["head.2.num_batches_tracked"]) == 5 * 4
    assert all(torch.equal(value, states[name]) for name, value in wanted.items())


def test_memory_may_run_out_later_and_in_a_pass_that_is_not_the_first() -> None:
    wanted = losses(make_job(data(), micro_batch_size=4))
    job = limited(make_job(data(), micro_batch_size=4), 100)

    class Later(Limited):
        def forward(self, features: torch.Tensor) -> Any:
            if len(self.sizes) == 5:  # the second pass of the third step
                self.most = 2
            return super().forward(features)

    job = dataclasses.replace(job, model=Later(job.model.model, 100, ERRORS["GPU"], "forward"))
    np.testing.assert_allclose(losses(job), wanted, atol=1e-6)
    assert job.model.sizes[:11] == [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2]


def test_the_smaller_size_is_resumed(tmp_path: Path) -> None:
    progress = Progress()
    job = limited(make_job(data()), 3)
    first = losses(job, StopAt(4), progress=progress)
    progress.stop = None
    CheckpointStore(tmp_path, job.model.model).save(job, progress)
    again = limited(make_job(data()), 3)
    resumed = CheckpointStore(tmp_path, again.model.model).resume(again)
    assert resumed.micro_batch == 2
    second = losses(again, progress=resumed)
    assert first + second == losses(limited(make_job(data()), 3))
    assert max(again.model.sizes) == 2


def test_too_little_memory_for_one_example_is_told() -> None:
    job = limited(make_job(data()), 0)
    with pytest.raises(TlhubError, match=r"one example at a time in step 1; pass --train.gradient_checkpointing True"):
        train(job, Progress(), [])
    assert job.model.sizes == [8, 4, 2, 1]


def test_another_error_is_not_taken_for_it() -> None:
    job = limited(make_job(data()), 2)
    job.model.error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(job, Progress(), [])
    assert job.model.sizes == [8]
