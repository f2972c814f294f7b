"""What a model said of each example, as the columns that every metric is computed from.

Shapes: n examples, c classes or labels, t targets, and `...` for any leading axes (none for a score, the resamples for
an interval).
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
    """Per-example columns from which metrics are computed; the dataclasses below say which."""

    def take(self: T, indices: np.ndarray) -> T:
        """Return the sample made of the examples at `indices`, shape (..., m), out of columns of shape (n, ...)."""
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
        losses: Minus the log of the right class's probability, float64, shape (..., n).
        log_odds: Log odds of any class but the first, float64, shape (..., n); all zeros where only classes are known.
        classes: The number of classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    confidence: np.ndarray
    losses: np.ndarray
    log_odds: np.ndarray
    classes: int

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray) -> ClassOutcome:
        """Return the outcome of logits (or log-probabilities), shape (n, c), for labels of shape (n,).

        Raises:
            TlhubError: A logit is NaN or infinitely large.
        """
        _refuse(~(logits < np.inf))
        log_probabilities = log_softmax(logits)
        rows = np.arange(len(logits))
        predictions = logits.argmax(axis=1)
        return cls(labels.astype(np.int64), predictions, np.exp(log_probabilities[rows, predictions]),
                   -log_probabilities[rows, labels.astype(np.int64)], log_odds(logits), logits.shape[1])

    @property
    def width(self) -> int:
        """Numbers that one resample takes, in each column at most."""
        return max(len(self.labels), self.classes)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the predicted class is the right one, bool, shape (..., n)."""
        return np.asarray(self.labels == self.predictions)

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
        return _count(self.labels, self.classes, self.right.astype(np.float64))

    @cached_property
    def bin_gaps(self) -> np.ndarray:
        """Right answers less confidence, summed over each bin of confidence, over n; shape (..., bins)."""
        gaps = _count(bin_of(self.confidence), ECE_BINS, self.right - self.confidence)
        return np.asarray(gaps / self.labels.shape[-1])


@dataclass(frozen=True)
class LabelsOutcome(Sample):
    """What a model said of each example that may have several labels, or none.

    Attributes:
        labels: Whether the example has the label, bool, shape (..., n, c).
        predictions: Whether the model gives it the label, bool, shape (..., n, c).
        gaps: Right decisions less their confidence, summed over the example's labels in each bin of confidence,
            float64, shape (..., n, bins).
        losses: Mean over the labels of the binary cross-entropy, float64, shape (..., n).
    """

    labels: np.ndarray
    predictions: np.ndarray
    gaps: np.ndarray
    losses: np.ndarray

    @classmethod
    def from_logits(cls, logits: np.ndarray, labels: np.ndarray) -> LabelsOutcome:
        """Return the outcome of logits, shape (n, c), for labels of shape (n, c); a label is given above logit 0.

        Raises:
            TlhubError: A logit is NaN.
        """
        _refuse(np.isnan(logits))
        scores, labels = logits.astype(np.float64), labels.astype(bool)
        predictions = scores > 0
        confidence = np.exp(-np.logaddexp(0, -np.abs(scores)))
        gaps = _count(bin_of(confidence), ECE_BINS, (predictions == labels) - confidence)
        return cls(labels, predictions, gaps, np.logaddexp(0, np.where(labels, -scores, scores)).mean(axis=1))

    @property
    def width(self) -> int:
        """Numbers that one resample takes, in each column at most."""
        return len(self.labels) * max(int(self.labels.shape[-1]), ECE_BINS)

    @cached_property
    def right(self) -> np.ndarray:
        """Whether all labels of the example are decided rightly, bool, shape (..., n)."""
        return np.asarray((self.labels == self.predictions).all(axis=-1))

    @cached_property
    def true_counts(self) -> np.ndarray:
        """Examples that have each label, shape (..., c)."""
        return _sum_of_examples(self.labels)

    @cached_property
    def predicted_counts(self) -> np.ndarray:
        """Examples that are given each label, shape (..., c)."""
        return _sum_of_examples(self.predictions)

    @cached_property
    def hits(self) -> np.ndarray:
        """Examples that are rightly given each label, shape (..., c)."""
        return _sum_of_examples(self.labels & self.predictions)

    @cached_property
    def bin_gaps(self) -> np.ndarray:
        """Right decisions less confidence, summed over each bin of confidence, over n c; shape (..., bins)."""
        return np.asarray(self.gaps.sum(axis=-2) / (self.labels.shape[-2] * self.labels.shape[-1]))


