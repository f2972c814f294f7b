"""The average of the weights: its formula, what is scored and kept with it, and that training does not see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.training.test_callbacks import make_job
from tlhub.training.averaging import WeightAverage
from tlhub.training.callbacks import History, Validation
from tlhub.training.loop import Callback, Job, Progress, train
from tlhub.training.store import CheckpointStore


class Recorder(Callback):
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.seen: list[torch.Tensor] = []

    def on_step(self, job: Job, progress: Progress) -> None:
        self.seen.append(self.weight())

    def weight(self) -> torch.Tensor:
        return next(self.model.parameters()).detach().clone()


def trained(folder: Path, decay: float) -> tuple[Job, CheckpointStore, Recorder, list[torch.Tensor]]:
    folder.mkdir(exist_ok=True)
    job = make_job()
    store = CheckpointStore(folder / "checkpoints", job.model, decay=decay)
    recorder, scored = Recorder(job.model), []

    def score() -> dict[str, Any]:
        scored.append(recorder.weight())
        return {"score": float(len(scored))}

    validate = Validation(score, metric="score", direction=1, store=store, history=History(folder / "history.jsonl"),
                          every=1, patience=None)
    train(job, Progress(), [*([] if store.average is None else [store.average]), validate, recorder])
    return job, store, recorder, scored


def interrupt(mean: torch.Tensor, weights: dict[str, torch.Tensor]) -> None:
    assert torch.equal(mean, weights["running_mean"])
    raise ZeroDivisionError


def test_average_follows_its_formula(tmp_path: Path) -> None:
    start = Recorder(make_job().model).weight()
    _, _, recorder, scored = trained(tmp_path, 0.4)
    expected, decays = start, []
    assert len(scored) == len(recorder.seen) == 8
    for step, (weight, found) in enumerate(zip(recorder.seen, scored, strict=True), start=1):
        decays.append(min(0.4, (1 + step) / (10 + step)))
        expected = decays[-1] * expected + (1 - decays[-1]) * weight
        torch.testing.assert_close(found, expected)
        assert not torch.equal(found, weight)
    assert decays[0] < 0.4 == decays[-1]


def test_training_does_not_see_the_average(tmp_path: Path) -> None:
    _, _, with_it, _ = trained(tmp_path / "with", 0.9)
    _, _, without, scored = trained(tmp_path / "without", 0.0)
    assert all(torch.equal(*pair) for pair in zip(with_it.seen, without.seen, strict=True))
    assert all(torch.equal(*pair) for pair in zip(scored, without.seen, strict=True))


def test_best_weights_are_averaged_ones(tmp_path: Path) -> None:
    _, store, recorder, scored = trained(tmp_path, 0.9)
    store.load_best()
    assert torch.equal(recorder.weight(), scored[-1])


def test_average_is_saved_and_continued(tmp_path: Path) -> None:
    job, store, _, _ = trained(tmp_path, 0.9)
    assert store.average is not None
    store.save(job, Progress(step=5))
    again = make_job()
    other = CheckpointStore(tmp_path / "checkpoints", again.model, decay=0.9)
    assert other.resume(again).step == 5
    assert other.average is not None
    other.average.on_start(again, Progress(step=5))
    assert other.average.values.keys() == store.average.values.keys() != set()
    assert all(torch.equal(value, other.average.values[name]) for name, value in store.average.values.items())


def test_whole_numbers_are_taken_and_statistics_averaged() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(lambda: dict(model.named_buffers()), 0.5)
    job = make_job()
    average.on_start(job, Progress())
    for step in range(1, 12):
        model(torch.full((4, 2), float(step)))
        average.on_step(job, Progress(step=step))
    assert average.values["num_batches_tracked"] == 11
    before = {name: value.clone() for name, value in model.named_buffers()}
    with average.in_place():
        assert (model.running_mean < before["running_mean"]).all()
        with pytest.raises(ZeroDivisionError), average.in_place():
            interrupt(model.running_mean, before)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
