"""Work on many examples in portions that memory suffices for."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from tlhub.errors import TlhubError, is_out_of_memory

T = TypeVar("T")
_LOGGER = logging.getLogger(__name__)


def within_memory(compute: Callable[[], T]) -> T | None:
    """Return what is computed, or None where memory ran out; what was held for it is freed then."""
    try:
        return compute()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here are the frames gone that the error holds, and their tensors with them.
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return None


class Portions:
    """How many examples are worked on at a time: half as many each time that memory runs out.

    Attributes:
        size: The most examples at a time; None as long as all that are asked for fit.
    """

    def __init__(self) -> None:
        self.size: int | None = None

    def run(self, indices: np.ndarray, compute: Callable[[np.ndarray], T]) -> Iterator[tuple[np.ndarray, T]]:
        """Yield portions of the examples, in order, each with what is computed for it.

        Args:
            indices: Which examples, shape (b,).
            compute: Gives the result for some of them, which has to be on the host for its memory to be known to do.

        Raises:
            TlhubError: Memory does not suffice for one example.
        """
        start = 0
        while start < len(indices):
            part = indices[start:start + (self.size or len(indices))]
            found = within_memory(partial(compute, part))
            if found is None:
                self._halve(len(part))
                continue
            yield part, found
            start += len(part)

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise TlhubError("memory does not suffice for one example at a time, without gradients; free some of it, "
                             "shorten the examples, or take a smaller checkpoint")
        self.size = tried // 2
        _LOGGER.warning("out of memory with %d examples at a time; it goes on with %d", tried, self.size)
