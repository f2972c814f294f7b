"""Pictures with two targets that are known exactly: how much a photo was shrunk, and how bright the picture is."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96
BACKGROUND = (0.4, 0.6)
SHRUNK = (0.35, 1.0)


def make(source: Path, folder: Path, *, seed: int = 0) -> Path:
    """Write pictures and `metadata.csv` with the columns `file_name`, `size`, `brightness` and `split`.

    Each photo is squeezed to a square of `size` times the side of the picture, `size` uniform in `SHRUNK`, and lies at
    a random place on an even grey. `brightness` is the mean of the finished picture's values, in per cent.

    Args:
        source: A folder with `train/<class>/` and `test/<class>/`.
        folder: Where to write.
        seed: What sizes and places are drawn from.
    """
    if (folder / "metadata.csv").exists():
        return folder
    random = np.random.default_rng(seed)
    rows = []
    for split in ("train", "test"):
        for file in sorted((source / split).glob("*/*")):
            size = random.uniform(*SHRUNK)
            side = max(1, round(size * SIDE))
            canvas = np.full((SIDE, SIDE, 3), round(255 * random.uniform(*BACKGROUND)), dtype=np.uint8)
            left, top = random.integers(0, SIDE - side + 1, 2)
            with Image.open(file) as picture:
                canvas[top:top + side, left:left + side] = np.asarray(picture.convert("RGB").resize((side, side)))
            name = f"{split}_{len(rows):04d}.png"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(canvas).save(folder / name)
            rows.append({"file_name": name, "size": f"{side / SIDE:.4f}",
                         "brightness": f"{canvas.mean() / 2.55:.3f}", "split": split})
    with (folder / "metadata.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder
