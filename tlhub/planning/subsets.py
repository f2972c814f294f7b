"""Small parts of a data set: some examples of every class, and excerpts of texts."""

from __future__ import annotations

import dataclasses

import numpy as np

from tlhub.data.prepare import Examples
from tlhub.data.sampling import rarest_label
from tlhub.data.splits import draw
from tlhub.seeding import generator

_BINS = 10
"""Parts of equal size that the values of a regression are divided into, each with its share of a subset."""
EXCERPT = 4000
"""Characters of an excerpt, about a thousand tokens."""


def strata(labels: np.ndarray) -> np.ndarray:
    """Return what a subset should hold in proportion, int64, shape (n,): classes, rarest labels, or ranges of values.

    Args:
        labels: Classes, int64, shape (n,); several labels, bool, shape (n, c); or values, float64, shape (n, c).
    """
    if labels.dtype == np.bool_:
        return rarest_label(labels)
    if np.issubdtype(labels.dtype, np.integer):
        return labels
    edges = np.quantile(labels[:, 0], np.linspace(0, 1, _BINS + 1)[1:-1])
    found: np.ndarray = np.searchsorted(edges, labels[:, 0])
    return found


def take(examples: Examples, indices: np.ndarray) -> Examples:
    """Return some of the examples, in the order of `indices`."""
    return dataclasses.replace(
        examples, inputs=[examples.inputs[index] for index in indices.tolist()], labels=examples.labels[indices],
        ids=[examples.ids[index] for index in indices.tolist()],
        groups=None if examples.groups is None else examples.groups[indices])


def subset(examples: Examples, most: int, *, seed: int, purpose: str) -> Examples:
    """Return at most so many examples, in the proportions of the strata; one of each at least.

    Args:
        examples: With labels beside them.
        most: How many.
        seed: The run's seed.
        purpose: What is drawn, so that draws differ.
    """
    chosen = some(examples.labels, most, seed=seed, purpose=purpose)
    return examples if len(chosen) == len(examples) else take(examples, chosen)


def some(labels: np.ndarray, most: int, *, seed: int, purpose: str) -> np.ndarray:
    """Return which examples `subset` takes, by their labels, int64, ascending."""
    groups = strata(labels)
    return draw(groups, min(max(most, len(np.unique(groups))), len(labels)), seed=seed, purpose=purpose)


def excerpts(examples: Examples, characters: int, *, seed: int, purpose: str, size: int = EXCERPT) -> Examples:
    """Return texts of about so many characters in all: whole ones where they are short, stretches of long ones.

    Stretches begin behind a line break or a space where there is one near, so that words stay whole. Prompts with
    completions, and conversations, are taken whole.

    Args:
        examples: Texts, prompts with completions, or conversations.
        characters: Where to stop.
        seed: The run's seed.
        purpose: What is drawn, so that draws differ.
        size: Characters of a stretch at most.
    """
    random = generator(seed, purpose)
    pieces = [(index, start) for index, text in enumerate(examples.inputs)
              for start in (range(0, max(len(text), 1), size) if isinstance(text, str) else (None,))]
    chosen: list[tuple[int, object]] = []
    total = 0
    for place in random.permutation(len(pieces)).tolist():
        index, start = pieces[place]
        piece = examples.inputs[index] if start is None else _stretch(examples.inputs[index], start, size)
        if piece:
            chosen.append((index, piece))
            total += _length(piece)
        if total >= characters:
            break
    chosen.sort(key=lambda item: item[0])
    rows = np.array([index for index, _ in chosen], dtype=np.int64)
    return dataclasses.replace(take(examples, rows), inputs=[piece for _, piece in chosen], most=None)


def _stretch(text: str, start: int, size: int) -> str:
    """Return the part of a text that begins at about `start`, of at most `size` characters."""
    if start:
        places = [text.find(mark, start, start + size // 8) for mark in "\n "]
        start = 1 + min((place for place in places if place >= 0), default=start - 1)
    return text[start:start + size]


def _length(piece: object) -> int:
    """Return the characters of a text, of a prompt with its completion, or of a conversation."""
    if isinstance(piece, str):
        return len(piece)
    parts = piece.values() if isinstance(piece, dict) else piece if isinstance(piece, (list, tuple)) else ()
    return sum(map(_length, parts))
