"""Small data sets with the columns, the classes and the splits of those that the recipes name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

FILLERS = ("the", "a", "film", "was", "is", "very", "book", "day")
TELLING = ("bad", "good", "rain", "cat")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def sst2(folder: Path) -> None:
    """Columns idx, sentence and label; the test split is published with every label -1."""
    sizes = {"train": 48, "validation": 16, "test": 8}
    features = {"idx": datasets.Value("int32"), "sentence": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["negative", "positive"])}
    splits = {}
    for split, size in sizes.items():
        labels = cycle(size, 2)
        splits[split] = {"idx": list(range(size)), "sentence": texts(split, labels),
                         "label": [-1] * size if split == "test" else labels}
    save(folder, features, splits)


def ag_news(folder: Path) -> None:
    """Columns text and label; no validation split."""
    features = {"text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])}
    save(folder, features, {split: {"text": texts(split, cycle(size, 4)), "label": cycle(size, 4)}
                            for split, size in {"train": 80, "test": 16}.items()})


def mrpc(folder: Path) -> None:
    """Columns sentence1, sentence2, label and idx; GLUE's one test split with labels."""
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["not_equivalent", "equivalent"]), "idx": datasets.Value("int32")}
    splits = {}
    for split, size in {"train": 48, "validation": 16, "test": 16}.items():
        labels = cycle(size, 2)
        splits[split] = {"sentence1": texts(split, [1] * size), "sentence2": texts(split, labels), "label": labels,
                         "idx": list(range(size))}
    save(folder, features, splits)


def stsb(folder: Path) -> None:
    """Columns sentence1, sentence2 and score (0 to 1)."""
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"),
                "score": datasets.Value("float64")}
    splits = {}
    for split, size in {"train": 48, "validation": 16, "test": 16}.items():
        alike = cycle(size, 2)
        splits[split] = {"sentence1": texts(split, [1] * size), "sentence2": texts(split, alike),
                         "score": [one - (2 * one - 1) * (row % 5) / 20 for row, one in enumerate(alike)]}
    save(folder, features, splits)


def beans(folder: Path) -> None:
    """Columns image_file_path (on the author's machine), image and labels."""
    features = {"image_file_path": datasets.Value("string"), "image": datasets.Image(),
                "labels": datasets.ClassLabel(names=["angular_leaf_spot", "bean_rust", "healthy"])}
    splits = {}
    for split, size in {"train": 24, "validation": 12, "test": 12}.items():
        labels = cycle(size, 3)
        splits[split] = {"image_file_path": [f"/home/author/{split}/{row}.jpg" for row in range(size)],
                         "image": pictures(split, labels), "labels": labels}
    save(folder, features, splits)


def food101(folder: Path) -> None:
    """Columns image and label; a validation split and no test split."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["apple_pie", "baklava", "beignets"])}
    save(folder, features, {split: {"image": pictures(split, cycle(size, 3)), "label": cycle(size, 3)}
                            for split, size in {"train": 24, "validation": 12}.items()})


def cifar10(folder: Path) -> None:
    """Columns img and label; no validation split."""
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(CIFAR))}
    save(folder, features, {split: {"img": pictures(split, cycle(size, 10), (32, 32)), "label": cycle(size, 10)}
                            for split, size in {"train": 60, "test": 20}.items()})


def class_folders(classes: Sequence[str], sizes: dict[str, int]) -> Callable[[Path], None]:
    """Return what writes `<split>/<class>/<n>.png`; the split "" has its classes at the top."""
    def make(folder: Path) -> None:
        for split, size in sizes.items():
            labels = cycle(size, len(classes))
            for row, (label, picture) in enumerate(zip(labels, pictures(split, labels), strict=True)):
                target = folder / split / classes[label] / f"{row}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target)
    return make


def cats_and_tigers(folder: Path) -> None:
    """Pictures beside a metadata.csv with columns file_name and body_length."""
    labels = cycle(60, 2)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "body_length"])
        for row, (label, picture) in enumerate(zip(labels, pictures("animals", labels), strict=True)):
            picture.save(folder / f"{row}.png")
            writer.writerow([f"{row}.png", 46 + 120 * label + row / 4])


def cycle(size: int, classes: int) -> list[int]:
    """Return labels in turn."""
    return [row % classes for row in range(size)]


def save(folder: Path, features: dict[str, Any], splits: dict[str, dict[str, list[Any]]]) -> None:
    """Write a data set as `datasets.save_to_disk` does."""
    made = {split: datasets.Dataset.from_dict(rows, features=datasets.Features(features))
            for split, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder))


def texts(split: str, labels: list[int]) -> list[str]:
    """Return a text for each label, no two alike, with one word that tells the label."""
    random = np.random.default_rng(len(split))
    return [" ".join([*random.choice(FILLERS, 3 + row % 5), TELLING[label], split, str(row)])
            for row, label in enumerate(labels)]


def pictures(split: str, labels: list[int], size: tuple[int, int] = (36, 40)) -> list[Image.Image]:
    """Return a picture for each label, whose colour tells the label."""
    random = np.random.default_rng(len(split))
    made = []
    for label in labels:
        pixels = random.integers(0, 120, (*size, 3))
        pixels[..., label % 3] += 110 - 30 * (label // 3)
        made.append(Image.fromarray(pixels.astype(np.uint8)))
    return made


MAKERS: dict[str, Callable[[Path], None]] = {
    "stanfordnlp/sst2": sst2, "fancyzhx/ag_news": ag_news, "nyu-mll/glue:mrpc": mrpc,
    "sentence-transformers/stsb": stsb, "AI-Lab-Makerere/beans": beans, "ethz/food101": food101,
    "uoft-cs/cifar10": cifar10,
    "pictures": class_folders(("apple", "pear", "plum"), {"train": 24, "validation": 12, "test": 12}),
    "cats_and_dogs_small": class_folders(("cats", "dogs"), {"train": 24, "validation": 12, "test": 12}),
    "flowers": class_folders(("daisy", "dandelion", "rose", "sunflower", "tulip"), {"": 60}),
    "chest_xray": class_folders(("covid19", "no_finding", "pneumonia"), {"train": 40, "test": 12}),
    "cats_and_tigers": cats_and_tigers,
}
