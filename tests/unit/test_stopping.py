"""Requests to stop: interrupted at once, noted, and heard although something swallows them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tlhub import stopping
from tlhub.stopping import listening

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_can_be_interrupted_is_at_once(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with stop.interrupting():
            ask(number)
            pytest.fail("it was not interrupted")

    with listening() as stop:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert stop.requested
        ask()
    name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
    assert capfd.readouterr().err == f"tlhub: {name}: stopping now; another Ctrl-C ends at once\n"


def test_what_is_deferred_runs_on_and_is_asked(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as stop, stop.interrupting():
        stop.raise_if_requested()
        with stop.deferring("after this step"):
            ask()
            ask()
            assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.raise_if_requested()
    assert capfd.readouterr().err == "tlhub: SIGTERM: stopping after this step; another Ctrl-C ends at once\n"


def test_what_is_concluded_is_only_noted(capfd: pytest.CaptureFixture[str]) -> None:
    with listening() as stop:
        with stop.interrupting():
            pass
        ask()
        assert stop.requested
        with pytest.raises(KeyboardInterrupt), stop.interrupting():
            pytest.fail("it was asked before")
    assert capfd.readouterr().err == ""


def test_an_interrupt_that_is_swallowed_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_REMINDER", 0.05)
    swallowed = []

    def work() -> None:
        try:
            ask()
        except KeyboardInterrupt as error:
            swallowed.append(error)
        time.sleep(10)

    with listening() as stop, stop.interrupting(), pytest.raises(KeyboardInterrupt):
        work()
    assert len(swallowed) == 1


def test_one_request_for_all_within() -> None:
    with listening() as outer:
        with listening() as inner:
            assert inner is outer
        handler = signal.getsignal(signal.SIGTERM)
        assert getattr(handler, "__self__", None) is outer
    with listening() as later:
        assert later is not outer


def test_a_thread_leaves_signals_alone() -> None:
    seen = []

    def work() -> None:
        with listening() as stop, stop.interrupting():
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_the_first_process_of_a_group_tells(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with listening() as stop, stop.deferring("later"):
        ask()
    assert stop.requested
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("passes_on", [False, True])
def test_a_signal_that_comes_too_late_is_the_callers(passes_on: bool) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with listening(passes_on=passes_on) as stop:
            with stop.interrupting():
                pass
            with listening(passes_on=True):  # within another block, that one decides
                ask()
            assert stop.requested
            assert not heard
        assert heard == [signal.SIGTERM] * passes_on
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_stopped_the_block_is_not_given_on() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(KeyboardInterrupt), listening(passes_on=True) as stop, stop.interrupting():
            ask()
        assert not heard
    finally:
        signal.signal(signal.SIGTERM, before)
