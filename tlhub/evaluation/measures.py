"""What each metric computes: numpy functions over the last axis, the same for one sample and for many resamples.

Shapes: n examples, c classes, and `...` for any leading axes (none for a score, the resamples for an interval).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

import numpy as np

from tlhub.errors import TlhubError

ECE_BINS = 15
T = TypeVar("T", bound="Sample")


class Sample:
    """Per-example columns from which metrics are computed; dataclasses below say which."""

    def take(self: T, indices: np.ndarray) -> T:
        """Return the sample made of the examples at `indices`, shape (..., m) out of columns of shape (n,)."""
        values = {item.name: vars(self)[item.name] for item in fields(self)}  # type: ignore[arg-type]
        taken = {name: value[indices] if isinstance(value, np.ndarray) else value for name, value in values.items()}
        return type(self)(**taken)


@dataclass(frozen=True)
class ClassOutcome(Sample):
    """What a classifier said of each example.

    Attributes:
        labels: The right class, int64, shape (..., n).
        predictions: The predicted class, int64, shape (..., n).
        confidence: Probability of the predicted class, float64, shape (..., n); all ones where only classes are known.
        surprise: Minus the log of the right class's probability, float64, shape (..., n).
        classes: The number of classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    surprise: np.ndarray
    classes: int

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray) -> ClassOutcome:
        """Return the outcome of logits (or log-probabilities), shape (n, c), for labels of shape (n,).

        Raises:
            TlhubError: A logit is not a number.
        """
        bad = int(np.isnan(logits).any(axis=1).sum())
        if bad:
            raise TlhubError(f"the model gave NaN for {bad} of {len(logits)} examples; "
                             "lower train.learning_rate, or set train.precision to fp32")
        scores = logits.astype(np.float64)
        log_probabilities = scores - _log_sum_exp(scores)[:, None]
        rows = np.arange(len(scores))
        predictions = scores.argmax(axis=1)
        return cls(labels.astype(np.int64), predictions, np.exp(log_probabilities[rows, predictions]),
                   -log_probabilities[rows, labels.astype(np.int64)], logits.shape[1])

    @cached_property
    def true_counts(self) -> np.ndarray:
        """Examples of each class, shape (..., c)."""
        return _count(self.labels, self.classes)

    @cached_property
    def predicted_counts(self) -> np.ndarray:
        """Predictions of each class, shape (..., c)."""
        return _count(self.predictions, self.classes)

    @cached_property
    def hits(self) -> np.ndarray:
        """Right predictions of each class, shape (..., c)."""
        return _count(self.labels, self.classes, (self.labels == self.predictions).astype(np.float64))


@dataclass(frozen=True)
class ValueOutcome(Sample):
    """What a regressor said of each example.

    Attributes:
        labels: The right value, float64, shape (..., n).
        predictions: The predicted value, float64, shape (..., n).
    """

    labels: np.ndarray
    predictions: np.ndarray


def accuracy(outcome: ClassOutcome) -> np.ndarray:
    """Return the share of right predictions."""
    return np.asarray((outcome.labels == outcome.predictions).mean(axis=-1))


def precision_macro(outcome: ClassOutcome) -> np.ndarray:
    """Return the mean over classes of hits / predictions of the class."""
    return _class_mean(outcome, _ratio(outcome.hits, outcome.predicted_counts))


def recall_macro(outcome: ClassOutcome) -> np.ndarray:
    """Return the mean over classes of hits / examples of the class."""
    return _class_mean(outcome, _ratio(outcome.hits, outcome.true_counts))


def f1_macro(outcome: ClassOutcome) -> np.ndarray:
    """Return the mean over classes of the F1 score."""
    return _class_mean(outcome, _f1_of_classes(outcome))


def f1(outcome: ClassOutcome) -> np.ndarray:
    """Return the F1 score of class 1 where there are two classes, otherwise the mean over classes."""
    return _f1_of_classes(outcome)[..., 1] if outcome.classes == 2 else f1_macro(outcome)


