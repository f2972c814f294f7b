"""The training loop: one, for every task, strategy and number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from tlhub.config import TrainConfig
from tlhub.data.batches import Inputs, micro_batches, share, training_batches
from tlhub.data.sampling import ClassSampling
from tlhub.errors import TlhubError
from tlhub.seeding import derive
from tlhub.training.objectives import Objective
from tlhub.training.optimizers import learning_rate_factor


@dataclass(frozen=True)
class Job:
    """What is trained, on what, and how.

    Attributes:
        accelerator: The processes and the device.
        model: The model, prepared by `accelerator`.
        optimizer: Over the trained parameters, prepared by `accelerator`; its groups hold `peak_lr`.
        inputs: The training split.
        objective: The loss.
        train: Batch size, schedule, limits; resolved.
        seed: The run's seed.
        log_every: Steps between reports of the loss.
        sampling: How often each class is drawn; None for every example once an epoch.
    """

    accelerator: Accelerator
    model: nn.Module
    optimizer: Any
    inputs: Inputs
    objective: Objective
    train: TrainConfig
    seed: int
    log_every: int
    sampling: ClassSampling | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over the training data."""
        assert self.train.batch_size is not None
        return -(-len(self.inputs) // self.train.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run: those of `epochs`, and at most `max_steps`."""
        limits = [] if self.train.max_steps is None else [self.train.max_steps]
        if self.train.epochs is not None:
            limits.append(max(1, round(self.train.epochs * self.steps_per_epoch)))
        return min(limits)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in the optimizer's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass
class Progress:
    """Where training is; with the weights and the optimizer's state, all that resuming needs.

    Attributes:
        step: Optimizer steps done, skipped ones included.
        bad_steps: Non-finite steps, all and the latest in a row.
        best: Best validation score so far and its step, or None.
        best_loss: The validation loss at that step, where it is scored.
        stale: Validations since the best one.
        seconds: Time spent training, over all sittings.
        stop: Why training should end before its last step, or None.
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    best: float | None = None
    best_step: int = 0
    best_loss: float | None = None
    stale: int = 0
    seconds: float = 0.0
    stop: str | None = None


@dataclass(frozen=True)
class Report:
    """What one or more steps showed, read from the device at a log point; `amount` is what their objective counts."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    amount: int
    accuracy: float


@dataclass
class _Window:
    """Sums since the last log point, kept on the device."""

    loss: list[torch.Tensor] = field(default_factory=list)
    norm: list[torch.Tensor] = field(default_factory=list)
    right: list[torch.Tensor] = field(default_factory=list)
    amount: int = 0


class Callback:
    """Something that happens beside training; every method may be left out."""

    def on_start(self, job: Job, progress: Progress) -> None:
        """Before the first step of a sitting."""

    def on_gradients(self, job: Job, progress: Progress) -> None:
        """Before every optimizer step, with the gradients of the whole global batch in place."""

    def on_step(self, job: Job, progress: Progress) -> None:
        """After every optimizer step. May set `progress.stop`; every process must come to the same decision."""

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        """At every log point."""

    def on_end(self, job: Job, progress: Progress) -> None:
        """At the end of a sitting, whether training ended, was stopped, or failed."""

    def on_result(self, model: nn.Module, outputs: Mapping[str, np.ndarray]) -> None:
        """Once, on the main process, when the run's result is there; also where nothing was trained by gradient.

        Args:
            model: The whole model, as it is about to be saved.
            outputs: Its final outputs by split, float32, shape (n, k).
        """


def train(job: Job, progress: Progress, callbacks: Sequence[Callback]) -> Progress:
    """Train until the last step, or until a callback asks to stop.

    Args:
        job: What is trained.
        progress: Where to begin; changed in place.
        callbacks: Called in order.

    Returns:
        `progress`.

    Raises:
        TlhubError: `max_bad_steps` steps in a row had a loss or gradient that is not finite.
    """
    job.model.train()
    try:
        for callback in callbacks:
            callback.on_start(job, progress)
        _train(job, progress, callbacks)
    finally:
        for callback in callbacks:
            callback.on_end(job, progress)
    return progress


def _train(job: Job, progress: Progress, callbacks: Sequence[Callback]) -> None:
    window = _Window()
    for epoch, batch in _remaining_batches(job, progress.step) if progress.stop is None else ():
        rate = _set_learning_rate(job, progress.step)
        loss, right = _compute_gradients(job, progress.step, epoch, batch)
        window.loss.append(loss)
        window.right.append(right)
        for callback in callbacks:
            callback.on_gradients(job, progress)
        window.norm.append(_apply_gradients(job))
        progress.step += 1
        window.amount += job.objective.amount(batch)
        if progress.step % job.log_every == 0 or progress.step == job.total_steps:
            report = _read(window, job, progress, rate)
            window = _Window()
            for callback in callbacks:
                callback.on_report(job, progress, report)
        for callback in callbacks:
            callback.on_step(job, progress)
        if progress.stop is not None:
            break


def _remaining_batches(job: Job, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (epoch, global batch) from `step` on; starting late costs nothing."""
    assert job.train.batch_size is not None
    while step < job.total_steps:
        epoch, first = divmod(step, job.steps_per_epoch)
        batches = training_batches(len(job.inputs), job.inputs.lengths, job.train.batch_size, seed=job.seed,
                                   epoch=epoch, sampling=job.sampling)
        for batch in batches[first:first + job.total_steps - step]:
            yield epoch, batch
            step += 1


def _set_learning_rate(job: Job, step: int) -> float:
    factor = learning_rate_factor(step, job.total_steps, job.train)
    for group in job.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in job.optimizer.param_groups)


def _compute_gradients(job: Job, step: int, epoch: int, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Add up the gradients of a global batch; return this process's part of loss and right answers, on the device."""
    accelerator = job.accelerator
    # Dropout is a function of (seed, step, process), so resuming needs no generator's state.
    torch.manual_seed(derive(job.seed, "dropout", step, accelerator.process_index))
    total = job.objective.weight(batch, epoch)
    mine = share(batch, accelerator.process_index, accelerator.num_processes)
    # A process without examples takes part with one that counts nothing, since the others wait for its gradients.
    scale, parts = (1.0 / total, micro_batches(mine, job.train.micro_batch_size)) if len(mine) else (0.0, [batch[:1]])
    loss_sum, right = (torch.zeros((), device=accelerator.device) for _ in range(2))
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(job.model):
            output = job.model(**job.inputs.batch(part, epoch, accelerator.device))
            loss = job.objective.loss(output, part, epoch) * scale
            # Gradients are averaged over processes; the loss is already divided by the whole batch's weight.
            accelerator.backward(loss * accelerator.num_processes)
        loss_sum += loss.detach()
        right += job.objective.right(output, part) * float(len(mine) > 0)
    return loss_sum, right


def _apply_gradients(job: Job) -> torch.Tensor:
    """Step the optimizer unless the gradient is not finite, decided on the device; return the gradient's norm."""
    norm = job.accelerator.clip_grad_norm_(job.parameters, job.train.clip_norm or float("inf"))
    assert norm is not None
    inner = job.optimizer.optimizer
    fused = bool(inner.defaults.get("fused"))
    if job.accelerator.scaler is None and fused:
        # Fused optimizers change nothing where `found_inf` is 1, as they do under a gradient scaler.
        inner.found_inf = (~torch.isfinite(norm)).float()
    # The others have to wait for the host's answer.
    if fused or job.accelerator.scaler is not None or bool(torch.isfinite(norm)):
        job.optimizer.step()
    job.optimizer.zero_grad()
    detached: torch.Tensor = norm.detach()
    return detached


def _read(window: _Window, job: Job, progress: Progress, rate: float) -> Report:
    """Bring the window's sums to the host; count what was not finite.

    Raises:
        TlhubError: Too many non-finite steps in a row.
    """
    losses = job.accelerator.reduce(torch.stack(window.loss)).cpu()
    norms = torch.stack(window.norm).cpu()
    finite = torch.isfinite(norms) & torch.isfinite(losses)
    # A gradient scaler finds its scale by overflowing: that is no sign of trouble while it can go lower.
    scaler = job.accelerator.scaler
    harmless = torch.isfinite(losses) if scaler is not None and scaler.get_scale() > 1.0 else finite
    for good, passing in zip(finite.tolist(), harmless.tolist(), strict=True):
        progress.bad_in_a_row = 0 if passing else progress.bad_in_a_row + 1
        progress.bad_steps += not good
        if progress.bad_in_a_row >= job.train.max_bad_steps:
            raise TlhubError(f"the loss or its gradient was not finite in {progress.bad_in_a_row} steps in a row, the "
                             f"last of them before step {progress.step}; no weight was changed by them. Lower "
                             f"--learning_rate, or use --train.precision fp32")
    right = float(job.accelerator.reduce(torch.stack(window.right).sum()))
    return Report(step=progress.step, epoch=progress.step / job.steps_per_epoch,
                  loss=float(losses[finite].mean()) if finite.any() else float("nan"),
                  learning_rate=rate, grad_norm=float(norms[finite].mean()) if finite.any() else float("nan"),
                  amount=window.amount, accuracy=right / max(window.amount, 1))
