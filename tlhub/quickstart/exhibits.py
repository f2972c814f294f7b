"""Examples of a task to look at: pictures, texts and clips with what each strategy says of them, and texts gone on."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tlhub.data.prepare import Examples
from tlhub.finished import Run
from tlhub.seeding import generator

_DRAWN = {"image": 10, "text": 8, "audio": 8}
"""Test examples that are drawn at random, by modality."""
_LEFT = {"image": 5, "text": 4, "audio": 4}
"""Of those that the best strategy still gets wrong, at most so many more."""
_SIDE = 96
"""Least side of a picture on the page, in pixels."""
_SOUNDS = {b"OggS": "audio/ogg", b"RIFF": "audio/wav", b"fLaC": "audio/flac"}
"""By the first bytes of a file."""


def exhibit(runs: Mapping[str, Run], test: Examples, outputs: Mapping[str, np.ndarray], *, best: str,
            seed: int) -> dict[str, Any]:
    """Return examples with the answers of every strategy, as plain values.

    Args:
        runs: The finished runs, by strategy.
        test: What they were scored on.
        outputs: What each said of it, shape (n, k).
        best: The strategy whose errors are shown.
        seed: What examples are drawn by.

    Returns:
        `kind` (the modality), `best`, and `drawn` and `left`, lists of examples; for texts that go on, `drawn` alone.
    """
    any_run = next(iter(runs.values()))
    kind = any_run.task.modality
    if kind == "corpus":
        return {"kind": kind, "best": best, "drawn": _continuations(runs), "left": []}
    answers = {name: run.problem.predictions(outputs[name], run.label_names) for name, run in runs.items()}
    said = [row["label"] for row in answers[best]]
    names = [any_run.label_names[label] for label in test.labels.tolist()]
    shares = {name: _shares(run, answers[name]) for name, run in runs.items()}
    # Everything but a keyword is one class, of which the folders tell more.
    groups = [Path(name).parent.name or label if kind == "audio" else label
              for name, label in zip(test.ids, names, strict=True)]
    order = generator(seed, "exhibit").permutation(len(test))
    drawn = _spread(order, np.array(groups), _DRAWN[kind])
    left = [index for index in order.tolist() if said[index] != names[index] and index not in drawn][:_LEFT[kind]]

    def shown(index: int) -> dict[str, Any]:
        found = {name: {"label": rows[index]["label"], "score": shares[name][index],
                        "right": rows[index]["label"] == names[index]} for name, rows in answers.items()}
        return {"label": names[index], "title": groups[index], "id": str(test.ids[index]), "answers": found,
                **_content(kind, test, index)}

    return {"kind": kind, "best": best, "drawn": [shown(index) for index in drawn],
            "left": [shown(index) for index in left]}


def _shares(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the probability of each answer; of a keyword in any case, where a threshold on it decides."""
    if run.config.task == "wake-word":
        return [sum(row["scores"][name] for name in run.label_names[1:]) for row in rows]
    return [row["score"] for row in rows]


def _spread(order: np.ndarray, groups: np.ndarray, count: int) -> list[int]:
    """Return the first examples in an order, of each group about alike many, sorted by group."""
    ranks = np.zeros(len(order), np.int64)
    for group in np.unique(groups):
        members = groups[order] == group
        ranks[members] = np.arange(members.sum())
    chosen = order[np.argsort(ranks, kind="stable")][:count]
    return [int(index) for index in chosen[np.argsort(groups[chosen], kind="stable")]]


def _content(kind: str, test: Examples, index: int) -> dict[str, str]:
    """Return an example itself, as the page shows it."""
    value = test.inputs[index]
    if kind == "text":
        return {"text": value if isinstance(value, str) else " / ".join(value)}
    content = value if isinstance(value, bytes) else Path(value).read_bytes()
    if kind == "image":
        return {"source": _address("image/png", _picture(content))}
    return {"source": _address(_SOUNDS.get(content[:4], "application/octet-stream"), content)}


def _picture(content: bytes) -> bytes:
    """Return a picture as PNG, a small one enlarged by whole pixels."""
    with Image.open(io.BytesIO(content)) as picture:
        kept = picture.convert("RGB")
    kept.thumbnail((2 * _SIDE, 2 * _SIDE))
    factor = -(-_SIDE // max(kept.size))
    with io.BytesIO() as file:
        kept.resize((factor * kept.width, factor * kept.height), Image.Resampling.NEAREST).save(file, "PNG",
                                                                                                optimize=True)
        return file.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _continuations(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Return prompts with what the checkpoint made of them before, and what each strategy makes of them now."""
    samples = {name: run.metrics["samples"] for name, run in runs.items()}
    found = []
    for number, first in enumerate(next(iter(samples.values()))):
        before = [rows[number]["before"] for rows in samples.values() if rows[number]["before"] is not None]
        found.append({"prompt": first["prompt"], "before": before[0] if before else None,
                      "after": {name: rows[number]["after"] for name, rows in samples.items()}})
    return found
