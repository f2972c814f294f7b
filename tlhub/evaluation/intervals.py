"""Intervals: how far a score, or a share of some cases, could be from what more test data would give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from tlhub.evaluation.metrics import METRICS, applies
from tlhub.evaluation.outcomes import outcome_of
from tlhub.evaluation.scores import Score
from tlhub.seeding import generator

Interval = tuple[float, float] | dict[str, tuple[float, float] | None]
_Z = 1.959963984540054
"""Standard deviations within which 95% of a normal distribution lie."""
_CHUNK = 2_000_000
"""Numbers of resamples held at a time in each column: some tens of MB."""


def bootstrap_intervals(names: Sequence[str], logits: np.ndarray, labels: np.ndarray, *, resamples: int, seed: int,
                        groups: np.ndarray | None = None, level: float = 0.95) -> dict[str, Interval]:
    """Return percentile intervals of metrics over resamples of the examples.

    Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13. Examples of one group (a speaker, a
    patient) are alike, so groups are drawn whole: the cluster bootstrap of Davison and Hinkley (1997), "Bootstrap
    methods and their application", section 3.8. The interval then covers other groups, not other examples of the same.
    Resamples of groups that lack a class are left out; where that is most of them, or there is one group only, the
    groups cannot tell, and there are no intervals.

    Args:
        names: Metrics by name; those that are not tlhub's, or do not apply to such predictions, get no interval.
        logits: Logits of classes or labels, shape (n, c), or values, shape (n, t), (n, 1) or (n,).
        labels: Classes, integer, shape (n,); labels, bool, shape (n, c); or values, float, shape (n, t) or (n,).
        resamples: How many resamples; 0 gives no intervals.
        seed: The run's seed.
        groups: The group of each example, shape (n,), or None.
        level: The share of resamples inside the interval.

    Returns:
        (low, high) by metric, or by metric and part; None for a part that the examples cannot tell.

    Raises:
        TlhubError: An output is not a number.
    """
    outcome = outcome_of(logits, labels)
    count = len(labels)
    chosen = [name for name in names if applies(name, outcome)]
    if resamples < 1 or count == 0 or not chosen:
        return {}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for indices in _draws(labels, groups, resamples, seed, outcome.width):
        sample = outcome.take(indices)
        for name in chosen:
            drawn[name].append(METRICS[name].measure(sample))
    edges = [(1 - level) / 2, (1 + level) / 2]
    if not any(drawn.values()):
        return {}
    return {name: _interval(np.concatenate(values), METRICS[name].score(outcome), edges)
            for name, values in drawn.items()}


def paired_interval(name: str, logits: np.ndarray, others: np.ndarray, labels: np.ndarray, *, resamples: int,
                    seed: int, groups: np.ndarray | None = None, level: float = 0.95) -> tuple[float, float] | None:
    """Return a percentile interval of how much one model's score exceeds another's on the same examples.

    Each resample scores both models, so what makes an example hard for both does not widen the interval.

    Args:
        name: A metric of tlhub that is one number.
        logits: Of the one model, as in `bootstrap_intervals`.
        others: Of the other model, of the same shape.
        labels: As in `bootstrap_intervals`.
        resamples: How many resamples, at least one.
        seed: What they are drawn from.
        groups: As in `bootstrap_intervals`.
        level: The share of resamples inside the interval.

    Returns:
        (low, high) of the difference; None where the examples cannot tell.

    Raises:
        TlhubError: An output is not a number.
    """
    pair = outcome_of(logits, labels), outcome_of(others, labels)
    found: list[np.ndarray] = []
    for indices in _draws(labels, groups, resamples, seed, pair[0].width):
        one, other = (METRICS[name].measure(outcome.take(indices)) for outcome in pair)
        found.append(one - other)
    differences = np.concatenate(found) if found else np.empty(0)
    if not np.isfinite(differences).any():
        return None
    return _pair(np.nanquantile(differences, [(1 - level) / 2, (1 + level) / 2]))


def group_counts(groups: np.ndarray | None, labels: np.ndarray) -> dict[str, int] | None:
    """Return of how many groups the intervals tell; None where every example stands for itself.

    Args:
        groups: The group of each example, shape (n,), or None.
        labels: As in `bootstrap_intervals`.

    Returns:
        `all` of them, and the `fewest` that any class is in.
    """
    if groups is None or len(np.unique(groups)) == len(groups):
        return None
    _, members = np.unique(groups, return_inverse=True)
    kinds = labels if _are_classes(labels) else np.zeros(len(members), dtype=np.int64)
    pairs = np.unique(np.stack([kinds, members]), axis=1)
    return {"all": int(members.max()) + 1, "fewest": int(np.unique(pairs[0], return_counts=True)[1].min())}


def wilson(count: int, total: int) -> tuple[float, float] | None:
    """Return the 95% interval of a share of independent cases; None where there are none.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference": unlike a bootstrap's, it says
    of no miss in 100 that there may be 3.7%.

    Args:
        count: The cases that count.
        total: All cases.
    """
    if not total:
        return None
    share = count / total
    centre = (share + _Z**2 / (2 * total)) / (1 + _Z**2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2)) / (1 + _Z**2 / total)
    # The ends are exactly 0 and 1 where no case or every case counts, up to rounding.
    return max(0.0, centre - half) if count else 0.0, min(1.0, centre + half) if count < total else 1.0


def _draws(labels: np.ndarray, groups: np.ndarray | None, resamples: int, seed: int,
           width: int) -> Iterator[np.ndarray]:
    """Yield the examples of all resamples, integer, shape (r, m): many of one size, or one at a time of groups.

    Args:
        labels: Of the examples, shape (n, ...).
        groups: The group of each, shape (n,), or None.
        resamples: How many resamples.
        seed: The run's seed.
        width: Numbers that one resample takes in each column.
    """
    count, random = len(labels), generator(seed, "bootstrap")
    if groups is not None and len(groups) != count:
        raise ValueError(f"{len(groups)} groups of {count} examples")
    if groups is None or len(np.unique(groups)) == count:
        at_a_time = max(1, _CHUNK // width)
        for start in range(0, resamples, at_a_time):
            yield random.integers(0, count, (min(at_a_time, resamples - start), count), dtype=np.int32)
        return
    _, members = np.unique(groups, return_inverse=True)
    together = np.split(np.argsort(members, kind="stable"), np.bincount(members).cumsum()[:-1])
    if len(together) == 1:
        return
    picks = random.integers(0, len(together), (resamples, len(together)))
    kinds = np.unique(labels, return_inverse=True)[1] if _are_classes(labels) else np.zeros(count, dtype=np.int64)
    holds = np.zeros((len(together), kinds.max() + 1), dtype=bool)
    holds[members, kinds] = True
    whole = np.array([holds[pick].any(axis=0).all() for pick in picks])
    if 2 * whole.sum() < resamples:
        return
    for pick in picks[whole]:
        yield np.concatenate([together[number] for number in pick])[None]


def _are_classes(labels: np.ndarray) -> bool:
    return labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)


def _interval(values: np.ndarray, score: Score, edges: Sequence[float]) -> Interval:
    """Return the quantiles at two edges of resampled values, shape (r,), or those of each part, shape (r, parts)."""
    if not isinstance(score, dict):
        return _pair(np.quantile(values, edges))
    # A resample may lack what a part is about; without anything of it in the sample itself there is no interval.
    return {part: None if value is None else _pair(np.nanquantile(values[:, number], edges))
            for number, (part, value) in enumerate(score.items())}


def _pair(edges: np.ndarray) -> tuple[float, float]:
    return float(edges[0]), float(edges[1])
