"""What one of two processes does in the tests of faults; in a file of its own, which a new process can import."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from tests.unit.training.test_gradients import ERRORS, Limited
from tlhub.config import RunConfig, TrainConfig
from tlhub.data.batches import ArrayInputs
from tlhub.launching import leave_group
from tlhub.training import gradients, optimizers
from tlhub.training.job import Callback, Job, Progress, Report
from tlhub.training.loop import train
from tlhub.training.objectives import CrossEntropy
from tlhub.training.processes import make_accelerator

COUNT, STEPS, BATCH = 45, 12, 8


class Gated(nn.Module):
    """A head with a part that only some examples use, and one that none uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.gated, self.idle = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, features: torch.Tensor) -> SequenceClassifierOutput:
        states = self.first(features)
        chosen = features[:, 0] > 1.5
        if chosen.any():
            states = states.index_add(0, chosen.nonzero()[:, 0], self.gated(features[chosen]))
        return SequenceClassifierOutput(logits=self.last(torch.relu(states)))


class Watch(Callback):
    """Notes losses, steps that were bad, and whether the weights moved."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.bad: list[tuple[int, list[str]]] = []
        self.still: list[int] = []
        self._before: dict[str, torch.Tensor] = {}

    def on_start(self, job: Job, progress: Progress) -> None:
        self._before = {name: value.clone() for name, value in job.model.state_dict().items()}

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        self.losses.append(report.loss)
        self.bad += [(bad.step, list(bad.examples)) for bad in report.bad]

    def on_step(self, job: Job, progress: Progress) -> None:
        now = {name: value.clone() for name, value in job.model.state_dict().items()}
        if all(torch.equal(value, self._before[name]) for name, value in now.items()):
            self.still.append(progress.step)
        self._before = now


def features() -> np.ndarray:
    """Return the examples' features, float32, shape (n, 6)."""
    return np.random.default_rng(0).standard_normal((COUNT, 6)).astype(np.float32)


def trained(case: str) -> dict[str, Any]:
    """Train under a fault, on one process or two, and tell what was seen."""
    accelerator = make_accelerator(RunConfig())
    inputs = ArrayInputs(features(), np.random.default_rng(1).integers(0, 3, COUNT))
    if "NaN" in case:
        inputs.features[7] = np.nan
    torch.manual_seed(0)
    model: nn.Module = Gated()
    config = TrainConfig(max_steps=STEPS, batch_size=BATCH, learning_rate=1e-2, weight_decay=0.1,
                         optimizer="sgd" if "sgd" in case else "adamw")
    place = "backward" if "backward" in case else "forward"
    alone = accelerator.num_processes == 1
    most = 2 if "memory" in case and (alone or accelerator.process_index == 1) else COUNT
    limited = Limited(model, most, ERRORS["host"], place)
    groups = optimizers.parameter_groups(limited, config, layer_decay=None,
                                         blocks={name: 0 for name, _ in limited.named_parameters()})
    prepared, optimizer = accelerator.prepare(limited, optimizers.build(groups, config))
    job = Job(accelerator, prepared, optimizer, inputs, CrossEntropy(inputs.labels), config, seed=3, log_every=1,
              names=[f"row{number}" for number in range(COUNT)])
    watch, progress = Watch(), Progress()
    train(job, progress, [watch])
    return {"losses": watch.losses, "bad": watch.bad, "still": watch.still, "micro_batch": progress.micro_batch,
            "steps": progress.step, "bad_steps": progress.bad_steps, "sizes": limited.sizes,
            "weights": {name: value.flatten().tolist() for name, value in model.state_dict().items()}}


def fault_on_two(rank: int, folder: str, port: int, cases: list[str]) -> None:
    """Train as one of two processes under each fault, and save what was seen."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    torch.set_num_threads(1)
    sent: list[int] = []
    meanwhile = gradients.BatchGradients._meanwhile

    def counted(self: gradients.BatchGradients, step: int, *rest: Any) -> Any:
        sent.append(step)
        return meanwhile(self, step, *rest)

    gradients.BatchGradients._meanwhile = counted
    for case in cases:
        if "meanwhile" in case:  # as on GPUs, where DDP sends gradients while others are computed
            gradients._sends_meanwhile = lambda job: True
        sent.clear()
        found = trained(case) | {"sent": len(sent)}
        (Path(folder) / f"{case}-{rank}.json").write_text(json.dumps(found))
    leave_group()
