"""What each strategy would take of memory and time, from a few steps of the loop itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from tlhub.data.batches import Inputs
from tlhub.errors import TlhubError
from tlhub.models.freezing import freeze_batch_norm
from tlhub.models.prefix import Entry
from tlhub.planning.memory import PeakMemory
from tlhub.training.job import Callback, Job, Progress
from tlhub.training.loop import train
from tlhub.training.unfreezing import Schedule
from tlhub.workbench import Workbench

PATIENCE_S = 4.0
"""Seconds that a step may take to be tried; longer ones are extrapolated from smaller batches."""
_FIRST, _FACTOR = 2, 4
"""Examples of the first steps, and by how much each size is larger than the one before."""
_ENOUGH_S, _MOST_STEPS = 1.0, 6
"""When the last size has been measured: after so many seconds, or so many steps."""
_ADAM_BYTES = 12
"""Bytes that each trained number needs beside itself: its gradient, and two moments."""


class DoesNotFitError(TlhubError):
    """Memory does not suffice for what was to be measured."""


@dataclass(frozen=True)
class Steps:
    """What some steps of one size took.

    Attributes:
        size: Examples of each step.
        work: Mean over the steps of examples times the length of the longest.
        seconds: Mean of a step.
        peak: Bytes at the peak, None where the system does not tell.
    """

    size: int
    work: float
    seconds: float
    peak: int | None


@dataclass(frozen=True)
class Measured:
    """What training takes, measured or extrapolated from the steps that were measured.

    Attributes:
        step_seconds: Of a step of the whole batch.
        peak: Bytes at the peak, None where the system does not tell.
        micro_batch: Examples that memory suffices for at a time, where that is less than was asked for.
        largest: Examples of the largest step that was measured.
    """

    step_seconds: float
    peak: int | None
    micro_batch: int | None
    largest: int


@dataclass(frozen=True)
class Chosen(Job):
    """A job whose batches are given, each once."""

    given: tuple[np.ndarray, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches."""
        return len(self.given)

    @property
    def total_steps(self) -> int:
        """The number of batches."""
        return len(self.given)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Return them."""
        return list(self.given)


class Watch(Callback):
    """Notes when each step is done.

    Args:
        device: Waited for.
        enough: Seconds after which training is stopped, two steps being done.
    """

    def __init__(self, device: torch.device, enough: float) -> None:
        self._device = device
        self._enough = enough
        self._last = 0.0
        self.seconds: list[float] = []

    def on_start(self, job: Job, progress: Progress) -> None:
        """Begin to count."""
        self._last = time.perf_counter()

    def on_step(self, job: Job, progress: Progress) -> None:
        """Note the time of a step."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if len(self.seconds) > 1 and sum(self.seconds) >= self._enough:
            progress.stop = "enough has been seen"


class Trial:
    """A few steps of growing size, as far as memory and patience suffice.

    Args:
        job: What would be trained, on some of the examples.
        memory: Counts it.
        patience: Seconds that a step may take.
    """

    def __init__(self, job: Job, memory: PeakMemory, patience: float = PATIENCE_S) -> None:
        self._job = job
        self._memory = memory
        self._patience = patience
        self._batches = sorted(job.batches(0), key=self._work, reverse=True)
        self._points: list[Steps] = []

    def measure(self) -> Measured:
        """Return what a step takes.

        Raises:
            DoesNotFitError: Memory does not suffice for one example.
        """
        job, limit = self._job, self._memory.limit()
        whole = job.train.batch_size or 1
        at_once = min(whole, job.train.micro_batch_size or whole)
        static = sum(parameter.numel() for parameter in job.parameters if parameter.requires_grad) * _ADAM_BYTES
        self._refuse(static, limit)
        most = min(at_once, len(job.inputs))
        size = min(_FIRST, most)
        while True:
            micro_batch = self._run(size, last=size == most)
            following = min(size * _FACTOR, most)
            if micro_batch is not None or size == most:
                break
            # A single size says nothing of what a step takes whatever its size, which is most of it at first.
            patience = self._patience * (_FACTOR if len(self._points) == 1 else 1)
            if self._seconds(following / size * self._points[-1].work) > patience or not self._fits(following, limit):
                break
            size = following
        if micro_batch is None and not self._fits(at_once, limit):
            micro_batch = self._largest_that_fits(at_once, limit)
        mean_work = float(np.mean([self._work(batch) for batch in self._batches]))
        scale = whole / float(np.mean([len(batch) for batch in self._batches]))
        return Measured(self._seconds(mean_work * scale), self._peak(micro_batch or at_once), micro_batch, size)

    def _run(self, size: int, *, last: bool) -> int | None:
        """Carry out steps of one size, and note what they took; the first one is to warm up.

        Returns:
            The examples that memory turned out to suffice for at a time, where that is less.
        """
        batches = [batch[-size:] for batch in self._batches if len(batch) >= min(size, len(self._batches[0]))]
        steps = _MOST_STEPS if last else 1
        given = [batches[number % len(batches)] for number in range(steps + (1 if last or not self._points else 0))]
        watch, progress = Watch(self._job.accelerator.device, _ENOUGH_S if last else 0.0), Progress()
        self._memory.reset()
        train(Chosen(**{**vars(self._job), "given": tuple(given)}), progress, [watch])
        counted = watch.seconds[1:] if len(watch.seconds) > 1 else watch.seconds
        works = [self._work(batch) for batch in given[len(watch.seconds) - len(counted):len(watch.seconds)]]
        self._points.append(Steps(size, float(np.mean(works)), float(np.mean(counted)), self._memory.peak()))
        return progress.micro_batch

    def _work(self, batch: np.ndarray) -> float:
        """Return how much a batch is: its examples, times the length of the longest where they have one."""
        lengths = self._job.inputs.lengths
        return float(len(batch)) if lengths is None else float(len(batch) * lengths[batch % len(lengths)].max())

    def _seconds(self, work: float) -> float:
        """Return the seconds of a step of so much work, along the line through the last two sizes."""
        one, *others = reversed(self._points)
        slope = max((one.seconds - others[0].seconds) / (one.work - others[0].work), 0.0) if others \
            and one.work > others[0].work else one.seconds / max(one.work, 1.0)
        return max(one.seconds + slope * (work - one.work), 0.0)

    def _peak(self, size: int) -> int | None:
        """Return the bytes at the peak with so many of the longest examples at a time, likewise."""
        points = [point for point in self._points if point.peak is not None]
        if not points:
            return None
        one, other = points[-1], points[-2] if len(points) > 1 else None
        assert one.peak is not None
        if size <= one.size or other is None:
            return one.peak
        assert other.peak is not None
        return one.peak + max(one.peak - other.peak, 0) * (size - one.size) // max(one.size - other.size, 1)

    def _fits(self, size: int, limit: int) -> bool:
        peak = self._peak(size)
        return peak is None or peak <= limit

    def _largest_that_fits(self, size: int, limit: int) -> int:
        """Return the most examples at a time that memory suffices for, halving as the loop does.

        Raises:
            DoesNotFitError: It does not for one.
        """
        while size > 1 and not self._fits(size, limit):
            size //= 2
        if not self._fits(size, limit):
            raise DoesNotFitError("memory does not suffice for one example at a time")
        return size

    def _refuse(self, static: int, limit: int) -> None:
        """Stop before anything is tried where what does not depend on the examples is too much already.

        Raises:
            DoesNotFitError: It is.
        """
        self._memory.reset()
        held = self._memory.peak()
        if held is not None and held + static > limit:
            raise DoesNotFitError(f"gradients and moments take {static / 2**30:.1f} GiB, and "
                                  f"{max(limit - held, 0) / 2**30:.1f} GiB are free")


