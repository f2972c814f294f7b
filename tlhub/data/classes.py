"""One class out of several, as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import SINGLE_LABEL
from tlhub.data.kinds import Kind, Reading, as_objects, class_names, counted, in_order, label_name
from tlhub.data.tables import Table
from tlhub.errors import DataError

_MANY = 20
_NO_CLASS = "-1"
"""What test splits of the Hub have for a class that is kept back."""


class Classes(Kind):
    """A class for each example, by name.

    Args:
        column: Holds it.
        declared: The classes in their order, where the column declares them.
    """

    problem_type: ClassVar[str] = SINGLE_LABEL
    noun: ClassVar[str] = "label"
    members: ClassVar[tuple[str, str]] = ("class", "classes")
    evenly: ClassVar[str] = "by class"
    strata_noun: ClassVar[str] = "classes"

    def __init__(self, column: str, declared: tuple[str, ...] | None) -> None:
        self.columns = (column,)
        self._declared = declared

    def read(self, table: Table, split: str) -> Reading:
        """Return names: those that the column declares where it does; None where one is missing.

        Raises:
            DataError: The column holds lists or structures.
        """
        column = self.columns[0]
        declared = class_names(table.rows.features[column])
        values = list(table.rows[column])
        for name, value in zip(table.ids, values, strict=True):
            if isinstance(value, (list, dict, bytes)):
                raise DataError(f"{name}: label column {column!r} holds a {type(value).__name__}; it has to be one "
                                "class")
        if declared is not None:
            labels = [declared[value] if value is not None and value >= 0 else None for value in values]
        else:
            labels = [label_name(value) for value in values]
        return Reading(as_objects(labels), *missing_labels(labels, table, column, split))

    def check(self, labels: np.ndarray) -> None:
        """Refuse a single class, and texts that hardly repeat.

        Raises:
            DataError: It is so.
        """
        names = sorted(set(labels))
        if len(names) < 2:
            raise DataError(f"column {self.columns[0]!r} has only the class {names[0] if names else 'none'!r} in "
                            f"{len(labels)} rows; a classifier needs two or more")
        check_repetition(names, len(labels), self.columns[0])

    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return the classes that occur."""
        return in_order(set(labels), self._declared)

    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return the classes."""
        return labels.astype(str)

    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return the index of each class, int64, shape (n,).

        Raises:
            DataError: A class is not among the names.
        """
        numbers = {name: index for index, name in enumerate(names)}
        for name, label in zip(ids, labels, strict=True):
            if label not in numbers:
                raise DataError(f"{name}: class {label!r} of split {split!r} is not known to the run, which has "
                                f"{', '.join(names[:10])}; rename the label or leave the row out")
        return np.array([numbers[label] for label in labels], dtype=np.int64)

    def facts(self, labels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the number of examples of each class."""
        counts = np.bincount(labels, minlength=len(names)).tolist()
        return [("classes", f"{len(names)} (training examples: {counted(names, counts)})")]

    def used(self, labels: np.ndarray) -> set[str]:
        """Return the classes that occur."""
        return set(labels)

    def is_placeholder(self, label: Any, training: np.ndarray) -> bool:
        """Return whether it is -1, which training never has."""
        return bool(label == _NO_CLASS) and _NO_CLASS not in set(training)


def missing_labels(labels: Sequence[object], table: Table, column: str,
                   split: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which labels are missing (None), bool, shape (n,), and the problem that this is."""
    missing = np.array([label is None for label in labels], dtype=bool)
    if not missing.any():
        return missing, ()
    several = next((label for label in labels if isinstance(label, str) and (";" in label or "|" in label)), None)
    hint = f", or, where {several!r} is several labels, say so with --data.label_separator" if several else ""
    return missing, (f"{table.ids[int(missing.argmax())]}: no label in column {column!r} ({missing.sum()} of "
                     f"{len(labels)} rows of split {split!r}); fill them in or remove the rows{hint}",)


def check_repetition(names: Sequence[str], rows: int, column: str) -> None:
    """Refuse a column of so many different labels that it is something else.

    Raises:
        DataError: They are many, and hardly any occurs twice.
    """
    if len(names) > _MANY and len(names) > rows // 2:
        raise DataError(f"column {column!r} has {len(names)} different labels in {rows} rows (such as "
                        f"{names[0]!r}); name the column of the classes with --data.label_column")
