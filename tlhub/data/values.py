"""One number or several, as a target: a regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import REGRESSION
from tlhub.data.kinds import Kind, Reading, class_names, number, read_column
from tlhub.data.tables import Table
from tlhub.errors import DataError

_BINS = 10


class Values(Kind):
    """Numbers for each example, one a column, in the data's own units.

    Args:
        columns: Hold them.
    """

    problem_type: ClassVar[str] = REGRESSION
    noun: ClassVar[str] = "values"
    members: ClassVar[tuple[str, str]] = ("value", "values")
    evenly: ClassVar[str] = "evenly over the values"
    strata_noun: ClassVar[str] = "ranges of values"
    needs_every_stratum: ClassVar[bool] = False

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def read(self, table: Table, split: str) -> Reading:
        """Return the values, float64, shape (n, t); not a number where there is none.

        A column of classes has the values that their names say, not their numbers in its list of classes.
        """
        read = [read_column(table, column, split, *_parser(table, column)) for column in self.columns]
        labels = np.array([values for values, _, _ in read], dtype=np.float64).T.reshape(-1, len(read))
        missing = np.logical_and.reduce([blank for _, blank, _ in read])
        return Reading(labels, missing, tuple(problem for _, _, problem in read if problem is not None))

    def check(self, labels: np.ndarray) -> None:
        """Refuse values that are all alike.

        Raises:
            DataError: They are, or there are none.
        """
        if not len(labels):
            raise DataError(f"column {self.columns[0]!r} has a value in no row that can be used; add examples")
        for column, values in zip(self.columns, labels.T, strict=True):
            if (values == values[0]).all():
                raise DataError(f"column {column!r} is {values[0]:g} in all {len(values)} training rows; a regression "
                                "needs values that differ")

    def check_training(self, labels: np.ndarray) -> None:
        """Refuse values that are all alike after splits and subsets were drawn."""
        self.check(labels)

    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return the columns."""
        return self.columns

    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return which tenth of the examples each lies in, by its value; of several, by the mean of the z-scores.

        Every stratum gets two examples or more, unless values repeat, so that a split can take one of each.
        """
        spread = labels.std(axis=0)
        score = ((labels - labels.mean(axis=0)) / np.where(spread > 0, spread, 1.0)).mean(axis=1)
        bins = max(1, min(_BINS, len(labels) // 2, most or _BINS))
        highest = np.sort(score)[np.arange(1, bins) * len(score) // bins - 1]
        return np.asarray(np.searchsorted(np.unique(highest), score))

    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return the values, float64, shape (n, t)."""
        return labels

    def facts(self, labels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return the range of each target."""
        return [(name, f"{values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}, standard deviation "
                       f"{values.std():.6g} ({len(values)} training examples)")
                for name, values in zip(names, labels.T, strict=True)]

    def is_placeholder(self, label: Any, training: np.ndarray) -> bool:
        """Return whether one of the values lies outside of what training has, such as the -1 of GLUE's STS-B."""
        return bool(((label < training.min(axis=0)) | (label > training.max(axis=0))).any())

    def remarks(self, labels: np.ndarray, names: tuple[str, ...], split: str) -> list[str]:
        """Tell which values do not vary: there is nothing to explain, or to correlate with."""
        return [f"{name} is {values[0]:g} in all {len(values)} rows of {split}, so r2 and pearson say nothing there"
                for name, values in zip(names, labels.T, strict=True) if len(values) and (values == values[0]).all()]


def _parser(table: Table, column: str) -> tuple[Callable[[Any], float | None], str]:
    """Return what reads a cell of a column as a number, and what a cell is of which that cannot be done."""
    declared = class_names(table.rows.features[column])
    if declared is None:
        return number, "no finite number"
    values = [number(name) for name in declared]
    words = f"a class, and the classes are called {', '.join(declared[:3])}, not all of them finite numbers"
    return lambda cell: values[cell] if isinstance(cell, int) and cell >= 0 else None, words