@dataclass
class MeasuringBench(Workbench):
    """A workbench that tries a few steps where a run would train, and tells nobody.

    Attributes:
        memory: Counts it.
        patience: Seconds that a step may take to be tried.
        trained: Numbers that are trained.
        measured: What the steps took; None where nothing is trained by gradient.
        scoring: Seconds to score one validation example.
        known: What was measured where as many numbers were trained in as large batches, to be used again.
        before: Seconds from `began` to the first step: what the strategy computes before it trains.
        entering: Seconds of these in which frozen blocks were run over the examples.
        began: When the strategy began.
    """

    memory: PeakMemory = field(default_factory=lambda: PeakMemory(torch.device("cpu")))
    patience: float = PATIENCE_S
    trained: int = 0
    measured: Measured | None = None
    scoring: float = 0.0
    known: dict[tuple[int | None, ...], tuple[Measured, float]] = field(default_factory=dict)
    before: float = 0.0
    entering: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def tell(self, line: str) -> None:
        """Say nothing."""

    def train(self, model: nn.Module, inputs: Mapping[str, Inputs], *, whole: nn.Module | None = None,
              schedule: Schedule | None = None, from_start: bool = False) -> None:
        """Measure a few steps, all that is ever unfrozen being trained, and the scoring of validation.

        Raises:
            DoesNotFitError: Memory does not suffice.
        """
        self.before = time.perf_counter() - self.began
        train = self.config.train
        if self.config.strategy.freeze_batch_norm:
            freeze_batch_norm(model)
        trained, total = (sum(value.numel() for value in model.parameters() if value.requires_grad or every)
                          for every in (False, True))
        key = (trained, total, train.batch_size, train.micro_batch_size)
        if key not in self.known:
            try:
                measured = Trial(self._job(model, inputs["train"]), self.memory, self.patience).measure()
            finally:
                self.accelerator.free_memory()
            started = time.perf_counter()
            self.predict(model, inputs["validation"])
            self.known[key] = measured, (time.perf_counter() - started) / max(len(inputs["validation"]), 1)
        self.trained, (self.measured, self.scoring) = trained, self.known[key]

    def _prefix(self, model: nn.Module) -> tuple[Entry, Mapping[str, Inputs]] | None:
        started = time.perf_counter()
        found = super()._prefix(model)
        self.entering = time.perf_counter() - started
        return found


def steps_and_validations(examples: int, batch_size: int, epochs: float | None, max_steps: int | None,
                          every: int | None) -> tuple[int, int]:
    """Return the optimizer steps of a run, and how often it scores validation.

    Args:
        examples: Of training.
        batch_size: Examples of a step.
        epochs: Passes, or None.
        max_steps: At most this many steps, or None.
        every: Steps between validations; None for once an epoch.
    """
    an_epoch = -(-examples // batch_size)
    limits: Sequence[int] = [*([] if max_steps is None else [max_steps]),
                             *([] if epochs is None else [max(1, round(epochs * an_epoch))])]
    steps = min(limits)
    return steps, -(-steps // (every or an_epoch))
