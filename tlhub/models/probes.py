"""Linear probes of frozen features: exact leave-one-out ridge, and logistic regression fitted to its optimum.

Both work on standardised features rotated to their principal axes, where an L2 penalty is what it was before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tlhub.errors import TlhubError
from tlhub.seeding import generator

RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties of the ridge, as multiples of the mean squared singular value."""

LOGISTIC_PENALTIES = tuple(10.0 ** (-step / 2) for step in range(11))
"""Penalties of the logistic regression, 1 down to 1e-5, on the mean loss over standardised features."""

FOLDS = 5
"""Stratified folds; each is held out once, by default."""

_FOLD_BUDGET = 5e9
"""Large problems hold out fewer of the folds: as many as keep folds x n x d x c within this, and at least one. They
also try every second penalty only, and make the final fit in float32."""

_FOLD_STEPS = 50
"""L-BFGS steps on the folds at each penalty; the next penalty starts from where they led."""

_CHUNK = 4096
_RANK_TOLERANCE = 1e-10

_PATIENCE = 3
"""Penalties in a row with a higher held-out loss than the lowest, after which smaller ones are not tried."""


@dataclass(frozen=True)
class RidgeResult:
    """The leave-one-out score of a ridge classifier.

    Attributes:
        accuracy: Share of examples whose class is right when predicted from all the others.
        standard_error: Of the accuracy.
        penalty: The best penalty, as a multiple of the mean squared singular value.
        outputs: Predictions for each example from all the others, at the best penalty, float64, shape (n, c).
        leverages: Diagonal of the hat matrix at the best penalty, float64, shape (n,).
    """

    accuracy: float
    standard_error: float
    penalty: float
    outputs: np.ndarray
    leverages: np.ndarray


