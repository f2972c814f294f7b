"""What a task is, and what the classification tasks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import RunConfig, TrainConfig
from tlhub.data.batches import Inputs
from tlhub.data.prepare import Examples
from tlhub.evaluation import metrics
from tlhub.evaluation.baselines import majority
from tlhub.training.objectives import CrossEntropy, Objective, balanced_weights


class Task(ABC):
    """What is predicted from what, and how it is scored.

    Attributes:
        modality: What the data layer reads: `image` or `text`.
        auto_model: The transformers class that loads a checkpoint with its head.
        auto_processor: The transformers class that loads what prepares the inputs.
        metrics: The metrics of a report.
        best: The metric that chooses the best epoch on validation.
    """

    modality: ClassVar[str]
    auto_model: ClassVar[str]
    auto_processor: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    best: ClassVar[str]

    @abstractmethod
    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return a split as the model's inputs.

        Args:
            examples: The split.
            processor: The checkpoint's processor or tokenizer.
            config: The run.
            fingerprint: Of the data, for caches.
        """

    @abstractmethod
    def read(self, values: Sequence[str]) -> Examples:
        """Return what a user asked a prediction for as examples without labels."""

    @abstractmethod
    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig) -> Objective:
        """Return the loss over the training split."""

    @abstractmethod
    def score(self, logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return metrics by name for logits (n, c) and labels (n,)."""

    @abstractmethod
    def baselines(self, train_labels: np.ndarray, labels: np.ndarray, names: Sequence[str],
                  classes: int) -> dict[str, dict[str, float]]:
        """Return what can be reached without looking at the inputs."""

    @abstractmethod
    def predictions(self, logits: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
        """Return one plain dictionary for each row of logits (n, c)."""


class Classification(Task):
    """One label out of several."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "ece", "loss")
    best: ClassVar[str] = "accuracy"

    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig) -> Objective:
        """Return cross-entropy with the run's class weights and label smoothing."""
        weights = balanced_weights(labels, classes) if train.class_weights == "balanced" else None
        return CrossEntropy(labels, class_weights=weights, label_smoothing=train.label_smoothing)

    def score(self, logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Return metrics by name for logits (n, classes) and labels (n,)."""
        return metrics.compute(names, logits, labels)

    def baselines(self, train_labels: np.ndarray, labels: np.ndarray, names: Sequence[str],
                  classes: int) -> dict[str, dict[str, float]]:
        """Return the scores of always answering the most frequent class."""
        return {"majority": majority(train_labels, labels, names, classes)}

    def predictions(self, logits: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
        """Return label, score and all scores (softmax) of each row."""
        shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        rows = shifted / shifted.sum(axis=1, keepdims=True)
        return [{"label": label_names[int(row.argmax())], "score": float(row.max()),
                 "scores": dict(zip(label_names, row.tolist(), strict=True))} for row in rows]
