"""The loop: accumulation, skipped steps, resuming and the learning rate."""

from __future__ import annotations

import copy
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from tlhub.config import TrainConfig
from tlhub.data.batches import ArrayInputs, training_batches
from tlhub.errors import TlhubError
from tlhub.strategies.base import FeatureHead
from tlhub.training import optimizers
from tlhub.training.loop import Callback, Job, Progress, Report, train
from tlhub.training.objectives import CrossEntropy, balanced_weights
from tlhub.training.store import CheckpointStore


class Recorder(Callback):
    """Keeps every report."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        self.reports.append(report)


class StopAt(Callback):
    """Stops after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, job: Job, progress: Progress) -> None:
        if progress.step == self.step:
            progress.stop = "the test says so"


def data(count: int = 50) -> ArrayInputs:
    random = np.random.default_rng(0)
    return ArrayInputs(random.standard_normal((count, 6)).astype(np.float32), random.integers(0, 3, count))


def make_job(inputs: ArrayInputs, *, dropout: float = 0.0, weights: str = "none", norm: bool = False,
             **changes: object) -> Job:
    torch.manual_seed(0)
    model = FeatureHead(nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), *[nn.BatchNorm1d(8)][:norm], nn.ReLU(),
                                      nn.Linear(8, 3)))
    settings = {"epochs": 2.0, "batch_size": 8, "learning_rate": 1e-2, "weight_decay": 0.01, **changes}
    config = TrainConfig(**settings)  # type: ignore[arg-type] (values of mixed types)
    accelerator = Accelerator(cpu=True)
    groups = optimizers.parameter_groups(model, config, layer_decay=None,
                                         blocks={name: 0 for name, _ in model.named_parameters()})
    prepared, optimizer = accelerator.prepare(model, optimizers.build(groups, config))
    class_weights = balanced_weights(inputs.labels, 3) if weights == "balanced" else None
    objective = CrossEntropy(inputs.labels, class_weights=class_weights, label_smoothing=0.1)
    return Job(accelerator, prepared, optimizer, inputs, objective, config, seed=3, log_every=1)


def losses(job: Job, *callbacks: Callback, progress: Progress | None = None) -> list[float]:
    recorder = Recorder()
    train(job, progress or Progress(), [recorder, *callbacks])
    return [report.loss for report in recorder.reports]


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_micro_batches_change_nothing(weights: str) -> None:
    whole = losses(make_job(data(), weights=weights))
    split = losses(make_job(data(), weights=weights, micro_batch_size=1))
    assert len(whole) == 14
    np.testing.assert_allclose(split, whole, atol=1e-6)
    assert np.ptp(whole) > 0.1


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_loss_is_the_weighted_mean_over_the_global_batch(weights: str) -> None:
    inputs = data()
    job = make_job(inputs, weights=weights, max_steps=1, micro_batch_size=3)
    (batch, *_) = training_batches(50, None, 8, seed=3, epoch=0)
    each_class = torch.from_numpy(balanced_weights(inputs.labels, 3)) if weights == "balanced" else torch.ones(3)
    labels = torch.from_numpy(inputs.labels[batch])
    with torch.no_grad():
        logits = job.model(torch.from_numpy(inputs.features[batch])).logits
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)
    expected = (each * each_class[labels]).sum() / each_class[labels].sum()
    assert losses(job) == [pytest.approx(float(expected), abs=1e-6)]


def test_every_example_counts_once_an_epoch() -> None:
    seen: list[int] = []

    class Spy(ArrayInputs):
        def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
            seen.extend(indices.tolist())
            return super().batch(indices, epoch, device)

    base = data()
    losses(make_job(Spy(base.features, base.labels), epochs=1.0))
    assert sorted(seen) == list(range(50))


def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted() -> None:
    inputs = data()
    inputs.features[7] = np.nan
    job = make_job(inputs, epochs=1.0)
    before = copy.deepcopy(job.model.state_dict())
    changed = []

    class Watch(Callback):
        def on_step(self, job: Job, progress: Progress) -> None:
            nonlocal before
            now = copy.deepcopy(job.model.state_dict())
            changed.append(any(not torch.equal(now[name], before[name]) for name in now))
            before = now

    progress = train(job, Progress(), [Watch()])
    assert progress.bad_steps == 1
    assert changed.count(False) == 1
    assert len(changed) == 7
    assert all(torch.isfinite(value).all() for value in job.model.state_dict().values())


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_no_optimizer_moves_a_weight_in_a_step_that_is_not_finite(optimizer: str) -> None:
    inputs = data()
    inputs.features[:] = np.nan
    job = make_job(inputs, epochs=1.0, optimizer=optimizer, max_bad_steps=100)
    before = copy.deepcopy(job.model.state_dict())
    assert train(job, Progress(), []).bad_steps == 7
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())
    run = losses(make_job(data(), epochs=8.0, optimizer=optimizer))
    assert np.mean(run[-7:]) < np.mean(run[:7]) - 0.01


