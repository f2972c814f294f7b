"""Candidates: checkpoints with what their frozen features, or their own losses, tell before anything is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from accelerate import Accelerator

from tlhub.builtin import is_builtin, read_card
from tlhub.config import NEXT_TOKEN, RunConfig, replace
from tlhub.data.batches import Inputs
from tlhub.data.blocks import GenerationInputs
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.prepare import Examples, PreparedData
from tlhub.errors import CheckpointError
from tlhub.evaluation.measures import average_precision
from tlhub.evaluation.outcomes import ClassOutcome
from tlhub.folder import RunFolder
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.features import available_features
from tlhub.models.heads import output_parameters
from tlhub.models.inspection import SETTINGS, read_description
from tlhub.models.probes import merits, ridge_loo
from tlhub.planning.scores import knn_loo, logme
from tlhub.planning.subsets import excerpts, some, subset
from tlhub.registry import TASKS
from tlhub.run import facts_of, fitting_checkpoint
from tlhub.seeding import generator
from tlhub.tasks.base import Task
from tlhub.training import defaults
from tlhub.workbench import Workbench

MOST_EXAMPLES = {"image": 2000, "text": 2000, "audio": 1000}
"""Training examples whose features are compared, by modality."""
CHARACTERS = 60_000
"""Characters of validation texts that language models are compared on."""
_RESAMPLES = 1000
_MASKED = ("Masked", "PreTraining", "ViTMAE")
"""Parts of the names of architectures that were trained to fill in what is hidden."""


@dataclass(frozen=True)
class Subject:
    """What candidates are compared for.

    Attributes:
        config: As given; its model names all candidates.
        data: The data as prepared.
        accelerator: The device.
    """

    config: RunConfig
    data: PreparedData
    accelerator: Accelerator

    @cached_property
    def task(self) -> Task:
        """The task."""
        task: Task = TASKS.get(self.config.task)()
        return task

    @property
    def generates(self) -> bool:
        """Whether texts are gone on with, so that there are no labels and no features."""
        return self.data.target.problem_type == NEXT_TOKEN

    @cached_property
    def compared(self) -> Examples:
        """The examples that every candidate is scored on: of training, or excerpts of validation texts."""
        seed, splits = self.config.seed, self.data.splits
        if self.generates:
            return excerpts(splits["validation"], CHARACTERS, seed=seed, purpose="planning")
        return subset(splits["train"], MOST_EXAMPLES[self.task.modality], seed=seed, purpose="planning")

    @property
    def groups(self) -> np.ndarray | None:
        """What is left out together, shape (n,); None for each example by itself, or where all are of one group."""
        groups = self.compared.groups
        return None if groups is None or len(np.unique(groups)) < 2 else groups

    @cached_property
    def fingerprint(self) -> str:
        """Of the data as features are kept under it: that of a run where all training examples are compared."""
        if len(self.compared) == len(self.data.splits["train"]):
            return self.data.fingerprint
        return f"{self.data.fingerprint}-{len(self.compared)}-of-{self.config.seed}"


@dataclass(frozen=True)
class Loaded:
    """A candidate, loaded for a strategy.

    Attributes:
        given: The configuration of a run with this checkpoint, with the task's own defaults.
        config: The same, resolved.
        checkpoint: The checkpoint.
        facts: What the run's defaults depend on.
    """

    given: RunConfig
    config: RunConfig
    checkpoint: Checkpoint
    facts: defaults.Facts


def load(subject: Subject, name: str, strategy: str, before: Loaded | None = None) -> Loaded:
    """Load a candidate as a run of this strategy would.

    Args:
        subject: What for.
        name: Of the candidate.
        strategy: Of the run.
        before: The same candidate, loaded for another strategy: what it reads of the data is known then.

    Raises:
        CheckpointError: It cannot be had, or does not serve the task.
        UsageError: An option does not fit it.
    """
    config = replace(before.given if before else subject.config, {"model.name": name, "strategy.name": strategy})
    checkpoint = fitting_checkpoint(config, subject.task, subject.data)
    if before is not None:
        return Loaded(config, defaults.resolve(config, before.facts)[0], checkpoint, before.facts)
    config, _, facts = facts_of(config, subject.task, subject.data, checkpoint)
    return Loaded(config, defaults.resolve(config, facts)[0], checkpoint, facts)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint and what is known of it before anything is trained.

    Attributes:
        name: As the user named it.
        parameters: Numbers of the checkpoint, without its last layer where that is replaced.
        pretraining: What it was trained on, as far as that is known.
        masked: Whether it was trained to fill in what was hidden, so that its last layer says little.
        measure: What the score is.
        score: Higher is better, but for bits per byte.
        resamples: The score on resamples of the same examples, the same ones for every candidate, shape (r,).
        features: The kind of features that the score is of; none for language models.
        kinds: The score of every kind of features.
        half: The score with half of the examples; None for language models.
        knn: What the five nearest others would answer, in the measure of `ridge_loo`.
        logme: Evidence in nats an example, the mean over classes, labels or values.
    """

    name: str
    parameters: int
    pretraining: str
    masked: bool
    measure: str
    score: float
    resamples: np.ndarray
    features: str | None = None
    kinds: Mapping[str, float] | None = None
    half: float | None = None
    knn: float | None = None
    logme: float | None = None

    @property
    def standard_error(self) -> float:
        """Of the score, by resampling the examples."""
        return float(self.resamples.std())

    @property
    def merit(self) -> float:
        """The score, such that higher is better."""
        return -self.score if self.measure == BITS else self.score

    def behind(self, other: Candidate) -> tuple[float, float]:
        """Return by how much another candidate is better, and the standard error of that, on the same examples."""
        return other.merit - self.merit, float((other.resamples - self.resamples).std())

    def within_error(self, other: Candidate) -> bool:
        """Return whether another candidate is better by no more than one standard error."""
        gap, error = self.behind(other)
        return gap <= error