def mcc(outcome: ClassOutcome) -> np.ndarray:
    """Return the correlation of labels and predictions; 0 where either is constant.

    The multi-class form of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient", from the margins of the confusion matrix.
    """
    total = outcome.true_counts.sum(axis=-1)
    true, predicted = outcome.true_counts, outcome.predicted_counts
    covariance = outcome.hits.sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    true_variance = total**2 - (true**2).sum(axis=-1)
    predicted_variance = total**2 - (predicted**2).sum(axis=-1)
    return _ratio(covariance, np.sqrt(true_variance * predicted_variance))


def ece(outcome: ClassOutcome) -> np.ndarray:
    """Return the expected calibration error over 15 bins of equal width, (b/15, (b+1)/15].

    Guo et al. (2017), "On calibration of modern neural networks": sum over bins of n_b/n |accuracy_b - confidence_b|.
    """
    bins = np.clip(np.ceil(outcome.confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = (outcome.labels == outcome.predictions) - outcome.confidence
    return np.asarray(np.abs(_count(bins, ECE_BINS, gaps)).sum(axis=-1) / outcome.labels.shape[-1])


def loss(outcome: ClassOutcome) -> np.ndarray:
    """Return the mean cross-entropy in nats."""
    return np.asarray(outcome.surprise.mean(axis=-1))


def pearson(outcome: ValueOutcome) -> np.ndarray:
    """Return Pearson's correlation; 0 where either side is constant."""
    left = outcome.labels - outcome.labels.mean(axis=-1, keepdims=True)
    right = outcome.predictions - outcome.predictions.mean(axis=-1, keepdims=True)
    norms = np.sqrt((left**2).sum(axis=-1) * (right**2).sum(axis=-1))
    return _ratio((left * right).sum(axis=-1), norms)


def mae(outcome: ValueOutcome) -> np.ndarray:
    """Return the mean absolute error."""
    return np.asarray(np.abs(outcome.labels - outcome.predictions).mean(axis=-1))


def rmse(outcome: ValueOutcome) -> np.ndarray:
    """Return the root of the mean squared error."""
    return np.asarray(np.sqrt(((outcome.labels - outcome.predictions) ** 2).mean(axis=-1)))


def r2(outcome: ValueOutcome) -> np.ndarray:
    """Return 1 - residual / total sum of squares; for constant labels 1 if all are met, otherwise 0."""
    residual = ((outcome.labels - outcome.predictions) ** 2).sum(axis=-1)
    total = ((outcome.labels - outcome.labels.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    constant = np.where(residual == 0, 1.0, 0.0)
    return np.where(total > 0, 1.0 - _ratio(residual, total), constant)


def _f1_of_classes(outcome: ClassOutcome) -> np.ndarray:
    return _ratio(2 * outcome.hits, outcome.true_counts + outcome.predicted_counts)


def _class_mean(outcome: ClassOutcome, scores: np.ndarray) -> np.ndarray:
    """Average over the classes that occur among labels or predictions, as scikit-learn does."""
    occurs = outcome.true_counts + outcome.predicted_counts > 0
    return np.asarray((scores * occurs).sum(axis=-1) / occurs.sum(axis=-1))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0."""
    zero = denominator == 0
    return np.asarray(np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator)))


def _count(values: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the (weighted) count of each of 0..size-1 along the last axis: (..., n) -> (..., size), float64."""
    rows = values.reshape(-1, values.shape[-1])
    cells = rows + size * np.arange(len(rows))[:, None]
    flat = None if weights is None else weights.ravel()
    counts = np.bincount(cells.ravel(), flat, minlength=size * len(rows))
    return counts.astype(np.float64).reshape(*values.shape[:-1], size)


def _log_sum_exp(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(axis=1)
    return np.asarray(highest + np.log(np.exp(scores - highest[:, None]).sum(axis=1)))
