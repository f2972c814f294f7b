"""The metrics that tlhub ships, as modules of `evaluate` that need no network.

Each is an `evaluate.Metric`: it works alone, in `evaluate.combine([...])` and in `evaluate.evaluator(...)`. Those of
classifiers take classes (n,) or logits (n, c) as predictions; `ece` and `loss` need logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from tlhub.errors import UsageError, nearest
from tlhub.evaluation import measures
from tlhub.evaluation.measures import ClassOutcome, ValueOutcome

_CLASSES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
_LOGITS = datasets.Features({"predictions": datasets.List(datasets.Value("float64")),
                             "references": datasets.Value("int64")})
_VALUES = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})
_LOWER_IS_BETTER = frozenset({"ece", "loss", "mae", "rmse", "mse", "perplexity", "bits_per_byte", "wer", "cer",
                              "brier_score"})


class ClassificationMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of predicted classes; predictions are classes (n,) or logits (n, c), references classes (n,)."""

    measure: ClassVar[staticmethod[[ClassOutcome], np.ndarray]]
    needs_logits: ClassVar[bool] = False

    def _info(self) -> evaluate.MetricInfo:
        words = "predictions: logits, one row an example" if self.needs_logits else \
            "predictions: classes, or logits with one row an example"
        features = [_LOGITS] if self.needs_logits else [_CLASSES, _LOGITS]
        return evaluate.MetricInfo(description=str(type(self).__doc__), citation="", features=features,
                                   inputs_description=f"{words}; references: classes.")

    def _compute(self, *, predictions: list[Any], references: list[int],
                 classes: int | None = None) -> dict[str, float]:
        labels = np.asarray(references, dtype=np.int64)
        array = np.asarray(predictions)
        if array.ndim > 1:
            outcome = ClassOutcome.from_logits(array, labels)
        else:
            size = classes or 1 + int(max(array.max(), labels.max(), 1))
            outcome = ClassOutcome(labels, array.astype(np.int64), np.ones(len(array)), np.zeros(len(array)), size)
        return {self.name: float(type(self).measure(outcome))}


class RegressionMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of predicted values; predictions and references are numbers (n,)."""

    measure: ClassVar[staticmethod[[ValueOutcome], np.ndarray]]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(description=str(type(self).__doc__), citation="", features=_VALUES,
                                   inputs_description="predictions: numbers; references: numbers.")

    def _compute(self, *, predictions: list[float], references: list[float]) -> dict[str, float]:
        outcome = ValueOutcome(np.asarray(references, dtype=np.float64), np.asarray(predictions, dtype=np.float64))
        return {self.name: float(type(self).measure(outcome))}


class Accuracy(ClassificationMetric):
    """Share of right predictions."""

    measure = staticmethod(measures.accuracy)


class PrecisionMacro(ClassificationMetric):
    """Precision, averaged over classes."""

    measure = staticmethod(measures.precision_macro)


class RecallMacro(ClassificationMetric):
    """Recall, averaged over classes."""

    measure = staticmethod(measures.recall_macro)


class F1Macro(ClassificationMetric):
    """F1 score, averaged over classes."""

    measure = staticmethod(measures.f1_macro)


class F1(ClassificationMetric):
    """F1 score of class 1 where there are two classes, otherwise averaged over classes."""

    measure = staticmethod(measures.f1)


class Mcc(ClassificationMetric):
    """Matthews' correlation coefficient of labels and predictions."""

    measure = staticmethod(measures.mcc)


class Ece(ClassificationMetric):
    """Expected calibration error over 15 bins."""

    measure = staticmethod(measures.ece)
    needs_logits = True


class Loss(ClassificationMetric):
    """Mean cross-entropy in nats."""

    measure = staticmethod(measures.loss)
    needs_logits = True


class Pearson(RegressionMetric):
    """Pearson's correlation of labels and predictions."""

    measure = staticmethod(measures.pearson)


class Mae(RegressionMetric):
    """Mean absolute error."""

    measure = staticmethod(measures.mae)


class Rmse(RegressionMetric):
    """Root of the mean squared error."""

    measure = staticmethod(measures.rmse)


class R2(RegressionMetric):
    """Share of the labels' variance that is explained."""

    measure = staticmethod(measures.r2)