@dataclass(frozen=True)
class ValueOutcome(Sample):
    """What a regressor said of each example.

    Attributes:
        labels: The right values, float64, shape (..., n, t).
        predictions: The predicted values, float64, shape (..., n, t).
    """

    labels: np.ndarray
    predictions: np.ndarray

    @classmethod
    def from_values(cls, values: np.ndarray, labels: np.ndarray) -> ValueOutcome:
        """Return the outcome of values for labels of shape (n, t), or (n,) for one target.

        Raises:
            TlhubError: A value is not a finite number.
        """
        wanted = labels.astype(np.float64).reshape(len(labels), -1)
        values = values.astype(np.float64).reshape(wanted.shape)
        _refuse(~np.isfinite(values))
        return cls(wanted, values)

    @property
    def width(self) -> int:
        """Numbers that one resample takes, in each column."""
        return int(self.labels.size)

    @cached_property
    def losses(self) -> np.ndarray:
        """Mean over the targets of the squared error, shape (..., n)."""
        return np.asarray(((self.labels - self.predictions) ** 2).mean(axis=-1))

    def target(self, number: int) -> ValueOutcome:
        """Return the outcome of one target alone."""
        return ValueOutcome(self.labels[..., [number]], self.predictions[..., [number]])


@dataclass(frozen=True)
class TokenOutcome(Sample):
    """What a language model said of the tokens of each example.

    Attributes:
        losses: Minus the log of the right tokens' probabilities, summed over the example, float64, shape (..., n).
        right: Tokens predicted right, float64, shape (..., n).
        tokens: Tokens that were to be predicted, float64, shape (..., n).
        sizes: UTF-8 bytes of the text that they stand for, float64, shape (..., n).
    """

    losses: np.ndarray
    right: np.ndarray
    tokens: np.ndarray
    sizes: np.ndarray

    @classmethod
    def from_sums(cls, sums: np.ndarray, labels: np.ndarray) -> TokenOutcome:
        """Return the outcome of summed losses and right tokens, shape (n, 2), for tokens and bytes, shape (n, 2).

        Raises:
            TlhubError: A sum is not a finite number.
        """
        _refuse(~np.isfinite(sums))
        columns = np.concatenate([sums, labels], axis=1).astype(np.float64)
        return cls(*np.ascontiguousarray(columns.T))

    @property
    def width(self) -> int:
        """Numbers that one resample takes, in each column."""
        return len(self.tokens)


Outcome = ClassOutcome | LabelsOutcome | ValueOutcome | TokenOutcome


def outcome_of(logits: np.ndarray, labels: np.ndarray) -> Outcome:
    """Return what a model said of each example; the type of the labels tells its kind.

    Args:
        logits: Logits of classes or labels, shape (n, c), or values, shape (n, t), (n, 1) or (n,), or summed losses
            and right tokens, shape (n, 2).
        labels: Classes, integer, shape (n,); labels, bool, shape (n, c); values, float, shape (n, t) or (n,); or tokens
            and their bytes, integer, shape (n, 2).

    Raises:
        TlhubError: An output is not a number.
    """
    if labels.dtype == np.bool_:
        return LabelsOutcome.from_logits(logits, labels)
    if np.issubdtype(labels.dtype, np.integer) and labels.ndim > 1:
        return TokenOutcome.from_sums(logits, labels)
    if np.issubdtype(labels.dtype, np.integer):
        return ClassOutcome.from_logits(logits, labels)
    return ValueOutcome.from_values(logits, labels)


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence in [0, 1], int64 in 0..14: fifteen of equal width, (b/15, (b+1)/15]."""
    return np.asarray(np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logs of the classes' probabilities, float64, shape (n, c)."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Return the log odds of any class but the first, float64, shape (n,).

    They order examples as the probability does, and still tell them apart where that is 0 or 1 to the last digit.

    Args:
        logits: Shape (n, c).
    """
    scores = logits.astype(np.float64)
    return np.asarray(np.logaddexp.reduce(scores[:, 1:], axis=1) - scores[:, 0])


def _refuse(bad: np.ndarray) -> None:
    """Raise an error if any number, shape (n, ...), is bad."""
    count = int(bad.reshape(len(bad), -1).any(axis=1).sum())
    if count:
        raise TlhubError(f"the model gave infinity or NaN for {count} of {len(bad)} examples; "
                         "lower train.learning_rate, or set train.precision to fp32")


def _sum_of_examples(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.sum(axis=-2, dtype=np.float64))


def _count(values: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the (weighted) count of each of 0..size-1 along the last axis: (..., n) -> (..., size), float64."""
    rows = values.reshape(-1, values.shape[-1])
    cells = rows + size * np.arange(len(rows))[:, None]
    flat = None if weights is None else weights.ravel()
    counts = np.bincount(cells.ravel(), flat, minlength=size * len(rows))
    return counts.astype(np.float64).reshape(*values.shape[:-1], size)
