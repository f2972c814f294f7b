"""Scores of each class, label or target by itself: where an average comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlhub.evaluation import measures
from tlhub.evaluation.outcomes import ClassOutcome, LabelsOutcome, TokenOutcome, ValueOutcome, outcome_of

Row = dict[str, float | None]
"""Numbers by their names; None where there is nothing to compute one of."""


def breakdown(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Row]:
    """Return the scores of each class, label or target.

    Args:
        logits: Logits of classes or labels, shape (n, c), or values, shape (n, t).
        labels: Classes, integer, shape (n,); labels, bool, shape (n, c); or values, float, shape (n, t).
        names: Of the classes, labels or targets, in the order of the outputs.

    Returns:
        By name, in that order. For classes and labels: `examples`, `precision`, `recall` and `f1`. For targets: what
        `per_target` gives; nothing where there is one target, which the scores as a whole are those of, nor for tokens.

    Raises:
        TlhubError: An output is not a number.
    """
    outcome = outcome_of(logits, labels)
    if isinstance(outcome, TokenOutcome):
        return {}
    if not isinstance(outcome, ValueOutcome):
        return _per_class(outcome, names)
    return per_target(logits, labels, names) if len(names) > 1 else {}


def recall_of_classes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of each class's (or label's) examples that is found, float64, shape (c,); NaN without examples.

    Args:
        logits: Shape (n, c).
        labels: Classes, integer, shape (n,), or labels, bool, shape (n, c).

    Raises:
        TlhubError: A logit is not a number.
        ValueError: The labels are values.
    """
    outcome = outcome_of(logits, labels)
    if isinstance(outcome, (ValueOutcome, TokenOutcome)):
        raise ValueError(f"labels of type {labels.dtype} are values or tokens, which have no recall")
    return np.where(outcome.true_counts > 0, measures.recalls(outcome), np.nan)


def per_target(values: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Row]:
    """Return `mae`, `rmse`, `r2` and `pearson` of each target.

    Args:
        values: Predicted values, shape (n, t).
        labels: Right values, float, shape (n, t).
        names: Of the targets.

    Raises:
        TlhubError: A value is not a finite number.
    """
    outcome = ValueOutcome.from_values(values, labels)
    rows: dict[str, Row] = {}
    for number, name in enumerate(names):
        target = outcome.target(number)
        rows[name] = {"mae": float(measures.mae(target)), "rmse": float(measures.rmse(target)),
                      "r2": float(measures.r2(target)), "pearson": float(measures.pearson(target))}
    return rows


def _per_class(outcome: ClassOutcome | LabelsOutcome, names: Sequence[str]) -> dict[str, Row]:
    precision, recall, f1 = measures.precisions(outcome), measures.recalls(outcome), measures.f1_scores(outcome)
    rows: dict[str, Row] = {}
    for number, name in enumerate(names):
        examples, said = int(outcome.true_counts[number]), outcome.predicted_counts[number] > 0
        rows[name] = {"examples": examples, "precision": float(precision[number]) if said else None,
                      "recall": float(recall[number]) if examples else None,
                      "f1": float(f1[number]) if examples or said else None}
    return rows
