"""Learning curves as SVG, drawn by the page's own style sheet, so that they follow its colours by day and by night."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 92, 14, 34
_LINE = 15
"""Least distance between the names at the ends of curves."""
Point = tuple[float, float]


def learning_curves(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return an SVG of the score on validation against the optimizer step, a line for each strategy.

    What was not trained step by step is a dashed line at its score.

    Args:
        rows: Of the findings: `strategy`, `curve` (pairs of step and score) and `validation`.
        title: What the picture shows, for those who cannot see it.
    """
    curves = {row["strategy"]: [(float(step), float(score)) for step, score in row["curve"]] for row in rows}
    last = max((points[-1][0] for points in curves.values() if points), default=1.0)
    scores = [score for points in curves.values() for _, score in points]
    scores += [row["validation"] for row in rows if not row["curve"]]
    low, high, ticks = _axis(scores)

    def place(point: Point) -> Point:
        step, score = point
        share = (score - low) / (high - low)
        return _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT), _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in ticks:
        y = place((0, tick))[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for step in (0.0, last / 2, last):
        parts.append(f'<text class="tick" x="{place((step, low))[0]:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">'
                     f'{step:,.0f}</text>')
    ends = {}
    for row in rows:
        name, points = row["strategy"], curves[row["strategy"]]
        line = points or [(0.0, row["validation"]), (last, row["validation"])]
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, line))
        parts.append(f'<polyline class="curve s-{escape(name)}{"" if points else " dashed"}" points="{where}"/>')
        ends[name] = place(line[-1])[1]
    for name, y in _apart(ends).items():
        parts.append(f'<text class="end s-{escape(name)}" x="{_WIDTH - _RIGHT + 8}" y="{y + 4:.1f}">'
                     f'{escape(name.replace("_", " "))}</text>')
    return "".join(parts) + "</svg>"


def _axis(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Return the ends of an axis that holds the values, and round numbers on it."""
    low, high = min(values), max(values)
    span = max(high - low, 0.02)
    step = 10 ** math.floor(math.log10(span / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return first * step, last * step, [round(number * step, 10) for number in range(first, last + 1)]


def _apart(ends: Mapping[str, float]) -> dict[str, float]:
    """Return heights for the names at the ends of curves, in their order and so far apart that all can be read."""
    names = sorted(ends, key=lambda name: ends[name])
    heights = [ends[name] for name in names]
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + _LINE)
    over = max(0.0, heights[-1] - (_HEIGHT - _BOTTOM + 4)) if heights else 0.0
    for index in range(len(heights) - 1, -1, -1):
        limit = heights[index + 1] - _LINE if index + 1 < len(heights) else heights[index] - over
        heights[index] = min(heights[index], limit)
    return dict(zip(names, heights, strict=True))
