"""One run of the quickstart, and what its model said of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from tlhub import run
from tlhub.finished import Run
from tlhub.folder import RunFolder
from tlhub.options import from_kwargs
from tlhub.quickstart.shows import Show
from tlhub.training.job import Callback


class _Keeper(Callback):
    """Keeps the outputs for the test split."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_result(self, model: nn.Module, outputs: Mapping[str, np.ndarray]) -> None:
        """Write them whole, or not at all."""
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with temporary.open("wb") as file:
            np.save(file, outputs["test"], allow_pickle=False)
        temporary.replace(self.path)


def carry_out(show: Show, strategy: str, folder: Path, seed: int) -> Run:
    """Carry out one run, go on with it, or take the finished one.

    Args:
        show: The task.
        strategy: How to transfer.
        folder: Of the whole quickstart.
        seed: Of the run.

    Returns:
        The finished run; its outputs for the test split are kept for `kept_outputs`.
    """
    config = from_kwargs(**show.request(strategy, folder, seed))
    place = show.run_folder(strategy, folder)
    held = RunFolder(place)
    if held.status.get("state") == "finished" and not held.differences(config) and _kept(place).exists():
        return Run(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    return run.finetune(config, callbacks=[_Keeper(_kept(place))])


def kept_outputs(show: Show, strategy: str, folder: Path) -> np.ndarray:
    """Return what the run of a strategy said of the test split, float32, shape (n, k)."""
    outputs: np.ndarray = np.load(_kept(show.run_folder(strategy, folder)), allow_pickle=False)
    return outputs


def _kept(place: Path) -> Path:
    return place.with_name(f"{place.name}.npy")
