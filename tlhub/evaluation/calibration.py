"""Calibration of a classifier: the temperature that fits validation, and how often it is right when it is sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlhub.evaluation import measures
from tlhub.evaluation.outcomes import ECE_BINS, ClassOutcome, bin_of

LARGEST = 100.0
"""Temperatures lie between 1 / LARGEST and LARGEST; beyond them a model is certain of all, or of nothing."""
_CLOSE = 1e-10


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature T whose softmax(logits / T) has the lowest negative log likelihood.

    Guo et al. (2017), "On calibration of modern neural networks", section 4.2. The likelihood is concave in 1 / T, so
    its derivative has one root at most; it is found by Newton's steps in log T within an interval that holds it, and
    by halving the interval where such a step leaves it or gains little.

    Args:
        logits: Of the validation split, shape (n, c).
        labels: Classes, int64, shape (n,).

    Returns:
        T, from 1 / 100 to 100. It is 1 where every right class has the highest logit: the likelihood then rises for
        ever as T falls, and says nothing of how sure to be.

    Raises:
        TlhubError: A logit is NaN or infinitely large.
    """
    ClassOutcome.from_logits(logits, labels)
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(scores)), labels]
    if (right == 0).all():
        return 1.0
    low, high = -np.log(LARGEST), np.log(LARGEST)
    log_inverse, last_step = 0.0, high - low
    while high - low > _CLOSE:
        slope, curvature = _derivatives(scores, right, float(np.exp(log_inverse)))
        low, high = (log_inverse, high) if slope < 0 else (low, log_inverse)
        step = -slope / curvature if curvature > 0 else np.inf
        if abs(step) < _CLOSE:
            break
        if not low < log_inverse + step < high or abs(step) > abs(last_step) / 2:
            step = (low + high) / 2 - log_inverse
        log_inverse, last_step = log_inverse + step, step
    return float(np.exp(-log_inverse))


@dataclass(frozen=True)
class Reliability:
    """How often predictions of like confidence are right, in the bins of the expected calibration error.

    Attributes:
        counts: Examples in each of fifteen bins of equal width, int64, shape (15,).
        confidence: Their mean probability of the predicted class, float64, shape (15,); 0 in empty bins.
        accuracy: The share of them that is right, float64, shape (15,); 0 in empty bins.
        ece: The expected calibration error.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def reliability(logits: np.ndarray, labels: np.ndarray) -> Reliability:
    """Return how often predictions of each confidence are right.

    Args:
        logits: Shape (n, c).
        labels: Classes, int64, shape (n,).

    Raises:
        TlhubError: A logit is NaN or infinitely large.
    """
    outcome = ClassOutcome.from_logits(logits, labels)
    bins = bin_of(outcome.confidence)
    counts = np.bincount(bins, minlength=ECE_BINS)
    divisor = np.maximum(counts, 1)
    return Reliability(counts, np.bincount(bins, outcome.confidence, ECE_BINS) / divisor,
                       np.bincount(bins, outcome.right, ECE_BINS) / divisor, float(measures.ece(outcome)))


def _derivatives(scores: np.ndarray, right: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return d loss / d inverse temperature, which rises in it, and the derivative of that by log inverse temperature.

    Args:
        scores: Logits less the highest of each example, shape (n, c).
        right: Those of the right classes, shape (n,).
        inverse: 1 / T.
    """
    odds = np.exp(inverse * scores)
    odds /= odds.sum(axis=1, keepdims=True)
    mean = (odds * scores).sum(axis=1)
    variance = (odds * scores**2).sum(axis=1) - mean**2
    return float((mean - right).mean()), float(inverse * variance.mean())
