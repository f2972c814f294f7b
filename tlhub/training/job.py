"""What training works on, where it is, and what it tells those beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import nn

from tlhub.config import TrainConfig
from tlhub.data.batches import Inputs, training_batches
from tlhub.data.sampling import ClassSampling
from tlhub.training.objectives import Objective
from tlhub.training.window import Window


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
        names: What the examples are called in messages; none where they have no names.
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
    names: Sequence[str] = ()

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

    def batch(self, step: int) -> np.ndarray:
        """Return the global batch of a step, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.batches(epoch)[place]

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return the global batches of an epoch."""
        assert self.train.batch_size is not None
        return training_batches(len(self.inputs), self.inputs.lengths, self.train.batch_size, seed=self.seed,
                                epoch=epoch, sampling=self.sampling)

    def named(self, indices: np.ndarray) -> list[str]:
        """Return what examples are called, each once."""
        chosen = dict.fromkeys((indices % len(self.inputs)).tolist())
        known = len(self.names) == len(self.inputs)
        return [self.names[index] if known else f"example {index}" for index in chosen]


@dataclass
class Progress:
    """Where training is; with the weights and the optimizer's state, all that resuming needs.

    Attributes:
        step: Optimizer steps done, skipped ones included.
        bad_steps: Non-finite steps, all and the latest in a row.
        best: Best validation score so far and its step, or None.
        best_loss: The validation loss at that step, where it is scored.
        stale: Validations since the best one.
        validated: The step of the last validation that was finished, -1 where there was none.
        seconds: Time spent training, over all sittings.
        stop: Why training should end before its last step, or None.
        micro_batch: Examples in one pass that memory has been found to suffice for; None where it always did.
        window: What the steps since the last log point showed.
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    best: float | None = None
    best_step: int = 0
    best_loss: float | None = None
    stale: int = 0
    validated: int = -1
    seconds: float = 0.0
    stop: str | None = None
    micro_batch: int | None = None
    window: Window = field(default_factory=Window)

    def state(self) -> dict[str, Any]:
        """Return all of it as plain values, for a file."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"window": self.window.rows()}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """Return the progress that `state` was asked for; what else there is in it is left out."""
        known = {item.name: state[item.name] for item in fields(cls) if item.name in state}
        return cls(**known | {"window": Window.of(state.get("window", ()))})


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient was not finite: its number, from 1, and the examples that may be the reason."""

    step: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What one or more steps showed, read from the device at a log point.

    Attributes:
        step: Steps done.
        epoch: Epochs done.
        loss: Mean over the steps that were finite.
        learning_rate: The largest, in the last of the steps.
        grad_norm: As the loss.
        amount: What the objective counts, over all of the steps.
        accuracy: Share of right answers.
        bad: The steps that were not finite and should have been.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    amount: int
    accuracy: float
    bad: tuple[BadStep, ...] = ()


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
