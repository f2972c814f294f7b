"""Messages of customers, written by hand in `messages.txt`, as a table for each split."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

_WRITTEN = Path(__file__).with_name("messages.txt")
_OF_EACH_INTENT = {"test": 25, "validation": 10}
_ALIKE = 0.5
"""Cosine of character n-grams from which on two messages count as nearly the same."""


def make(folder: Path) -> None:
    """Write `train.csv`, `validation.csv` and `test.csv` with the columns `text` and `label`."""
    texts, labels = read_written(_WRITTEN)
    splits = divide(texts, labels)
    for split in ("train", "validation", "test"):
        chosen = np.flatnonzero(splits == split)
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["text", "label"])
            table.writerows((texts[row], labels[row]) for row in np.random.default_rng(1).permutation(chosen))
        words = [len(texts[row].split()) for row in chosen]
        print(f"{split}: {len(chosen)} messages, {min(words)} to {max(words)} words, {np.mean(words):.0f} on average")


def read_written(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the messages and their intents."""
    texts, labels, intent = [], [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        header = re.fullmatch(r"\[(\w+)\]", line)
        if header:
            intent = header[1]
        elif line and not line.startswith("#"):
            texts.append(line)
            labels.append(intent)
    return texts, np.array(labels)


def likeness(texts: list[str]) -> np.ndarray:
    """Return how alike messages are: the cosines of their weighted character n-grams, shape (n, n)."""
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True).fit_transform(texts)
    return (grams @ grams.T).toarray()


def divide(texts: list[str], labels: np.ndarray) -> np.ndarray:
    """Return the split of each message, drawn by intent; nearly equal messages are all for training."""
    alike = likeness(texts)
    np.fill_diagonal(alike, 0)
    free = alike.max(axis=1) < _ALIKE
    splits = np.full(len(texts), "train", dtype="U10")
    random = np.random.default_rng(0)
    for intent in np.unique(labels):
        order = random.permutation(np.flatnonzero((labels == intent) & free))
        for split, count in _OF_EACH_INTENT.items():
            splits[order[:count]] = split
            order = order[count:]
    return splits
