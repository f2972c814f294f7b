"""A run's checkpoints: what has to be kept to go on, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from torch import nn

from tlhub.training import checkpointing
from tlhub.training.checkpointing import Snapshot
from tlhub.training.loop import Job, Progress
from tlhub.training.optimizers import load_state_tensors, state_tensors


class CheckpointStore:
    """A run's `checkpoints/`: the latest state to resume from, the weights that were best on validation among it.

    Args:
        folder: The run's `checkpoints/`.
        model: The bare model. What it declares trainable now is kept, with the buffers, also while it is frozen: a best
            state without what is unfrozen later would be mixed with later weights.
    """

    def __init__(self, folder: Path, model: nn.Module) -> None:
        self.folder = folder
        self.model = model
        self._trained = frozenset(name for name, value in model.named_parameters() if value.requires_grad)
        self._best: dict[str, torch.Tensor] = {}

    def save(self, job: Job, progress: Progress) -> None:
        """Write all that resuming needs, once for all processes; older states are removed after it is verified."""
        if job.accelerator.is_main_process:
            scaler = job.accelerator.scaler
            state = {**asdict(progress), "threads": torch.get_num_threads(),
                     "scaler": None if scaler is None else scaler.state_dict()}
            tensors = {"model": self._weights(), "optimizer": state_tensors(job.optimizer), "best": self._best}
            written = checkpointing.save(self.folder, f"step-{progress.step:09d}", Snapshot(tensors, state))
            checkpointing.rotate(self.folder, "step", written)
        job.accelerator.wait_for_everyone()

    def keep_best(self) -> None:
        """Remember the present weights as the best so far."""
        self._best = {name: value.detach().to("cpu", copy=True) for name, value in self._weights().items()}

    def resume(self, job: Job) -> Progress:
        """Return the progress of the newest intact checkpoint, its weights loaded; a fresh one where there is none."""
        newest = self._agreed(job)
        if newest is None:
            return Progress()
        snapshot = checkpointing.load(newest)
        self._load(snapshot.tensors["model"])
        self._best = dict(snapshot.tensors["best"])
        load_state_tensors(job.optimizer, snapshot.tensors["optimizer"])
        if job.accelerator.scaler is not None and snapshot.state["scaler"]:
            job.accelerator.scaler.load_state_dict(snapshot.state["scaler"])
        torch.set_num_threads(int(snapshot.state["threads"]))
        names = {item.name for item in fields(Progress)}
        return Progress(**{key: value for key, value in snapshot.state.items() if key in names})

    def load_best(self) -> None:
        """Put the best weights back into the model, where there was a validation."""
        self._load(self._best)

    def _agreed(self, job: Job) -> Path | None:
        if job.accelerator.is_main_process:
            checkpointing.latest(self.folder, "step")
        job.accelerator.wait_for_everyone()
        return checkpointing.latest(self.folder, "step")

    def _weights(self) -> dict[str, torch.Tensor]:
        trained = {name: value for name, value in self.model.named_parameters() if name in self._trained}
        return {**trained, **dict(self.model.named_buffers())}

    @torch.no_grad()
    def _load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        own = self._weights()
        for name, value in tensors.items():
            own[name].copy_(value)
