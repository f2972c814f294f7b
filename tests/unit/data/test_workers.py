"""Threads that decode: so many, or none."""

from __future__ import annotations

import threading

import pytest

from tlhub.data.workers import executor


def test_without_workers_nothing_leaves_the_thread() -> None:
    pool = executor(0)
    assert list(pool.map(lambda value: (value, threading.get_ident()), range(3))) == [
        (value, threading.get_ident()) for value in range(3)]
    assert threading.get_ident() not in executor(2).map(lambda value: threading.get_ident(), range(3))


@pytest.mark.parametrize("workers", [0, 2, None])
def test_errors_come_where_the_result_is_asked_for(workers: int | None) -> None:
    results = executor(workers).map(lambda value: 6 // value, (2, 0))
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError):
        next(results)
