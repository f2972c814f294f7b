"""Small data sets made for tests: learnable, seeded, written to a folder."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from tests.sounds import tone, write_sound

WORDS = {"weather": ["rain", "sun", "cloud", "wind", "storm"], "food": ["bread", "soup", "rice", "cake", "tea"],
         "sport": ["ball", "goal", "race", "team", "score"]}
PITCHES = {"high": 2200.0, "low": 300.0, "middle": 900.0}
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


def write_table(folder: Path, rows: dict[str, list[dict[str, object]]]) -> Path:
    """Write `<split>.csv` with the columns of its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, lines in rows.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    return folder


def write_measured(folder: Path, counts: dict[str, int], *, size: int = 40, seed: int = 0) -> Path:
    """Write pictures and `metadata.csv` with the columns file_name, brightness (0 to 255), redness and split."""
    random = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        for row in range(count):
            level, red = random.integers(20, 160), random.integers(0, 90)
            pixels = random.integers(0, 20, (size, size + row % 5, 3)) + level
            pixels[..., 0] += red
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}_{row:03d}.png")
            rows.append({"file_name": f"{split}_{row:03d}.png", "brightness": float(pixels.mean()),
                         "redness": float(red), "split": split})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
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


def write_sounds(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write `<split>/<pitch>/<n>.wav`: tones in noise of 0.1 to 0.2 s, but the first of each class of 0.4 s."""
    random = np.random.default_rng(seed)
    names = list(PITCHES)
    for split, count in counts.items():
        for row in range(count):
            label = names[row % len(names)]
            clip = tone(PITCHES[label] * random.uniform(0.9, 1.1), 0.4 if row < len(names) else 0.1 + 0.02 * (row % 6))
            clip += 0.05 * random.standard_normal(len(clip)).astype(np.float32)
            write_sound(folder / split / label / f"{row:04d}.wav", clip)
    return folder


def write_corpus(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write `<split>.txt` of so many lines; the second word of a line tells the last."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        words = [WORDS[name] for name in random.choice(list(WORDS), count)]
        lines = [f"the {random.choice(kind)} was {random.choice(FILLERS)} {kind[0]}\n" for kind in words]
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder
