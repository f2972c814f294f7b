"""How often each class is drawn for training: as it comes, or rare ones more often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlhub.seeding import generator

POWERS = {"sqrt": 0.5, "balanced": 0.0}
"""Classes are drawn in proportion to their frequency to this power."""


@dataclass(frozen=True)
class ClassSampling:
    """Draws as many examples an epoch as there are, each class its share of them.

    Of n examples, index + r n stands for an example that an epoch draws once more, for the r-th time after the first:
    what is random in it, such as its augmentation, is drawn anew, and the first time is as it is without sampling.

    Attributes:
        classes: Class of each training example, int64, shape (n,).
        quota: Examples of each class in an epoch, int64, shape (c,); their sum is n.
        seed: The run's seed.
    """

    classes: np.ndarray
    quota: np.ndarray
    seed: int

    def drawn(self, epoch: int) -> np.ndarray:
        """Return what an epoch draws, ascending, int64, shape (n,); modulo n it is the examples' indices.

        Within a class all examples are drawn equally often, but for one time more or less.
        """
        random, count = generator(self.seed, "sampling", epoch), len(self.classes)
        chosen = []
        for number, quota in enumerate(self.quota.tolist()):
            members = np.flatnonzero(self.classes == number)
            rounds = -(-quota // len(members)) if len(members) else 0
            chosen += [random.permutation(members)[:quota - turn * len(members)] + turn * count
                       for turn in range(rounds)]
        return np.sort(np.concatenate(chosen))


def class_sampling(labels: np.ndarray, kind: str, *, seed: int) -> ClassSampling | None:
    """Return how classes are drawn; None where every example is drawn once.

    Args:
        labels: Classes, int64, shape (n,), or several labels, bool, shape (n, c), of which the rarest that an example
            has counts as its class (the last class is of those without any).
        kind: `natural`, `sqrt` or `balanced`.
        seed: The run's seed.
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
    return ClassSampling(classes, quota, seed)


def rarest_label(labels: np.ndarray) -> np.ndarray:
    """Return the rarest label of each example, int64, shape (n,), or c where it has none; `labels` bool, (n, c)."""
    counts = np.append(labels.sum(axis=0), len(labels) + 1)
    held = np.column_stack([labels, np.ones(len(labels), dtype=bool)])
    rarest: np.ndarray = np.where(held, counts, len(labels) + 2).argmin(axis=1)
    return rarest
