"""What happens beside training: history, progress bar, trackers, validation, when to save, signals."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import nn

from tlhub.errors import StoppedError
from tlhub.evaluation.scores import Scores, flat, one_number
from tlhub.models.freezing import FIRM, TrainabilityAudit
from tlhub.stopping import AbandonedError, StopRequest
from tlhub.training.loop import Callback, Job, Progress, Report
from tlhub.training.processes import anywhere
from tlhub.training.store import CheckpointStore

logger = logging.getLogger(__name__)

_NAMED = 20
"""Examples of a step that was not finite which are named in the history."""
_PACE = 60.0
"""Seconds between checkpoints where their number of steps is not given."""


class History(Callback):
    """Writes a line of `history.jsonl` at every log point, and the same values to the trackers of accelerate.

    Args:
        path: The file; lines later than the step at which a sitting begins are dropped.
        rate_name: Key of the throughput: `examples_per_s` or `tokens_per_s`.
        accuracy_name: Key of the share of right answers.
    """

    def __init__(self, path: Path, rate_name: str = "examples_per_s", accuracy_name: str = "accuracy") -> None:
        self.path = path
        self.rate_name = rate_name
        self.accuracy_name = accuracy_name
        self._since = 0.0

    def on_start(self, job: Job, progress: Progress) -> None:
        """Keep what was written up to the step at which this sitting begins."""
        self._since = time.perf_counter()
        if job.accelerator.is_main_process:
            # The validation that a sitting begins with may have been done in one that was killed after it.
            kept = [line for line in read_history(self.path) if line["step"] <= progress.step
                    and not ("validation" in line and line["step"] > progress.validated)]
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            temporary.replace(self.path)  # a process that is killed meanwhile leaves the lines that there were

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        """Write the loss and the pace, and before them the steps that were not finite."""
        if report.bad:
            bad = [{"step": bad.step, "examples": list(bad.examples[:_NAMED]), "count": len(bad.examples)}
                   for bad in report.bad]
            self.write(job, {"step": report.step, "bad": bad})
        now = time.perf_counter()
        rate = report.amount / max(now - self._since, 1e-9)
        self._since = now
        accuracy = {} if math.isnan(report.accuracy) else {self.accuracy_name: report.accuracy}
        self.write(job, {"step": report.step, "epoch": round(report.epoch, 4), "loss": report.loss, **accuracy,
                         "learning_rate": report.learning_rate, "grad_norm": report.grad_norm, self.rate_name: rate})

    def write(self, job: Job, line: dict[str, Any]) -> None:
        """Write one line, and send its numbers to the trackers."""
        if job.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        numbers = {key: value for key, value in line.items() if isinstance(value, (int, float)) and key != "step"}
        for name, value in flat(line.get("validation", {})).items():
            if value is not None:
                numbers[f"validation/{name}"] = value
        job.accelerator.log(numbers, step=line["step"])


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `history.jsonl`; none where there is no file. A half-written last line is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class ProgressBar(Callback):
    """Shows one line with the step, the loss and the time left; nothing where the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Bar | None = None

    def on_start(self, job: Job, progress: Progress) -> None:
        """Open the bar."""
        if self.console.is_terminal and job.accelerator.is_main_process:
            self._bar = Bar(TextColumn("training"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
                            TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=self.console)
            self._bar.add_task("train", total=job.total_steps, completed=progress.step, note="")
            self._bar.start()

    def on_step(self, job: Job, progress: Progress) -> None:
        """Advance."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=progress.step)

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        """Show the loss."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], note=f"loss {report.loss:.4f}")

    def on_end(self, job: Job, progress: Progress) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()


class Audit(Callback):
    """Compares the tensors after a few steps with those before the first: what moved must be what was declared.

    Args:
        model: The bare model.
        needed: Parameters by name that have to be declared trainable at any time.
        after_steps: Steps after which it is checked.
    """

    def __init__(self, model: nn.Module, *, needed: Mapping[str, nn.Parameter] | None = None,
                 after_steps: int = 3) -> None:
        self.model = model
        self.needed = needed
        self.after_steps = after_steps
        self._audit: TrainabilityAudit | None = None
        self._first = 0
        self._rates: dict[str, float] = {}

    def on_start(self, job: Job, progress: Progress) -> None:
        """Remember every tensor."""
        self.renew(progress)

    def renew(self, progress: Progress) -> None:
        """Begin anew with what is declared trainable now.

        Raises:
            TlhubError: Something needed is declared frozen.
        """
        self._audit, self._first, self._rates = TrainabilityAudit(self.model, self.needed), progress.step, {}

    def on_gradients(self, job: Job, progress: Progress) -> None:
        """Note which tensors the loss depends on."""
        if self._audit is not None:
            self._audit.observe(self.model)
            # AdamW moves a weight by about the learning rate; SGD by that times a gradient of unknown size.
            share = FIRM**2 if job.train.optimizer == "sgd" else 1.0
            for group in job.optimizer.param_groups:
                for name in group["names"]:
                    self._rates[name] = max(self._rates.get(name, 0.0), share * float(group["lr"]))

    def on_step(self, job: Job, progress: Progress) -> None:
        """Check once, after `after_steps` steps or at the last one."""
        if progress.step - self._first >= self.after_steps or progress.step == job.total_steps:
            self.conclude(job)

    def conclude(self, job: Job) -> None:
        """Check what has been seen so far, where that was not done yet.

        Raises:
            TlhubError: A frozen tensor moved, or a trainable one did not.
        """
        if self._audit is not None:
            idle = self._audit.check(self.model, self._rates)
            self._audit = None
            if idle and job.accelerator.is_main_process:
                logger.info("trained in name only, since the loss does not depend on them: %s", ", ".join(idle))


class Validation(Callback):
    """Scores the validation split, keeps the best weights, and stops when they get no better.

    Args:
        score: Returns the metrics of the validation split, the same on every process; `AbandonedError` where the run
            was asked to stop meanwhile. The state is saved as it is then, and going on begins with this validation.
        metric: The one that chooses.
        direction: 1 where higher is better, -1 where lower is.
        store: Where the best weights are kept.
        history: Where the scores are written.
        every: Steps between validations; None for once an epoch.
        patience: Validations without improvement after which training stops; None for never.
        from_start: Score the weights that training begins with as well, so that it cannot end with worse ones.
    """

    def __init__(self, score: Callable[[], Scores], *, metric: str, direction: int, store: CheckpointStore,
                 history: History, every: int | None, patience: int | None, from_start: bool = False) -> None:
        self.score = score
        self.metric = metric
        self.direction = direction
        self.store = store
        self.history = history
        self.every = every
        self.patience = patience
        self.from_start = from_start

    def on_start(self, job: Job, progress: Progress) -> None:
        """Validate what training begins with, where that counts or where the run was stopped during its validation."""
        if self.from_start if progress.step == 0 else self.due(job, progress) and progress.validated < progress.step:
            self._validate(job, progress)

    def due(self, job: Job, progress: Progress) -> bool:
        """Return whether the step just done is one to validate after."""
        return progress.step % (self.every or job.steps_per_epoch) == 0 or progress.step == job.total_steps

    def on_step(self, job: Job, progress: Progress) -> None:
        """Validate where it is due."""
        if self.due(job, progress):
            self._validate(job, progress)

    def _validate(self, job: Job, progress: Progress) -> None:
        try:
            with self.store.averaged():
                self._judge(job, progress, self.score())
        except AbandonedError:
            return

    def _judge(self, job: Job, progress: Progress, scores: Scores) -> None:
        progress.validated = progress.step
        self.history.write(job, {"step": progress.step, "epoch": round(progress.step / job.steps_per_epoch, 4),
                                 "validation": scores})
        value, loss = one_number(scores[self.metric]), one_number(scores["loss"]) if "loss" in scores else None
        better = self._is_better(value, progress.best)
        if better or _breaks_tie(value, loss, progress):
            progress.best, progress.best_step, progress.best_loss = value, progress.step, loss
            self.store.keep_best()
        if better:
            progress.stale = 0
        else:
            progress.stale += 1
            if self.patience is not None and progress.stale >= self.patience:
                progress.stop = f"no better {self.metric} in {progress.stale} validations"

    def _is_better(self, value: float, best: float | None) -> bool:
        """Compare with the best so far; a score that is not a number is worse than any that is."""
        if best is None or math.isnan(best):
            return best is None or not math.isnan(value)
        return self.direction * value > self.direction * best


def _breaks_tie(value: float, loss: float | None, progress: Progress) -> bool:
    """Return whether an equal score comes with a lower loss: on few examples, or for rare labels, scores often tie."""
    return (value == progress.best and loss is not None and progress.best_loss is not None
            and loss < progress.best_loss)


class Checkpointing(Callback):
    """Saves the state to resume from, regularly and when the run is asked to stop.

    The processes agree on it after a step, save, and end with `StoppedError`.

    Args:
        store: Where states are kept.
        validation: Its steps are the default ones to save after.
        every: Steps between checkpoints; None for the validations, but at most once in `_PACE` seconds.
        stop: Whether this process was asked to stop.
    """

    def __init__(self, store: CheckpointStore, validation: Validation, *, every: int | None,
                 stop: StopRequest | None = None) -> None:
        self.store = store
        self.validation = validation
        self.every = every
        self.stop = stop or StopRequest()
        self._started = 0.0
        self._saved = 0.0

    def on_start(self, job: Job, progress: Progress) -> None:
        """Begin to count the seconds.

        Raises:
            StoppedError: The run was asked to stop during the validation that training begins with.
        """
        self._started = time.perf_counter() - progress.seconds
        self._saved = time.perf_counter()
        if self._stopped(job, progress):  # what there is to save is saved: training begins with it
            raise _stopped_after(job, progress)

    def on_step(self, job: Job, progress: Progress) -> None:
        """Save where it is due.

        Raises:
            StoppedError: The run was asked to stop; the state is saved.
        """
        progress.seconds = time.perf_counter() - self._started
        stopped = self._stopped(job, progress)
        if stopped or (self._due(job, progress) and progress.step < job.total_steps):
            self.store.save(job, progress)
            self._saved = time.perf_counter()
        if stopped:
            self.stop.requested = True  # of all processes, whichever of them was asked
            raise _stopped_after(job, progress)

    def _due(self, job: Job, progress: Progress) -> bool:
        if self.every:
            return progress.step % self.every == 0
        return self.validation.due(job, progress) and anywhere(job.accelerator,
                                                               time.perf_counter() - self._saved >= _PACE)

    def _stopped(self, job: Job, progress: Progress) -> bool:
        return anywhere(job.accelerator, self.stop.requested)


def _stopped_after(job: Job, progress: Progress) -> StoppedError:
    return StoppedError(f"stopped on request after step {progress.step} of {job.total_steps}; the same command goes on "
                        "from there")
