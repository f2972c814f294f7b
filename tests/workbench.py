"""A real workbench over a tiny checkpoint and a few examples, without the preparation of a data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from tests import tiny
from tlhub.config import SINGLE_LABEL, RunConfig, replace
from tlhub.data.cache import ArrayCache
from tlhub.data.prepare import Examples
from tlhub.data.targets import Target
from tlhub.folder import RunFolder
from tlhub.models.assembly import lay_out
from tlhub.models.checkpoints import load_checkpoint
from tlhub.registry import STRATEGIES, TASKS
from tlhub.workbench import Workbench

NAMES = ("a", "b", "c")
DEFAULTS: dict[str, Any] = {
    "model.dropout": 0.0, "data.flip": False, "data.crop": "none", "train.max_steps": 6, "train.batch_size": 8,
    "train.learning_rate": 1e-3, "train.weight_decay": 0.01, "train.loss": "cross_entropy", "train.evaluate_every": 3,
    "evaluate.best": "accuracy", "evaluate.metrics": ["loss"], "log.every": 1,
}


def make_workbench(folder: Path, strategy: str, kind: str, **values: Any) -> Workbench:
    """Return the workbench of a run of six steps on 24 examples.

    Args:
        folder: Where all of its files lie; the checkpoint and the cache are shared by the workbenches of a folder.
        strategy: Name of the strategy.
        kind: Kind of the checkpoint.
        values: Fields of the configuration, `__` for the dot; `out` is the run's folder.
    """
    named = {name.replace("__", "."): value for name, value in values.items()}
    if not (folder / kind).exists():
        tiny.checkpoint(folder / kind, kind)
    auto_model, auto_processor = tiny.auto_names(kind)
    text = kind in tiny.TEXT_KINDS
    config = replace(RunConfig(task=f"{'text' if text else 'image'}-classification"), {
        **DEFAULTS, "strategy.name": strategy, "model.name": str(folder / kind),
        "data.cache_dir": str(folder / "cache"), **named})
    checkpoint = load_checkpoint(config.model, auto_model=auto_model, auto_processor=auto_processor, label_names=NAMES,
                                 problem_type=SINGLE_LABEL, pretrained=STRATEGIES.get(strategy).pretrained,
                                 seed=config.seed)
    lay_out(checkpoint.model)
    task = TASKS.get(config.task)()
    inputs = {split: task.inputs(_examples(text, count, seed), checkpoint.processor, config, fingerprint=split)
              for split, count, seed in (("train", 24, 0), ("validation", 9, 1))}
    run = RunFolder(folder / (config.out or "run"))
    run.path.mkdir(exist_ok=True)
    return Workbench(config, run, Accelerator(cpu=True), task, checkpoint, inputs, Target(SINGLE_LABEL, NAMES), "data",
                     ArrayCache(folder / "cache"))


def _examples(text: bool, count: int, seed: int) -> Examples:
    random = np.random.default_rng(seed)
    made: list[Any] = [_text(random) if text else _picture(random) for _ in range(count)]
    return Examples(made, np.arange(count) % len(NAMES), [str(number) for number in range(count)])


def _text(random: np.random.Generator) -> str:
    return " ".join(random.choice(tiny.WORDS, int(random.integers(1, 12))))


def _picture(random: np.random.Generator) -> bytes:
    content = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()
