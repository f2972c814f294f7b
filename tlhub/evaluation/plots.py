"""Pictures of a run: curves of training, and how predictions compare with labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlhub.evaluation.calibration import Reliability
from tlhub.evaluation.measures import r2
from tlhub.evaluation.outcomes import ECE_BINS, ValueOutcome
from tlhub.evaluation.scores import flat

Point = tuple[float, float]
_NAME_LENGTH = 24
_WRITTEN_CLASSES = 30
"""Up to this many classes each cell holds its count; beyond, colour alone is readable."""
_MARKED_POINTS = 30
_MOST_TARGETS = 12
_COLUMNS = 3
_TRAINING, _VALIDATION = "#d08a2e", "#1f4e8c"
_GREY = "#808080"
_LINES = ("#1f4e8c", "#d08a2e", "#3a8f5c", "#b0413e", "#7a5aa6", "#5a9bb5", "#8c6d4f", "#c16fa0")
_RATES = (1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Ticks of a trade-off."""
_LARGEST = 0.82
"""Where its axes end."""


def curves(history: Sequence[Mapping[str, Any]], path: Path, *, one_loss: bool = True) -> Path:
    """Draw the losses, every validation metric and the learning rate against the step.

    A metric that lines of training have too is drawn for both in one panel.

    Args:
        history: The lines of `history.jsonl`: `step` with `loss`, `learning_rate` and perhaps metrics, or with
            `validation`, whose metrics may have a `loss` too.
        path: The PNG to write.
        one_loss: Whether both losses are the same quantity in the same units; if not, each has a panel.

    Returns:
        `path`.
    """
    series = _series(history, one_loss=one_loss)
    names = sorted(series, key=lambda name: (name == "learning rate", "loss" not in name))
    last = max((line["step"] for line in history), default=1)
    figure = Figure(figsize=(10, 2.8 * max(1, (len(names) + 1) // 2)), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot((len(names) + 1) // 2, 2, number + 1)
        for split, points in series[name].items():
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, marker="o" if len(steps) <= _MARKED_POINTS else "", markersize=3, label=split,
                      color=_VALIDATION if split == "validation" else _TRAINING)
        axes.set(title=name, xlabel="optimizer step", xlim=(0, 1.02 * last))
        if name != "learning rate":
            axes.legend(fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    return _save(figure, path, 100)


def confusion(matrix: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Draw a confusion matrix, coloured by the share of each class's examples.

    Args:
        matrix: Examples by class (rows) and predicted class (columns), shape (c, c).
        names: The classes' names.
        path: The PNG to write.

    Returns:
        `path`.
    """
    classes = len(names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.0, min(2.0 + 0.5 * classes, 12.0 + 0.05 * classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = float(np.clip(72 * 0.75 * side / classes * 0.6, 4.5, 10))
    labels = [_short(name) for name in names]
    axes.set_xticks(range(classes), labels, rotation=90 if classes > 6 or _longest(labels) > 8 else 0,
                    fontsize=size, parse_math=False)
    axes.set_yticks(range(classes), labels, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="label")
    if classes <= _WRITTEN_CLASSES:
        _write_counts(axes, matrix, shares, size)
    figure.colorbar(image, ax=axes, label="share of the label's examples", fraction=0.04, aspect=40)
    return _save(figure, path, 120)


def predicted_against_true(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str], path: Path) -> Path:
    """Draw predicted values against right ones, a panel for each target, with the line where they are equal.

    Args:
        predictions: Shape (n, t), or (n,) for one target.
        labels: Of the same shape.
        names: Of the targets; of more than 12 the first 12 are drawn, and it is said.
        path: The PNG to write.

    Returns:
        `path`.

    Raises:
        TlhubError: A prediction is not a finite number.
    """
    outcome = ValueOutcome.from_values(predictions, labels)
    shown = names[:_MOST_TARGETS]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    side = 4.6 if len(shown) == 1 else 3.6
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    for number, name in enumerate(shown):
        _draw_target(figure.add_subplot(rows, columns, number + 1), outcome.target(number), _short(name))
    if len(shown) < len(names):
        figure.suptitle(f"the first {len(shown)} of {len(names)} targets")
    return _save(figure, path, 120)


def reliability(diagrams: Mapping[str, Reliability], path: Path) -> Path:
    """Draw accuracy against confidence, a panel for each state of a model, such as before and after its temperature.

    Below each panel stands the share of the examples in each bin. After Guo et al. (2017), figure 1.

    Args:
        diagrams: What the classifier's confidence was worth, by the title of the panel.
        path: The PNG to write.

    Returns:
        `path`.
    """
    count = len(diagrams)
    figure = Figure(figsize=(4.4 * count, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, count, height_ratios=(3, 1))
    edges = np.arange(ECE_BINS + 1) / ECE_BINS
    for number, (title, found) in enumerate(diagrams.items()):
        upper = figure.add_subplot(grid[0, number])
        filled = found.counts > 0
        upper.bar(edges[:-1][filled], found.accuracy[filled], 1 / ECE_BINS, align="edge", color=_VALIDATION,
                  edgecolor="white", label="accuracy")
        upper.plot(found.confidence[filled], found.confidence[filled], "o", markersize=4, color=_TRAINING,
                   label="mean confidence")
        upper.plot((0, 1), (0, 1), "--", linewidth=1, color=_GREY)
        upper.set(title=f"{title}: ECE {found.ece:.3f}", xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        upper.legend(fontsize=8, loc="upper left")
        lower = figure.add_subplot(grid[1, number])
        lower.bar(edges[:-1], found.counts / max(found.counts.sum(), 1), 1 / ECE_BINS, align="edge", color=_GREY,
                  edgecolor="white")
        lower.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the predicted class", ylabel="examples, share")
    return _save(figure, path, 120)


def trade_off(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], points: Mapping[str, Point], path: Path, *,
              smallest: Point) -> Path:
    """Draw miss rates against false-accept rates on axes of the normal deviate, where usual scores give straight lines.

    Args:
        curves: By name the false-accept rates, falling thresholds first, and the miss rates, each of shape (p,).
        points: By name the rates at the threshold that is used.
        path: The PNG to write.
        smallest: The false-accept rate and the miss rate of one clip; a rate of 0 is drawn at half of it.

    Returns:
        `path`.
    """
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.add_subplot()
    lowest = [min(rate / 2, 0.2) for rate in smallest]
    chance = np.linspace(0.001, 0.999, 200)
    axes.plot(_deviate(chance), _deviate(1 - chance), "--", linewidth=1, color=_GREY, label="chance")
    for number, (name, rates) in enumerate(curves.items()):
        colour = _LINES[number % len(_LINES)]
        false_accepts, misses = (_deviate(np.maximum(values, low)) for values, low in zip(rates, lowest, strict=True))
        axes.plot(false_accepts, misses, color=colour, label=_short(name), linewidth=2.2 if number == 0 else 1.3,
                  linestyle="-" if number < len(_LINES) else ":", zorder=3 if number == 0 else 2)
        if name in points:
            used = [_deviate(max(rate, low)) for rate, low in zip(points[name], lowest, strict=True)]
            axes.plot(*used, "o", color=colour, markersize=7 if number == 0 else 5, markeredgecolor="white", zorder=4)
    for axis, name, low in ((axes.xaxis, "false-accept rate", lowest[0]), (axes.yaxis, "miss rate", lowest[1])):
        shown = _spread([rate for rate in _RATES if rate > low], low)
        axis.set_ticks([_deviate(rate) for rate in (low, *shown)], ["0", *(f"{100 * rate:g}%" for rate in shown)])
        axis.set_label_text(name)
    axes.set(xlim=(_deviate(0.9 * lowest[0]), _deviate(_LARGEST)), ylim=(_deviate(0.9 * lowest[1]), _deviate(_LARGEST)))
    if points:
        axes.plot([], [], "o", color=_GREY, markeredgecolor="white", label="at the threshold")
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(alpha=0.3)
    return _save(figure, path, 120)


def _spread(rates: Sequence[float], low: float) -> list[float]:
    """Return those of rising rates whose names have room on an axis that begins at the lowest one."""
    least = 0.065 * (_deviate(_LARGEST) - _deviate(low))
    kept = [low]
    for rate in rates:
        if _deviate(rate) - _deviate(kept[-1]) > least:
            kept.append(rate)
    return kept[1:]


def _deviate(rates: np.ndarray | float) -> np.ndarray:
    """Return the quantiles of the standard normal distribution, of the shape of the rates."""
    inside = torch.as_tensor(rates, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return np.asarray(torch.special.ndtri(inside))


def _draw_target(axes: Axes, outcome: ValueOutcome, name: str) -> None:
    """Draw one target, both axes over the same range."""
    right, predicted = outcome.labels[:, 0], outcome.predictions[:, 0]
    low, high = min(right.min(), predicted.min()), max(right.max(), predicted.max())
    margin = 0.04 * (high - low) or 0.5
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, "--", linewidth=1, color=_GREY, zorder=1)
    axes.scatter(right, predicted, s=10, alpha=float(np.clip(300 / len(right), 0.15, 0.7)), color=_VALIDATION,
                 linewidths=0, zorder=2)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="label", ylabel="predicted")
    axes.set_title(f"{name}: R² {float(r2(outcome)):.3f}", parse_math=False)
    axes.grid(alpha=0.3)


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray, size: float) -> None:
    for row, column in np.argwhere(matrix > 0):
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=size,
                  color="white" if shares[row, column] > 0.5 else "black")


def _series(history: Sequence[Mapping[str, Any]], *, one_loss: bool) -> dict[str, dict[str, list[Point]]]:
    """Return (step, value) pairs by panel and split; values that are not finite are left out."""
    validated = {name for line in history for name in flat(line.get("validation", {}))}
    series: dict[str, dict[str, list[Point]]] = {}
    for line in history:
        split = "validation" if "validation" in line else "training"
        values = line.get("validation", {name: line[name] for name in ("loss", "learning_rate", *sorted(validated))
                                         if name in line})
        for name, value in flat(values).items():
            if not isinstance(value, (int, float)) or not np.isfinite(value):
                continue
            panel = f"{split} loss" if name == "loss" and not one_loss else name.replace("_", " ")
            series.setdefault(panel, {}).setdefault(split, []).append((float(line["step"]), float(value)))
    return series


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else name[:_NAME_LENGTH - 1] + "…"


def _longest(labels: Sequence[str]) -> int:
    return max(len(label) for label in labels)


def _save(figure: Figure, path: Path, resolution: int) -> Path:
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class named in a script that the font lacks is drawn as boxes; the counts are still readable.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=resolution)
    return path
