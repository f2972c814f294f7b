"""A run that is stopped goes on by the same command, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests import tiny
from tests.generated import write_images, write_texts

TASKS = {
    "text-classification": ("bert", write_texts),
    "image-classification": ("resnet", write_images),
}


def command(task: str, model: Path, data: Path, out: Path, *extra: str) -> list[str]:
    return [sys.executable, "-m", "tlhub", "finetune", task, "--model", str(model), "--data", str(data), "--strategy",
            "full", "--epochs", "15", "--batch_size", "8", "--log.every", "1", "--out", str(out), *extra]


def history(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("per_s")} for line in lines]


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_run_goes_on_to_the_same_bits(task: str, tmp_path: Path) -> None:
    kind, make_data = TASKS[task]
    model, data = tiny.checkpoint(tmp_path / "model", kind), make_data(tmp_path / "data", {"train": 45, "test": 12})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    subprocess.run(command(task, model, data, straight), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command(task, model, data, stopped), env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (stopped / "history.jsonl").exists() and len((stopped / "history.jsonl").read_text().splitlines()) > 8:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 75, words
    assert json.loads((stopped / "status.json").read_text())["exit_code"] == 75
    steps_before = len(history(stopped))
    again = subprocess.run(command(task, model, data, stopped), env=environment, capture_output=True, text=True,
                           check=False)
    assert again.returncode == 0, again.stderr
    assert 8 < steps_before < len(history(straight))
    assert history(stopped) == history(straight)
    expected, found = (load_file(run / "model" / "model.safetensors") for run in (straight, stopped))
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)
