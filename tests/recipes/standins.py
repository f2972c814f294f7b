"""Small data sets with the columns, the classes and the splits of those that the recipes name on the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

FILLERS = ("the", "a", "film", "was", "is", "very", "book", "day")
TELLING = ("bad", "good", "rain", "cat")


def sst2(folder: Path) -> None:
    """Columns idx, sentence and label; the test split is published with every label -1."""
    sizes = {"train": 48, "validation": 16, "test": 8}
    features = datasets.Features({"idx": datasets.Value("int32"), "sentence": datasets.Value("string"),
                                  "label": datasets.ClassLabel(names=["negative", "positive"])})
    splits = {}
    for split, size in sizes.items():
        labels = [row % 2 for row in range(size)]
        rows = {"idx": list(range(size)), "sentence": texts(split, labels),
                "label": [-1] * size if split == "test" else labels}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def ag_news(folder: Path) -> None:
    """Columns text and label; no validation split."""
    features = datasets.Features({"text": datasets.Value("string"),
                                  "label": datasets.ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])})
    splits = {}
    for split, size in {"train": 80, "test": 16}.items():
        labels = [row % 4 for row in range(size)]
        splits[split] = datasets.Dataset.from_dict({"text": texts(split, labels), "label": labels}, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def beans(folder: Path) -> None:
    """Columns image_file_path (on the author's machine), image and labels."""
    names = ["angular_leaf_spot", "bean_rust", "healthy"]
    features = datasets.Features({"image_file_path": datasets.Value("string"), "image": datasets.Image(),
                                  "labels": datasets.ClassLabel(names=names)})
    splits = {}
    for split, size in {"train": 24, "validation": 12, "test": 12}.items():
        labels = [row % 3 for row in range(size)]
        rows = {"image_file_path": [f"/home/author/{split}/{row}.jpg" for row in range(size)],
                "image": pictures(split, labels), "labels": labels}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def food101(folder: Path) -> None:
    """Columns image and label; a validation split and no test split."""
    features = datasets.Features({"image": datasets.Image(),
                                  "label": datasets.ClassLabel(names=["apple_pie", "baklava", "beignets"])})
    splits = {}
    for split, size in {"train": 24, "validation": 12}.items():
        labels = [row % 3 for row in range(size)]
        rows = {"image": pictures(split, labels), "label": labels}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(splits).save_to_disk(str(folder))


def texts(split: str, labels: list[int]) -> list[str]:
    """Return a text for each label, no two alike, with one word that tells the label."""
    random = np.random.default_rng(len(split))
    return [" ".join([*random.choice(FILLERS, 3 + row % 5), TELLING[label], split, str(row)])
            for row, label in enumerate(labels)]


def pictures(split: str, labels: list[int]) -> list[Any]:
    """Return a picture for each label, whose brightest colour tells the label."""
    from PIL import Image

    random = np.random.default_rng(len(split))
    made = []
    for label in labels:
        pixels = random.integers(0, 120, (36, 40, 3))
        pixels[..., label] += 110
        made.append(Image.fromarray(pixels.astype(np.uint8)))
    return made


MAKERS: dict[str, Callable[[Path], None]] = {
    "stanfordnlp/sst2": sst2, "fancyzhx/ag_news": ag_news, "AI-Lab-Makerere/beans": beans, "ethz/food101": food101}
