"""How well frozen features serve a target, and how far two orders of checkpoints agree: pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlhub.evaluation.baselines import knn_outputs
from tlhub.models.axes import principal_axes
from tlhub.models.probes import merits

_ITERATIONS, _SETTLED = 50, 1e-3
_FLOOR = 1e-5
"""Keeps the precisions of a perfect fit finite."""


@dataclass(frozen=True)
class Evidence:
    """How probable a target is under a Bayesian linear model of features.

    Attributes:
        value: Log of the marginal likelihood, in nats an example.
        alpha: Precision of the weights.
        beta: Precision of the noise.
    """

    value: float
    alpha: float
    beta: float


def evidence(features: np.ndarray, target: np.ndarray) -> Evidence:
    """Return the evidence of a target, maximised over both precisions by fixed-point iteration.

    The log marginal likelihood is computed exactly for the precisions that are reached, over the rank of the features:
    the form in You et al. (2021), "LogME: practical assessment of pre-trained models for transfer learning", and in
    their code counts as many dimensions as there are features, which is wrong where these outnumber the examples.

    Args:
        features: Shape (n, d).
        target: float64, shape (n,).

    Raises:
        TlhubError: A feature is not finite.
    """
    axes, coordinates = principal_axes(features, standardise=False, centre=False)
    return _evidence(axes.energies, coordinates, torch.from_numpy(np.asarray(target, dtype=np.float64)))


def logme(features: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return the mean evidence over the columns of a target: one-hot classes, labels, or standardised values.

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,); several labels, bool, shape (n, c); or values, float64, shape (n, c).
        classes: Number of classes, labels or values c.

    Raises:
        TlhubError: A feature is not finite.
    """
    targets = np.eye(classes)[labels] if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.float64)
    if np.issubdtype(labels.dtype, np.floating):
        spread = targets.std(axis=0)
        targets = (targets - targets.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    axes, coordinates = principal_axes(features, standardise=False, centre=False)
    columns = torch.from_numpy(targets).T
    return float(np.mean([_evidence(axes.energies, coordinates, column).value for column in columns]))


def _evidence(energies: torch.Tensor, coordinates: torch.Tensor, target: torch.Tensor) -> Evidence:
    """Return the evidence of a target, shape (n,), for coordinates, shape (n, k), of energies, shape (k,)."""
    count, rank = coordinates.shape
    # The floor below is an absolute one, so that features of any unit are first brought to one mean energy.
    scale = float(energies.mean()) if rank else 1.0
    energies, coordinates = energies / scale, coordinates / math.sqrt(scale)
    squares = (coordinates.T @ target) ** 2 / energies  # of the target's coordinates along the axes
    rest = max(float(target @ target - squares.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(_ITERATIONS):
        ratio = alpha / beta
        effective = float((energies / (energies + ratio)).sum())
        weights = float((energies * squares / (energies + ratio) ** 2).sum())
        residual = float((squares / (1 + energies / ratio) ** 2).sum()) + rest
        alpha = effective / (weights + _FLOOR)
        beta = (count - effective) / (residual + _FLOOR)
        if abs(alpha / beta - ratio) <= _SETTLED * ratio:
            break
    variances = energies / alpha + 1 / beta
    value = -0.5 * (float(variances.log().sum() + (squares / variances).sum()) - (count - rank) * math.log(beta)
                    + beta * rest + count * math.log(2 * math.pi)) / count
    return Evidence(value, alpha * scale, beta)


def knn_loo(features: np.ndarray, labels: np.ndarray, classes: int, *, k: int = 5,
            groups: np.ndarray | None = None) -> float:
    """Score the answers of the k nearest other examples by cosine similarity, as `ridge_loo` scores its own.

    Args:
        features: Shape (n, d).
        labels: Of any kind, for n examples.
        classes: Number of classes, labels or values.
        k: Neighbours asked.
        groups: Examples of the same one do not answer each other, shape (n,); None for each by itself.

    Returns:
        The share of right classes; of labels or values R2.
    """
    asked = labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(np.float64)
    return float(merits(knn_outputs(features, asked, classes=classes, k=k, groups=groups), labels, classes).mean())


def weighted_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau with hyperbolic weights, in which the upper places of both orders count more.

    Vigna (2015), "A weighted correlation index for rankings with ties", as `scipy.stats.weightedtau` has it: the mean
    over the places by either score, ties broken by the other one. It is 1 for equal orders and -1 for opposite ones.

    Args:
        one: Scores of the same things, higher is better.
        other: Likewise.

    Returns:
        The correlation; NaN where either holds equal scores only.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    signs = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    found = []
    for major, minor in ((first, second), (second, first)):
        places = np.empty(len(major))
        places[np.lexsort((minor, major))[::-1]] = np.arange(len(major))
        weights = 1 / (1 + places[:, None]) + 1 / (1 + places[None, :])
        scale = math.sqrt(float((weights * signs[0] ** 2).sum()) * float((weights * signs[1] ** 2).sum()))
        found.append(float((weights * signs[0] * signs[1]).sum()) / scale if scale else math.nan)
    return float(np.mean(found))