def test_too_many_bad_steps_end_the_run_with_advice_and_the_examples() -> None:
    inputs = data()
    inputs.features[:] = np.nan
    job = make_job(inputs, max_bad_steps=3, micro_batch_size=3)
    recorder = Recorder()
    with pytest.raises(TlhubError, match=r"3 steps in a row, the last with '\w+', '\w+', '\w+' and 5 more examples; no "
                                         r"weight was changed.*--learning_rate"):
        train(dataclasses.replace(job, names=[f"row{number}" for number in range(50)]), Progress(), [recorder])
    assert [bad.step for report in recorder.reports for bad in report.bad] == [1, 2, 3]
    assert recorder.reports[2].bad[0].examples == tuple(f"row{index}" for index in sorted(job.batch(2)))


@pytest.mark.parametrize(("micro_batch", "named"), [(1, 1), (4, 4), (None, 8)])
def test_only_the_examples_of_passes_that_were_not_finite_are_named(micro_batch: int | None, named: int,
                                                                    caplog: pytest.LogCaptureFixture) -> None:
    inputs = data()
    inputs.features[7] = np.nan
    job = dataclasses.replace(make_job(inputs, epochs=1.0, micro_batch_size=micro_batch), log_every=3)
    recorder = Recorder()
    with caplog.at_level(logging.WARNING):
        progress = train(job, Progress(), [recorder])
    (bad,) = [bad for report in recorder.reports for bad in report.bad]
    assert 7 in job.batch(bad.step - 1)
    assert "example 7" in bad.examples
    assert len(bad.examples) == named
    assert [report.step for report in recorder.reports] == [3, 6, 7]
    assert all(np.isfinite(report.loss) for report in recorder.reports)
    (line,) = caplog.messages
    assert line.startswith(f"step {bad.step} was not finite and changed nothing; it had 'example ")
    assert progress.bad_steps == 1


class Infinite(CrossEntropy):
    """A loss that is infinite, with a gradient that is not."""

    def loss(self, output: Any, indices: np.ndarray, epoch: int) -> torch.Tensor:
        return super().loss(output, indices, epoch) + (float("inf") if 7 in indices else 0.0)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw"])
@pytest.mark.parametrize("fault", ["NaN in a sample", "infinite loss", "infinite gradient"])
def test_a_step_that_is_not_finite_leaves_everything_as_it_was(optimizer: str, fault: str) -> None:
    inputs = data(24)
    job = make_job(inputs, epochs=2.0, optimizer=optimizer, micro_batch_size=4, norm=True)
    (at,) = (step for step in range(3) if 7 in job.batch(step))
    if fault == "NaN in a sample":
        inputs.features[7] = np.nan
    elif fault == "infinite loss":
        job = dataclasses.replace(job, objective=Infinite(inputs.labels))
    states: list[dict[str, torch.Tensor]] = []

    class Watch(Callback):
        def on_gradients(self, job: Job, progress: Progress) -> None:
            if fault == "infinite gradient" and progress.step in (at, 3):
                job.parameters[-1].grad[0] = float("inf")

        def on_step(self, job: Job, progress: Progress) -> None:
            state = {**job.model.state_dict(), **optimizers.state_tensors(job.optimizer)}
            states.append({name: value.clone() for name, value in state.items()})

    start = {name: value.clone() for name, value in job.model.state_dict().items()}
    assert train(job, Progress(), [Watch()]).bad_steps == 2
    assert len(states) == 6
    assert len(start) == 9  # 4 weights, 2 of a norm and 3 statistics
    for step, state in enumerate(states):
        before = {**start, **(states[step - 1] if step else {})}
        still = {name for name, value in before.items() if torch.equal(value, state[name])}
        bad = 7 in job.batch(step) if fault != "infinite gradient" else step in (at, 3)
        assert (still == before.keys()) == bad
        assert bad or still & start.keys() <= {"head.0.bias"}  # whose gradient the norm behind it takes away
        assert all(torch.isfinite(value).all() for value in state.values())


