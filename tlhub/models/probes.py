"""Linear probes of frozen features: how well each kind of them serves, and a linear head fitted to its optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlhub.models.axes import principal_axes
from tlhub.models.logistic import fit_logistic, stratified_folds

RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties by which features are compared, as multiples of the mean squared singular value."""

VALUE_PENALTIES = tuple(10.0 ** (step / 2) for step in range(-10, 5))
"""Penalties of a head for values, 1e-5 up to 100, as multiples of the mean squared singular value."""


@dataclass(frozen=True)
class RidgeResult:
    """A ridge regression, for features as they were given, and its leave-one-out score.

    Attributes:
        score: When each example is predicted from all the others: the share of right classes; for several labels or
            values R2, averaged over those that vary.
        standard_error: Of the score, from its parts by example; variances of the targets are taken as known.
        measure: What the score is: `accuracy` or `R2`.
        penalty: The best penalty, as a multiple of the mean squared singular value.
        outputs: Predictions for each example from all the others, at the best penalty, float64, shape (n, c).
        leverages: Diagonal of the hat matrix at the best penalty, float64, shape (n,).
        weight: Fitted to all examples at the best penalty, float64, shape (c, d).
        bias: float64, shape (c,), or None without centring.
    """

    score: float
    standard_error: float
    measure: str
    penalty: float
    outputs: np.ndarray
    leverages: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class Probe:
    """A fitted linear head, for features as they were given.

    Attributes:
        weight: float64, shape (c, d).
        bias: float64, shape (c,), or None where none was asked for.
        penalty: The chosen penalty.
        score: Of predictions for examples that were held out.
        measure: What the score is.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    penalty: float
    score: float
    measure: str


def ridge_loo(features: np.ndarray, labels: np.ndarray, classes: int, *,
              penalties: Sequence[float] = RIDGE_PENALTIES, standardise: bool = True,
              centre: bool = True, groups: np.ndarray | None = None) -> RidgeResult:
    """Score ridge regression with an unpenalised intercept by exact leave-one-out.

    The targets are one-hot for classes, 0 and 1 for several labels, and values as they are. The residual of example i
    without i is its residual divided by 1 - h_i, h being the diagonal of the hat matrix (Allen, 1974, "The relationship
    between variable selection and data augmentation and a method for prediction").

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,); several labels, bool, shape (n, c); or values, float64, shape (n, c).
        classes: Number of classes, labels or values c.
        penalties: Tried ones, as multiples of the mean squared singular value.
        standardise: Divide each feature by its standard deviation over all examples.
        centre: Fit an intercept; without it neither features nor targets are centred.
        groups: What is left out together (speaker, patient), shape (n,); None for each example by itself. The residuals
            of a group without the group are (I - H_gg)^-1 times its own, H_gg being its block of the hat matrix.

    Returns:
        The result at the penalty of best score; of equals, the one of least squared error.

    Raises:
        TlhubError: A feature is not finite.
    """
    axes, coordinates = principal_axes(features, standardise=standardise, centre=centre)
    targets = _targets(labels, classes)
    offset = targets.mean(0) if centre else torch.zeros(classes, dtype=torch.float64)
    products = coordinates.T @ (targets - offset)
    squares, together = coordinates**2, _together(groups)
    best: tuple[tuple[float, float], float, torch.Tensor, torch.Tensor, torch.Tensor] | None = None
    for penalty in penalties:
        shrunk = 1 / (axes.energies + penalty * axes.energies.mean())
        leverages = squares @ shrunk + (1 / len(labels) if centre else 0.0)
        residuals = targets - offset - coordinates @ (shrunk[:, None] * products)
        residuals = _without_themselves(residuals, leverages, together, coordinates, shrunk, centre)
        outputs = targets - residuals
        merit = _merit(outputs, targets, labels)
        key = (float(merit.mean()), -float((residuals**2).mean()))
        if best is None or key > best[0]:
            best = key, penalty, outputs, leverages, merit
    assert best is not None
    (score, _), penalty, outputs, leverages, merit = best
    shrunk = 1 / (axes.energies + penalty * axes.energies.mean())
    weight, bias = axes.undo((shrunk[:, None] * products).T, offset if centre else None)
    error = float(merit.std(correction=0)) / len(labels) ** 0.5
    measure = "accuracy" if _are_classes(labels) else "R2"
    return RidgeResult(score, error, measure, penalty, outputs.numpy(), leverages.numpy(), weight, bias)


def _together(groups: np.ndarray | None) -> list[torch.Tensor]:
    """Return the rows of each group of several; none where all are of one group, so that nothing would be left."""
    if groups is None:
        return []
    _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    rows = np.split(order, np.cumsum(counts)[:-1])
    return [torch.from_numpy(found) for found in rows if len(found) > 1] if len(rows) > 1 else []


def _without_themselves(residuals: torch.Tensor, leverages: torch.Tensor, together: Sequence[torch.Tensor],
                        coordinates: torch.Tensor, shrunk: torch.Tensor, centre: bool) -> torch.Tensor:
    """Return the residuals (n, c) that examples, or groups of them, have where the regression is fitted without them.

    Args:
        residuals: Where it is fitted to all, shape (n, c).
        leverages: Diagonal of the hat matrix, shape (n,).
        together: Rows of each group of several.
        coordinates: Of the features on their axes, shape (n, k).
        shrunk: Inverse penalised energies, shape (k,).
        centre: Whether there is an intercept.
    """
    found = residuals / (1 - leverages).clamp_min(1e-12)[:, None]
    axes = torch.cat([coordinates, torch.ones(len(residuals), 1, dtype=torch.float64)], 1) if centre else coordinates
    scales = torch.cat([shrunk, torch.full((1,), 1 / len(residuals), dtype=torch.float64)]) if centre else shrunk
    for rows in together:
        part, own = axes[rows], residuals[rows]
        if len(rows) <= len(scales):
            identity = torch.eye(len(rows), dtype=torch.float64)
            found[rows] = torch.linalg.solve(identity - (part * scales) @ part.T, own)
        else:  # the same by Woodbury's identity, where the group has more examples than there are axes
            found[rows] = own + part @ torch.linalg.solve(torch.diag(1 / scales) - part.T @ part, part.T @ own)
    return found


def choose_features(results: Mapping[str, RidgeResult], prefer: str = "native") -> str:
    """Return the kind of features with the best leave-one-out score.

    Args:
        results: Scores by kind.
        prefer: The kind that is taken instead where it lies within one standard error of the best.
    """
    best = max(results, key=lambda kind: results[kind].score)
    bar = results[best].score - results[best].standard_error
    return prefer if prefer in results and results[prefer].score >= bar else best


def fit_probe(features: np.ndarray, labels: np.ndarray, classes: int, *, bias: bool = True, seed: int = 0,
              class_weights: np.ndarray | None = None, label_smoothing: float = 0.0,
              groups: np.ndarray | None = None) -> Probe:
    """Fit a linear head to its optimum.

    Classes and several labels get a logistic regression whose penalty 5 folds choose; values a ridge regression in
    their own units, whose penalty exact leave-one-out chooses. Groups are held out whole.

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,); several labels, bool, shape (n, c); or values, float64, shape (n, c).
        classes: Number of classes, labels or values c.
        bias: Fit a bias; without it features are not centred.
        seed: Decides the folds.
        class_weights: As in `fit_logistic`; of no meaning for values.
        label_smoothing: As in `fit_logistic`; of no meaning for values.
        groups: What is held out together (speaker, patient), shape (n,).

    Raises:
        TlhubError: A feature is not finite.
    """
    if np.issubdtype(labels.dtype, np.floating):
        ridge = ridge_loo(features, labels, classes, penalties=VALUE_PENALTIES, centre=bias, groups=groups)
        return Probe(ridge.weight, ridge.bias, ridge.penalty, ridge.score, f"leave-one-out {ridge.measure}")
    folds = stratified_folds(labels, seed=seed, groups=groups)
    found = fit_logistic(features, labels, classes, folds=folds, bias=bias, class_weights=class_weights,
                         label_smoothing=label_smoothing)
    return Probe(found.weight, found.bias, found.penalty, found.cv_score, "cross-validated accuracy")


def merits(outputs: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return each example's part of the score of predictions, as `ridge_loo` scores them, float64, shape (n,).

    Args:
        outputs: Predictions, shape (n, c).
        labels: Of any kind, for n examples.
        classes: Number of classes, labels or values c.
    """
    parts: np.ndarray = _merit(torch.from_numpy(outputs.astype(np.float64)), _targets(labels, classes), labels).numpy()
    return parts


def _are_classes(labels: np.ndarray) -> bool:
    return bool(np.issubdtype(labels.dtype, np.integer))


def _targets(labels: np.ndarray, classes: int) -> torch.Tensor:
    """Return what the ridge regression aims at, float64, shape (n, c)."""
    if _are_classes(labels):
        return torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes).double()
    return torch.from_numpy(labels.astype(np.float64))


def _merit(outputs: torch.Tensor, targets: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Return each example's part of the score, float64, shape (n,): their mean is the accuracy or R2."""
    if _are_classes(labels):
        return (outputs.argmax(1) == torch.from_numpy(labels.astype(np.int64))).double()
    varies = targets.amax(0) > targets.amin(0)
    if not varies.any():
        return torch.zeros(len(targets), dtype=torch.float64)
    errors = (targets - outputs)[:, varies] ** 2
    return 1 - (errors / targets[:, varies].var(0, correction=0)).mean(1)
