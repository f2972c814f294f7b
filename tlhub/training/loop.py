"""The training loop: one, for every task, strategy and number of processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from accelerate.utils import gather_object

from tlhub.errors import TlhubError
from tlhub.training.gradients import BatchGradients
from tlhub.training.job import BadStep, Callback, Job, Progress, Report
from tlhub.training.optimizers import learning_rate_factor
from tlhub.training.window import Window

__all__ = ["BadStep", "Callback", "Job", "Progress", "Report", "train"]

_TOLD = 3
"""Examples of a bad step that a message names before the rest is counted."""

logger = logging.getLogger(__name__)


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
    gradients = BatchGradients(job)
    for epoch, batch in _remaining_batches(job, progress.step) if progress.stop is None else ():
        rate = _set_learning_rate(job, progress.step)
        sums = gradients.compute(progress, epoch, batch)
        for callback in callbacks:
            callback.on_gradients(job, progress)
        progress.window.add(sums, gradients.apply(), job.objective.amount(batch))
        progress.step += 1
        if progress.step % job.log_every == 0 or progress.step == job.total_steps:
            _report(job, progress, callbacks, rate)
        for callback in callbacks:
            callback.on_step(job, progress)
        if progress.stop is not None:
            break


def _remaining_batches(job: Job, step: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (epoch, global batch) from `step` on; starting late costs nothing."""
    while step < job.total_steps:
        epoch, first = divmod(step, job.steps_per_epoch)
        for batch in job.batches(epoch)[first:first + job.total_steps - step]:
            yield epoch, batch
            step += 1


def _set_learning_rate(job: Job, step: int) -> float:
    factor = learning_rate_factor(step, job.total_steps, job.train)
    for group in job.optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in job.optimizer.param_groups)


def _report(job: Job, progress: Progress, callbacks: Sequence[Callback], rate: float) -> None:
    """Bring the window to the host, count what was not finite, and tell the callbacks.

    Raises:
        TlhubError: Too many non-finite steps in a row.
    """
    window, progress.window = progress.window, Window()
    table = window.table()
    losses, norms = table[:, 0], table[:, 1]
    finite = torch.isfinite(losses) & torch.isfinite(norms)
    # A gradient scaler finds its scale by overflowing: that is no sign of trouble while it can go lower.
    scaler = job.accelerator.scaler
    harmless = torch.isfinite(losses) if scaler is not None and scaler.get_scale() > 1.0 else finite
    bad = {place: _bad_step(job, window, place, progress.step)
           for place in (~harmless).nonzero()[:, 0].tolist()}
    report = Report(step=progress.step, epoch=progress.step / job.steps_per_epoch,
                    loss=float(losses[finite].mean()), learning_rate=rate, grad_norm=float(norms[finite].mean()),
                    amount=sum(window.amounts[-len(window.passes):]),
                    accuracy=float(table[:, 2].sum()) / max(sum(window.amounts), 1),
                    bad=tuple(bad.values()))
    for callback in callbacks:
        callback.on_report(job, progress, report)
    progress.bad_steps += int((~finite).sum())
    for place in range(len(harmless)):
        progress.bad_in_a_row = progress.bad_in_a_row + 1 if place in bad else 0
        if progress.bad_in_a_row >= job.train.max_bad_steps:
            raise TlhubError(f"the loss or its gradient was not finite in {progress.bad_in_a_row} steps in a row, the "
                             f"last with {_listed(bad[place].examples)}; no weight was changed by them. Look at these "
                             "examples, lower --learning_rate, or use --train.precision fp32")


def _bad_step(job: Job, window: Window, place: int, last: int) -> BadStep:
    """Return the step at a place of the window that ends with step `last`, the same on every process."""
    number = last - len(window.values) + place + 1
    mine = window.culprits(place).tolist()
    everywhere = gather_object(mine) if job.accelerator.num_processes > 1 else mine
    # A finite loss with a gradient that is not can have come from any of them.
    names = job.named(np.array(sorted(everywhere)) if everywhere else job.batch(number - 1))
    if job.accelerator.is_main_process:
        logger.warning("step %d was not finite and changed nothing; it had %s", number, _listed(names))
    return BadStep(number, tuple(names))


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(repr(name) for name in names[:_TOLD])
    return few if len(names) <= _TOLD else f"{few} and {len(names) - _TOLD} more examples"