@dataclass(frozen=True)
class LogisticResult:
    """A fitted multinomial logistic regression, for features as they were given.

    Attributes:
        weight: float64, shape (c, d).
        bias: float64, shape (c,), or None where none was asked for.
        penalty: The chosen penalty.
        cv_score: Accuracy on held-out folds at the chosen penalty.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    penalty: float
    cv_score: float


@dataclass(frozen=True)
class Axes:
    """How features become coordinates on their principal axes: `((x - mean) / scale) @ rotation`.

    Attributes:
        mean: float64, shape (d,); zeros where features are not centred.
        scale: float64, shape (d,).
        rotation: Orthonormal columns, float64, shape (d, k); k is the rank.
        energies: Squared singular values of the standardised features, float64, shape (k,).
    """

    mean: torch.Tensor
    scale: torch.Tensor
    rotation: torch.Tensor
    energies: torch.Tensor


def principal_axes(features: np.ndarray, *, standardise: bool = True, centre: bool = True) -> tuple[Axes, torch.Tensor]:
    """Return the axes of features (n, d), and the features' coordinates on them, float64, shape (n, k).

    Args:
        features: Shape (n, d).
        standardise: Divide each feature by its standard deviation (plus 1e-6 of the overall one).
        centre: Subtract the mean.

    Raises:
        TlhubError: A feature is not finite.
    """
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise TlhubError(f"the features of {bad} of {len(features)} examples are not finite; check the checkpoint, "
                         "or set train.precision to fp32")
    mean = features.mean(axis=0, dtype=np.float64) if centre else np.zeros(features.shape[1])
    scale = np.ones(features.shape[1])
    if standardise:
        spread = np.sqrt(sum(((features[part] - mean) ** 2).sum(axis=0) for part in _parts(len(features)))
                         / len(features))
        scale = spread + max(1e-6 * float(np.sqrt((spread**2).mean())), np.finfo(np.float64).tiny)
    shift, unit = torch.from_numpy(mean), torch.from_numpy(scale)
    rotation, energies = _spectrum(features, shift, unit)
    coordinates = torch.empty(len(features), len(energies), dtype=torch.float64)
    for part in _parts(len(features)):
        torch.mm(_standardised(features[part], shift, unit), rotation, out=coordinates[part])
    return Axes(shift, unit, rotation, energies), coordinates


def ridge_loo(features: np.ndarray, labels: np.ndarray, classes: int, *,
              penalties: Sequence[float] = RIDGE_PENALTIES, standardise: bool = True,
              centre: bool = True) -> RidgeResult:
    """Score a ridge classifier (one-hot targets, unpenalised intercept) by exact leave-one-out.

    The residual of example i without i is its residual divided by 1 - h_i, h being the diagonal of the hat matrix
    (Allen, 1974, "The relationship between variable selection and data augmentation and a method for prediction").

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,).
        classes: Number of classes c.
        penalties: Tried ones, as multiples of the mean squared singular value.
        standardise: Divide each feature by its standard deviation over all examples.
        centre: Fit an intercept; without it neither features nor targets are centred.

    Returns:
        The result at the penalty of best accuracy; of equals, the one of least squared error.

    Raises:
        TlhubError: A feature is not finite.
    """
    axes, coordinates = principal_axes(features, standardise=standardise, centre=centre)
    right = torch.from_numpy(labels.astype(np.int64))
    targets = torch.nn.functional.one_hot(right, classes).double()
    offset = targets.mean(0) if centre else torch.zeros(classes, dtype=torch.float64)
    products = coordinates.T @ (targets - offset)
    squares = coordinates**2
    best: tuple[tuple[float, float], RidgeResult] | None = None
    for penalty in penalties:
        shrunk = 1 / (axes.energies + penalty * axes.energies.mean())
        leverages = squares @ shrunk + (1 / len(labels) if centre else 0.0)
        residuals = targets - offset - coordinates @ (shrunk[:, None] * products)
        residuals /= (1 - leverages).clamp_min(1e-12)[:, None]
        outputs = targets - residuals
        accuracy = float((outputs.argmax(1) == right).double().mean())
        key = (accuracy, -float((residuals**2).mean()))
        if best is None or key > best[0]:
            error = float(np.sqrt(accuracy * (1 - accuracy) / len(labels)))
            best = key, RidgeResult(accuracy, error, penalty, outputs.numpy(), leverages.numpy())
    assert best is not None
    return best[1]


def choose_features(results: Mapping[str, RidgeResult], prefer: str = "native") -> str:
    """Return the kind of features with the best leave-one-out accuracy.

    Args:
        results: Scores by kind.
        prefer: The kind that is taken instead where it lies within one standard error of the best.
    """
    best = max(results, key=lambda kind: results[kind].accuracy)
    bar = results[best].accuracy - results[best].standard_error
    return prefer if prefer in results and results[prefer].accuracy >= bar else best


def fit_logistic(features: np.ndarray, labels: np.ndarray, classes: int, *,
                 penalties: Sequence[float] = LOGISTIC_PENALTIES, seed: int = 0, bias: bool = True,
                 class_weights: np.ndarray | None = None, label_smoothing: float = 0.0) -> LogisticResult:
    """Fit multinomial logistic regression, with the penalty that predicts held-out folds best.

    The objective is the mean cross-entropy plus penalty / 2 times the squared weights of the standardised features.
    Standardisation and axes are those of all examples, in the folds as well; they know no labels.

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,).
        classes: Number of classes c.
        penalties: Tried ones.
        seed: Decides the folds.
        bias: Fit a bias; without it features are not centred.
        class_weights: Weight of the examples of each class, shape (c,); equal where None.
        label_smoothing: Share of the target spread over all classes.

    Returns:
        The model fitted to all examples, at the penalty of best held-out accuracy; of equals, of least loss.

    Raises:
        TlhubError: A feature is not finite.
    """
    axes, coordinates = principal_axes(features, centre=bias)
    right = torch.from_numpy(labels.astype(np.int64))
    weights = torch.ones(classes) if class_weights is None else torch.from_numpy(class_weights)
    problem = _Problem(coordinates, axes.energies / len(labels), right, weights.double(), label_smoothing, bias)
    scored = int(np.clip(_FOLD_BUDGET // (features.size * classes), 1, FOLDS))
    held_out = torch.from_numpy(np.stack([stratified_folds(labels, seed=seed) == fold for fold in range(scored)]))
    large = scored < FOLDS
    tried = sorted(penalties, reverse=True)[::2 if large else 1]
    single = problem.single()
    penalty, score = _choose_penalty(single, held_out, tried)
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    solution = (single.solve(everything, penalty, tolerance=1e-4, steps=1000)[0].double() if large
                else problem.solve(everything, penalty, tolerance=1e-7, steps=1000)[0])
    weight = solution[:, :len(axes.energies)] @ axes.rotation.T / axes.scale
    if not bias:
        return LogisticResult(weight.numpy(), None, penalty, score)
    intercept = solution[:, -1] - solution[:, -1].mean() - weight @ axes.mean
    return LogisticResult(weight.numpy(), intercept.numpy(), penalty, score)


def stratified_folds(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the fold of each example, int64, shape (n,): every class is divided as evenly as it can be."""
    order = generator(seed, "probe folds").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % FOLDS
    return folds


