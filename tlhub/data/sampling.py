"""How often each class is drawn for training: as it comes, or rare ones more often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POWERS = {"sqrt": 0.5, "balanced": 0.0}
"""Classes are drawn in proportion to their frequency to this power."""


@dataclass(frozen=True)
class ClassSampling:
    """Draws as many examples an epoch as there are, each class its share of them.

    Attributes:
        classes: Class of each training example, int64, shape (n,).
        quota: Examples of each class in an epoch, int64, shape (c,); their sum is n.
    """

    classes: np.ndarray
    quota: np.ndarray

    def order(self, random: np.random.Generator) -> np.ndarray:
        """Return the examples of an epoch in random order, int64, shape (n,).

        Within a class all examples are drawn equally often, but for one time more or less.
        """
        chosen = []
        for number, quota in enumerate(self.quota.tolist()):
            members = np.flatnonzero(self.classes == number)
            if len(members):
                rounds = [random.permutation(members) for _ in range(-(-quota // len(members)))]
                chosen.append(np.concatenate([*rounds, members[:0]])[:quota])
        return random.permutation(np.concatenate(chosen))


def class_sampling(labels: np.ndarray, kind: str) -> ClassSampling | None:
    """Return how classes are drawn; None where every example is drawn once.

    Args:
        labels: Classes, int64, shape (n,), or several labels, bool, shape (n, c), of which the rarest that an example
            has counts as its class (the last class is of those without any).
        kind: `natural`, `sqrt` or `balanced`.
    """
    if kind == "natural":
        return None
    classes = labels if labels.ndim == 1 else rarest_label(labels)
    counts = np.bincount(classes)
    shares = np.where(counts > 0, counts.astype(np.float64) ** POWERS[kind], 0.0)
    ideal = shares / shares.sum() * len(classes)
    quota = np.floor(ideal).astype(np.int64)
    largest = np.argsort(quota - ideal, kind="stable")[:len(classes) - int(quota.sum())]
    quota[largest] += 1
    return ClassSampling(classes, quota)


def rarest_label(labels: np.ndarray) -> np.ndarray:
    """Return the rarest label of each example, int64, shape (n,), or c where it has none; `labels` bool, (n, c)."""
    counts = np.append(labels.sum(axis=0), len(labels) + 1)
    held = np.column_stack([labels, np.ones(len(labels), dtype=bool)])
    rarest: np.ndarray = np.where(held, counts, len(labels) + 2).argmin(axis=1)
    return rarest
