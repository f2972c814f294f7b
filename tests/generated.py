"""Small data sets made for tests: learnable, seeded, written to a folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = {"weather": ["rain", "sun", "cloud", "wind", "storm"], "food": ["bread", "soup", "rice", "cake", "tea"],
         "sport": ["ball", "goal", "race", "team", "score"]}
FILLERS = ["the", "a", "very", "is", "was", "and", "of", "in", "good", "late"]


def write_texts(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write `<split>.csv` with columns text and label; the words of a text tell its class."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(WORDS)
    for split, count in counts.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for row in range(count):
                label = names[row % len(names)]
                words = [str(random.choice(FILLERS)) for _ in range(int(random.integers(2, 12)))]
                words.insert(int(random.integers(len(words))), str(random.choice(WORDS[label])))
                writer.writerow([f"{' '.join(words)} {split} {row}", label])
    return folder


def write_images(folder: Path, counts: dict[str, int], *, size: int = 40, seed: int = 0) -> Path:
    """Write `<split>/<colour>/<n>.png`: noise with one colour that is brighter."""
    random = np.random.default_rng(seed)
    colours = ["blue", "green", "red"]
    for split, count in counts.items():
        for row in range(count):
            label = row % len(colours)
            pixels = random.integers(0, 120, (size, size + row % 5, 3))
            pixels[..., 2 - label] += 110
            target = folder / split / colours[label] / f"{row:04d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(target)
    return folder
