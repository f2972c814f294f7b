"""What metrics give: a number each, or a number for each of several parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Score = float | None | dict[str, float | None]
"""A number, or numbers by part (`{"0.01": 0.2, "0.05": 0.1}`); None where the examples are too few to tell one."""
Scores = Mapping[str, Score]
"""By metric."""


def flat(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores one by one, those of parts as `metric/part`.

    Args:
        scores: Scores by metric, or what else a metric has for each of its parts, such as intervals.
    """
    numbers: dict[str, Any] = {}
    for name, value in scores.items():
        numbers |= {f"{name}/{part}": inner for part, inner in value.items()} if isinstance(value, dict) \
            else {name: value}
    return numbers


def one_number(score: Score) -> float:
    """Return the number that a score is.

    Raises:
        TypeError: It has parts, or is none.
    """
    if not isinstance(score, (int, float)):
        raise TypeError(f"the score {score!r} is not one number")
    return score


def metric_of(name: str) -> str:
    """Return the metric that a name of `flat` belongs to."""
    return name.partition("/")[0]
