"""Any number of labels for each example, as a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import MULTI_LABEL
from tlhub.data.classes import check_repetition, missing_labels
from tlhub.data.kinds import (
    Kind,
    Reading,
    as_objects,
    class_names,
    counted,
    in_order,
    is_blank,
    is_list,
    label_name,
    number,
    read_column,
)
from tlhub.data.sampling import rarest_label
from tlhub.data.tables import Table
from tlhub.errors import DataError

SEPARATORS = (";", "|", ",")
_FLAGS = {"false": False, "true": True}


class LabelSets(Kind):
    """Labels for each example, by name: a list, texts with a separator, or a column of 0 and 1 for each.

    Args:
        columns: One column of lists or texts, or several of 0 and 1 that are called like the labels.
        separator: What stands between labels in a text; None where each text is one label.
        declared: The labels in their order, where the column declares them.
    """

    problem_type: ClassVar[str] = MULTI_LABEL
    noun: ClassVar[str] = "labels"
    members: ClassVar[tuple[str, str]] = ("label", "labels")
    evenly: ClassVar[str] = "by rarest label"
    strata_noun: ClassVar[str] = "kinds of examples (by rarest label, or without any)"

    def __init__(self, columns: tuple[str, ...], separator: str | None, declared: tuple[str, ...] | None) -> None:
        self.columns = columns
        self._separator = separator
        self._declared = columns if len(columns) > 1 else declared

    def read(self, table: Table, split: str) -> Reading:
        """Return the labels of each example as a tuple of names; an empty one has none of them.

        An empty cell of text has none either, unless all cells of the split are empty: then its labels are missing.
        """
        if len(self.columns) > 1:
            return self._read_flags(table, split)
        column = self.columns[0]
        if is_list(table.rows.features[column]):
            sets = _read_lists(table, column)
        else:
            sets = _read_texts(list(table.rows[column]), self._separator)
        return Reading(as_objects(sets), *missing_labels(sets, table, column, split))

    def _read_flags(self, table: Table, split: str) -> Reading:
        read = [read_column(table, column, split, _flag, "neither 0 nor 1") for column in self.columns]
        sets = [tuple(name for name, flag in zip(self.columns, flags, strict=True) if flag)
                for flags in zip(*(values for values, _, _ in read), strict=True)]
        missing = np.logical_and.reduce([blank for _, blank, _ in read])
        return Reading(as_objects(sets), missing, tuple(problem for _, _, problem in read if problem is not None))

    def check(self, labels: np.ndarray) -> None:
        """Refuse fewer than two labels, and texts that hardly repeat.

        Raises:
            DataError: It is so.
        """
        names = sorted(self.used(labels))
        if len(names) < 2:
            raise DataError(f"{self._where()} only the label {names[0] if names else 'none'!r} in {len(labels)} rows; "
                            "several labels need two or more")
        if len(self.columns) == 1:
            check_repetition(names, len(labels), self.columns[0])

    def check_training(self, labels: np.ndarray) -> None:
        """Refuse a column that is never 1.

        Raises:
            DataError: It is so.
        """
        unseen = [name for name in self.columns if name not in self.used(labels)] if len(self.columns) > 1 else []
        if unseen:
            raise DataError(f"column {unseen[0]!r} is 0 in all {len(labels)} training rows, so its label cannot be "
                            "learned; leave it out of --data.target_columns")

    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return the columns of 0 and 1, or else the labels that occur."""
        return self.columns if len(self.columns) > 1 else in_order(self.used(labels), self._declared)

    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return the number of each example's rarest label, or one more for an example without any.

        A label that is no example's rarest gets a stratum of one example of its own, so that whatever takes one of
        each stratum takes one of each label.
        """
        held = self.encode(labels, [""] * len(labels), tuple(sorted(self.used(labels))), "")
        strata = rarest_label(held)
        sizes = np.bincount(strata, minlength=held.shape[1] + 1)
        for label in np.argsort(held.sum(axis=0), kind="stable"):
            holders = np.flatnonzero(held[:, label])
            if not sizes[label] and (sizes[strata[holders]] > 1).all():
                sizes[strata[holders[0]]] -= 1
                sizes[label] += 1
                strata[holders[0]] = label
        return strata

    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return which labels each example has, bool, shape (n, c).

        Raises:
            DataError: A label is not among the names.
        """
        numbers = {name: index for index, name in enumerate(names)}
        table = np.zeros((len(labels), len(names)), dtype=bool)
        for row, (name, found) in enumerate(zip(ids, labels, strict=True)):
            for label in found:
                if label not in numbers:
                    raise DataError(f"{name}: label {label!r} of split {split!r} is not known to the run, which has "
                                    f"{', '.join(names[:10])}; rename the label or leave the row out")
                table[row, numbers[label]] = True
        return table

    def facts(self, labels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the number of examples with each label, and how many labels an example has."""
        counts, sizes = labels.sum(axis=0).tolist(), labels.sum(axis=1)
        return [("labels", f"{len(names)} (training examples: {counted(names, counts)})"),
                ("labels of an example", f"{sizes.min()} to {sizes.max()}, mean {sizes.mean():.2f}; without any: "
                                         f"{(sizes == 0).sum()}")]

    def used(self, labels: np.ndarray) -> set[str]:
        """Return the labels that occur."""
        return {name for names in labels for name in names}

    def is_placeholder(self, label: Any, training: np.ndarray) -> bool:
        """Return whether it is no label at all, where every training example has one."""
        return not label and all(training)

    def _where(self) -> str:
        columns = ", ".join(map(repr, self.columns))
        return f"column {columns} has" if len(self.columns) == 1 else f"columns {columns} have"


def split_labels(cell: Any, separator: str | None) -> tuple[str, ...]:
    """Return the labels that a cell names, each once, in their order."""
    parts = [str(cell)] if separator is None else str(cell).split(separator)
    names = [label_name(cell if separator is None else part) for part in parts]
    return tuple(dict.fromkeys(name for name in names if name is not None))


def is_flag(value: Any) -> bool:
    """Return whether a cell is 0 or 1 (or false or true)."""
    return _flag(value) is not None


def _flag(value: Any) -> bool | None:
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    found = number(value)
    return bool(found) if found in (0.0, 1.0) else None


def _read_texts(cells: Sequence[Any], separator: str | None) -> list[tuple[str, ...] | None]:
    if all(is_blank(cell) for cell in cells):
        return [None] * len(cells)
    return [() if is_blank(cell) else split_labels(cell, separator) for cell in cells]


def _read_lists(table: Table, column: str) -> list[tuple[str, ...] | None]:
    declared = class_names(table.rows.features[column])
    cells = list(table.rows[column])
    sets: list[tuple[str, ...] | None] = []
    for name, cell in zip(table.ids, cells, strict=True):
        wrong = [value for value in cell or () if isinstance(value, (list, dict, bytes)) or is_blank(value)
                 or (declared is not None and value < 0)]
        if wrong:
            raise DataError(f"{name}: the list in column {column!r} holds {wrong[0]!r}; it has to hold names of labels")
        members = [declared[value] if declared is not None else label_name(value) for value in cell or ()]
        sets.append(None if cell is None else tuple(dict.fromkeys(str(member) for member in members)))
    _refuse_indicators(cells, table, column)
    return sets


def _refuse_indicators(cells: Sequence[list[Any] | None], table: Table, column: str) -> None:
    """Refuse lists that hold a 0 or 1 for each label: read as names, they would be wrong without a sign of it."""
    lists = [cell for cell in cells if cell]
    same_length = len(lists) > 0 and len({len(cell) for cell in lists}) == 1
    repeats = any(len(set(cell)) < len(cell) for cell in lists)
    if same_length and repeats and all(is_flag(value) for cell in lists for value in cell):
        raise DataError(f"{table.ids[0]}: the lists in column {column!r} hold 0 and 1 ({lists[0]!r}), not names of "
                        "labels; write names, or a column of 0 and 1 for each label (--data.target_columns)")
