"""A plan as lines of text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from tlhub.planning.candidates import BITS, Candidate
from tlhub.planning.estimates import Cost
from tlhub.planning.plan import RESULT, Kept, Plan

_WIDTH = 100
_GIB, _MIB = 2**30, 2**20
_MINUTE, _HOUR = 60.0, 3600.0


def lines(plan: Plan) -> list[str]:
    """Return a plan as lines that can be printed."""
    found = [*_of_data(plan), "", *_of_candidates(plan)]
    for kept in plan.kept:
        found += ["", *_of_costs(kept, plan)]
    found += ["", *_of_advice(plan), "", f"plan: {plan.folder / RESULT}", "next:"]
    return [*found, *(f"  {kept.command}" for kept in plan.kept)]


def _of_data(plan: Plan) -> list[str]:
    rarest = "" if plan.rarest is None else f", {plan.rarest:,} of the rarest class"
    words = f"{plan.task} on {plan.source}: {plan.examples:,} training examples{rarest}"
    if plan.ranked[0].measure == BITS:
        how = (f"compared on {plan.compared:,} excerpts of validation texts, which each checkpoint reads as it is: "
               "bits per byte, lower is better; there are no labels, so no features are probed")
    else:
        how = (f"compared on {plan.compared:,} training examples: ridge regression on frozen features, each example "
               f"predicted from all others{' of other groups' if plan.grouped else ''} ({plan.ranked[0].measure})")
    return [line for text in (words, how) for line in textwrap.wrap(text, _WIDTH)]


def _of_candidates(plan: Plan) -> list[str]:
    best, probed = plan.ranked[0], plan.ranked[0].features is not None
    rows = [["", "checkpoint", best.measure, "behind the best", *(("features", "kNN", "LogME") if probed else ()),
             "parameters", "by size", "pretraining"]]
    for place, each in enumerate(plan.ranked, start=1):
        checks = (each.features or "", _number(each.knn), _number(each.logme)) if probed else ()
        rows.append([str(place), each.name, _sure(each.score, each.standard_error), _behind(each, best),
                     *checks, _count(each.parameters), str(1 + plan.by_size.index(each.name)), each.pretraining])
    found = _table(rows)
    found += [line for name, reason in plan.skipped.items()
              for line in textwrap.wrap(f"left out: {name}: {reason}", _WIDTH)]
    if plan.agreement:
        found.append("agreement with the order by " + ", ".join(
            f"{name} {value:+.2f}" for name, value in plan.agreement.items()) + " (weighted tau; 1 is the same order)")
    return found


def _behind(each: Candidate, best: Candidate) -> str:
    if each is best:
        return "-"
    gap, error = each.behind(best)
    return _sure(gap, error) + (" (within one error)" if gap <= error else "")


def _sure(value: float, error: float) -> str:
    """Return a value with its standard error, or a question mark where that is not known."""
    return f"{value:.3f} ± " + ("?" if math.isnan(error) else f"{error:.3f}")


def _of_costs(kept: Kept, plan: Plan) -> list[str]:
    rows = [["", "strategy", "trained", "steps x batch", "time", "memory", ""]]
    for cost in kept.costs:
        mark = "*" if cost.strategy == kept.advice.strategy else ""
        if cost.seconds is None:
            rows.append([mark, cost.strategy, "-", "-", "-", "-", "does not fit: " * (not cost.fits) + cost.reason])
        else:
            rows.append([mark, cost.strategy, _count(cost.trained or 0),
                         f"{cost.steps:,} x {cost.batch_size}" if cost.steps else "-", _time(cost.seconds),
                         "?" if cost.peak is None else _memory(cost.peak), _remark(cost)])
    where = "this machine" if plan.device == "cpu" else plan.device
    words = (f"{kept.candidate.name} ({kept.reason}): what a run of each strategy would take, going by a few steps; "
             f"{where} has {_memory(plan.limit)} for it")
    return [*textwrap.wrap(words, _WIDTH), *_table(rows)]


def _remark(cost: Cost) -> str:
    """Return what else to know of a cost."""
    remarks = []
    if cost.micro_batch is not None:
        remarks.append(f"fits with --train.micro_batch_size {cost.micro_batch}")
    if cost.largest is not None and cost.largest < (cost.micro_batch or cost.at_once or cost.batch_size or 0):
        remarks.append(f"extrapolated from {cost.largest} examples at a time")
    return ", ".join(remarks)


def _of_advice(plan: Plan) -> list[str]:
    found = []
    for kept in plan.kept:
        also = f" and compare it with {kept.advice.also}" if kept.advice.also else ""
        text = f"{kept.candidate.name} ({kept.reason}): take {kept.advice.strategy}{also}: {kept.advice.reason}."
        found += textwrap.wrap(text, _WIDTH)
    if len(plan.kept) > 1:
        found += textwrap.wrap("Scores before training tell these apart no further: run the commands below, and keep "
                               "the better run by its validation score.", _WIDTH)
    return found


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: int) -> str:
    return f"{value / 1e6:,.1f} M" if value >= 1e6 else f"{value:,}"


def _time(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 1.5 * _HOUR else f"{seconds / _HOUR:.1f} h"


def _memory(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
