"""The report's section on the operating point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlhub.evaluation.report import cell, interval, table

_MOST_GROUPS = 15
_SPLITS = ("test", "validation")


def operating_point(point: Mapping[str, Any]) -> list[str]:
    """Return the lines of the section: the threshold and the rates there, in all, by keyword and by group.

    Args:
        point: The `operating_point` of `metrics.json`.
    """
    splits = [split for split in _SPLITS if split in point]
    lines = ["## Operating point", "",
             f"A clip is taken for a keyword where its probability of being one is at least {point['threshold']:.6g}. "
             f"On validation that finds most keywords while at most {100 * point['false_accept_rate']:g}% of the other "
             "clips are accepted. `tlhub predict`, `tlhub evaluate` and the confusion matrix decide by it; accuracy, "
             "precision, recall and F1 take the most probable class."]
    if point["note"]:
        lines += ["", f"> **Warning.** {point['note'][0].upper()}{point['note'][1:]}."]
    header = ("", "keyword clips", "missed", "miss rate", "95% interval", "other clips", "false accepts",
              "false-accept rate", "95% interval")
    lines += ["", *table(header, [(split, *_misses(point[split]), *_false_accepts(point[split])) for split in splits])]
    lines += ["", "Intervals are Wilson's and take clips as independent, which those of one speaker are not. The rates "
                  "of validation are optimistic, as it chose the threshold. Rates are shares of clips: how often a "
                  "detector fires in an hour of listening is another question."]
    return lines + _keywords(point[splits[0]], splits[0]) + _groups(point[splits[0]], splits[0])


def _misses(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (cell(row["positives"]), cell(row["misses"]), cell(row["miss_rate"]),
            interval(row.get("miss_rate_interval")))


def _false_accepts(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (cell(row["negatives"]), cell(row["false_accepts"]), cell(row["false_accept_rate"]),
            interval(row["false_accept_rate_interval"]))


def _keywords(rows: Mapping[str, Any], split: str) -> list[str]:
    keywords: Mapping[str, Mapping[str, Any]] = rows.get("keywords", {})
    if not keywords:
        return []
    header = ("keyword", "clips", "missed", "miss rate", "95% interval", "taken for another keyword")
    return ["", f"By keyword, on {split}:", "",
            *table(header, [(name, *_misses(row), cell(row["confused"])) for name, row in keywords.items()])]


def _groups(rows: Mapping[str, Any], split: str) -> list[str]:
    """Tell the groups that errors come from, the worst first."""
    groups: Mapping[str, Mapping[str, Any]] = rows.get("groups", {})
    if not groups:
        return []
    missed = sum(row["misses"] > 0 for row in groups.values())
    accepted = sum(row["false_accepts"] > 0 for row in groups.values())
    having = sum(row["positives"] > 0 for row in groups.values())
    others = sum(row["negatives"] > 0 for row in groups.values())
    lines = ["", f"By group, on {split}: misses in {missed} of the {having} groups with keyword clips, false accepts "
                 f"in {accepted} of the {others} with other clips."]
    ranks = {name: (-(row["miss_rate"] or 0), -(row["false_accept_rate"] or 0), name) for name, row in groups.items()
             if row["misses"] or row["false_accepts"]}
    worst = sorted(ranks, key=lambda name: ranks[name])
    if not worst:
        return lines
    header = ("group", "keyword clips", "missed", "miss rate", "other clips", "false accepts", "false-accept rate")
    shown = [(name, *(cell(groups[name][key]) for key in (
        "positives", "misses", "miss_rate", "negatives", "false_accepts", "false_accept_rate")))
             for name in worst[:_MOST_GROUPS]]
    more = [f"{len(worst) - _MOST_GROUPS} more have errors."] if len(worst) > _MOST_GROUPS else []
    return [*lines, "", *table(header, shown), *(["", *more] if more else [])]
