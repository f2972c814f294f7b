"""Every strategy on every task and kind of backbone: trains what it declares, saves, reloads, predicts the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tlhub
from tests import tiny
from tests.generated import write_corpus, write_images, write_measured, write_sounds, write_texts
from tlhub.config import AUDIO_TASKS, FEATURE_STRATEGIES, GENERATION_TASKS
from tlhub.data.frontends import front_end
from tlhub.evaluation.metrics import direction
from tlhub.finished import Run
from tlhub.registry import STRATEGIES, TASKS
from tlhub.training.callbacks import read_history

PICTURES = ("vit", "resnet", "convnextv2", "swin", "timm_resnet", "timm_efficientnet")
KINDS = {"text-classification": ("bert", "roberta", "distilbert", "gpt2"), "image-classification": PICTURES,
         "image-regression": PICTURES, "audio-classification": tiny.AUDIO_KINDS, "wake-word": ("hubert", "ast"),
         "text-generation": tiny.GENERATION_KINDS}
CELLS = [(strategy, task, kind) for strategy in STRATEGIES.names() for task in TASKS.names() for kind in KINDS[task]
         if not (task in GENERATION_TASKS and strategy in FEATURE_STRATEGIES)]
FREEZES = ("linear_probe", "head", "lora", "last_k")
DONE: dict[tuple[str, str, str], Path] = {}

RELOAD = Path(__file__).parent / "reload_without_tlhub.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    counts = {"train": 48, "validation": 12, "test": 12}
    sounds = write_sounds(folder / "sounds", {**counts, "test": 33})
    return {"text-classification": write_texts(folder / "texts", counts),
            "image-classification": write_images(folder / "images", counts),
            "image-regression": write_measured(folder / "measured", counts),
            "audio-classification": sounds, "wake-word": sounds,
            "text-generation": write_corpus(folder / "corpus", counts)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {kind: tiny.checkpoint(folder / kind, kind) for task, kinds in KINDS.items() for kind in kinds
            if task not in GENERATION_TASKS}
    decoders = {kind: tiny.generator(folder / "decoders" / kind, kind) for kind in tiny.GENERATION_KINDS}
    return {(task, kind): (decoders if task in GENERATION_TASKS else made)[kind]
            for task, kinds in KINDS.items() for kind in kinds}


def sample(task: str, data: dict[str, Path]) -> list[str]:
    if task in AUDIO_TASKS:
        return sorted(map(str, data[task].rglob("test/**/*.wav")))[::3]
    if task.startswith("image"):
        return sorted(map(str, data[task].rglob("test/**/*.png"))) or sorted(map(str, data[task].glob("test_*.png")))
    return ["the rain was late 3", "a goal", "soup and bread and tea in the storm"]


@pytest.mark.parametrize(("strategy", "task", "kind"), CELLS)
def test_cell(strategy: str, task: str, kind: str, data: dict[str, Path], models: dict[tuple[str, str], Path],
              tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("runs") / f"{strategy}-{kind}"
    run = tlhub.finetune(task, model=str(models[task, kind]), data=given(task, data), out=str(out),
                         **options(strategy, task))
    parameters = run.metrics["parameters"]
    assert (parameters["trainable"] < parameters["total"]) == (strategy in FREEZES)
    scores = run.metrics["test"]
    assert scores.keys() == set(run.problem.metrics)
    assert all(np.isfinite(value) for value in flat(scores).values())
    # The run scored the model that it had trained; this scores the one that it saved.
    assert flat(run.evaluate(str(data[task]))["metrics"]) == pytest.approx(flat(scores), rel=1e-4, abs=1e-4)
    check_moved(strategy, models[task, kind], run)
    values = sample(task, data)
    expected = predicted(run, values)
    assert all(np.ptp(array) > 0 for array in expected.values())
    np.savez(out / "expected.npz", **expected)
    (out / "values.json").write_text(json.dumps({"values": values, "continued": continued(run)}))
    DONE[strategy, task, kind] = out


def given(task: str, data: dict[str, Path]) -> dict[str, object]:
    """Return the section `data` of a cell."""
    targets = {"label_column": "brightness"} if task == "image-regression" else {}
    return {"source": str(data[task]), **targets}


def flat(scores: dict[str, Any]) -> dict[str, float]:
    """Return scores by name, a metric of several parts as so many, without those for which there are too few clips."""
    found: dict[str, float] = {}
    for name, value in scores.items():
        parts = {f"{name} {part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
        few = {part for part, one in parts.items() if one is None}
        assert few <= {"miss_rate_at_fa_rate 0.01"}, few
        found.update({part: one for part, one in parts.items() if part not in few})
    return found


def predicted(run: Run, values: list[str]) -> dict[str, np.ndarray]:
    """Return what the saved model gives: logits; of a decoder those of every next token, and what tlhub makes of them.

    The `nll` of a text is the summed negative log-likelihood of its tokens and its end, after its beginning.
    """
    found = run.logits(run.inputs(run.task.read(values, pairs=False)))
    if run.config.task not in GENERATION_TASKS:
        assert found.shape == (len(values), len(run.label_names))
        return {"logits": found}
    assert found.shape == (len(values), 2)
    model, tokenizer = run._load()
    with torch.no_grad():
        rows = [model(**tokenizer(value, return_tensors="pt")).logits[0].numpy() for value in values]
    return {"logits": np.concatenate(rows), "nll": found[:, 0]}


def continued(run: Run) -> int:
    """Return up to how many samples clips are continued by silence: a model without a mask takes it for sound."""
    if run.config.task not in AUDIO_TASKS:
        return 0
    frontend = front_end(run._load()[1])
    return 0 if frontend.masked or frontend.samples else round(run.config.data.max_seconds * frontend.rate)


def options(strategy: str, task: str) -> dict[str, object]:
    """Return what a cell is run with: one block of two or more, and two epochs."""
    own = {"task_options": {"keyword": "high"}} if task == "wake-word" else {}
    gradient = {} if strategy == "linear_probe" else {"epochs": 2, "batch_size": 8}
    return {"strategy": {"name": strategy, **({"k": 1} if strategy == "last_k" else {})},
            "evaluate": {"resamples": 10}, **gradient, **own}


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
    assert len(DONE) == len(CELLS) == 199
    assert len(reloaded) == 199
    plain = [cell for cell, how in reloaded.items() if how == "plain transformers"]
    assert {cell: how for cell, how in reloaded.items() if how not in ("plain transformers", "tlhub head")} == {}
    assert len(plain) >= 167
