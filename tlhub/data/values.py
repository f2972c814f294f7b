"""One number or several, as a target: a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tlhub.config import REGRESSION
from tlhub.data.kinds import Kind, Reading, number, read_column
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
    counts_members: ClassVar[bool] = False
    evenly: ClassVar[str] = "evenly over the values"
    strata_noun: ClassVar[str] = "ranges of values"
    needs_every_stratum: ClassVar[bool] = False

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def read(self, table: Table, split: str) -> Reading:
        """Return the values, float64, shape (n, t); not a number where there is none."""
        read = [read_column(table, column, split, number, "no finite number") for column in self.columns]
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
