"""Losses as sums over examples, so that they can be divided by the weight of the whole global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)


class Objective(Protocol):
    """A loss that is summed here and normalised by the loop."""

    def weight(self, indices: np.ndarray, epoch: int) -> float:
        """Return the total weight of these examples in an epoch, which their summed loss is divided by."""

    def loss(self, output: Any, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """Return the weighted sum of the losses of these examples, float32, shape ()."""

    def right(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return how many of these examples are answered right, shape (); NaN where answers are not right or wrong."""

    def amount(self, indices: np.ndarray) -> int:
        """Return how many answers these examples ask for: what right ones are a share of, and the pace is told in."""


class ExampleLoss(ABC):
    """A loss of each example by itself, the same in every epoch.

    Args:
        weights: Weight of every training example, shape (n,).
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = torch.from_numpy(weights.astype(np.float32))

    def weight(self, indices: np.ndarray, epoch: int) -> float:
        """Return the summed weights of these examples."""
        return float(self.weights[self.examples(indices)].sum())

    def examples(self, indices: np.ndarray) -> torch.Tensor:
        """Return which examples are meant: an index is modulo n where one is drawn more than once."""
        return torch.from_numpy(indices % len(self.weights))

    def loss(self, output: Any, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """Return the weighted sum of the losses of `output.logits` (b, c)."""
        return self.weighted(output.logits.float(), indices).sum()

    def right(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return NaN: answers are not right or wrong."""
        return torch.full((), float("nan"), device=output.logits.device)

    def amount(self, indices: np.ndarray) -> int:
        """Return the number of examples."""
        return len(indices)

    def weighted(self, logits: torch.Tensor, indices: np.ndarray) -> torch.Tensor:
        """Return the weighted loss of each example, shape (b,), for logits (b, c) in float32."""
        chosen = self.examples(indices)
        return self.each(logits, chosen) * self.weights[chosen].to(logits.device)

    @abstractmethod
    def each(self, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the loss of each example, shape (b,), for logits (b, c); `chosen` are their global indices."""


class CrossEntropy(ExampleLoss):
    """Cross-entropy over classes, with what helps where classes are unequal.

    A single logit z, as one sigmoid gives it, is the pair (0, z): the loss is then the binary cross-entropy.

    Args:
        labels: Class of every training example, int64, shape (n,).
        class_weights: Weight of each class, shape (c,), or None for equal weights.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al. 2016).
        focal_gamma: The loss is multiplied by (1 - p)**gamma, p being the right class's probability (Lin et al. 2017).
        prior: Added to the logits: tau times the log of each class's frequency, shape (c,) (Menon et al. 2021,
            "Long-tail learning via logit adjustment", equation 10); None for nothing.
    """

    def __init__(self, labels: np.ndarray, *, class_weights: np.ndarray | None = None, label_smoothing: float = 0.0,
                 focal_gamma: float = 0.0, prior: np.ndarray | None = None) -> None:
        super().__init__(np.ones(len(labels)) if class_weights is None else class_weights[labels])
        self.labels = torch.from_numpy(labels)
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.prior = None if prior is None else torch.from_numpy(prior.astype(np.float32))

    def right(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return how many of these examples are given their class."""
        labels = self.labels[self.examples(indices)].to(output.logits.device)
        return (_as_pair(output.logits.detach()).argmax(dim=1) == labels).sum()

    def each(self, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each example."""
        logits = _as_pair(logits)
        if self.prior is not None:
            logits = logits + self.prior.to(logits.device)
        labels = self.labels[chosen].to(logits.device)
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if self.focal_gamma:
            missed = 1 - torch.softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)
            losses = losses * missed**self.focal_gamma
        return losses


def _as_pair(logits: torch.Tensor) -> torch.Tensor:
    """Return a single logit z as the pair (0, z), and several as they are."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


class LabelsCrossEntropy(ExampleLoss):
    """Binary cross-entropy of several labels, averaged over the labels of an example.

    Args:
        labels: Which labels every training example has, bool, shape (n, c).
        positive_weights: Weight of a label where it is present, shape (c,), or None for 1.
        focal_gamma: As in `CrossEntropy`, p being the probability of what a label is.
    """

    def __init__(self, labels: np.ndarray, *, positive_weights: np.ndarray | None = None,
                 focal_gamma: float = 0.0) -> None:
        super().__init__(np.ones(len(labels)))
        self.labels = torch.from_numpy(labels.astype(np.float32))
        self.positive_weights = None if positive_weights is None else \
            torch.from_numpy(positive_weights.astype(np.float32))
        self.focal_gamma = focal_gamma

    def each(self, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the binary cross-entropy of each example."""
        labels = self.labels[chosen].to(logits.device)
        weights = None if self.positive_weights is None else self.positive_weights.to(logits.device)
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=weights)
        if self.focal_gamma:
            missed = torch.where(labels > 0, torch.sigmoid(-logits), torch.sigmoid(logits))
            losses = losses * missed**self.focal_gamma
        return losses.mean(dim=1)


class TargetError(ExampleLoss):
    """Squared or Huber's error of values, averaged over the targets of an example.

    Args:
        targets: What every training example should give, in the units that the model is trained in, shape (n, t).
        huber_delta: Error from which the loss is linear (Huber 1964); None for the squared error.
    """

    def __init__(self, targets: np.ndarray, *, huber_delta: float | None = None) -> None:
        super().__init__(np.ones(len(targets)))
        self.targets = torch.from_numpy(targets.astype(np.float32))
        self.huber_delta = huber_delta

    def each(self, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the error of each example."""
        targets = self.targets[chosen].to(logits.device)
        if self.huber_delta is None:
            return F.mse_loss(logits, targets, reduction="none").mean(dim=1)
        return F.huber_loss(logits, targets, reduction="none", delta=self.huber_delta).mean(dim=1)


class Mixing(Protocol):
    """What is mixed with what in an epoch; `data.mixing.Mixing` is one."""

    def draw(self, epoch: int, indices: np.ndarray) -> Any:
        """Return an object with `partners` (global indices, int64) and `kept` (own share), each of shape (b,)."""


class Mixed:
    """The loss of mixed examples: each example's and its partner's, by their shares (Zhang et al. 2018, "mixup").

    Args:
        objective: The loss of examples by themselves.
        mixing: What is mixed with what.
    """

    def __init__(self, objective: ExampleLoss, mixing: Mixing) -> None:
        self.objective = objective
        self.mixing = mixing

    def weight(self, indices: np.ndarray, epoch: int) -> float:
        """Return the summed weights of these examples and their partners, by their shares."""
        mix = self.mixing.draw(epoch, indices)
        own, partners = (self.objective.weights[self.objective.examples(chosen)].numpy()
                         for chosen in (indices, mix.partners))
        return float((mix.kept * own + (1 - mix.kept) * partners).sum())

    def loss(self, output: Any, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """Return the weighted sum of the losses of `output.logits` (b, c)."""
        mix = self.mixing.draw(epoch, indices)
        logits = output.logits.float()
        kept = torch.from_numpy(np.asarray(mix.kept, dtype=np.float32)).to(logits.device)
        own, partners = (self.objective.weighted(logits, chosen) for chosen in (indices, mix.partners))
        return (kept * own + (1 - kept) * partners).sum()

    def right(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return NaN: an example is of two classes at once."""
        return torch.full((), float("nan"), device=output.logits.device)

    def amount(self, indices: np.ndarray) -> int:
        """Return the number of examples."""
        return len(indices)


class TokenLoss:
    """The loss of a language model, whose module sums it up for each example: every token counts alike.

    Args:
        labels: Tokens to predict, and their bytes, of every training example, int64, shape (n, 2).
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.tokens = labels[:, 0]

    def weight(self, indices: np.ndarray, epoch: int) -> float:
        """Return the tokens that these examples predict."""
        return float(self.amount(indices))

    def loss(self, output: Any, indices: np.ndarray, epoch: int) -> torch.Tensor:
        """Return the sum of the losses in `output.logits`, summed losses and right tokens, shape (b, 2)."""
        summed: torch.Tensor = output.logits[:, 0].sum()
        return summed

    def right(self, output: Any, indices: np.ndarray) -> torch.Tensor:
        """Return how many tokens are predicted right."""
        right: torch.Tensor = output.logits[:, 1].detach().sum()
        return right

    def amount(self, indices: np.ndarray) -> int:
        """Return the tokens that these examples predict."""
        return int(self.tokens[indices % len(self.tokens)].sum())


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return n / (classes * n_c) for each class c, 1 for a class without examples; shape (classes,)."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 1.0)


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Return (n - n_c) / n_c for each of several labels, 1 for one that no example has, or all have; (n, c) -> (c,)."""
    counts = labels.sum(axis=0)
    varies = (counts > 0) & (counts < len(labels))
    return np.where(varies, (len(labels) - counts) / np.maximum(counts, 1), 1.0)


def log_prior(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the log of each class's frequency, shape (classes,), smoothed by one example where one has none."""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    if counts.min() == 0:
        counts += 1
    prior: np.ndarray = np.log(counts / counts.sum())
    return prior
