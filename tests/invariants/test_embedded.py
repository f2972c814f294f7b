"""The embedded checkpoints know something: their frozen features are worth more than those of fresh weights."""

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
    "vision": ("image-classification", "builtin/digits", "accuracy", {"max_train_examples": 100}),
    "text": ("text-classification", "builtin/messages", "accuracy", {"max_train_examples": 200}),
    "audio": ("wake-word", "builtin/wake_word", "average_precision",
              {"max_train_examples": 120, "task_options": {"keyword": ["hey_tilly"]}}),
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
def test_frozen_features_are_worth_more_than_fresh_ones(name: str, tmp_path: Path) -> None:
    task, data, metric, options = CASES[name]
    scores = {}
    models = {"pretrained": f"builtin/{name}", "fresh": str(fresh(f"builtin/{name}", tmp_path / "weights"))}
    for kind, model in models.items():
        run = tlhub.finetune(task, model=model, data=data, strategy="linear_probe", out=str(tmp_path / kind), **options)
        scores[kind] = run.metrics["test"][metric]
    assert scores["pretrained"] > scores["fresh"] + GAIN, scores
