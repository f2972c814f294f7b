"""Losses as sums over examples, so that they can be divided by the weight of the whole global batch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)


class Objective(Protocol):
    """A loss that is summed here and normalised by the loop."""

    def weight(self, indices: np.ndarray) -> float:
        """Return the total weight of these examples, which their summed loss is divided by."""

    def loss(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return the weighted sum of the losses of these examples, float32, shape ()."""


class CrossEntropy:
    """Cross-entropy over classes, with class weights and label smoothing.

    Args:
        labels: Class of every training example, int64, shape (n,).
        class_weights: Weight of each class, shape (c,), or None for equal weights.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al. 2016).
    """

    def __init__(self, labels: np.ndarray, *, class_weights: np.ndarray | None, label_smoothing: float) -> None:
        self.labels = torch.from_numpy(labels)
        weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
        self.weights = torch.from_numpy(weights.astype(np.float32))
        self.label_smoothing = label_smoothing

    def weight(self, indices: np.ndarray) -> float:
        """Return the summed class weights of these examples."""
        return float(self.weights[torch.from_numpy(indices)].sum())

    def loss(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return the summed loss of `output.logits` (b, c)."""
        logits = output.logits.float()
        chosen = torch.from_numpy(indices)
        each = F.cross_entropy(logits, self.labels[chosen].to(logits.device), reduction="none",
                               label_smoothing=self.label_smoothing)
        return (each * self.weights[chosen].to(logits.device)).sum()


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return n / (classes * n_c) for each class c, 1 for a class without examples; shape (classes,)."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 1.0)
