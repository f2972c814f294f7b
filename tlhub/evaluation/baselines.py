"""What a fine-tuned model has to beat: the most frequent class, and neighbours among frozen features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tlhub.evaluation.metrics import compute

_CHUNK = 32_000_000
"""Similarities held at a time."""


def majority(train_labels: np.ndarray, test_labels: np.ndarray, names: Sequence[str], classes: int) -> dict[str, float]:
    """Score the prediction that says the training data's most frequent class, with the classes' frequencies as odds.

    Frequencies are smoothed by one example a class, so that a class which training lacks costs a finite loss.

    Args:
        train_labels: Classes, int64, shape (m,).
        test_labels: Classes, int64, shape (n,).
        names: Metrics by name.
        classes: The number of classes c.

    Returns:
        Plain numbers by metric.
    """
    counts = np.bincount(train_labels, minlength=classes) + 1.0
    logits = np.tile(np.log(counts / counts.sum()), (len(test_labels), 1))
    return compute(names, logits, test_labels)


def knn(train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, labels: np.ndarray, *,
        k: int = 5) -> float:
    """Return the accuracy of the majority among the k nearest training examples by cosine similarity.

    Of classes with equally many neighbours the one that is closer in sum wins.

    Args:
        train_features: float32, shape (m, d).
        train_labels: Classes, int64, shape (m,).
        features: float32, shape (n, d).
        labels: Classes, int64, shape (n,).
        k: Neighbours asked; at most m.

    Returns:
        The share of right answers, in [0, 1].
    """
    bank = _unit(train_features)
    queries = _unit(features)
    targets = torch.from_numpy(np.asarray(train_labels, dtype=np.int64))
    classes = int(targets.max()) + 1
    right = 0
    step = max(1, _CHUNK // len(bank))
    for start in range(0, len(queries), step):
        similarity, nearest = (queries[start:start + step] @ bank.T).topk(min(k, len(bank)), dim=1)
        # Similarities lie in [-1, 1]: their sum stays below one vote, so it only decides between equal votes.
        weights = 1 + similarity / (4 * k)
        votes = torch.zeros(len(nearest), classes).scatter_add_(1, targets[nearest], weights)
        right += int((votes.argmax(dim=1).numpy() == labels[start:start + step]).sum())
    return right / len(labels)


def _unit(features: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(features, dtype=np.float32)), dim=1)
