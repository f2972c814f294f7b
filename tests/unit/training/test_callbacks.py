"""What happens beside training: history, validation, the state to resume from, signals, the audit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tlhub.config import TrainConfig
from tlhub.data.batches import ArrayInputs
from tlhub.errors import StoppedError, TlhubError
from tlhub.models.freezing import TrainabilityAudit
from tlhub.stopping import AbandonedError, StopRequest
from tlhub.strategies.base import FeatureHead
from tlhub.training import optimizers
from tlhub.training.callbacks import Audit, Checkpointing, History, Validation, read_history
from tlhub.training.loop import Callback, Job, Progress, train
from tlhub.training.objectives import CrossEntropy
from tlhub.training.store import CheckpointStore


def make_job(**changes: Any) -> Job:
    torch.manual_seed(0)
    model = FeatureHead(nn.Linear(6, 3))
    config = TrainConfig(**{"max_steps": 8, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.0, **changes})
    random = np.random.default_rng(0)
    inputs = ArrayInputs(random.standard_normal((32, 6)).astype(np.float32), random.integers(0, 3, 32))
    accelerator = Accelerator(cpu=True)
    groups = optimizers.parameter_groups(model, config, layer_decay=None, blocks={})
    prepared, optimizer = accelerator.prepare(model, optimizers.build(groups, config))
    return Job(accelerator, prepared, optimizer, inputs,
               CrossEntropy(inputs.labels, class_weights=None, label_smoothing=0.0), config, seed=0, log_every=1)


def validation(job: Job, folder: Path, scores: list[float], *, direction: int = 1, patience: int | None = None,
               every: int | None = 1) -> tuple[Validation, CheckpointStore]:
    store = CheckpointStore(folder / "checkpoints", job.model)
    values = iter(scores)
    return Validation(lambda: {"score": next(values)}, metric="score", direction=direction, store=store,
                      history=History(folder / "history.jsonl"), every=every, patience=patience), store


def test_of_equal_scores_the_one_of_lower_loss_is_best(tmp_path: Path) -> None:
    job = make_job()
    rows = iter([(0.0, 0.9), (0.0, 0.7), (0.0, 0.8), (0.5, 2.0), (0.5, 2.0), (0.5, 1.0), (0.5, 1.5), (0.1, 0.1)])
    store = CheckpointStore(tmp_path / "checkpoints", job.model)
    best = []

    class Watch(Callback):
        def on_step(self, job: Job, progress: Progress) -> None:
            best.append(progress.best_step)

    validate = Validation(lambda: dict(zip(("score", "loss"), next(rows), strict=True)), metric="score", direction=1,
                          store=store, history=History(tmp_path / "history.jsonl"), every=1, patience=None)
    train(job, Progress(), [validate, Watch()])
    assert best == [1, 2, 2, 4, 4, 6, 6, 6]


@pytest.mark.parametrize(("direction", "scores", "best"), [
    (1, [0.1, 0.5, 0.4, 0.5, 0.3, 0.2, 0.1, 0.0], 2), (-1, [3.0, 1.0, 2.0, 0.5, 0.7, 0.9, 1.0, 1.0], 4),
    (1, [math.nan, 0.2, math.nan, 0.3, 0.1, 0.1, 0.1, 0.1], 4), (-1, [math.nan, 0.2, 0.1] + [math.nan] * 5, 3)])
def test_the_best_weights_are_put_back(tmp_path: Path, direction: int, scores: list[float], best: int) -> None:
    job = make_job()
    validate, store = validation(job, tmp_path, scores, direction=direction)
    seen: list[torch.Tensor] = []

    class Watch(Callback):
        def on_step(self, job: Job, progress: Progress) -> None:
            seen.append(job.model.head.weight.detach().clone())

    progress = train(job, Progress(), [Watch(), validate])
    assert progress.best_step == best
    store.load_best()
    assert torch.equal(job.model.head.weight, seen[best - 1])
    assert not torch.equal(seen[best - 1], seen[-1])


def test_patience_ends_training_and_the_end_is_kept(tmp_path: Path) -> None:
    job = make_job()
    validate, store = validation(job, tmp_path, [0.5, 0.4, 0.3], patience=2)
    progress = train(job, Progress(), [validate, Checkpointing(store, validate, every=1)])
    assert (progress.step, progress.stop) == (3, "no better score in 2 validations")
    again = make_job()
    resumed = CheckpointStore(tmp_path / "checkpoints", again.model).resume(again)
    assert train(again, resumed, []).step == 3


def test_validation_is_once_an_epoch_unless_told_and_at_the_end(tmp_path: Path) -> None:
    for every, expected in ((None, [4, 6]), (5, [5, 6])):
        job = make_job(max_steps=6)
        validate, _ = validation(job, tmp_path, [0.0] * 6, every=every)
        train(job, Progress(), [validate.history, validate])
        assert [line["step"] for line in read_history(tmp_path / "history.jsonl") if "validation" in line] == expected


def test_history_drops_what_comes_after_the_state(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": 9.0}) + "\n" for step in range(1, 7)) + '{"step": 7, "lo')
    train(make_job(), Progress(step=4), [History(path)])
    lines = read_history(path)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["loss"] == 9.0 for line in lines] == [True] * 4 + [False] * 4
    assert all(math.isfinite(line["examples_per_s"]) for line in lines[4:])


def test_history_has_one_beginning(tmp_path: Path) -> None:
    """A run that ended before its first checkpoint scores its beginning again."""
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"step": 0, "validation": {"loss": 1.0}}) + "\n")
    train(make_job(), Progress(), [History(path)])
    assert [line["step"] for line in read_history(path)] == list(range(1, 9))


@pytest.mark.parametrize(("validated", "left"), [(2, ["loss", "validation", "loss"]),
                                                 (3, ["loss", "validation", "loss", "validation"])])
def test_a_validation_that_is_done_again_is_written_once(tmp_path: Path, validated: int, left: list[str]) -> None:
    """The run was stopped during the validation after step 3, and killed after it had been done again."""
    path = tmp_path / "history.jsonl"
    lines = [{"step": 2, "loss": 1.0}, {"step": 2, "validation": {}}, {"step": 3, "loss": 1.0},
             {"step": 3, "validation": {}}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    History(path).on_start(make_job(), Progress(step=3, validated=validated))
    assert [name for line in read_history(path) for name in line if name != "step"] == left


def test_a_request_stops_after_the_step_with_a_checkpoint(tmp_path: Path) -> None:
    job, stop = make_job(), StopRequest()
    validate, store = validation(job, tmp_path, [0.0] * 8)

    class Ask(Callback):
        def on_step(self, job: Job, progress: Progress) -> None:
            stop.requested = progress.step == 3

    with pytest.raises(StoppedError, match="after step 3 of 8"):
        train(job, Progress(), [Ask(), validate, Checkpointing(store, validate, every=None, stop=stop)])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000003"]


def validated(folder: Path, at: int, stops: int) -> tuple[object, ...]:
    """Train and validate at every step; validation number `at` is given up `stops` times, and the run goes on anew."""
    folder.mkdir()
    request, asked = StopRequest(), 0

    def score() -> dict[str, float]:
        nonlocal asked
        done = [line for line in read_history(folder / "history.jsonl") if "validation" in line]
        if len(done) == at and asked < stops:
            asked += 1
            request.requested = True
            raise AbandonedError
        return {"score": [0.1, 0.3, 0.2, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0][len(done)]}

    for sitting in range(stops + 1):
        job, request = make_job(), StopRequest()
        store = CheckpointStore(folder / "checkpoints", job.model)
        history = History(folder / "history.jsonl")
        validate = Validation(score, metric="score", direction=1, store=store, history=history, every=1, patience=5,
                              from_start=True)
        progress = store.resume(job)
        try:
            train(job, progress, [history, validate, Checkpointing(store, validate, every=None, stop=request)])
        except StoppedError:
            assert sitting < stops
    store.load_best()
    lines = [{key: value for key, value in line.items() if key != "examples_per_s"}
             for line in read_history(folder / "history.jsonl")]
    return lines, asked, progress.best_step, progress.stale, progress.step, job.model.head.weight.tolist()


@pytest.mark.parametrize("at", [0, 3, 8])
def test_an_abandoned_validation_is_the_first_thing_on_going_on(tmp_path: Path, at: int) -> None:
    """The history, the best weights and patience are those of a run that nobody stopped."""
    straight, stopped = validated(tmp_path / "straight", at, 0), validated(tmp_path / "stopped", at, 2)
    assert (straight[1], stopped[1]) == (0, 2)
    assert len(straight[0]) == 8 + 9
    assert stopped[2:] == straight[2:]
    assert stopped[0] == straight[0]


def test_the_gradient_scaler_goes_on_where_it_was(tmp_path: Path) -> None:
    job, again, without = make_job(), make_job(), make_job()
    job.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    CheckpointStore(tmp_path, job.model).save(job, Progress(step=1))
    again.accelerator.scaler = torch.amp.GradScaler("cpu")
    CheckpointStore(tmp_path, again.model).resume(again)
    assert again.accelerator.scaler.get_scale() == 128.0
    assert CheckpointStore(tmp_path, without.model).resume(without).step == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_audit_bears_steps_that_vanish_in_rounding(optimizer: str) -> None:
    job = make_job(learning_rate=1e-12, optimizer=optimizer)
    assert train(job, Progress(), [Audit(job.model)]).step == 8


def test_the_audit_stops_what_was_declared_trained_and_is_not() -> None:
    job = make_job()
    del job.optimizer.param_groups[0]["params"][:], job.optimizer.param_groups[0]["names"][:]
    with pytest.raises(TlhubError, match=r"did not move.*head\.weight"):
        train(job, Progress(), [Audit(job.model)])
    moved = TrainabilityAudit(job.model)
    job.model.head.weight.requires_grad_(False)
    moved = TrainabilityAudit(job.model)
    with torch.no_grad():
        job.model.head.weight.add_(1)
    with pytest.raises(TlhubError, match="declared frozen"):
        moved.check(job.model)
