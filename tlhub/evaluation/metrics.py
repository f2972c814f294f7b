"""The metrics that tlhub ships, as modules of `evaluate` that need no network.

Each is an `evaluate.Metric`: it works alone, in `evaluate.combine([...])` and in `evaluate.evaluator(...)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from tlhub.errors import UsageError, nearest
from tlhub.evaluation import measures
from tlhub.evaluation.outcomes import ClassOutcome, LabelsOutcome, Outcome, TokenOutcome, ValueOutcome, outcome_of
from tlhub.evaluation.scores import Score, Scores, metric_of

_NUMBER, _CLASS = datasets.Value("float64"), datasets.Value("int64")
_ROW = datasets.List(_NUMBER)
_CLASSES = datasets.Features({"predictions": _CLASS, "references": _CLASS})
_LOGITS = datasets.Features({"predictions": _ROW, "references": _CLASS})
_ROWS = datasets.Features({"predictions": _ROW, "references": _ROW})
_VALUES = datasets.Features({"predictions": _NUMBER, "references": _NUMBER})
_WORDS = {ClassOutcome: "classes", LabelsOutcome: "several labels", ValueOutcome: "values",
          TokenOutcome: "tokens"}
_MODULE = re.compile(r"[a-z0-9_]+")
"""Names of the modules that `evaluate` itself keeps; others, with an owner or a path, are scripts of anybody's."""
_LOWER_IS_BETTER = frozenset({"ece", "loss", "mae", "rmse", "mse", "mape", "smape", "mase", "perplexity",
                              "bits_per_byte", "wer", "cer", "ter", "brier_score", "miss_rate_at_fa_rate"})


class Metric(evaluate.Metric):  # type: ignore[misc]
    """A metric of tlhub; what it takes follows from the kinds of outcome that it is defined for.

    Classes: predictions are classes (n,) or logits (n, c), references classes (n,). Several labels: predictions are 0
    and 1 or logits (n, c), references 0 and 1 (n, c). Values: both are numbers (n,), or (n, t) with t targets. Tokens:
    predictions are the summed loss and the tokens predicted right of each example (n, 2), references its tokens and
    their bytes (n, 2).

    Attributes:
        measure: What it computes of an outcome.
        kinds: The kinds of outcome.
        needs_logits: Whether classes, or 0 and 1 for labels, are not enough as predictions.
        parts: Names of the parts, where `measure` gives several numbers, shape (..., parts).
        told: Which of the parts the examples can tell, bool, of the same shape.
    """

    measure: ClassVar[staticmethod[[Any], np.ndarray]]
    kinds: ClassVar[tuple[type[Outcome], ...]]
    needs_logits: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ()
    told: ClassVar[staticmethod[[Any], np.ndarray] | None] = None

    @classmethod
    def score(cls, outcome: Outcome) -> Score:
        """Return the measure of one sample as plain numbers; None for a part that the examples cannot tell."""
        found = cls.measure(outcome)
        if not cls.parts:
            return float(found)
        known = np.isfinite(found) if cls.told is None else cls.told(outcome)
        return {part: float(value) if enough else None
                for part, value, enough in zip(cls.parts, found, known, strict=True)}

    def _info(self) -> evaluate.MetricInfo:
        features = []
        if ClassOutcome in self.kinds:
            features += [_LOGITS] if self.needs_logits else [_CLASSES, _LOGITS]
        if ValueOutcome in self.kinds:
            features.append(_VALUES)
        if {LabelsOutcome, ValueOutcome, TokenOutcome} & set(self.kinds):
            features.append(_ROWS)
        return evaluate.MetricInfo(description=str(type(self).__doc__), citation="", features=features,
                                   inputs_description=str(Metric.__doc__))

    def _compute(self, *, predictions: list[Any], references: list[Any],
                 classes: int | None = None) -> dict[str, Score]:
        outcome = _outcome_of_lists(self, np.asarray(predictions), np.asarray(references), classes)
        return {self.name: self.score(outcome)}


class Accuracy(Metric):
    """Share of right predictions; of several labels of an example, all have to be right."""

    measure = staticmethod(measures.accuracy)
    kinds = (ClassOutcome, LabelsOutcome)


class PrecisionMacro(Metric):
    """Precision, averaged over classes or labels."""

    measure = staticmethod(measures.precision_macro)
    kinds = (ClassOutcome, LabelsOutcome)