BITS = "bits per byte"


def examine(subject: Subject, name: str) -> Candidate:
    """Score a candidate without training it.

    Labels: each kind of features that a probe may read is scored by ridge regression with exact leave-one-out, groups
    (speakers, patients) being left out whole, and the best kind counts. Texts that are gone on with: bits per byte of
    the checkpoint as it is.

    Raises:
        CheckpointError: It cannot be had, or does not serve the task.
        UsageError: An option does not fit it.
    """
    return _read_aloud(subject, name) if subject.generates else _probed(subject, name)


def _probed(subject: Subject, name: str) -> Candidate:
    loaded = load(subject, name, "linear_probe")
    checkpoint, classes = loaded.checkpoint, len(subject.data.target)
    kinds = available_features(checkpoint.model, checkpoint.new_parameters)
    if not kinds:
        raise CheckpointError(f"model.name {name!r} brings no features of its own: its backbone is not in its files")
    bench = _bench(subject, loaded)
    features = {kind: np.array(splits["train"]) for kind, splits in bench.features(kinds).items()}
    labels = subject.compared.labels
    half = some(labels, len(labels) // 2, seed=subject.config.seed, purpose="half")
    everything = np.arange(len(labels))
    scored = {kind: _score(subject, values, everything) for kind, values in features.items()}
    best = max(scored, key=lambda kind: scored[kind][1])
    own = output_parameters(checkpoint.model)
    measure, score, resamples = scored[best]
    return Candidate(
        name, sum(value.numel() for key, value in checkpoint.model.named_parameters() if key not in own),
        _pretraining(checkpoint), _is_masked(checkpoint), measure, score, resamples, best,
        {kind: found[1] for kind, found in scored.items()},
        _score(subject, features[best], half)[1], knn_loo(features[best], labels, classes, groups=subject.groups),
        logme(features[best], labels, classes))


def _score(subject: Subject, features: np.ndarray, rows: np.ndarray) -> tuple[str, float, np.ndarray]:
    """Return the measure, the score by exact leave-one-out on some examples, and that on resamples, shape (r,)."""
    labels, classes, groups = subject.compared.labels[rows], len(subject.data.target), subject.groups
    result = ridge_loo(features[rows], labels, classes, groups=None if groups is None else groups[rows])
    drawn = _drawn(subject, len(labels))
    if subject.task.keywords(subject.config):
        outcome = ClassOutcome.from_logits(result.outputs, labels)
        return "average precision", float(average_precision(outcome)), average_precision(outcome.take(drawn))
    return result.measure, result.score, merits(result.outputs, labels, classes)[drawn].mean(axis=1)


def _read_aloud(subject: Subject, name: str) -> Candidate:
    """Score a language model by the texts themselves; the standard error is that over documents or excerpts."""
    loaded = load(subject, name, "full")
    bench = _bench(subject, loaded)
    model, inputs = loaded.checkpoint.model.to(subject.accelerator.device), bench.inputs["train"]
    assert isinstance(inputs, GenerationInputs)
    losses = bench.predict(model, inputs)[:, 0].astype(np.float64) / math.log(2)
    count = int(inputs.records.max(initial=-1)) + 1
    bits, sizes = (np.bincount(inputs.records, values, count) for values in (losses, inputs.labels[:, 1]))
    drawn = _drawn(subject, count)
    return Candidate(name, sum(value.numel() for value in model.parameters()), _pretraining(loaded.checkpoint), False,
                     BITS, float(bits.sum() / sizes.sum()), bits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))


def _drawn(subject: Subject, count: int) -> np.ndarray:
    """Return which examples each resample holds, shape (r, count): the same for every candidate."""
    return generator(subject.config.seed, "planning bootstrap").integers(0, count, (_RESAMPLES, count), dtype=np.int32)


def _bench(subject: Subject, loaded: Loaded) -> Workbench:
    inputs: dict[str, Inputs] = {"train": subject.task.inputs(
        subject.compared, loaded.checkpoint.processor, loaded.config, fingerprint=f"{subject.fingerprint}train")}
    return Workbench(loaded.config, RunFolder(cache_root(subject.config.data)), subject.accelerator, subject.task,
                     loaded.checkpoint, inputs, subject.data.target, subject.fingerprint,
                     ArrayCache(cache_root(subject.config.data)))


def _pretraining(checkpoint: Checkpoint) -> str:
    """Return what is known of a checkpoint's pretraining: the data of tlhub's own, else what the head was for."""
    origin = checkpoint.origin
    if is_builtin(origin.name):
        return ", ".join(part.name for part in read_card(origin.name).data)
    settings = _settings(checkpoint)
    labels = settings.get("id2label")
    _, named, kind = str((settings.get("architectures") or [""])[0]).rpartition("For")
    if not named:
        return ""
    return f"{len(labels)} labels" if kind.endswith("Classification") and isinstance(labels, dict) else kind


def _is_masked(checkpoint: Checkpoint) -> bool:
    return any(word in json.dumps(_settings(checkpoint).get("architectures")) for word in _MASKED)


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the content of a checkpoint's `config.json`; nothing where it is an adapter."""
    path = checkpoint.origin.folder / SETTINGS
    return read_description(path, checkpoint.origin.name) if path.exists() else {}
