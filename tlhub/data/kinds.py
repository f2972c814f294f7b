"""What every kind of target can do: be read from a table, checked, divided evenly, and turned into labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import datasets
import numpy as np

from tlhub.data.tables import Table

_SHOWN = 20
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Reading:
    """The labels of a table, as far as they can be read.

    Attributes:
        labels: One entry for each row: the name of a class, a tuple of labels' names, or a row of values.
        missing: Rows that say nothing at all, bool, shape (n,).
        problems: What stops a run; without any, every label is there.
    """

    labels: np.ndarray
    missing: np.ndarray
    problems: tuple[str, ...] = ()


class Kind(ABC):
    """A kind of target, in the columns of one data set.

    Attributes:
        problem_type: Its name in transformers' configurations.
        noun: What columns hold, in messages.
        members: What one of the names stands for, and several, in messages.
        evenly: By what splits and subsets are drawn, in messages.
        strata_noun: What `strata` are, in messages.
        needs_every_stratum: Whether training has to keep an example of each stratum.
        columns: The columns that hold it; none where it is in the inputs themselves.
        divisible: Whether an example may be divided, and an end of it set aside, since it is a text to be gone on with.
    """

    problem_type: ClassVar[str]
    noun: ClassVar[str]
    members: ClassVar[tuple[str, str]]
    evenly: ClassVar[str]
    strata_noun: ClassVar[str]
    needs_every_stratum: ClassVar[bool] = True
    columns: tuple[str, ...]
    divisible: bool = False

    @abstractmethod
    def read(self, table: Table, split: str) -> Reading:
        """Return the labels of a split.

        Args:
            table: Holds the columns.
            split: Its name, for messages.

        Raises:
            DataError: A column holds something else altogether.
        """

    @abstractmethod
    def check(self, labels: np.ndarray) -> None:
        """Refuse a column that cannot be one of such targets.

        Args:
            labels: As read, of what training data are taken from, shape (n, ...).

        Raises:
            DataError: Nothing can be learned from them.
        """

    @abstractmethod
    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return what classes, labels or values are called, in the order of the model's outputs."""

    @abstractmethod
    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return the part that each example belongs to when examples are drawn evenly, shape (n,).

        Args:
            labels: As read, shape (n, ...).
            most: The largest number of parts, where the kind of target leaves a choice.
        """

    @abstractmethod
    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return labels as `tlhub.data.targets.Target` lays them down, shape (n,) or (n, outputs).

        Args:
            labels: As read.
            ids: What each is called in messages.
            names: Of `names`, or of a finished run.
            split: Its name, for messages.

        Raises:
            DataError: A label is not among the names.
        """

    @abstractmethod
    def facts(self, labels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return what to tell of encoded training labels, as name and value."""

    def used(self, labels: np.ndarray) -> set[str]:
        """Return the names that occur in labels as read; none where every example has a value for each."""
        return set()

    @abstractmethod
    def is_placeholder(self, label: Any, training: np.ndarray) -> bool:
        """Return whether a label that every row of a test split has only fills its place, for want of a true one.

        Args:
            label: As read.
            training: Labels to compare it with, as read.
        """

    def remarks(self, labels: np.ndarray, names: tuple[str, ...], split: str) -> list[str]:
        """Return what a user should know of the labels that a split is scored by.

        Args:
            labels: As read.
            names: Of `names`.
            split: Its name.
        """
        used = self.used(labels)
        lacking = [name for name in names if name not in used]
        return [f"{len(lacking)} {self.members[1]} have no example in {split}: {', '.join(lacking[:10])}"] \
            if lacking else []

    def check_training(self, labels: np.ndarray) -> None:
        """Refuse what cannot be learned from the training split as it was divided in the end.

        Raises:
            DataError: Something has no variation.
        """
        return


def label_name(value: Any) -> str | None:
    """Return what a cell names; None where it is empty or no number."""
    if is_blank(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of whole numbers with gaps is read as floating point
    return str(value).strip()


def is_blank(value: Any) -> bool:
    """Return whether a cell says nothing: it is missing, empty, or not a number."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in {"", "nan"})


def number(value: Any) -> float | None:
    """Return a cell as a finite number; None where it is none."""
    if isinstance(value, str) and "_" in value:
        return None  # Python reads 1_000 as a number, tables do not mean one
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def class_names(feature: object) -> tuple[str, ...] | None:
    """Return the names that a column declares, of itself or of the members of its lists; None where there are none."""
    if is_list(feature):
        feature = getattr(feature, "feature", None)
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def is_list(feature: object) -> bool:
    """Return whether a column holds lists."""
    return isinstance(feature, (datasets.List, datasets.LargeList))


def in_order(names: set[str], declared: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return names in the order of the declared ones, else as numbers where all are numbers, else by name."""
    if declared is not None:
        return tuple(name for name in declared if name in names)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))


def read_column(table: Table, column: str, split: str, parse: Callable[[Any], _Value | None],
                wrong: str) -> tuple[list[_Value | None], np.ndarray, str | None]:
    """Read a column, cell by cell.

    Args:
        table: Holds the column.
        column: Its name.
        split: The name of the split, for messages.
        parse: Returns a cell's value, None where it has none.
        wrong: What a cell is for which there is no value, for messages.

    Returns:
        The values; which cells say nothing, bool, shape (n,); and what is wrong, None if nothing is.
    """
    cells = list(table.rows[column])
    values = [None if is_blank(cell) else parse(cell) for cell in cells]
    bad = [index for index, value in enumerate(values) if value is None]
    blank = np.array([is_blank(cell) for cell in cells], dtype=bool)
    if not bad:
        return values, blank, None
    cell = cells[bad[0]]
    shown = "nothing" if cell is None or cell == "" else f"{cell!r}"[:60]
    return values, blank, (f"{table.ids[bad[0]]}: column {column!r} holds {shown}, which is {wrong} ({len(bad)} of "
                           f"{len(cells)} rows of split {split!r}); correct them or remove the rows")


def as_objects(values: Sequence[Any]) -> np.ndarray:
    """Return values, tuples included, as an array of objects, shape (n,)."""
    return np.fromiter(values, dtype=object, count=len(values))


def counted(names: Sequence[str], counts: Sequence[int]) -> str:
    """Return names with their counts as one line, cut after the first few."""
    shown = [f"{name} {count}" for name, count in zip(names, counts, strict=True)]
    more = f", ... ({len(shown) - _SHOWN} more)" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