METRICS: dict[str, type[ClassificationMetric] | type[RegressionMetric]] = {
    "accuracy": Accuracy, "precision_macro": PrecisionMacro, "recall_macro": RecallMacro, "f1_macro": F1Macro,
    "f1": F1, "mcc": Mcc, "ece": Ece, "loss": Loss, "pearson": Pearson, "mae": Mae, "rmse": Rmse, "r2": R2,
}
"""Every metric that is here without the network, by name."""


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Return tlhub's metric of that name, or whatever `evaluate.load` finds under it.

    Args:
        name: A name in `METRICS`, or a module of `evaluate` (fetched over the network or from its cache).

    Returns:
        A metric that keeps its inputs in memory.

    Raises:
        UsageError: There is no such metric, or it could not be fetched.
    """
    if name in METRICS:
        return METRICS[name](keep_in_memory=True)
    try:
        return evaluate.load(name, keep_in_memory=True)
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UsageError(f"metric {name!r} is not one of tlhub's, and evaluate.load could not get it ({reason}); "
                         f"{nearest(name, METRICS)}") from error


def compute(names: Sequence[str], logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Score predictions by several metrics.

    Args:
        names: Metrics by name; those that are not tlhub's get the predicted classes (or values).
        logits: Logits of a classifier, shape (n, c), or values of a regressor, shape (n,) or (n, 1).
        labels: Classes, int64, or values, float, shape (n,).

    Returns:
        Plain numbers by metric; a metric of `evaluate` that returns several gives `<name>_<key>` for the others.

    Raises:
        TlhubError: A logit is not a number.
    """
    outcome = outcome_of(logits, labels)
    scores: dict[str, float] = {}
    for name in names:
        scores.update(_score(name, outcome, logits, labels))
    return scores


def outcome_of(logits: np.ndarray, labels: np.ndarray) -> ClassOutcome | ValueOutcome:
    """Return the per-example columns of a classifier's logits (integer labels) or of a regressor's values.

    Args:
        logits: Shape (n, c), or (n,) or (n, 1) for values.
        labels: Shape (n,); their type tells the two apart.

    Raises:
        TlhubError: A logit is not a number.
    """
    if np.issubdtype(labels.dtype, np.integer):
        return ClassOutcome.from_logits(logits, labels)
    return ValueOutcome(labels.astype(np.float64), logits.reshape(len(labels)).astype(np.float64))


def direction(name: str) -> int:
    """Return 1 where a higher value of the metric is better, -1 where a lower one is; 1 for metrics not known here."""
    return -1 if name in _LOWER_IS_BETTER else 1


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count examples by their class (rows) and the predicted class (columns).

    Args:
        predictions: Predicted classes, int64, shape (n,).
        labels: Right classes, int64, shape (n,).
        classes: The number of classes c.

    Returns:
        int64, shape (c, c).
    """
    counts = np.bincount(labels.astype(np.int64) * classes + predictions, minlength=classes * classes)
    return counts.reshape(classes, classes)


def _score(name: str, outcome: ClassOutcome | ValueOutcome, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    metric = load_metric(name)
    if isinstance(metric, ClassificationMetric) and isinstance(outcome, ClassOutcome):
        found = metric.compute(predictions=logits if metric.needs_logits else outcome.predictions, references=labels,
                               classes=outcome.classes)
    elif isinstance(metric, ClassificationMetric) or (isinstance(metric, RegressionMetric)
                                                      and isinstance(outcome, ClassOutcome)):
        kind = "values" if isinstance(outcome, ValueOutcome) else "classes"
        raise UsageError(f"metric {name!r} does not apply to predicted {kind}; valid: {_valid_for(outcome)}")
    else:
        found = metric.compute(predictions=outcome.predictions, references=labels)
    numbers = {key: float(value) for key, value in found.items() if np.ndim(value) == 0 and not isinstance(value, str)}
    return {key if key == name else f"{name}_{key}": value for key, value in numbers.items()}


def _valid_for(outcome: ClassOutcome | ValueOutcome) -> str:
    kind = ClassificationMetric if isinstance(outcome, ClassOutcome) else RegressionMetric
    return ", ".join(sorted(name for name, metric in METRICS.items() if issubclass(metric, kind)))
