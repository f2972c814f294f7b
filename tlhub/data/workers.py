"""Threads that decode files, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any


class HereExecutor(Executor):
    """Does everything at once, in the thread that asks."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` and return what came of it."""
        outcome: Future[Any] = Future()
        try:
            outcome.set_result(fn(*args, **kwargs))
        except Exception as error:
            outcome.set_exception(error)
        return outcome


def executor(workers: int | None) -> Executor:
    """Return what runs functions.

    Args:
        workers: How many threads; 0 for the one that asks, None for the number of cores.
    """
    return HereExecutor() if workers == 0 else ThreadPoolExecutor(workers or os.cpu_count())
