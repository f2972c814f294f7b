"""Examples that are lost after they were checked: files that vanish, or rot, while a run reads them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

from tlhub.data.prepare import Examples
from tlhub.errors import DataError, LostDataError

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)


class StandIns(Generic[T]):
    """Decodes examples; for a training example that is lost another one stands in from then on.

    That is the next one with the same target or, where there is none, with the nearest; it depends only on what is
    lost.

    Args:
        examples: The examples; they say how many of them may be lost.
        decode: Decodes the one at an index.

    Attributes:
        lost: Why each of those that were lost cannot be decoded, by index.
    """

    def __init__(self, examples: Examples, decode: Callable[[int], T]) -> None:
        self._examples = examples
        self._decode = decode
        self._lock = threading.Lock()
        self.lost: dict[int, str] = {}

    def decode(self, index: int) -> T:
        """Return the example at an index, or what stands in for it.

        Raises:
            LostDataError: It cannot be decoded, and none may be lost, or too many are.
        """
        while True:
            place = self.place(index)
            try:
                return self._decode(place)
            except LostDataError as error:
                if not self._examples.spare:
                    raise self._untouchable(error) from None
                self.learn({place: error.reason})

    def place(self, index: int) -> int:
        """Return the index of what stands for an example: its own, unless it is lost."""
        if index not in self.lost:
            return index
        labels = self._examples.labels.reshape(len(self._examples), -1)
        differ = abs(labels - labels[index]) if labels.dtype.kind == "f" else labels != labels[index]
        distance = differ.sum(axis=1).astype(np.float64)
        distance[list(self.lost)] = np.inf
        return int(np.argmin(np.roll(distance, -index)) + index) % len(labels)

    def learn(self, found: Mapping[int, str]) -> None:
        """Take examples for lost, on this process or on another.

        Args:
            found: Why they cannot be decoded, by index.

        Raises:
            LostDataError: Too many are lost.
        """
        with self._lock:
            new = {index: reason for index, reason in found.items() if index not in self.lost}
            self.lost = {**self.lost, **new}
        for index, reason in new.items():
            _LOGGER.warning("%r was checked when the run began and now %s; in training %r stands in for it",
                            self._examples.ids[index], reason, self._examples.ids[self.place(index)])
        total = len(self._examples)
        if len(self.lost) > min(self._examples.spare or 0, total - 1):
            first = min(self.lost)
            raise LostDataError(
                f"{len(self.lost)} of {total} training examples were checked when the run began and cannot be used any "
                f"more, the first is {self._examples.ids[first]!r}: {self.lost[first]}; that is more than "
                "--data.max_bad_fraction allows: put them back, and the same command goes on")

    def _untouchable(self, error: LostDataError) -> LostDataError:
        """Return the error for an example that none may stand in for; those of a prediction were never checked."""
        if self._examples.spare is None:
            return error
        return LostDataError(f"{str(error).partition(';')[0]}; it was checked when the run began: put it back, and the "
                             "same command goes on", error.path, error.reason)


def as_lost(error: DataError, source: object) -> LostDataError:
    """Return the error for a file that was checked, and cannot be decoded now.

    Args:
        error: Why.
        source: Its path, or its content.
    """
    path = "" if isinstance(source, bytes) else str(source)
    words = str(error).partition(";")[0]
    return LostDataError(str(error), path, words.partition(f"'{path}' ")[2] or words)
