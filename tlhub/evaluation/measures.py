"""What each metric computes of an outcome: the same functions for one sample and for many resamples.

Shapes: n examples, c classes or labels, t targets, and `...` for any leading axes (none for a score, the resamples for
an interval). Every measure returns shape (...). Measures of values are means over the targets.
"""

from __future__ import annotations

import numpy as np

from tlhub.evaluation.outcomes import ClassOutcome, LabelsOutcome, Outcome, ValueOutcome

Decided = ClassOutcome | LabelsOutcome
"""An outcome of decisions that are right or wrong."""


def accuracy(outcome: Decided) -> np.ndarray:
    """Return the share of right predictions; of several labels of an example, all have to be right."""
    return np.asarray(outcome.right.mean(axis=-1))


def precision_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of hits / predictions."""
    return _class_mean(outcome, precisions(outcome))


def recall_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of hits / examples."""
    return _class_mean(outcome, recalls(outcome))


def recalls(outcome: Decided) -> np.ndarray:
    """Return hits / examples of each class (or label), shape (..., c); 0 where there is no example."""
    return _ratio(outcome.hits, outcome.true_counts)


def precisions(outcome: Decided) -> np.ndarray:
    """Return hits / predictions of each class (or label), shape (..., c); 0 where it is never predicted."""
    return _ratio(outcome.hits, outcome.predicted_counts)


def f1_scores(outcome: Decided) -> np.ndarray:
    """Return the F1 score of each class (or label), shape (..., c); 0 where it occurs nowhere."""
    return _ratio(2 * outcome.hits, outcome.true_counts + outcome.predicted_counts)


def f1_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of the F1 score."""
    return _class_mean(outcome, f1_scores(outcome))


def f1_micro(outcome: Decided) -> np.ndarray:
    """Return the F1 score of all decisions of all labels together; of classes it is the accuracy."""
    said = (outcome.true_counts + outcome.predicted_counts).sum(axis=-1)
    return _ratio(2 * outcome.hits.sum(axis=-1), said)


def f1(outcome: ClassOutcome) -> np.ndarray:
    """Return the F1 score of class 1 where there are two classes, otherwise the mean over classes."""
    return np.asarray(f1_scores(outcome)[..., 1]) if outcome.classes == 2 else f1_macro(outcome)


def mcc(outcome: ClassOutcome) -> np.ndarray:
    """Return the correlation of labels and predictions; 0 where either is constant.

    The multi-class form of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient", from the margins of the confusion matrix.
    """
    total = outcome.true_counts.sum(axis=-1)
    true, predicted = outcome.true_counts, outcome.predicted_counts
    covariance = outcome.hits.sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    true_variance = total**2 - (true**2).sum(axis=-1)
    predicted_variance = total**2 - (predicted**2).sum(axis=-1)
    return _ratio(covariance, np.sqrt(true_variance * predicted_variance))


def ece(outcome: Decided) -> np.ndarray:
    """Return the expected calibration error over 15 bins of equal width, (b/15, (b+1)/15].

    Guo et al. (2017), "On calibration of modern neural networks": sum over bins of n_b/n |accuracy_b - confidence_b|.
    Of several labels each decision counts, with the probability of what was decided as its confidence.
    """
    return np.asarray(np.abs(outcome.bin_gaps).sum(axis=-1))


def loss(outcome: Outcome) -> np.ndarray:
    """Return the mean loss: cross-entropy in nats (mean over labels of the binary one), or squared error of values."""
    return np.asarray(outcome.losses.mean(axis=-1))


def pearson(outcome: ValueOutcome) -> np.ndarray:
    """Return Pearson's correlation; 0 where either side is constant."""
    left = outcome.labels - outcome.labels.mean(axis=-2, keepdims=True)
    right = outcome.predictions - outcome.predictions.mean(axis=-2, keepdims=True)
    norms = np.sqrt((left**2).sum(axis=-2) * (right**2).sum(axis=-2))
    vary = _varies(outcome.labels) & _varies(outcome.predictions)
    return np.asarray(np.where(vary, _ratio((left * right).sum(axis=-2), norms), 0.0).mean(axis=-1))


def mae(outcome: ValueOutcome) -> np.ndarray:
    """Return the mean absolute error."""
    return np.asarray(np.abs(outcome.labels - outcome.predictions).mean(axis=(-2, -1)))


def rmse(outcome: ValueOutcome) -> np.ndarray:
    """Return the root of the mean squared error."""
    squares = (outcome.labels - outcome.predictions) ** 2
    return np.asarray(np.sqrt(squares.mean(axis=-2)).mean(axis=-1))


def r2(outcome: ValueOutcome) -> np.ndarray:
    """Return 1 - residual / total sum of squares; for constant labels 1 if all are met, otherwise 0."""
    residual = ((outcome.labels - outcome.predictions) ** 2).sum(axis=-2)
    total = ((outcome.labels - outcome.labels.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2)
    constant = np.where(residual == 0, 1.0, 0.0)
    return np.asarray(np.where(_varies(outcome.labels), 1.0 - _ratio(residual, total), constant).mean(axis=-1))


def _class_mean(outcome: Decided, scores: np.ndarray) -> np.ndarray:
    """Average over the classes that occur among labels or predictions, as scikit-learn does for classes.

    A label that no example has and none is given says nothing of the model; where that holds for all, the mean is 0.
    """
    occurs = outcome.true_counts + outcome.predicted_counts > 0
    return _ratio((scores * occurs).sum(axis=-1), occurs.sum(axis=-1))


def _varies(values: np.ndarray) -> np.ndarray:
    """Tell for each target whether it varies: deviations from a mean are not exactly 0 where it does not."""
    return np.asarray(values.max(axis=-2) > values.min(axis=-2))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0."""
    zero = denominator == 0
    return np.asarray(np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator)))
