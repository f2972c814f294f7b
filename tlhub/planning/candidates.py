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

from tlhub import options
from tlhub.builtin import is_builtin, read_card
from tlhub.config import NEXT_TOKEN, RunConfig, replace, value_of
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
from tlhub.parsers import option_names
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
        given: The configuration as given, with this checkpoint and the task's own defaults.
        config: That of a run of the strategy: resolved, without the options that have no effect there.
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
    given = replace(before.given if before else subject.config, {"model.name": name, "strategy.name": strategy})
    checkpoint = fitting_checkpoint(_effective(given), subject.task, subject.data)
    if before is not None:
        facts = before.facts
    else:
        given, _, facts = facts_of(given, subject.task, subject.data, checkpoint)
    return Loaded(given, defaults.resolve(_effective(given), facts)[0], checkpoint, facts)


def _effective(config: RunConfig) -> RunConfig:
    """Return a configuration with the defaults in place of options that have no effect with its strategy.

    A run of the strategy would be refused with them, so that none ever has them.
    """
    plain = RunConfig()
    return replace(config, {name: value_of(plain, name) for name in options.without_effect(config, option_names())})


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
        resamples: The score on resamples of the same examples, the same ones for every candidate, shape (r,); NaN
            where there is a single text, so that they tell nothing.
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
        """Of the score, by resampling the examples; NaN where that is not known."""
        return float(self.resamples.std())

    @property
    def merit(self) -> float:
        """The score, such that higher is better."""
        return -self.score if self.measure == BITS else self.score

    def behind(self, other: Candidate) -> tuple[float, float]:
        """Return by how much another candidate is better, and the standard error of that, on the same examples.

        The error is NaN where it is not known.
        """
        return other.merit - self.merit, float((other.resamples - self.resamples).std())

    def within_error(self, other: Candidate) -> bool:
        """Return whether another candidate is better by no more than one standard error, as far as that is known."""
        gap, error = self.behind(other)
        return not gap > error


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
    measure, score, outputs = scored[best]
    return Candidate(
        name, sum(value.numel() for key, value in checkpoint.model.named_parameters() if key not in own),
        _pretraining(checkpoint), _is_masked(checkpoint), measure, score, _on_resamples(subject, outputs), best,
        {kind: found[1] for kind, found in scored.items()},
        _score(subject, features[best], half)[1], knn_loo(features[best], labels, classes, groups=subject.groups),
        logme(features[best], labels, classes))


def _score(subject: Subject, features: np.ndarray, rows: np.ndarray) -> tuple[str, float, np.ndarray]:
    """Return the measure, the score by exact leave-one-out on some examples, and what was answered, shape (n, c)."""
    labels, classes, groups = subject.compared.labels[rows], len(subject.data.target), subject.groups
    result = ridge_loo(features[rows], labels, classes, groups=None if groups is None else groups[rows])
    if subject.task.keywords(subject.config):
        outcome = ClassOutcome.from_logits(result.outputs, labels)
        return "average precision", float(average_precision(outcome)), result.outputs
    return result.measure, result.score, result.outputs


def _on_resamples(subject: Subject, outputs: np.ndarray) -> np.ndarray:
    """Return the score that answers have on resamples, shape (r,).

    What is alike within a group is answered alike, so that groups are drawn whole: there is no more to learn from
    examples of one speaker than the speaker tells.

    Args:
        subject: What for.
        outputs: Answers to all examples that are compared, shape (n, c).
    """
    labels, groups = subject.compared.labels, subject.groups
    each = np.arange(len(labels))
    held = _drawn(subject, each if groups is None else np.unique(groups, return_inverse=True)[1])
    if subject.task.keywords(subject.config):
        outcome = ClassOutcome.from_logits(outputs, labels)
        held = held[held[:, labels > 0].any(axis=1)]  # without a keyword there is no precision
        return np.array([average_precision(outcome.take(np.repeat(each, times))) for times in held])
    scores: np.ndarray = held @ merits(outputs, labels, len(subject.data.target)) / held.sum(axis=1)
    return scores


def _read_aloud(subject: Subject, name: str) -> Candidate:
    """Score a language model by the texts themselves; the standard error is that over documents or excerpts."""
    loaded = load(subject, name, "full")
    bench = _bench(subject, loaded)
    model, inputs = loaded.checkpoint.model.to(subject.accelerator.device), bench.inputs["train"]
    assert isinstance(inputs, GenerationInputs)
    losses = bench.predict(model, inputs)[:, 0].astype(np.float64) / math.log(2)
    count = int(inputs.records.max(initial=-1)) + 1
    bits, sizes = (np.bincount(inputs.records, values, count) for values in (losses, inputs.labels[:, 1]))
    resamples = np.full(_RESAMPLES, np.nan)
    if count > 1:
        held = _drawn(subject, np.arange(count))
        resamples = held @ bits / (held @ sizes)
    return Candidate(name, sum(value.numel() for value in model.parameters()), _pretraining(loaded.checkpoint), False,
                     BITS, float(bits.sum() / sizes.sum()), resamples)


def _drawn(subject: Subject, members: np.ndarray) -> np.ndarray:
    """Return how often each resample holds each example, int64, shape (r, n): the same for every candidate.

    Args:
        subject: What for.
        members: The group of each example, numbered from 0, shape (n,): groups are drawn whole, with replacement.
    """
    count = int(members.max()) + 1
    times = generator(subject.config.seed, "planning bootstrap").multinomial(
        count, np.full(count, 1 / count), _RESAMPLES)
    return times[:, members]


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
