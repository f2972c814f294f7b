"""Splits and subsets: drawn by class, or by another stratum, with groups kept whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlhub.errors import DataError
from tlhub.seeding import generator


def allocate(counts: np.ndarray, total: int, *, keep: int = 0) -> np.ndarray:
    """Divide `total` among classes in proportion to their sizes, by largest remainders.

    Args:
        counts: Examples of each class, shape (c,).
        total: How many to take.
        keep: Examples of each class that are left (a class with fewer gives none).

    Returns:
        How many to take of each class, shape (c,); their sum is `total` where the classes can give that many.
    """
    room = np.maximum(counts - keep, 0)
    total = int(min(total, room.sum()))
    ideal = counts * (total / max(int(counts.sum()), 1))
    taken = np.minimum(np.floor(ideal).astype(np.int64), room)
    while taken.sum() < total:
        open_classes = np.flatnonzero(taken < room)
        order = open_classes[np.argsort((taken - ideal)[open_classes], kind="stable")]
        taken[order[:total - int(taken.sum())]] += 1
    return np.asarray(taken)


def draw(labels: np.ndarray, total: int, *, seed: int, purpose: str) -> np.ndarray:
    """Return `total` examples in the classes' proportions, at least one of each class, in ascending order.

    Args:
        labels: Class of each example, shape (n,).
        total: How many to draw; at least the number of classes.
        seed: The run's seed.
        purpose: What is drawn, so that draws differ.

    Returns:
        Indices, int64, shape (min(total, n),).
    """
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quota = 1 + allocate(counts - 1, total - len(classes))
    return _take(inverse, quota, seed, purpose)


def _take(classes: np.ndarray, quota: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Take `quota[c]` examples of each class at random."""
    order = generator(seed, purpose).permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    starts = np.searchsorted(classes[order], np.arange(len(quota)))
    rank = np.arange(len(order)) - starts[classes[order]]
    return np.sort(order[rank < quota[classes[order]]])


def make_splits(labels: np.ndarray, groups: np.ndarray | None, fractions: Sequence[tuple[str, float]], *,
                seed: int, needs_every_class: bool = True) -> dict[str, np.ndarray]:
    """Divide examples into a training split and others, each with the classes' proportions.

    Args:
        labels: Class of each example, or what else is to be found in every split alike, shape (n,).
        groups: What is never divided, shape (n,), or None.
        fractions: Name and share of each split other than `train`, in the order they are cut.
        seed: The run's seed.
        needs_every_class: Whether groups are refused that cannot be divided so that training keeps every class.

    Returns:
        Indices of each split, ascending, with `train` first.

    Raises:
        DataError: There are too few examples or groups.
    """
    if sum(share for _, share in fractions) >= 1 or any(share <= 0 for _, share in fractions):
        shares = ", ".join(f"{name} {share}" for name, share in fractions)
        raise DataError(f"shares of the splits are {shares}; each has to be above 0, and their sum below 1")
    if groups is not None:
        return _by_group(labels, groups, fractions, generator(seed, "split groups"), needs_every_class)
    rest = np.arange(len(labels))
    cut: dict[str, np.ndarray] = {}
    for name, share in fractions:
        _, inverse, counts = np.unique(labels[rest], return_inverse=True, return_counts=True)
        quota = allocate(counts, max(1, round(share * len(labels))), keep=1)
        chosen = _take(inverse, quota, seed, f"split {name}")
        if not len(chosen):
            raise DataError(f"{len(labels)} examples of {len(counts)} classes are too few to set a {name} split aside; "
                            "add examples, or give the split")
        cut[name] = rest[chosen]
        rest = np.delete(rest, chosen)
    return {"train": rest, **cut}


def _by_group(labels: np.ndarray, groups: np.ndarray, fractions: Sequence[tuple[str, float]],
              random: np.random.Generator, needs_every_class: bool) -> dict[str, np.ndarray]:
    """Give whole groups, the largest first, to the split that then comes closest to its share of every class."""
    names = ["train", *(name for name, _ in fractions)]
    _, group_of = np.unique(groups, return_inverse=True)
    _, class_of = np.unique(labels, return_inverse=True)
    table = np.zeros((group_of.max() + 1, class_of.max() + 1))
    np.add.at(table, (group_of, class_of), 1)
    if len(table) < len(names):
        raise DataError(f"{len(table)} groups cannot be divided into {', '.join(names)} without dividing a group; "
                        "add groups, or give the splits")
    shares = np.array([1 - sum(share for _, share in fractions), *(share for _, share in fractions)])
    split_of = _assign(table, shares, random)
    for number in range(1, len(names)):
        if not (split_of == number).any():
            _fill(table, split_of, number, needs_every_class)
    return {name: np.flatnonzero(split_of[group_of] == number) for number, name in enumerate(names)}


def _assign(table: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the split of each group; `table` counts examples by group and class, shape (g, c)."""
    weight = 1 / table.sum(axis=0)
    target = shares[:, None] * table.sum(axis=0)[None, :]
    current = np.zeros_like(target)
    split_of = np.zeros(len(table), dtype=np.int64)
    order = random.permutation(len(table))
    for group in order[np.argsort(-table[order].sum(axis=1), kind="stable")]:
        before = ((current - target) ** 2 * weight).sum(axis=1)
        after = ((current + table[group] - target) ** 2 * weight).sum(axis=1)
        split_of[group] = int(np.argmin(after - before))
        current[split_of[group]] += table[group]
    for lacking in np.flatnonzero(current[0] == 0):
        holders = np.flatnonzero(table[:, lacking] > 0)
        split_of[holders[np.argmin(table[holders].sum(axis=1))]] = 0
    return split_of


def _fill(table: np.ndarray, split_of: np.ndarray, split: int, needs_every_class: bool) -> None:
    """Move the smallest group that the training split can spare into an empty split."""
    mine = np.flatnonzero(split_of == 0)
    train = table[mine].sum(axis=0)
    spare = [group for group in mine if (train - table[group] > 0)[table[group] > 0].all()]
    if not spare and not needs_every_class and len(mine) > 1:
        spare = list(mine)
    if not spare:
        raise DataError("the groups cannot be divided so that training keeps every class and each split has a group; "
                        "add groups, or give the splits")
    split_of[min(spare, key=lambda group: table[group].sum())] = split