class RecallMacro(Metric):
    """Recall, averaged over classes or labels."""

    measure = staticmethod(measures.recall_macro)
    kinds = (ClassOutcome, LabelsOutcome)


class F1Macro(Metric):
    """F1 score, averaged over classes or labels."""

    measure = staticmethod(measures.f1_macro)
    kinds = (ClassOutcome, LabelsOutcome)


class F1Micro(Metric):
    """F1 score of all decisions of all labels together; of classes it is the accuracy."""

    measure = staticmethod(measures.f1_micro)
    kinds = (ClassOutcome, LabelsOutcome)


class F1(Metric):
    """F1 score of class 1 where there are two classes, otherwise averaged over classes."""

    measure = staticmethod(measures.f1)
    kinds = (ClassOutcome,)


class Mcc(Metric):
    """Matthews' correlation coefficient of labels and predictions."""

    measure = staticmethod(measures.mcc)
    kinds = (ClassOutcome,)


class Ece(Metric):
    """Expected calibration error over 15 bins; of several labels every decision counts."""

    measure = staticmethod(measures.ece)
    kinds = (ClassOutcome, LabelsOutcome)
    needs_logits = True


class AveragePrecision(Metric):
    """Average precision of finding all classes but the first, such as keywords, by their probability."""

    measure = staticmethod(measures.average_precision)
    kinds = (ClassOutcome,)
    needs_logits = True


class MissRateAtFaRate(Metric):
    """Share of all classes but the first that is missed where at most 1% and 5% of the first class are accepted.

    A rate is None where the first class has fewer examples than make one false accept.
    """

    measure = staticmethod(measures.miss_rates)
    kinds = (ClassOutcome,)
    needs_logits = True
    parts = tuple(f"{rate:g}" for rate in measures.FALSE_ACCEPT_RATES)
    told = staticmethod(measures.miss_rates_told)


class Loss(Metric):
    """Mean cross-entropy in nats, averaged over several labels, or over tokens; of values the mean squared error.

    Rows of references are taken for labels: several targets have `rmse`, and tokens `perplexity`.
    """

    measure = staticmethod(measures.loss)
    kinds = (ClassOutcome, LabelsOutcome, ValueOutcome, TokenOutcome)
    needs_logits = True


class Pearson(Metric):
    """Pearson's correlation of labels and predictions, averaged over targets."""

    measure = staticmethod(measures.pearson)
    kinds = (ValueOutcome,)


class Mae(Metric):
    """Mean absolute error, averaged over targets."""

    measure = staticmethod(measures.mae)
    kinds = (ValueOutcome,)


class Rmse(Metric):
    """Root of the mean squared error, averaged over targets."""

    measure = staticmethod(measures.rmse)
    kinds = (ValueOutcome,)


class R2(Metric):
    """Share of the labels' variance that is explained, averaged over targets."""

    measure = staticmethod(measures.r2)
    kinds = (ValueOutcome,)


class Perplexity(Metric):
    """Between how many equally likely tokens a language model wavers: e to the mean loss."""

    measure = staticmethod(measures.perplexity)
    kinds = (TokenOutcome,)


class BitsPerByte(Metric):
    """Bits of a language model's loss for each byte of the text in UTF-8, which needs no common tokenizer."""

    measure = staticmethod(measures.bits_per_byte)
    kinds = (TokenOutcome,)


class TokenAccuracy(Metric):
    """Share of tokens that a language model predicts right, given what comes before."""

    measure = staticmethod(measures.token_accuracy)
    kinds = (TokenOutcome,)


