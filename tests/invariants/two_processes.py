"""What one of two processes does in a test; in a file of its own, which a new process can import."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from torch import nn

from tests.unit.training.test_callbacks import make_job
from tlhub.config import RunConfig
from tlhub.data.batches import ArrayInputs
from tlhub.errors import DiskFullError
from tlhub.launching import leave_group
from tlhub.strategies.base import FeatureHead
from tlhub.training.inference import predict_logits
from tlhub.training.loop import Progress
from tlhub.training.processes import make_accelerator
from tlhub.training.store import CheckpointStore


def numbers_of_two(rank: int, folder: str, counts: Sequence[int]) -> None:
    """Save the logits that this process gets; its BatchNorm statistics differ from the other's."""
    where = Path(folder)
    _join(rank)
    accelerator = make_accelerator(RunConfig())
    for count in counts:
        model = FeatureHead(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))).eval()
        features = torch.randn(count, 6)
        if rank == 0:
            np.save(where / f"{count}-alone.npy", model(features).logits.detach().numpy())
        else:
            model.head[0].running_mean.fill_(5.0)
        inputs = ArrayInputs(features.numpy(), np.zeros(count, dtype=np.int64))
        np.save(where / f"{count}-{rank}.npy", predict_logits(model, inputs, accelerator, batch_size=4))
    leave_group()


def save_where_the_disk_is_full(rank: int, folder: str) -> None:
    """Note what a save ends with on this process, and which checkpoint both then go on from."""
    _join(rank)
    _save_where_the_disk_is_full(rank, Path(folder))
    leave_group()


def _save_where_the_disk_is_full(rank: int, where: Path) -> None:
    make_accelerator(RunConfig())
    job = make_job()
    store = CheckpointStore(where / "checkpoints", job.accelerator.unwrap_model(job.model))
    store.save(job, Progress(step=1))
    said = ""
    full = mock.patch.object(shutil, "disk_usage", return_value=SimpleNamespace(free=10))
    with full if rank == 0 else nullcontext():
        try:
            store.save(job, Progress(step=2))
        except DiskFullError as error:
            said = str(error)
    (where / f"said-{rank}").write_text(said)
    if rank == 0:
        (where / "checkpoints" / "step-000000002").mkdir()
    (where / f"step-{rank}").write_text(str(store.resume(job).step))


def _join(rank: int) -> None:
    # Below the ports that the system gives away by itself: who tries one of those before anybody listens there may
    # find himself.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(20000 + os.getppid() % 12000))
    torch.set_num_threads(1)
    torch.manual_seed(0)
