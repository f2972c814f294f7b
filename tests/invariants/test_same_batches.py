"""Processes and accumulation change neither the batches nor the loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.generated import write_images, write_texts

TASKS = {
    "text-classification": ("bert", write_texts),
    "image-classification": ("convnextv2", write_images),
}
VARIANTS = {
    "one process": (),
    "accumulation 1x8": ("--train.micro_batch_size", "8"),
    "accumulation 8x1": ("--train.micro_batch_size", "1"),
    "two processes": ("--num_processes", "2"),
    "two processes, accumulation": ("--num_processes", "2", "--train.micro_batch_size", "2"),
}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("task", TASKS)
def test_losses_agree(task: str, tmp_path: Path) -> None:
    kind, make_data = TASKS[task]
    model, data = tiny.checkpoint(tmp_path / "model", kind), make_data(tmp_path / "data", {"train": 45, "test": 12})
    found = {}
    for number, (name, options) in enumerate(VARIANTS.items()):
        out = tmp_path / str(number)
        done = subprocess.run(
            [sys.executable, "-m", "tlhub", "finetune", task, "--model", str(model), "--data", str(data), "--strategy",
             "full", "--max_steps", "12", "--batch_size", "8", "--model.dropout", "0", "--train.class_weights",
             "balanced", "--log.every", "1", "--out", str(out), *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        found[name] = losses(out)
    assert len(found) == 5
    reference = found["one process"]
    assert len(reference) == 12
    assert np.ptp(reference) > 1e-3
    for name, values in found.items():
        np.testing.assert_allclose(values, reference, atol=1e-6, err_msg=name)
    counts = [json.loads((tmp_path / str(number) / "metrics.json").read_text())["data"] for number in range(5)]
    assert all(count == counts[0] for count in counts)