@dataclass(frozen=True)
class _Problem:
    """Logistic regression on principal axes, for several subsets of the examples at once.

    Attributes:
        coordinates: Shape (n, k).
        variances: Mean squared coordinate on each axis, shape (k,).
        labels: int64, shape (n,).
        class_weights: Shape (c,).
        smoothing: Share of the target spread over all classes.
        bias: Whether a bias is fitted.
    """

    coordinates: torch.Tensor
    variances: torch.Tensor
    labels: torch.Tensor
    class_weights: torch.Tensor
    smoothing: float
    bias: bool

    def single(self) -> _Problem:
        """Return the problem in float32, which is exact enough to choose a penalty and twice as fast."""
        return _Problem(self.coordinates.float(), self.variances.float(), self.labels, self.class_weights.float(),
                        self.smoothing, self.bias)

    def solve(self, used: torch.Tensor, penalty: float, *, tolerance: float, steps: int,
              start: torch.Tensor | None = None) -> torch.Tensor:
        """Minimise the objective over each subset by L-BFGS.

        The subsets do not interact: their sum is minimised as one function. Weights are scaled by the square root of a
        bound of their curvature, so that axes of all sizes converge in a few dozen steps.

        Args:
            used: Which examples belong to each subset, bool, shape (f, n).
            penalty: Weight of the squared weights.
            tolerance: Largest entry of the scaled gradient at the end.
            steps: Most steps of L-BFGS.
            start: Weights to start from, of the result's shape.

        Returns:
            Weights, and the bias in the last column where there is one: shape (f, c, k or k + 1).
        """
        kind, classes, subsets = self.coordinates.dtype, len(self.class_weights), len(used)
        curvature = self.variances / 4 + penalty
        if self.bias:
            curvature = torch.cat([curvature, torch.full((1,), 0.25, dtype=kind)])
        scale = curvature.rsqrt()
        shares = used.T * self.class_weights[self.labels][:, None]
        shares = (shares / shares.sum(0)).to(kind)[:, :, None]
        targets = self._targets()
        scaled = torch.zeros(subsets, classes, len(curvature), dtype=kind) if start is None else start / scale
        scaled.requires_grad_(True)
        optimizer = torch.optim.LBFGS([scaled], max_iter=steps, history_size=10, tolerance_grad=tolerance,
                                      tolerance_change=1e-12, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            with torch.no_grad():
                values = scaled * scale
                log_odds = torch.log_softmax(self.outputs(values), dim=2)
                loss = -(shares * targets * log_odds).sum()
                slopes = (log_odds.exp_() - targets).mul_(shares).reshape(len(targets), -1)
                # As a product of the small matrix with the large one, which is several times faster than the converse.
                gradient = (slopes.T @ self.coordinates).reshape(subsets, classes, -1)
                weights = values[..., :len(self.variances)]
                loss += penalty / 2 * (weights**2).sum()
                gradient += penalty * weights
                if self.bias:
                    gradient = torch.cat([gradient, slopes.sum(0).reshape(subsets, classes, 1)], dim=2)
                scaled.grad = gradient * scale
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return (scaled.detach() * scale).contiguous()

    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        """Return the logits of every example under each subset's weights, shape (n, f, c)."""
        rows = values[..., :len(self.variances)].reshape(-1, len(self.variances))
        logits = (self.coordinates @ rows.T).reshape(len(self.coordinates), *values.shape[:2])
        return logits + values[..., -1] if self.bias else logits

    def _targets(self) -> torch.Tensor:
        classes = len(self.class_weights)
        one_hot = torch.nn.functional.one_hot(self.labels, classes).to(self.coordinates.dtype)
        return ((1 - self.smoothing) * one_hot + self.smoothing / classes)[:, None, :]


def _choose_penalty(problem: _Problem, held_out: torch.Tensor, penalties: Sequence[float]) -> tuple[float, float]:
    """Return the best penalty and its held-out accuracy, going from large penalties to small, each from the last."""
    values: torch.Tensor | None = None
    best = (-1.0, -np.inf, penalties[0])
    lowest, worse = np.inf, 0
    rows = torch.arange(len(problem.labels))
    for penalty in penalties:
        values = problem.solve(~held_out, penalty, tolerance=3e-4, steps=_FOLD_STEPS, start=values)
        log_odds = torch.log_softmax(problem.outputs(values), dim=2)
        right = (log_odds.argmax(2) == problem.labels[:, None])[held_out.T]
        accuracy = float(right.double().mean())
        loss = -float(log_odds[rows, :, problem.labels][held_out.T].double().mean())
        best = max(best, (accuracy, -loss, penalty))
        lowest, worse = min(lowest, loss), worse + 1 if loss > lowest else 0
        if worse >= _PATIENCE:
            break
    return best[2], best[0]


def _spectrum(features: np.ndarray, mean: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the principal axes (d, k) and squared singular values (k,) of the standardised features."""
    count, size = features.shape
    if count < size:
        rows = _standardised(features, mean, scale)
        energies, left = torch.linalg.eigh(rows @ rows.T)
        kept = energies > _RANK_TOLERANCE * energies[-1]
        return rows.T @ (left[:, kept] / energies[kept].sqrt()), energies[kept]
    gram = torch.zeros(size, size, dtype=torch.float64)
    for part in _parts(count):
        rows = _standardised(features[part], mean, scale)
        gram += rows.T @ rows
    energies, axes = torch.linalg.eigh(gram)
    kept = energies > _RANK_TOLERANCE * energies[-1]
    return axes[:, kept], energies[kept]


def _standardised(features: np.ndarray, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (torch.from_numpy(np.asarray(features, dtype=np.float64)) - mean) / scale


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