def test_a_momentum_begins_with_the_first_gradient_that_is_finite() -> None:
    inputs = data(24)
    clean = make_job(inputs, max_steps=1, optimizer="sgd", momentum=0.9)
    spoilt = make_job(inputs, max_steps=2, optimizer="sgd", momentum=0.9)

    class SpoilFirst(Callback):
        def on_gradients(self, job: Job, progress: Progress) -> None:
            gradients = kept if job is clean else [float("nan")] * len(kept) if progress.step == 0 else kept
            for group in job.optimizer.param_groups:
                group["lr"] = 0.01
            for parameter, gradient in zip(job.parameters, gradients, strict=True):
                parameter.grad.copy_(torch.as_tensor(gradient))

    kept = [torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) for parameter in clean.parameters]
    junk = [torch.full(parameter.shape, 1e9) for parameter in clean.parameters for _ in range(20)]
    del junk  # what lies in memory that is not written is not small then
    for job in (clean, spoilt):
        train(job, Progress(), [SpoilFirst()])
    for one, two in zip(clean.parameters, spoilt.parameters, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_what_was_seen_since_the_last_report_is_resumed_too(tmp_path: Path, stop: int) -> None:
    inputs = data()
    inputs.features[7] = np.nan
    reports = {}
    for name in ("straight", "resumed"):
        job = dataclasses.replace(make_job(inputs, dropout=0.3), log_every=4)
        recorder, progress = Recorder(), Progress()
        if name == "resumed":
            train(job, progress, [recorder, StopAt(stop)])
            progress.stop = None
            CheckpointStore(tmp_path, job.accelerator.unwrap_model(job.model)).save(job, progress)
            job = dataclasses.replace(make_job(inputs, dropout=0.3), log_every=4)
            progress = CheckpointStore(tmp_path, job.accelerator.unwrap_model(job.model)).resume(job)
        train(job, progress, [recorder])
        reports[name] = [(report.step, report.loss, report.grad_norm, report.accuracy, [bad.step for bad in report.bad])
                         for report in recorder.reports]
    assert [report[0] for report in reports["straight"]] == [4, 8, 12, 14]
    assert reports["resumed"] == reports["straight"]
    assert sum(len(report[4]) for report in reports["straight"]) == 2


@pytest.mark.parametrize("stop", [1, 5, 7, 10])
def test_resuming_is_exact_to_the_bit(tmp_path: Path, stop: int) -> None:
    straight_job = make_job(data(), dropout=0.3)
    straight = losses(straight_job)
    job = make_job(data(), dropout=0.3)
    progress = Progress()
    first = losses(job, StopAt(stop), progress=progress)
    progress.stop = None  # as after a signal; an end that was decided is kept
    CheckpointStore(tmp_path, job.accelerator.unwrap_model(job.model)).save(job, progress)
    again = make_job(data(), dropout=0.3)
    store = CheckpointStore(tmp_path, again.accelerator.unwrap_model(again.model))
    resumed = store.resume(again)
    assert resumed.step == stop
    second = losses(again, progress=resumed)
    assert first + second == straight
    for name, value in straight_job.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_learning_rate_rises_then_falls() -> None:
    config = TrainConfig(warmup_fraction=0.2, schedule="linear")
    factors = [optimizers.learning_rate_factor(step, 10, config) for step in range(10)]
    np.testing.assert_allclose(factors, [0.5, 1.0, *(1 - np.arange(8) / 8)])
    assert optimizers.learning_rate_factor(6, 10, TrainConfig(warmup_fraction=0.2)) == pytest.approx(0.5)


def test_layer_decay_follows_the_blocks() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    blocks = {name: int(name[0]) for name, _ in model.named_parameters()}
    config = TrainConfig(learning_rate=1.0, weight_decay=0.1)
    groups = optimizers.parameter_groups(model, config, layer_decay=0.5, blocks=blocks)
    rates = {name: (group["peak_lr"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert rates == {"0.weight": (0.25, 0.1), "0.bias": (0.25, 0.0), "1.weight": (0.5, 0.1), "1.bias": (0.5, 0.0),
                     "2.weight": (1.0, 0.1), "2.bias": (1.0, 0.0)}
