"""The kind of target that texts bring themselves: what comes next in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import NEXT_TOKEN
from tlhub.data.kinds import Kind, Reading
from tlhub.data.tables import Table


class NextTokens(Kind):
    """The tokens that come next, of every text; no column holds them.

    How many there are in an example, only a tokenizer tells: before it, labels are zeros of shape (n, 2).

    Args:
        divisible: Whether examples are texts, rather than records that are whole only together.
    """

    problem_type: ClassVar[str] = NEXT_TOKEN
    noun: ClassVar[str] = "tokens"
    members: ClassVar[tuple[str, str]] = ("token", "tokens")
    evenly: ClassVar[str] = "at random"
    strata_noun: ClassVar[str] = "texts"
    needs_every_stratum: ClassVar[bool] = False

    def __init__(self, *, divisible: bool) -> None:
        self.columns = ()
        self.divisible = divisible

    def read(self, table: Table, split: str) -> Reading:
        """Return zeros: nothing can be missing or wrong."""
        return Reading(np.zeros((len(table.ids), 2), np.int64), np.zeros(len(table.ids), dtype=bool))

    def check(self, labels: np.ndarray) -> None:
        """Accept every text."""

    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return one name for them all."""
        return ("token",)

    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return one part that all examples belong to."""
        return np.zeros(len(labels), np.int64)

    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return the labels as they are."""
        return labels

    def facts(self, labels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, str]]:
        """Return nothing: there is nothing to tell without a tokenizer."""
        return []

    def is_placeholder(self, label: Any, training: np.ndarray) -> bool:
        """Return False: a text is never without what comes next."""
        return False

    def remarks(self, labels: np.ndarray, names: tuple[str, ...], split: str) -> list[str]:
        """Return nothing: the names are not those of classes."""
        return []
