"""Which examples meet in a batch: a function of (seed, epoch) over the global index, and of nothing else."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from tlhub.data.sampling import ClassSampling
from tlhub.seeding import generator

_BUCKET_BATCHES = 100
"""Batches that are filled together from examples sorted by length: enough to waste little padding, few enough that
the composition of a batch stays random."""


class Inputs(Protocol):
    """What a model is fed with: one split, ready for batches.

    Attributes:
        labels: Targets: classes, int64, shape (n,); several labels, bool, (n, c); or values, float64, (n, t).
        lengths: Length of each example in tokens, shape (n,), or None where all are equal.
    """

    labels: np.ndarray
    lengths: np.ndarray | None

    def __len__(self) -> int:
        """Return the number of examples."""

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for these examples.

        Args:
            indices: Which examples, shape (b,); modulo n, where one is drawn more than once (`ClassSampling`).
            epoch: The epoch whose augmentation is applied; None for the evaluation view.
            device: Where the tensors go.
        """


class ArrayInputs:
    """Inputs that are rows of a table in memory or memory-mapped, such as cached features.

    Args:
        features: float32, shape (n, d).
        labels: Targets, of any kind.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.features = features
        self.labels = labels
        self.lengths: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return `{"features": (b, d)}`; rows are the same in every epoch."""
        rows = np.ascontiguousarray(self.features[indices % len(self)])
        return {"features": torch.from_numpy(rows).to(device)}


def training_batches(count: int, lengths: np.ndarray | None, batch_size: int, *, seed: int, epoch: int,
                     sampling: ClassSampling | None = None) -> list[np.ndarray]:
    """Return the global batches of one epoch, each example once unless sampled; the last drawn may be smaller.

    Args:
        count: Number of examples.
        lengths: Their lengths, shape (count,); batches then hold examples of similar length.
        batch_size: Examples in one optimizer step.
        seed: The run's seed.
        epoch: The epoch, from 0.
        sampling: How often each class is drawn; None for every example once.

    Returns:
        Index arrays, modulo `count` where sampled; within a batch sorted by length where lengths are given.
    """
    random = generator(seed, "order", epoch)
    order = random.permutation(count) if sampling is None else random.permutation(sampling.drawn(epoch))
    if lengths is None:
        return [order[start:start + batch_size] for start in range(0, count, batch_size)]
    batches = []
    for start in range(0, count, batch_size * _BUCKET_BATCHES):
        bucket = order[start:start + batch_size * _BUCKET_BATCHES]
        bucket = bucket[np.argsort(lengths[bucket % count], kind="stable")]
        batches += [bucket[first:first + batch_size] for first in range(0, len(bucket), batch_size)]
    return [batches[position] for position in random.permutation(len(batches))]


def evaluation_batches(count: int, lengths: np.ndarray | None, batch_size: int) -> list[np.ndarray]:
    """Return batches of every example once, longest first, so that too large a batch fails at the start."""
    order = np.arange(count) if lengths is None else np.argsort(-lengths, kind="stable")
    return [order[start:start + batch_size] for start in range(0, count, batch_size)]


def share(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Return the part of a global batch that one process works on; every n-th, so that lengths are alike."""
    return batch[rank::world_size]


def micro_batches(indices: np.ndarray, size: int | None) -> list[np.ndarray]:
    """Return `indices` cut into pieces of at most `size`."""
    size = size or max(len(indices), 1)
    return [indices[start:start + size] for start in range(0, len(indices), size)]
