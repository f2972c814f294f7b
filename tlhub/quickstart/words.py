"""The quickstart's results in words: numbers, the table of a terminal, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_DATA = {"image-classification": "photos/", "wake-word": "clips/", "text-classification": "messages.csv",
         "text-generation": "texts/"}
"""What the commands for one's own data name, by task."""


def metric_words(findings: Mapping[str, Any]) -> str:
    """Return what a task is scored by, with the direction where lower is better."""
    metric: str = findings["show"]["metric"]
    return metric.replace("_", " ") + (", lower is better" if lower_is_better(findings) else "")


def lower_is_better(findings: Mapping[str, Any]) -> bool:
    """Return whether a lower score is the better one."""
    return bool(findings["lower_is_better"])


def number(value: float) -> str:
    """Return a score with three decimals."""
    return f"{value:.3f}"


def between(interval: Sequence[float] | None, *, signed: bool = False) -> str:
    """Return an interval in brackets; nothing where there is none."""
    if interval is None:
        return ""
    return "[" + ", ".join(f"{edge:+.2f}" if signed else f"{edge:.2f}" for edge in interval) + "]"


def gain(row: Mapping[str, Any], control: Mapping[str, Any], *, lower: bool) -> float:
    """Return how much better a row's score is than the control's."""
    found: float = control["score"] - row["score"] if lower else row["score"] - control["score"]
    return found


def best(findings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row that validation prefers; test scores choose nothing."""
    return preferred(findings["rows"], lower=lower_is_better(findings))


def preferred(rows: Sequence[Mapping[str, Any]], *, lower: bool) -> Mapping[str, Any]:
    """Return the row with the best score on validation, whose lower values may be the better ones."""
    return max(rows, key=lambda row: -row["validation"] if lower else row["validation"])


def sizes(findings: Mapping[str, Any]) -> str:
    """Return how much was learned from, and how much it was scored on."""
    data = findings["data"]
    if "train_tokens" in data:
        return f"{data['train_tokens']:,} tokens to learn from, {data['test_tokens']:,} to score"
    return f"{data['train']:,} examples to learn from, {data['test']:,} to score"


def table(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table: for each task its strategies, one a line."""
    lines = []
    for found in findings:
        show, lower = found["show"], lower_is_better(found)
        lines += ["", f"{show['task']}: {show['model']} on {show['data']}, {sizes(found)}",
                  f"  {'strategy':<13}{metric_words(found):<31}{'gain over scratch':<26}{'trained':>10}{'seconds':>9}"]
        if found["untouched"] is not None:
            lines.append(f"  {'as it is':<13}{number(found['untouched'])}")
        control = found["rows"][0]
        for row in found["rows"]:
            score = f"{number(row['score'])}  {between(row['interval'])}"
            more = "" if row is control else \
                f"{gain(row, control, lower=lower):+.3f}  {between(row['gain_interval'], signed=True)}"
            lines.append(f"  {row['strategy']:<13}{score:<31}{more:<26}{row['trained']:>10,}{row['seconds']:>9.1f}")
    return lines[1:]


def command(findings: Mapping[str, Any]) -> str:
    """Return the command that does the same on one's own data."""
    show = findings["show"]
    more = " --keyword NAME" if show["task"] == "wake-word" else ""
    transfers = preferred(findings["rows"][1:], lower=lower_is_better(findings))
    return (f"tlhub finetune {show['task']} --model {show['model']} --data {_DATA.get(show['task'], 'DATA')} "
            f"--strategy {transfers['strategy']}{more}")


def next_steps(findings: Sequence[Mapping[str, Any]], folder: str) -> list[tuple[str, str]]:
    """Return what to type next, each with what it is for.

    Args:
        findings: Of every task.
        folder: Of the quickstart.
    """
    first = findings[0]
    run = shlex.quote(f"{folder}/{first['show']['task']}/{best(first)['strategy']}")
    return [("what is understood of your data", f"tlhub data check {first['show']['task']} --data "
                                                f"{_DATA.get(first['show']['task'], 'DATA')}"),
            *((f"{found['show']['title'].lower()}, of your own", command(found)) for found in findings),
            ("use a model that was just made", f"tlhub predict {run} FILE"),
            ("every checkpoint at hand, with its terms", "tlhub models")]
