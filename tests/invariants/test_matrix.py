"""Every strategy on every task and kind of backbone: trains what it declares, saves, reloads, predicts the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tlhub
from tests import tiny
from tests.generated import write_images, write_texts
from tlhub.registry import STRATEGIES, TASKS
from tlhub.run import Run

KINDS = {"text-classification": ("bert", "roberta", "distilbert", "gpt2"),
         "image-classification": ("vit", "resnet", "convnextv2", "swin")}
CELLS = [(strategy, task, kind) for strategy in STRATEGIES.names() for task in TASKS.names() for kind in KINDS[task]]
FREEZES = ("linear_probe", "head", "lora")
DONE: dict[tuple[str, str, str], Path] = {}

RELOAD = Path(__file__).parent / "reload_without_tlhub.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 48, "validation": 12, "test": 12}
    return {"text-classification": write_texts(folder / "texts", counts),
            "image-classification": write_images(folder / "images", counts)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny.checkpoint(folder / kind, kind) for kinds in KINDS.values() for kind in kinds}


def sample(task: str, data: dict[str, Path]) -> list[str]:
    if task == "image-classification":
        return sorted(map(str, (data[task] / "test").rglob("*.png")))
    return ["the rain was late 3", "a goal", "soup and bread and tea in the storm"]


@pytest.mark.parametrize(("strategy", "task", "kind"), CELLS)
def test_cell(strategy: str, task: str, kind: str, data: dict[str, Path], models: dict[str, Path],
              tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("runs") / f"{strategy}-{kind}"
    gradient = {} if strategy == "linear_probe" else {"epochs": 2, "batch_size": 8}
    run = tlhub.finetune(task, model=str(models[kind]), data=str(data[task]), strategy=strategy, out=str(out),
                         **gradient)
    assert 0.0 <= run.metrics["test"]["accuracy"] <= 1.0
    parameters = run.metrics["parameters"]
    assert (parameters["trainable"] < parameters["total"]) == (strategy in FREEZES)
    # The run scored the model that it had trained; this scores the one that it saved.
    saved = run.evaluate(str(data[task]))["metrics"]
    assert saved == pytest.approx(run.metrics["test"], abs=1e-5)
    check_frozen(strategy, models[kind], run)
    values = sample(task, data)
    logits = run.logits(run._inputs(run.task.read(values)))
    assert logits.shape == (len(values), 3)
    assert np.ptp(logits) > 0
    np.savez(out / "expected.npz", logits=logits)
    (out / "values.json").write_text(json.dumps(values))
    DONE[strategy, task, kind] = out


def check_frozen(strategy: str, base: Path, run: Run) -> None:
    """Compare the saved backbone with the checkpoint's, tensor by tensor."""
    saved_file = run.folder / "model" / "model.safetensors"
    if strategy == "lora":
        return  # The adapter's base is compared by hash in tests/unit/models.
    before, after = load_file(base / "model.safetensors"), load_file(saved_file)
    shared = {}
    for name, value in before.items():
        match = [other for other in after if other == name or other.endswith(f".{name}")]
        if match and after[match[0]].shape == value.shape and value.is_floating_point():
            shared[name] = torch.equal(after[match[0]], value)
    assert len(shared) >= 5
    if strategy in FREEZES:
        assert all(shared.values()), [name for name, same in shared.items() if not same]
    else:
        assert sum(shared.values()) < len(shared) / 2


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reload every cell's artefact in one fresh process."""
    listing = tmp_path_factory.mktemp("reload") / "cells.json"
    listing.write_text(json.dumps({"|".join(cell): str(out) for cell, out in DONE.items()}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, str(RELOAD), str(listing)], env=environment, capture_output=True, text=True,
                          check=False, cwd=listing.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_fresh_process_without_tlhub_predicts_the_same(reloaded: dict[str, str]) -> None:
    assert len(DONE) == len(CELLS) == 40
    assert len(reloaded) == 40
    plain = [cell for cell, how in reloaded.items() if how == "plain transformers"]
    assert {cell: how for cell, how in reloaded.items() if how not in ("plain transformers", "tlhub head")} == {}
    assert len(plain) >= 24
