"""Interruptions of a run at chosen moments, and what has to be the same when it has gone on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tlhub import results, workbench
from tlhub.errors import StoppedError
from tlhub.finished import Run
from tlhub.training.loop import Callback, Job, Progress
from tlhub.training.optimizers import state_tensors


@dataclass(frozen=True)
class Moment:
    """When and how a run is interrupted.

    Attributes:
        kind: `step`: asked to stop in a step, and stops after it with a checkpoint; `kill`: ends after a step without
            another word; `window`: ends between two of a step's micro-batches; `validation`: asked to stop while the
            validation after a step is computed; `killed validation`: ends there; `saving`: ends when the model is
            saved, after training.
        step: The step, from 1; for a validation 0 stands for that of the beginning.
    """

    kind: str
    step: int = 0


class Interrupter(Callback):
    """Interrupts one sitting of a run."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.happened = 0
        self._passes = 0
        self._progress = Progress()
        self._hook: Any = None

    def listen(self, model: nn.Module, progress: Progress) -> None:
        """Count the forward passes."""
        self._progress = progress
        self._hook = model.register_forward_pre_hook(self._on_pass)

    def on_gradients(self, job: Job, progress: Progress) -> None:
        """Ask for a stop."""
        self._passes = 0
        if self.moment == Moment("step", progress.step + 1):
            self._ask()

    def on_step(self, job: Job, progress: Progress) -> None:
        """End without a word."""
        if self.moment == Moment("kill", progress.step):
            self._end()

    def forget(self) -> None:
        """Listen no longer."""
        if self._hook is not None:
            self._hook.remove()

    def _on_pass(self, model: nn.Module, given: Any) -> None:
        kind, step = self.moment.kind, self._progress.step
        if model.training:
            self._passes += 1
            if self.moment == Moment("window", step + 1) and self._passes == 2:
                self._end()
        elif kind.endswith("validation") and step == self.moment.step and not self.happened:
            if kind == "validation":
                self._ask()
            else:
                self._end()

    def _ask(self) -> None:
        self.happened += 1
        os.kill(os.getpid(), signal.SIGTERM)

    def _end(self) -> None:
        self.happened += 1
        raise KeyboardInterrupt


class Watch(Callback):
    """Notes digests of all that training changes after every step: one, if all sittings come to the same.

    Attributes:
        digests: By step.
        sittings: The steps that sittings began with.
        steps_per_epoch: The run's.
        total_steps: The run's.
    """

    def __init__(self) -> None:
        self.digests: dict[int, set[str]] = {}
        self.sittings: list[int] = []
        self.steps_per_epoch = 0
        self.total_steps = 0
        self._trains = False

    def on_start(self, job: Job, progress: Progress) -> None:
        """Note how long the run is."""
        self._trains = False
        self.steps_per_epoch, self.total_steps = job.steps_per_epoch, job.total_steps

    def on_gradients(self, job: Job, progress: Progress) -> None:
        """Note what the steps before have come to: those that a run stops after have no other callback."""
        self._trains = True
        self._note(job, progress)

    def on_end(self, job: Job, progress: Progress) -> None:
        """Note what the last step has come to, where this sitting did it."""
        if self._trains and progress.step == job.total_steps:
            self._note(job, progress)

    def _note(self, job: Job, progress: Progress) -> None:
        """Note parameters and the optimizer's state; BatchNorm's statistics have moved on."""
        digest = hashlib.sha256()
        model = dict(job.accelerator.unwrap_model(job.model).named_parameters())
        for name, value in sorted({**model, **state_tensors(job.optimizer)}.items()):
            content = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            digest.update(name.encode() + content)
        self.digests.setdefault(progress.step, set()).add(digest.hexdigest())


def interrupted(fit: Callable[[list[Callback]], Run], moments: list[Moment]) -> tuple[Run, Watch, list[Moment]]:
    """Carry out a run that is interrupted at all of these moments, one a sitting.

    Args:
        fit: Begins or continues the run, with these callbacks.
        moments: In the order in which they come.

    Returns:
        The finished run, what was seen of it, and the moments that came.
    """
    watch, came = Watch(), []
    for moment in moments:
        interrupter = Interrupter(moment)
        with _listening(watch, interrupter), pytest.raises((StoppedError, KeyboardInterrupt)):
            fit([watch, interrupter])
        came += [moment] * interrupter.happened
    with _listening(watch, Interrupter(Moment("none"))):
        return fit([watch]), watch, came


@contextmanager
def _listening(watch: Watch, interrupter: Interrupter) -> Iterator[None]:
    """Let them hear of what has no callback: a sitting's start, before its first validation, and the end."""
    train, save_model = workbench.train, results.save_model

    def begin(job: Job, progress: Progress, callbacks: list[Callback]) -> Progress:
        watch.sittings.append(progress.step)
        interrupter.listen(job.accelerator.unwrap_model(job.model), progress)
        return train(job, progress, callbacks)

    def save(*args: Any, **kwargs: Any) -> None:
        if interrupter.moment.kind == "saving":
            interrupter._end()
        save_model(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "train", begin)
        patch.setattr(results, "save_model", save)
        yield
        interrupter.forget()


def left(folder: Path) -> dict[str, Any]:
    """Return what a finished run has left, without what tells the time: the same for the same run."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("time", "throughput", "peak_memory_mib"):
        metrics.pop(name)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    history = [{key: value for key, value in line.items() if not key.endswith("per_s")} for line in lines]
    tensors = {f"{path.name} {name}": value.numpy().tobytes() for path in (folder / "model").glob("*.safetensors")
               for name, value in load_file(path).items()}
    return {"metrics": json.dumps(metrics, sort_keys=True), "history": history, "tensors": tensors}
