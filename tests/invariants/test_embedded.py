"""The embedded checkpoints know something: what they begin with is worth more than fresh weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tlhub
from tlhub import builtin

CASES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # Digits are so plain that a probe of fresh convolutions tells them as well.
    "vision": ("image-classification", "builtin/digits", "accuracy",
               {"strategy": "full", "data.flip": False, "data.crop": "padded", "max_train_examples": 50,
                "batch_size": 10, "max_steps": 60, "learning_rate": 1e-3}),
    "text": ("text-classification", "builtin/messages", "accuracy",
             {"strategy": "linear_probe", "max_train_examples": 200}),
    "audio": ("wake-word", "builtin/wake_word", "average_precision",
              {"strategy": "linear_probe", "max_train_examples": 120, "task_options": {"keyword": ["hey_tilly"]}}),
}
GAIN = 0.04


def fresh(name: str, folder: Path) -> Path:
    """Write the architecture of an embedded checkpoint with weights that were never trained."""
    shutil.copytree(builtin.checkpoint_folder(name), folder)
    settings = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    getattr(transformers, settings.architectures[0])(settings).save_pretrained(folder)
    return folder


def test_every_checkpoint_is_measured() -> None:
    assert {f"{builtin.PREFIX}{name}" for name in CASES} == set(builtin.CHECKPOINTS)


@pytest.mark.parametrize("name", CASES)
def test_pretrained_weights_are_worth_more_than_fresh_ones(name: str, tmp_path: Path) -> None:
    task, data, metric, options = CASES[name]
    scores = {}
    models = {"pretrained": f"builtin/{name}", "fresh": str(fresh(f"builtin/{name}", tmp_path / "weights"))}
    for kind, model in models.items():
        run = tlhub.finetune(task, model=model, **{"data.source": data}, out=str(tmp_path / "runs" / kind), **options)
        scores[kind] = run.metrics["test"][metric]
    assert scores["pretrained"] > scores["fresh"] + GAIN, scores
