"""A run's checkpoints: what has to be kept to go on, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlhub.parsers import one_line
from tlhub.training import checkpointing
from tlhub.training.averaging import WeightAverage
from tlhub.training.checkpointing import Snapshot
from tlhub.training.loop import Job, Progress
from tlhub.training.optimizers import load_state_tensors, state_tensors
from tlhub.training.processes import on_main

_MOST_THREADS = 4096
_KIND, _FINAL = "step", "-final"
"""What the names of states begin with, and what that of the state after the last step ends with: it sorts behind."""


class CheckpointStore:
    """A run's `checkpoints/`: the latest state to resume from, the weights that were best on validation among it.

    Args:
        folder: The run's `checkpoints/`.
        model: The bare model. What it declares trainable now is kept, with the buffers, also while it is frozen: a best
            state without what is unfrozen later would be mixed with later weights.
        keep: How many states are kept; where the newest turns out damaged, the one before it is used.
        decay: Of the average of the weights that is scored and kept as best; 0 for the weights themselves.

    Attributes:
        average: That average, which has to be called at every step; None where there is none.
    """

    def __init__(self, folder: Path, model: nn.Module, *, keep: int = 2, decay: float = 0.0) -> None:
        self.folder = folder
        self.model = model
        self.keep = keep
        self._finished = False
        self._trained = frozenset(name for name, value in model.named_parameters() if value.requires_grad)
        self._best: dict[str, torch.Tensor] = {}
        self.average = WeightAverage(self._weights, decay) if decay else None

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model has the weights that are scored and kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def save(self, job: Job, progress: Progress) -> None:
        """Write all that resuming needs, once for all processes; older states are removed after it is verified.

        Raises:
            TlhubError: It cannot be written; on every process.
        """
        scaler = job.accelerator.scaler
        self._write(job, progress, "", {"scaler": None if scaler is None else scaler.state_dict()},
                    {"optimizer": state_tensors(job.optimizer), "best": self._best,
                     **({} if self.average is None else {"average": self.average.values})})

    def finish(self, job: Job, progress: Progress) -> None:
        """Write the weights that training ended with, so that what comes after it can be done again by itself.

        Raises:
            TlhubError: It cannot be written; on every process.
        """
        if not self._finished:
            self._write(job, progress, _FINAL, {}, {})

    def _write(self, job: Job, progress: Progress, suffix: str, state: Mapping[str, Any],
               tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        def write() -> None:
            snapshot = Snapshot({"model": self._weights(), **tensors},
                                {**progress.state(), "threads": torch.get_num_threads(),
                                 "processes": job.accelerator.num_processes, **state})
            written = checkpointing.save(self.folder, f"{_KIND}-{progress.step:09d}{suffix}", snapshot)
            checkpointing.rotate(self.folder, _KIND, written, self.keep)

        on_main(job.accelerator, write)

    def keep_best(self) -> None:
        """Remember the present weights as the best so far."""
        self._best = {name: value.detach().to("cpu", copy=True) for name, value in self._weights().items()}

    def resume(self, job: Job) -> Progress:
        """Return the progress of the newest intact checkpoint, its weights loaded; a fresh one where there is none.

        Raises:
            CheckpointError: The newest checkpoint is intact and does not fit the run.
        """
        newest = on_main(job.accelerator, self._newest)
        if newest is None:
            return Progress()
        snapshot = checkpointing.load(self.folder / newest)
        self._finished = newest.endswith(_FINAL)
        try:
            return self._put_back(snapshot, job)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise checkpointing.foreign(self.folder / newest, one_line(f"{type(error).__name__}: {error}")) from error

    def _put_back(self, snapshot: Snapshot, job: Job) -> Progress:
        progress, threads = Progress.of(snapshot.state), snapshot.state["threads"]
        if not 0 <= progress.step <= job.total_steps or not 1 <= threads <= _MOST_THREADS:
            raise ValueError(f"step {progress.step} of {job.total_steps}, {threads} threads")
        self._load(snapshot.tensors["model"])
        self._best = dict(snapshot.tensors.get("best", {}))
        if self.average is not None and not self._finished:
            self.average.values = self._fitting(snapshot.tensors["average"])
        moments = snapshot.tensors.get("optimizer", {})
        for name, value in moments.items():
            if value.ndim and value.shape != job.parameters[int(name.partition(".")[0])].shape:
                raise ValueError(f"the optimizer's {name} is of shape {tuple(value.shape)}")
        load_state_tensors(job.optimizer, moments)
        if job.accelerator.scaler is not None and snapshot.state.get("scaler"):
            job.accelerator.scaler.load_state_dict(snapshot.state["scaler"])
        if snapshot.state.get("processes") == job.accelerator.num_processes:  # others share the cores differently
            torch.set_num_threads(threads)  # sums of floating-point numbers depend on it
        return progress

    def _newest(self) -> str | None:
        """Return the name of the checkpoint to go on from, which all processes have to agree on."""
        checkpointing.clean(self.folder)
        newest = checkpointing.latest(self.folder, _KIND)
        return None if newest is None else newest.name

    def load_best(self) -> None:
        """Put the best weights back into the model, where there was a validation."""
        if self._best:
            self._load(self._best)

    def _weights(self) -> dict[str, torch.Tensor]:
        trained = {name: value for name, value in self.model.named_parameters() if name in self._trained}
        return {**trained, **dict(self.model.named_buffers())}

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        own = self._weights()
        for name, value in self._fitting(tensors).items():
            own[name].copy_(value)

    def _fitting(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors that are the model's own by name, shape and type.

        Raises:
            ValueError: They are not.
        """
        own = self._weights()
        for name in sorted(own.keys() | tensors.keys()):
            kinds = [(values[name].shape, values[name].dtype) if name in values else None for values in (own, tensors)]
            if kinds[0] != kinds[1]:
                raise ValueError(f"{name!r} is {kinds[1] or 'missing'} and not {kinds[0] or 'trained'}")
        return dict(tensors)
