"""Logistic regression fitted to its optimum: multinomial for classes, one by one for several labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)

from tlhub.data.sampling import rarest_label
from tlhub.models.axes import principal_axes
from tlhub.seeding import generator

LOGISTIC_PENALTIES = tuple(10.0 ** (-step / 2) for step in range(11))
"""Penalties, 1 down to 1e-5, on the mean loss over standardised features."""

FOLDS = 5
"""Stratified folds; each is held out once, by default."""

_FOLD_BUDGET = 5e9
"""Large problems hold out fewer of the folds: as many as keep folds x n x d x c within this, and at least one. They
also try every second penalty only, and make the final fit in float32."""

_FOLD_STEPS = 50
"""L-BFGS steps on the folds at each penalty; the next penalty starts from where they led."""

_PATIENCE = 3
"""Penalties in a row with a higher held-out loss than the lowest, after which smaller ones are not tried."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class LogisticResult:
    """A fitted logistic regression, for features as they were given.

    Attributes:
        weight: float64, shape (c, d).
        bias: float64, shape (c,), or None where none was asked for.
        penalty: The chosen penalty.
        cv_score: Accuracy on held-out folds at the chosen penalty, examples weighted as in the fit; of several labels
            the share of right decisions.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    penalty: float
    cv_score: float


def fit_logistic(features: np.ndarray, labels: np.ndarray, classes: int, *,
                 penalties: Sequence[float] = LOGISTIC_PENALTIES, folds: np.ndarray | None = None, bias: bool = True,
                 class_weights: np.ndarray | None = None, label_smoothing: float = 0.0) -> LogisticResult:
    """Fit logistic regression, with the penalty that predicts held-out folds best.

    The objective is the mean cross-entropy plus penalty / 2 times the squared weights of the standardised features;
    of several labels it is the sum of each label's own. Standardisation and axes are those of all examples, in the
    folds as well; they know no labels.

    Args:
        features: Shape (n, d).
        labels: Classes, int64, shape (n,), or several labels, bool, shape (n, c).
        classes: Number of classes or labels c.
        penalties: Tried ones.
        folds: Of each example, int64, shape (n,); default: `stratified_folds` of seed 0.
        bias: Fit a bias; without it features are not centred.
        class_weights: Weight of the examples of each class, or of those that have each label (the others weigh 1),
            shape (c,); equal where None.
        label_smoothing: Share of the target spread over all classes, or over yes and no.

    Returns:
        The model fitted to all examples, at the penalty of best held-out accuracy; of equals, of least loss. With
        several labels the loss alone decides, since the share of right decisions hardly moves where labels are rare.

    Raises:
        TlhubError: A feature is not finite.
    """
    axes, coordinates = principal_axes(features, centre=bias)
    answers = _Labels(labels) if labels.dtype == np.bool_ else _Classes(labels, classes)
    targets, weights = answers.targets(label_smoothing), answers.weights(class_weights)
    problem = _Problem(coordinates, axes.energies / len(labels), targets, weights, answers, bias)
    folds = stratified_folds(labels, seed=0) if folds is None else folds
    scored = int(np.clip(_FOLD_BUDGET // (features.size * classes), 1, folds.max() + 1))
    held_out = torch.from_numpy(np.stack([folds == fold for fold in range(scored)]))
    large = scored <= folds.max()
    tried = sorted(penalties, reverse=True)[::2 if large else 1]
    single = problem.single()
    penalty, score = _choose_penalty(single, held_out, tried)
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    solution = (single.solve(everything, penalty, tolerance=1e-4, steps=1000)[0].double() if large
                else problem.solve(everything, penalty, tolerance=1e-7, steps=1000)[0])
    intercept = answers.centred(solution[:, -1]) if bias else None
    return LogisticResult(*axes.undo(solution[:, :len(axes.energies)], intercept), penalty, score)


def stratified_folds(labels: np.ndarray, *, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the fold of each example, int64, shape (n,): every class is divided as evenly as it can be.

    Args:
        labels: Classes, int64, shape (n,), or several labels, bool, shape (n, c), of which the rarest counts.
        seed: Decides the folds.
        groups: What is never divided (speaker, patient), shape (n,). There are as many folds as groups, at most
            `FOLDS`; a single group is divided all the same, since something has to be held out.
    """
    strata = rarest_label(labels) if labels.dtype == np.bool_ else labels
    random = generator(seed, "probe folds")
    if groups is not None and (groups != groups[0]).any():
        return _grouped_folds(strata, groups, random)
    order = random.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    folds = np.empty(len(strata), dtype=np.int64)
    folds[order] = np.arange(len(strata)) % FOLDS
    return folds


