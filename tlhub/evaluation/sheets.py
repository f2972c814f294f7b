"""A sheet of pictures: some training examples, as they are and as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_GAP = 0.06
"""White between pictures, as a share of their width."""
_INCHES = 1.1
"""Width of a picture on the sheet."""
_RESOLUTION = 150


def sheet(rows: np.ndarray, path: Path) -> Path:
    """Draw pictures and their augmented views, a row for each example.

    Args:
        rows: For each example first the picture itself, then what training makes of it in the first epochs, uint8,
            shape (r, k, h, w, 3).
        path: The PNG to write.

    Returns:
        `path`.
    """
    examples, views, height, width, _ = rows.shape
    gap = max(1, round(_GAP * width))
    tiled = np.pad(rows, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    page = tiled.transpose(0, 2, 1, 3, 4).reshape(examples * (height + gap), views * (width + gap), 3)
    page = page[:-gap, :-gap]
    title = 0.3  # inches above the pictures
    figure = Figure(figsize=(views * _INCHES, title + _INCHES * views * page.shape[0] / page.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1 - title / figure.get_figheight()))
    axes.imshow(page, interpolation="antialiased", aspect="auto")
    names = ["original", *(f"epoch {number}" for number in range(1, views))]
    for number, name in enumerate(names):
        axes.text(number * (width + gap) + width / 2, -0.06 * height, name, ha="center", va="bottom", fontsize=8)
    axes.set_axis_off()
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_RESOLUTION)
    return path