METRICS: dict[str, type[Metric]] = {
    "accuracy": Accuracy, "precision_macro": PrecisionMacro, "recall_macro": RecallMacro, "f1_macro": F1Macro,
    "f1_micro": F1Micro, "f1": F1, "mcc": Mcc, "ece": Ece, "average_precision": AveragePrecision,
    "miss_rate_at_fa_rate": MissRateAtFaRate, "loss": Loss, "pearson": Pearson, "mae": Mae, "rmse": Rmse, "r2": R2,
    "perplexity": Perplexity, "bits_per_byte": BitsPerByte, "token_accuracy": TokenAccuracy,
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
    if not _MODULE.fullmatch(name) or Path(name).exists():
        # `evaluate` would run a script of that name, in a folder here or of anybody on the Hub.
        raise UsageError(f"metric {name!r} is not one of tlhub's, and only modules of `evaluate` itself are loaded "
                         f"beside them; {nearest(name, METRICS)}")
    try:
        return evaluate.load(name, keep_in_memory=True)
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise UsageError(f"metric {name!r} is not one of tlhub's, and evaluate.load could not get it ({reason}); "
                         f"{nearest(name, METRICS)}") from error


def compute(names: Sequence[str], logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Score predictions by several metrics.

    Metrics of tlhub are measured on the arrays: the same functions as in their modules, without the way through Arrow,
    which takes most of the time of a validation.

    Args:
        names: Metrics by name; those that are not tlhub's get the predicted classes, 0 and 1 of each label, or values.
        logits: Logits of classes or labels, shape (n, c), values, shape (n, t), (n, 1) or (n,), or what
            `TokenOutcome.from_sums` takes, shape (n, 2).
        labels: Classes, integer, shape (n,); labels, bool, shape (n, c); values, float, shape (n, t) or (n,); or tokens
            and bytes, integer, shape (n, 2).

    Returns:
        Plain numbers by metric, or by metric and part; a metric of `evaluate` that returns several gives
        `<name>_<key>` for the others.

    Raises:
        UsageError: A metric is unknown, or does not apply to such labels.
        TlhubError: An output is not a number.
    """
    outcome = outcome_of(logits, labels)
    scores: dict[str, Score] = {}
    for name in names:
        if applies(name, outcome):
            scores[name] = METRICS[name].score(outcome)
        elif name in METRICS or isinstance(outcome, TokenOutcome):
            valid = ", ".join(sorted(other for other in METRICS if applies(other, outcome)))
            raise UsageError(f"metric {name!r} does not apply to predicted {_WORDS[type(outcome)]}; valid: {valid}")
        else:
            scores.update(_score_elsewhere(name, outcome))
    return scores


def applies(name: str, outcome: Outcome) -> bool:
    """Tell whether a metric is tlhub's and defined for such an outcome."""
    return name in METRICS and isinstance(outcome, METRICS[name].kinds)


def direction(name: str) -> int:
    """Return 1 where a higher value of the metric is better, -1 where a lower one is; 1 for metrics not known here.

    Args:
        name: Of a metric, or of one of its parts (`tlhub.evaluation.scores.flat`).
    """
    return -1 if metric_of(name) in _LOWER_IS_BETTER else 1


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


def _outcome_of_lists(metric: Metric, predictions: np.ndarray, references: np.ndarray, classes: int | None) -> Outcome:
    """Return the outcome of what a module of `evaluate` was given.

    Raises:
        UsageError: The references of several labels are other than 0 and 1.
    """
    if metric.kinds == (TokenOutcome,):
        return TokenOutcome.from_sums(predictions, references)
    if ClassOutcome in metric.kinds and references.ndim == 1 and predictions.ndim > 1:
        return ClassOutcome.from_logits(predictions, references.astype(np.int64))
    if LabelsOutcome in metric.kinds and references.ndim > 1:
        others = references[(references != 0) & (references != 1)]
        if others.size:
            raise UsageError(f"metric {metric.name!r}: references of several labels are 0 or 1; found {others[0]:g}")
        return LabelsOutcome.from_logits(predictions, references)
    if ValueOutcome in metric.kinds:
        return ValueOutcome.from_values(predictions, references)
    said, right = predictions.astype(np.int64), references.astype(np.int64)
    size = classes or 1 + int(max(said.max(), right.max(), 1))
    return ClassOutcome(right, said, np.ones(len(said)), np.zeros(len(said)), np.zeros(len(said)), size)


def _score_elsewhere(name: str, outcome: ClassOutcome | LabelsOutcome | ValueOutcome) -> dict[str, float]:
    """Score by a metric of `evaluate`, which gets plain numbers."""
    predictions, references = outcome.predictions, outcome.labels
    if isinstance(outcome, LabelsOutcome):
        predictions, references = predictions.astype(np.int64), references.astype(np.int64)
    elif isinstance(outcome, ValueOutcome) and predictions.shape[1] == 1:
        predictions, references = predictions[:, 0], references[:, 0]
    found = load_metric(name).compute(predictions=predictions, references=references)
    numbers = {key: float(value) for key, value in found.items() if np.ndim(value) == 0 and not isinstance(value, str)}
    return {key if key == name else f"{name}_{key}": value for key, value in numbers.items()}
