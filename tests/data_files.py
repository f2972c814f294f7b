"""Small data sets on disk, for tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, size: tuple[int, int] = (12, 10), kind: str = "PNG") -> bytes:
    """Return the content of a small image that differs from those of other seeds."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    """Write a file and the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_images(folder: Path, classes: dict[str, int], *, first: int = 0, ending: str = ".png") -> None:
    """Write class folders with different images."""
    for offset, (name, count) in enumerate(classes.items()):
        for number in range(count):
            write(folder / name / f"{number:03d}{ending}", png(first + 1000 * offset + number))


def csv_rows(count: int, *, first: int = 0, classes: tuple[str, ...] = ("neg", "pos")) -> str:
    """Return a csv of different texts with labels in turn."""
    lines = [f"text number {number},{classes[number % len(classes)]}" for number in range(first, first + count)]
    return "text,label\n" + "\n".join(lines) + "\n"
