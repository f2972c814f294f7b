"""The small runs that proofs compare: a user's configuration on a little of their data."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tlhub import run
from tlhub.config import GENERATION_TASKS, RunConfig, replace
from tlhub.data.drafts import Draft
from tlhub.data.prepare import PreparedData, begin, finish
from tlhub.data.sources import read_source
from tlhub.errors import StoppedError, TlhubError
from tlhub.finished import Run
from tlhub.models.checkpoints import load_checkpoint
from tlhub.options import effective
from tlhub.parsers import one_line
from tlhub.proving.witness import InterruptedOnPurposeError, Witness, digests, named_tensors
from tlhub.registry import STRATEGIES, TASKS
from tlhub.tasks.base import Task
from tlhub.training.callbacks import read_history

EXAMPLES, SCORED, BATCH = 20, 8, 8
"""Training examples, examples that are scored, and the global batch: three batches an epoch, the last of four."""
STEPS, SAVED, STOPPED = 7, 4, 5
"""Steps of a run, the step it is saved after, within its second epoch, and the one it is stopped after."""
COMPARED = 4
"""Steps over which processes and accumulation are compared."""
BLOCK = 128
"""Tokens of a block of text at most."""
PLAIN: dict[str, Any] = {"train.max_steps": COMPARED, "train.evaluate_every": COMPARED, "train.precision": "fp32",
                         "model.dropout": 0.0, "model.head_dropout": 0.0, "strategy.adapter_dropout": 0.0,
                         "strategy.freeze_batch_norm": True}
"""What makes runs comparable whose batches are divided in different ways."""


@dataclass(frozen=True)
class Subject:
    """What is proven something of.

    Attributes:
        config: The small runs' configuration.
        data: What they are trained on and scored on.
        draft: The same as it was read, with the labels as they stand in the data.
        start: Digests of the checkpoint's tensors, loaded by itself, as the runs begin with them.
    """

    config: RunConfig
    data: PreparedData
    draft: Draft
    start: Mapping[str, str]

    @property
    def task(self) -> Task:
        """The task."""
        task: Task = TASKS.get(self.config.task)()
        return task

    @property
    def generates(self) -> bool:
        """Whether the task goes on with texts, and has no labels."""
        return self.config.task in GENERATION_TASKS


@dataclass(frozen=True)
class Trial:
    """A small run that was carried out, and what its witness saw."""

    finished: Run
    witness: Witness


def examine(config: RunConfig) -> Subject:
    """Read a user's data and checkpoint, and make the configuration of the small runs.

    Raises:
        TlhubError: They cannot be used, as `tlhub finetune` would say.
    """
    data, draft = _read(config)
    strata = draft.kind.strata(draft.splits["train"].labels, EXAMPLES)
    examples = max(min(EXAMPLES, config.data.max_train_examples or EXAMPLES), len(np.unique(strata)))
    values: dict[str, Any] = {
        "data.max_train_examples": examples,
        "data.max_evaluation_examples": min(SCORED, config.data.max_evaluation_examples or SCORED),
        "train.epochs": None, "train.max_steps": STEPS, "train.batch_size": BATCH, "train.evaluate_every": 2,
        "train.micro_batch_size": config.train.micro_batch_size and min(config.train.micro_batch_size, BATCH),
        "train.patience": None, "train.checkpoint_every": SAVED, "train.compile": False, "evaluate.resamples": 1,
        "evaluate.knn": False, "log.every": 1, "log.trackers": [], "launch.num_processes": 1, "out": None}
    small = replace(config, values)
    data, draft = _read(small)
    task: Task = TASKS.get(config.task)()
    checkpoint = load_checkpoint(
        small.model, auto_model=task.auto_model, auto_processor=task.auto_processor,
        label_names=data.target.names[-1:] if small.model.sigmoid else data.target.names,
        problem_type=data.target.problem_type, pretrained=STRATEGIES.get(small.strategy.name).pretrained,
        seed=small.seed)
    if config.task in GENERATION_TASKS:
        own = {default.name: default.value for default in task.own_defaults(small, data, checkpoint)}
        block = min(small.data.block_size or own["data.block_size"], BLOCK)
        small = replace(small, {"data.block_size": block, "task_options": {**small.task_options, "sample_tokens": 4}})
    return Subject(small, data, draft, digests(named_tensors(checkpoint.model)))


def _read(config: RunConfig) -> tuple[PreparedData, Draft]:
    task: Task = TASKS.get(config.task)()
    draft = begin(read_source(config.data, task.modality), config.data, task.modality, problems=task.problems,
                  keywords=task.keywords(config))
    return finish(draft, config.data, task.modality, seed=config.seed), draft


def carry_out(subject: Subject, folder: Path, values: Mapping[str, Any], stop_after: int | None = None) -> Trial:
    """Carry out a small run, or go on with it, and look on.

    Args:
        subject: What is proven something of.
        folder: The run's.
        values: Fields of the configuration that are different in this run, by dotted name.
        stop_after: The step after which it is stopped.

    Raises:
        TlhubError: The run failed; `InterruptedOnPurposeError` where it was stopped as asked.
    """
    witness = Witness(stop_after)
    return Trial(run.finetune(replace(subject.config, {**values, "out": str(folder)}), callbacks=[witness]), witness)


def interrupted(subject: Subject, folder: Path, stop_after: int) -> Witness:
    """Carry out a small run until a step, and return its witness.

    Raises:
        TlhubError: The run came to its end, or failed.
    """
    witness = Witness(stop_after)
    try:
        run.finetune(dataclasses.replace(subject.config, out=str(folder)), callbacks=[witness])
    except InterruptedOnPurposeError:
        return witness
    raise TlhubError(f"the run was stopped after step {stop_after} and came to its end in spite of it")


def launched(subject: Subject, folder: Path, values: Mapping[str, Any]) -> None:
    """Carry out a small run by the command `tlhub finetune`, whose configuration is left beside the run's folder.

    Raises:
        TlhubError: It failed.
        StoppedError: It was asked to stop.
    """
    config = replace(subject.config, {**values, "out": str(folder)})
    file = folder.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(effective(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
    ended = subprocess.run([sys.executable, "-m", "tlhub", "finetune", "--config", str(file)], capture_output=True,
                           text=True, check=False)
    if ended.returncode == StoppedError.exit_code:
        raise StoppedError("stopped on request while a run of several processes was going on")
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()] or ["without a word"]
        raise TlhubError(f"'tlhub finetune --config {file}' ended with code {ended.returncode}: {one_line(said[-1])}")


def losses(folder: Path) -> dict[int, tuple[float, float]]:
    """Return loss and gradient norm of each step of a run, from its `history.jsonl`."""
    return {line["step"]: (line["loss"], line["grad_norm"]) for line in read_history(folder / "history.jsonl")
            if "loss" in line}


def scores(folder: Path) -> dict[str, Any]:
    """Return what a run found, without times, speed and memory: `metrics.json` and its validations' lines."""
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    timed = ("time", "throughput", "peak_memory_mib")
    history = [line for line in read_history(folder / "history.jsonl") if "validation" in line]
    return {"metrics": {key: value for key, value in found.items() if key not in timed}, "validations": history}


def apart(one: float, other: float) -> float:
    """Return how far two numbers are apart, as a share of the second where that is above 1; infinite without a number.

    Comparisons and `max` let a NaN pass.
    """
    far = abs(one - other) / max(1.0, abs(other))
    return math.inf if math.isnan(far) else far


@contextmanager
def without_notes(speaker: str = "tlhub.proving") -> Iterator[None]:
    """Silence what runs tell of themselves, but not their warnings.

    Args:
        speaker: The logger whose notes go through.
    """
    logger, own = logging.getLogger("tlhub"), logging.getLogger(speaker)
    level = logger.level
    if level != logging.DEBUG:
        own.setLevel(level)
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
        own.setLevel(logging.NOTSET)
