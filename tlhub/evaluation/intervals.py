"""Bootstrap intervals: how far a score could be from what more test data would give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlhub.evaluation.metrics import METRICS, applies
from tlhub.evaluation.outcomes import outcome_of
from tlhub.seeding import generator

_CHUNK = 2_000_000
"""Numbers of resamples held at a time in each column: some tens of MB."""


def bootstrap_intervals(names: Sequence[str], logits: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int,
                        level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of metrics over resamples of the examples.

    Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13.

    Args:
        names: Metrics by name; those that are not tlhub's, or do not apply to such predictions, get no interval.
        logits: Logits of classes or labels, shape (n, c), or values, shape (n, t), (n, 1) or (n,).
        labels: Classes, integer, shape (n,); labels, bool, shape (n, c); or values, float, shape (n, t) or (n,).
        resamples: How many resamples; 0 gives no intervals.
        seed: The run's seed.
        level: The share of resamples inside the interval.

    Returns:
        (low, high) by metric.

    Raises:
        TlhubError: An output is not a number.
    """
    outcome = outcome_of(logits, labels)
    count = len(labels)
    chosen = [name for name in names if applies(name, outcome)]
    if resamples < 1 or count == 0 or not chosen:
        return {}
    at_a_time = max(1, _CHUNK // outcome.width)
    random = generator(seed, "bootstrap")
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for start in range(0, resamples, at_a_time):
        rows = min(at_a_time, resamples - start)
        sample = outcome.take(random.integers(0, count, (rows, count), dtype=np.int32))
        for name in chosen:
            drawn[name].append(METRICS[name].measure(sample))
    edges = [(1 - level) / 2, (1 + level) / 2]
    return {name: _pair(np.quantile(np.concatenate(values), edges)) for name, values in drawn.items()}


def _pair(edges: np.ndarray) -> tuple[float, float]:
    return float(edges[0]), float(edges[1])