def _grouped_folds(strata: np.ndarray, groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Give whole groups, the largest first, to the fold in which the shares of their classes grow least."""
    _, classes = np.unique(strata, return_inverse=True)
    names, group_of = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), classes.max() + 1))
    np.add.at(table, (group_of, classes), 1)
    shares = table / table.sum(0)
    order = random.permutation(len(names))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    filled = np.zeros((min(FOLDS, len(names)), shares.shape[1]))
    fold_of = np.empty(len(names), dtype=np.int64)
    for group in order:
        growth = ((filled + shares[group]) ** 2 - filled**2).sum(1)
        fold_of[group] = growth.argmin()
        filled[fold_of[group]] += shares[group]
    return fold_of[group_of]


class _Classes:
    """One class an example: softmax. Weights have one column, w = 1.

    Args:
        labels: int64, shape (n,).
        classes: Number of classes c.
    """

    judged_by_accuracy = True

    def __init__(self, labels: np.ndarray, classes: int) -> None:
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.classes = classes

    def targets(self, smoothing: float) -> torch.Tensor:
        """Return the probabilities to be met, float64, shape (n, c)."""
        return (1 - smoothing) * F.one_hot(self.labels, self.classes).double() + smoothing / self.classes

    def weights(self, class_weights: np.ndarray | None) -> torch.Tensor:
        """Return the weight of each example, float64, shape (n, 1)."""
        each = np.ones(self.classes) if class_weights is None else class_weights
        return torch.from_numpy(each).double()[self.labels][:, None]

    def loss(self, logits: torch.Tensor, targets: torch.Tensor,
             shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss and its gradient by the logits, (n, f, c); shares (n, f, 1), targets (n, 1, c)."""
        log_odds = torch.log_softmax(logits, dim=2)
        loss = -(shares * targets * log_odds).sum()
        return loss, (log_odds.exp_() - targets).mul_(shares)

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is right, bool, and minus the log of the truth's probability, both of shape (n, f, 1)."""
        log_odds = torch.log_softmax(logits, dim=2)
        right = log_odds.argmax(2) == self.labels[:, None]
        found = log_odds[torch.arange(len(self.labels)), :, self.labels]
        return right[:, :, None], -found[:, :, None]

    def centred(self, intercept: torch.Tensor) -> torch.Tensor:
        """Return the intercept (c,) without what the softmax does not see."""
        return intercept - intercept.mean()


class _Labels:
    """Several labels an example, each by a sigmoid of its own. Weights have a column a label, w = c.

    Args:
        labels: bool, shape (n, c).
    """

    judged_by_accuracy = False

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = torch.from_numpy(labels)

    def targets(self, smoothing: float) -> torch.Tensor:
        """Return the probabilities to be met, float64, shape (n, c)."""
        return (1 - smoothing) * self.labels.double() + smoothing / 2

    def weights(self, class_weights: np.ndarray | None) -> torch.Tensor:
        """Return the weight of each decision, float64, shape (n, c)."""
        present = torch.ones(self.labels.shape[1]) if class_weights is None else torch.from_numpy(class_weights)
        return torch.where(self.labels, present.double(), 1.0)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor,
             shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss and its gradient by the logits, (n, f, c); shares (n, f, c), targets (n, 1, c)."""
        loss = (shares * (F.softplus(logits) - targets * logits)).sum()
        return loss, (torch.sigmoid(logits) - targets).mul_(shares)

    def judge(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is right, bool, and minus the log of the truth's probability, both of shape (n, f, c)."""
        truth = self.labels[:, None, :]
        return (logits > 0) == truth, F.softplus(torch.where(truth, -logits, logits))

    def centred(self, intercept: torch.Tensor) -> torch.Tensor:
        """Return the intercept (c,), all of which counts."""
        return intercept


@dataclass(frozen=True)
class _Problem:
    """Logistic regression on principal axes, for several subsets of the examples at once.

    Attributes:
        coordinates: Shape (n, k).
        variances: Mean squared coordinate on each axis, shape (k,).
        targets: Probabilities to be met, shape (n, c).
        weights: Of the examples or of each decision, shape (n, w), w being 1 or c.
        answers: What the logits mean.
        bias: Whether a bias is fitted.
    """

    coordinates: torch.Tensor
    variances: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    answers: _Classes | _Labels
    bias: bool

    def single(self) -> _Problem:
        """Return the problem in float32, which is exact enough to choose a penalty and twice as fast."""
        return dataclasses.replace(self, coordinates=self.coordinates.float(), variances=self.variances.float(),
                                   targets=self.targets.float())

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
        kind, classes, subsets = self.coordinates.dtype, self.targets.shape[1], len(used)
        # Both links bend by at most 1/4: p (1 - p).
        curvature = self.variances / 4 + penalty
        if self.bias:
            curvature = torch.cat([curvature, torch.full((1,), 0.25, dtype=kind)])
        scale = curvature.rsqrt()
        shares = used.T[:, :, None] * self.weights[:, None, :]
        # A label may have no weight at all in a subset; it then has no loss there either.
        shares = (shares / shares.sum(0).clamp_min(_TINY)).to(kind)
        targets = self.targets[:, None, :]
        scaled = torch.zeros(subsets, classes, len(curvature), dtype=kind) if start is None else start / scale
        scaled.requires_grad_(True)
        optimizer = torch.optim.LBFGS([scaled], max_iter=steps, history_size=10, tolerance_grad=tolerance,
                                      tolerance_change=1e-12, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            with torch.no_grad():
                values = scaled * scale
                loss, slopes = self.answers.loss(self.outputs(values), targets, shares)
                slopes = slopes.reshape(len(targets), -1)
                # As a product of the small matrix with the large one, which is several times faster than the converse.
                gradient = (slopes.T @ self.coordinates).reshape(subsets, classes, -1)
                weights = values[..., :len(self.variances)]
                loss += penalty / 2 * (weights**2).sum()
                gradient += penalty * weights
                if self.bias:
                    gradient = torch.cat([gradient, slopes.sum(0).reshape(subsets, classes, 1)], dim=2)
                scaled.grad = gradient * scale
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves this method without types
        return (scaled.detach() * scale).contiguous()

    def outputs(self, values: torch.Tensor) -> torch.Tensor:
        """Return the logits of every example under each subset's weights, shape (n, f, c)."""
        rows = values[..., :len(self.variances)].reshape(-1, len(self.variances))
        logits = (self.coordinates @ rows.T).reshape(len(self.coordinates), *values.shape[:2])
        return logits + values[..., -1] if self.bias else logits


def _choose_penalty(problem: _Problem, held_out: torch.Tensor, penalties: Sequence[float]) -> tuple[float, float]:
    """Return the best penalty and its held-out accuracy, going from large penalties to small, each from the last."""
    values: torch.Tensor | None = None
    weights = held_out.T[:, :, None] * problem.weights[:, None, :]
    found: list[tuple[float, float, float, float]] = []
    lowest, worse = np.inf, 0
    for penalty in penalties:
        values = problem.solve(~held_out, penalty, tolerance=3e-4, steps=_FOLD_STEPS, start=values)
        right, surprise = problem.answers.judge(problem.outputs(values))
        accuracy, loss = (float((column * weights).sum() / weights.sum()) for column in (right, surprise))
        found.append((accuracy if problem.answers.judged_by_accuracy else 0.0, -loss, penalty, accuracy))
        lowest, worse = min(lowest, loss), worse + 1 if loss > lowest else 0
        if worse >= _PATIENCE:
            break
    _, _, penalty, accuracy = max(found)
    return penalty, accuracy
