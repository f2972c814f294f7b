"""Pictures of a run: curves of training and the confusion matrix."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_NAME_LENGTH = 24
_WRITTEN_CLASSES = 30
"""Up to this many classes each cell holds its count; beyond, colour alone is readable."""
_BEST = "#1f4e8c"


def curves(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw the training loss, the learning rate and every validation metric against the step.

    Args:
        history: The lines of `history.jsonl`: `step` with `loss` and `learning_rate`, or with `validation`.
        path: The PNG to write.

    Returns:
        `path`.
    """
    series = _series(history)
    names = sorted(series, key=lambda name: (name != "loss", name != "learning_rate"))
    figure = Figure(figsize=(10, 2.8 * max(1, (len(names) + 1) // 2)), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot((len(names) + 1) // 2, 2, number + 1)
        steps, values = zip(*series[name], strict=True)
        axes.plot(steps, values, marker="o" if len(steps) <= _WRITTEN_CLASSES else "", markersize=3, color=_BEST)
        axes.set(title="training loss" if name == "loss" else name.replace("_", " "), xlabel="step")
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
    labels = [name if len(name) <= _NAME_LENGTH else name[:_NAME_LENGTH - 1] + "…" for name in names]
    axes.set_xticks(range(classes), labels, rotation=90 if classes > 6 or _longest(labels) > 8 else 0,
                    fontsize=size, parse_math=False)
    axes.set_yticks(range(classes), labels, fontsize=size, parse_math=False)
    axes.set(xlabel="predicted", ylabel="label")
    if classes <= _WRITTEN_CLASSES:
        _write_counts(axes, matrix, shares, size)
    figure.colorbar(image, ax=axes, label="share of the label's examples", fraction=0.04, aspect=40)
    return _save(figure, path, 120)


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray, size: float) -> None:
    for row, column in np.argwhere(matrix > 0):
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=size,
                  color="white" if shares[row, column] > 0.5 else "black")


def _series(history: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) pairs of everything to draw; values that are not finite are left out."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in history:
        values = {name: line[name] for name in ("loss", "learning_rate") if name in line}
        values.update({f"validation {name}": value for name, value in line.get("validation", {}).items()})
        for name, value in values.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                series.setdefault(name, []).append((float(line["step"]), float(value)))
    return series


def _longest(labels: Sequence[str]) -> int:
    return max(len(label) for label in labels)


def _save(figure: Figure, path: Path, resolution: int) -> Path:
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        # A class named in a script that the font lacks is drawn as boxes; the counts are still readable.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=resolution)
    return path
