"""Keywords as a target: some classes by themselves, against all others taken together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlhub.data.classes import Classes
from tlhub.errors import DataError, nearest

_OTHER = "other"
_SHOWN = 20


class Keywords(Classes):
    """A class for each example, of which only the keywords are told apart.

    Labels as read are the data's own classes, so that splits and subsets have every one of them in its share.

    Args:
        column: Holds the class.
        declared: The classes in their order, where the column declares them.
        keywords: The classes to be told apart.
    """

    def __init__(self, column: str, declared: tuple[str, ...] | None, keywords: tuple[str, ...]) -> None:
        super().__init__(column, declared)
        self.keywords = keywords
        self.other = _OTHER
        while self.other in keywords:
            self.other = f"any {self.other}"

    def check(self, labels: np.ndarray) -> None:
        """Refuse a keyword that is no class, and keywords that leave no other class.

        Raises:
            DataError: It is so.
        """
        names = sorted(set(labels))
        listed = ", ".join(names[:_SHOWN]) + (f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else "")
        for keyword in self.keywords:
            if keyword not in names:
                close = nearest(keyword, names)
                raise DataError(f"keyword {keyword!r} is no class in column {self.columns[0]!r}, which has {listed}"
                                + (f"; {close}" if close.startswith("did you mean") else ""))
        if len(self.keywords) == len(names):
            raise DataError(f"{'keywords' if names[1:] else 'keyword'} {', '.join(map(repr, names))}: column "
                            f"{self.columns[0]!r} has no other class to tell {'them' if names[1:] else 'it'} from; add "
                            "clips of anything else in a class of their own")

    def names(self, labels: np.ndarray) -> tuple[str, ...]:
        """Return the name of everything else, and the keywords."""
        return (self.other, *self.keywords)

    def strata(self, labels: np.ndarray, most: int | None = None) -> np.ndarray:
        """Return the classes; those that cannot be in every split, or that are too many, are taken together.

        Args:
            labels: As read, shape (n,).
            most: The largest number of parts; each keyword keeps one.
        """
        classes, counts = np.unique(labels.astype(str), return_counts=True)
        own = np.isin(classes, self.keywords)
        together = (counts < 2) & ~own
        if most is not None and (~together).sum() + together.any() > most:
            rarest = np.flatnonzero(~own)[np.argsort(counts[~own], kind="stable")]
            together[rarest[:len(classes) - max(most, own.sum() + 1) + 1]] = True
        # No class has an empty name.
        return np.where(np.isin(labels.astype(str), classes[together]), "", labels.astype(str))

    def encode(self, labels: np.ndarray, ids: Sequence[str], names: tuple[str, ...], split: str) -> np.ndarray:
        """Return 0 for everything else, and the number of each keyword, int64, shape (n,)."""
        numbers = {name: index for index, name in enumerate(names)}
        return np.array([numbers[self._told(label)] for label in labels], dtype=np.int64)

    def used(self, labels: np.ndarray) -> set[str]:
        """Return which keywords occur, and whether anything else does."""
        return {self._told(label) for label in set(labels)}

    def _told(self, label: str) -> str:
        return label if label in self.keywords else self.other
