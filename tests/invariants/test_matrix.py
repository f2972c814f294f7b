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
from tests.generated import write_images, write_measured, write_texts
from tlhub.evaluation.metrics import direction
from tlhub.finished import Run
from tlhub.registry import STRATEGIES, TASKS
from tlhub.training.callbacks import read_history

PICTURES = ("vit", "resnet", "convnextv2", "swin", "timm_resnet", "timm_efficientnet")
KINDS = {"text-classification": ("bert", "roberta", "distilbert", "gpt2"), "image-classification": PICTURES,
         "image-regression": PICTURES}
CELLS = [(strategy, task, kind) for strategy in STRATEGIES.names() for task in TASKS.names() for kind in KINDS[task]]
FREEZES = ("linear_probe", "head", "lora", "last_k")
DONE: dict[tuple[str, str, str], Path] = {}

RELOAD = Path(__file__).parent / "reload_without_tlhub.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 48, "validation": 12, "test": 12}
    return {"text-classification": write_texts(folder / "texts", counts),
            "image-classification": write_images(folder / "images", counts),
            "image-regression": write_measured(folder / "measured", counts)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny.checkpoint(folder / kind, kind) for kinds in KINDS.values() for kind in kinds}


def sample(task: str, data: dict[str, Path]) -> list[str]:
    if task.startswith("image"):
        return sorted(map(str, data[task].rglob("test/**/*.png"))) or sorted(map(str, data[task].glob("test_*.png")))
    return ["the rain was late 3", "a goal", "soup and bread and tea in the storm"]


@pytest.mark.parametrize(("strategy", "task", "kind"), CELLS)
def test_cell(strategy: str, task: str, kind: str, data: dict[str, Path], models: dict[str, Path],
              tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("runs") / f"{strategy}-{kind}"
    run = tlhub.finetune(task, model=str(models[kind]), data=given(task, data), out=str(out), **options(strategy))
    parameters = run.metrics["parameters"]
    assert (parameters["trainable"] < parameters["total"]) == (strategy in FREEZES)
    scores = run.metrics["test"]
    assert scores.keys() == set(run.problem.metrics)
    assert all(np.isfinite(value) for value in scores.values())
    # The run scored the model that it had trained; this scores the one that it saved.
    assert run.evaluate(str(data[task]))["metrics"] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    check_moved(strategy, models[kind], run)
    values = sample(task, data)
    logits = run.logits(run._inputs(run.task.read(values, pairs=False)))
    assert logits.shape == (len(values), len(run.label_names))
    assert np.ptp(logits) > 0
    np.savez(out / "expected.npz", logits=logits)
    (out / "values.json").write_text(json.dumps(values))
    DONE[strategy, task, kind] = out


def given(task: str, data: dict[str, Path]) -> dict[str, object]:
    """Return the section `data` of a cell."""
    targets = {"label_column": "brightness"} if task == "image-regression" else {}
    return {"source": str(data[task]), **targets}


def options(strategy: str) -> dict[str, object]:
    """Return what a cell is run with: one block of two or more, and two epochs."""
    gradient = {} if strategy == "linear_probe" else {"epochs": 2, "batch_size": 8}
    return {"strategy": {"name": strategy, **({"k": 1} if strategy == "last_k" else {})},
            "evaluate": {"resamples": 10}, **gradient}


def ends_as_it_began(run: Run) -> bool:
    """Return whether no validation of an `lp_ft` run was better than that of its probe."""
    best = run.config.evaluate.best
    lines = read_history(run.folder / "history.jsonl")
    found = [line["validation"] for line in lines if "validation" in line]
    scores = [(direction(best) * scores[best], -scores.get("loss", 0.0)) for scores in found]
    assert len(scores) == 3
    return max(scores) == scores[0]


def check_moved(strategy: str, base: Path, run: Run) -> None:
    """Compare the saved backbone with the checkpoint's, tensor by tensor."""
    if strategy == "lora":
        return  # The adapter's base is compared by hash in tests/unit/models.
    before, after = load_file(base / "model.safetensors"), load_file(run.folder / "model" / "model.safetensors")
    same = {}
    for name, value in before.items():
        match = [other for other in after if other == name or other.endswith(f".{name}")]
        if match and after[match[0]].shape == value.shape and value.is_floating_point():
            same[name] = torch.equal(after[match[0]], value)
    still = sum(same.values())
    assert len(same) >= 5
    if strategy in ("linear_probe", "head") or (strategy == "lp_ft" and ends_as_it_began(run)):
        assert still == len(same), [name for name, kept in same.items() if not kept]
    elif strategy == "last_k":
        assert 0 < still < len(same)
    else:
        assert still < len(same) / 2


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
    assert len(DONE) == len(CELLS) == 128
    assert len(reloaded) == 128
    plain = [cell for cell, how in reloaded.items() if how == "plain transformers"]
    assert {cell: how for cell, how in reloaded.items() if how not in ("plain transformers", "tlhub head")} == {}
    assert len(plain) >= 96
