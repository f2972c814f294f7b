"""Detection by one score: its curve over all thresholds, the threshold that is used, and the rates there.

The score of a clip is the log odds that it is a keyword, of whatever class; it is accepted where the score is at least
the threshold. Shapes: n clips, p points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlhub.evaluation.intervals import wilson
from tlhub.evaluation.measures import allowed

_HALF = 0.0
"""Log odds of one half."""
_APART = 1e-6
"""Relative distance of a threshold from a score that has no other above it."""


@dataclass(frozen=True)
class Curve:
    """What is missed and what is falsely accepted at every threshold that makes a difference.

    Attributes:
        thresholds: Falling, float64, shape (p,); infinity first, where nothing is accepted, then each distinct score.
        false_accepts: Other clips that are accepted, int64, shape (p,).
        misses: Keyword clips that are not, int64, shape (p,).
        negatives: Number of other clips.
        positives: Number of keyword clips.
    """

    thresholds: np.ndarray
    false_accepts: np.ndarray
    misses: np.ndarray
    negatives: int
    positives: int


@dataclass(frozen=True)
class Threshold:
    """From which score on a clip is accepted.

    Attributes:
        log_odds: The score.
        note: What a user should know of how it was found; None where it is as asked for.
    """

    log_odds: float
    note: str | None = None

    @property
    def probability(self) -> float:
        """The same as a probability of being a keyword."""
        return float(np.exp(-np.logaddexp(0, -self.log_odds)))


def det_curve(scores: np.ndarray, wanted: np.ndarray) -> Curve:
    """Return the detection error trade-off.

    Martin et al. (1997), "The DET curve in assessment of detection task performance".

    Args:
        scores: Shape (n,).
        wanted: Which clips are keywords, bool, shape (n,).
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    # Clips of one score are accepted together: a point stands at the last of them.
    last = np.append(falling[1:] != falling[:-1], True)[:len(falling)]
    accepted, found = np.arange(1, len(order) + 1)[last], wanted[order].cumsum()[last]
    positives = int(wanted.sum())
    return Curve(np.append(np.inf, falling[last]), np.append(0, accepted - found), positives - np.append(0, found),
                 len(wanted) - positives, positives)


def find_threshold(scores: np.ndarray, wanted: np.ndarray, rate: float) -> Threshold:
    """Return the threshold that finds most keywords while no larger share of other clips is accepted.

    It lies halfway between the last score that is accepted and the first that is not, so that the rounding of another
    device does not decide. Fewer other clips than make one false accept cannot tell the rate: then all of them are
    refused, and it is said.

    Args:
        scores: Of the validation split, shape (n,).
        wanted: Which clips are keywords, bool, shape (n,).
        rate: The largest share of other clips to be accepted, between 0 and 1.
    """
    others = -np.sort(-scores[~wanted])
    if not len(others):
        return Threshold(_HALF, f"validation has no other clip to tell a false-accept rate of {rate:g} by, so a clip "
                                "is a keyword where its probability is one half; add other clips")
    many = int(allowed(rate, np.array(len(others))))
    refused = float(others[many])
    above = scores[scores > refused]
    found = (refused + float(above.min())) / 2 if len(above) else refused + _APART * max(1.0, abs(refused))
    if many:
        return Threshold(found)
    return Threshold(found, f"the {len(others)} other clips of validation are too few to tell a false-accept rate of "
                            f"{rate:g}, which takes {int(np.ceil(1 / rate - 1e-9))}: the threshold lies above all of "
                            "them, and more may pass it than that; add other clips, or raise "
                            "--task_options.false_accept_rate")


def rates(accepted: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Return misses and false accepts with their shares, as plain values; a share of nothing is None.

    Args:
        accepted: Which clips are taken for keywords, bool, shape (n,).
        wanted: Which clips are keywords, bool, shape (n,).
    """
    positives, negatives = int(wanted.sum()), int((~wanted).sum())
    return {"positives": positives, **_share("miss", "misses", int((wanted & ~accepted).sum()), positives),
            "negatives": negatives,
            **_share("false_accept", "false_accepts", int((~wanted & accepted).sum()), negatives)}


def _share(name: str, plural: str, count: int, total: int) -> dict[str, Any]:
    edges = wilson(count, total)
    return {plural: count, f"{name}_rate": count / total if total else None,
            f"{name}_rate_interval": edges and list(edges)}
