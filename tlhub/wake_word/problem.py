"""Keyword spotting: some classes against everything else, decided by a threshold that validation chooses."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tlhub.config import RunConfig, task_options
from tlhub.data.cache import write_atomically
from tlhub.data.rows import group_name
from tlhub.evaluation import metrics, plots
from tlhub.evaluation.outcomes import log_odds, log_softmax
from tlhub.problems import SingleLabel
from tlhub.wake_word.detection import Threshold, det_curve, find_threshold, rates
from tlhub.wake_word.summary import operating_point

logger = logging.getLogger(__name__)


class KeywordSpotting(SingleLabel):
    """Class 0 is everything else, and the keywords follow; labels int64, shape (n,).

    The best epoch is that of the highest average precision: unlike accuracy it is not carried by the many other clips,
    unlike a miss rate it moves with every clip rather than with the one at the threshold, and it weighs most where few
    others are accepted.

    Args:
        known: The content of `metrics.json` of a finished run, whose threshold is taken on.
    """

    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision_macro", "recall_macro", "f1_macro",
                                          "average_precision", "miss_rate_at_fa_rate", "ece", "loss")
    best: ClassVar[str] = "average_precision"

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self._known: Mapping[str, Any] | None = None if known is None else known["operating_point"]

    def facts(self, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray],
              groups: Mapping[str, np.ndarray | None], names: Sequence[str], config: RunConfig) -> dict[str, Any]:
        """Return the `operating_point`: the threshold, and what is missed and falsely accepted there by split.

        In all of each split, and of it by keyword where there are several and by group where there are any.
        """
        rate = task_options(config).false_accept_rate
        threshold = self._threshold()
        if threshold is None:
            threshold = find_threshold(log_odds(outputs["validation"]), labels["validation"] > 0, rate)
            if threshold.note is not None:
                logger.info("beware: %s", threshold.note)
        point: dict[str, Any] = {"false_accept_rate": rate, "threshold": threshold.probability,
                                 "log_odds": threshold.log_odds, "note": threshold.note}
        for split, values in outputs.items():
            said = decide(values, threshold)
            point[split] = rates(said > 0, labels[split] > 0)
            if len(names) > 2:
                point[split]["keywords"] = _by_keyword(said, labels[split], names)
            members = groups[split]
            if members is not None:
                point[split]["groups"] = _by_group(said > 0, labels[split] > 0, members)
        return {"operating_point": point}

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return of each row what it is taken for by the threshold, the probability of that, and all probabilities."""
        rows = np.exp(log_softmax(outputs))
        said = decide(outputs, self._threshold() or Threshold(0.0))
        return [{"label": names[label], "score": row[label], "scores": dict(zip(names, row, strict=True))}
                for label, row in zip(said.tolist(), rows.tolist(), strict=True)]

    def draw(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str,
             folder: Path) -> tuple[Path, ...]:
        """Draw the detection error trade-off, with its points as a csv, and the confusion matrix at the threshold.

        There is no trade-off where the split lacks keywords or other clips.
        """
        said = decide(outputs, self._threshold() or Threshold(0.0))
        confusion = plots.confusion(metrics.confusion_matrix(said, labels, len(names)), names,
                                    folder / f"confusion_{split}.png")
        wanted = labels > 0
        if wanted.all() or not wanted.any():
            return (confusion,)
        return (self._draw_trade_off(outputs, labels, names, folder / f"det_{split}.png"),
                _write_curve(outputs, labels, names, folder / f"det_{split}.csv"), confusion)

    def sections(self, content: Mapping[str, Any]) -> list[list[str]]:
        """Return the section of the operating point."""
        return [operating_point(content["operating_point"])]

    def _threshold(self) -> Threshold | None:
        return None if self._known is None else Threshold(self._known["log_odds"], self._known["note"])

    def _draw_trade_off(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], path: Path) -> Path:
        """Draw a line for the keyword; for several one for all of them, and one each."""
        scores, other, threshold = log_odds(outputs), labels == 0, self._threshold()
        parts = {name: labels == number for number, name in enumerate(names[1:], start=1)}
        if len(parts) > 1:
            parts = {"all keywords": ~other, **parts}
        curves, points = {}, {}
        for name, wanted in parts.items():
            if wanted.any():
                kept = wanted | other
                curve = det_curve(scores[kept], wanted[kept])
                curves[name] = (curve.false_accepts / curve.negatives, curve.misses / curve.positives)
                if threshold is not None:
                    accepted = scores >= threshold.log_odds
                    points[name] = (float(accepted[other].mean()), float(1 - accepted[wanted].mean()))
        return plots.trade_off(curves, points, path, smallest=(1 / int(other.sum()), 1 / int((~other).sum())))


def decide(outputs: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Return the class that each row of outputs (n, c) is taken for, int64, shape (n,).

    It is 0 below the threshold, and from it on the most probable keyword, also where 0 is more probable still.
    """
    return np.where(log_odds(outputs) >= threshold.log_odds, 1 + outputs[:, 1:].argmax(axis=1), 0)


def _by_keyword(said: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what is missed of each keyword, and how much of it is taken for another one."""
    rows = {}
    for number, name in enumerate(names[1:], start=1):
        mine = said[labels == number]
        found = rates(mine > 0, np.ones(len(mine), dtype=bool))
        rows[name] = {key: found[key] for key in ("positives", "misses", "miss_rate", "miss_rate_interval")} | {
            "confused": int(((mine > 0) & (mine != number)).sum())}
    return rows


def _by_group(accepted: np.ndarray, wanted: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return the rates of each group, without rows that have none."""
    rows = {}
    for group in np.unique(groups).tolist():
        name, mine = group_name(group), groups == group
        if name is not None:
            found = rates(accepted[mine], wanted[mine])
            rows[name] = {key: value for key, value in found.items() if not key.endswith("_interval")}
    return rows


def _write_curve(outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Write the points of the trade-off; of several keywords also how many clips of each are missed."""
    scores, wanted = log_odds(outputs), labels > 0
    curve = det_curve(scores, wanted)
    own = [np.sort(scores[labels == number]) for number in range(1, len(names))] if len(names) > 2 else []
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["threshold", "log_odds", "false_accepts", "false_accept_rate", "misses", "miss_rate",
                         *(f"misses of {name}" for name in names[1:] if own)])
        for value, false_accepts, misses in zip(curve.thresholds.tolist(), curve.false_accepts.tolist(),
                                                curve.misses.tolist(), strict=True):
            writer.writerow([f"{Threshold(value).probability:.9g}", f"{value:.9g}", false_accepts,
                             f"{false_accepts / curve.negatives:.6g}", misses, f"{misses / curve.positives:.6g}",
                             *(int(np.searchsorted(values, value)) for values in own)])
        write_atomically(path, text.getvalue().encode())
    return path
