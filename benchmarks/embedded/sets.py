"""The data sets of the transfer tables, and draws of 16 examples a class from them."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

A_CLASS = 16
VALIDATION = 0.15
"""Share of the training examples, or of their groups, on which epochs and learning rates are chosen."""
MOST_VALIDATION = 300
Row = dict[str, str]


@dataclass(frozen=True)
class Set:
    """A data set that a checkpoint was not pretrained on.

    Attributes:
        name: Its folder.
        kind: `image`, `audio` or `text`: how its examples are listed.
        score: What the table has of the test scores.
        task: What is predicted.
        group: Column that is never divided; empty where there is none.
        options: Further options of the runs.
    """

    name: str
    kind: str
    score: str = "accuracy"
    task: str = ""
    group: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        """What the table calls it."""
        return self.name + (f" ({self.label})" if self.label else "")


SETS: dict[str, tuple[Set, ...]] = {
    "vision": tuple(Set(name, "image", task="image-classification")
                    for name in ("flowers5", "hymenoptera", "cats_vs_dogs", "chest_xray")),
    "audio": (
        Set("spoken_digits", "audio", task="audio-classification", group="speaker"),
        Set("wakewords", "audio", task="audio-classification", group="pseudo_speaker"),
        Set("esc10", "audio", task="audio-classification", group="freesound_id"),
        Set("wakewords", "audio", score="average_precision", task="wake-word", group="pseudo_speaker",
            options={"keyword": ["view_glass"]}, label="view_glass"),
    ),
    "text": tuple(Set(name, "text", task="text-classification", score=score)
                  for name, score in (("trec6", "accuracy"), ("sms_spam", "f1_macro"), ("sst2", "accuracy"),
                                      ("ag_news", "accuracy"))),
}


def draw(chosen: Set, folder: Path, work: Path, amount: str, seed: int) -> dict[str, Any]:
    """Write which examples a run trains on, is chosen on and is tested on.

    Validation examples are set aside first, by class, or whole groups where there are groups; what is drawn for
    training comes from the rest, as many of each class as `A_CLASS`, where `amount` is `few`. All draws are the seed's.

    Args:
        chosen: The set.
        folder: Where the data sets lie.
        work: Where the table is written.
        amount: `few` or `all`.
        seed: The run's.

    Returns:
        The run's section `data`.
    """
    rows = list(listed(chosen, folder / chosen.name))
    random = np.random.default_rng([seed, len(rows)])
    given = [row for row in rows if row["split"] == "validation"]
    train = [row for row in rows if row["split"] == "train"]
    held = given or _held_out(train, bool(chosen.group), random)
    kept = {id(row) for row in held}
    train = [row for row in train if id(row) not in kept]
    if amount == "few":
        train = _a_class(train, random)
    splits = {"train": train, "validation": _thinned(held, random),
              "test": [row for row in rows if row["split"] == "test"]}
    path = work / f"{chosen.name}-{amount}-{seed}.csv"
    work.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({**row, "split": split} for split, some in splits.items() for row in some)
    if chosen.kind == "text":
        return {"source": str(path)}
    return {"source": str(folder / chosen.name), "metadata": str(path)}


def listed(chosen: Set, folder: Path) -> Iterable[Row]:
    """Yield every example of a set: its file or its text, its label, its split and its group."""
    if chosen.kind == "image":
        for path in sorted(folder.glob("*/*/*.*")):
            yield {"file": path.relative_to(folder).as_posix(), "label": path.parent.name,
                   "split": path.parent.parent.name}
    elif chosen.kind == "audio":
        with (folder / "clips.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield {"file": row["file"], "label": row["label"], "split": row["split"], "group": row[chosen.group]}
    else:
        for split in ("train", "validation", "test"):
            if (folder / f"{split}.csv").exists():
                with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
                    for row in csv.DictReader(file):
                        yield {"text": row["text"], "label": row["label"], "split": split}


def _held_out(rows: list[Row], grouped: bool, random: np.random.Generator) -> list[Row]:
    """Return a share of the rows of each class, or of the groups."""
    if grouped:
        groups = sorted({row["group"] for row in rows})
        count = max(1, round(VALIDATION * len(groups)))
        taken = {groups[number] for number in random.permutation(len(groups))[:count]}
        return [row for row in rows if row["group"] in taken]
    held = []
    for some in _by_label(rows).values():
        count = max(1, round(VALIDATION * len(some)))
        held += [some[number] for number in random.permutation(len(some))[:count]]
    return held


def _a_class(rows: list[Row], random: np.random.Generator) -> list[Row]:
    return [some[number] for some in _by_label(rows).values() for number in random.permutation(len(some))[:A_CLASS]]


def _thinned(rows: list[Row], random: np.random.Generator) -> list[Row]:
    return [rows[number] for number in sorted(random.permutation(len(rows))[:MOST_VALIDATION])]


def _by_label(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["label"]].append(row)
    return dict(sorted(found.items()))
