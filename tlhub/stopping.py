"""Stopping on request: SIGTERM and SIGINT, from a process's first moment to its last.

A request is either acted on at once, by a `KeyboardInterrupt` where nothing would be lost, or noted, where what runs
asks for it at its next safe point. Whoever runs says which: `StopRequest.interrupting` and `StopRequest.deferring`.
Outside of both it is only noted: what is being concluded then is concluded.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_REMINDER = 1.0
"""Seconds after which what runs is interrupted again, since a library may have swallowed the first exception."""
_ECHO = 2.0
"""Seconds in which a second SIGINT counts as the first: torchrun sends Ctrl-C on to processes that had it already."""


class AbandonedError(Exception):
    """What was computed is given up, since the run was asked to stop; it is computed again on going on."""


class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        requested: Whether it was, by a signal or by another process of the group.
        last_resort: Called when a second SIGINT ends this process; None where nothing has to go with it.
    """

    def __init__(self) -> None:
        self.requested = False
        self.last_resort: Callable[[], None] | None = None
        self._interrupts = False
        self._concluded = False
        self._when = ""
        self._number: int | None = None
        self._at = 0.0
        self._reminding = threading.Lock()

    def raise_if_requested(self) -> None:
        """Interrupt what runs where it was asked to stop before.

        Raises:
            KeyboardInterrupt: It was.
        """
        if self.requested:
            raise KeyboardInterrupt

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a request interrupt the block at once; one that came before does so at its start."""
        self.raise_if_requested()
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False
            with self._reminding:  # so that no reminder is on its way when the handlers are given back
                pass

    @contextmanager
    def deferring(self, when: str) -> Iterator[None]:
        """Let the block run on after a request, which it has to ask for, or its caller behind it.

        Args:
            when: When the request is heard, for the user.
        """
        before, self._interrupts, self._when = (self._interrupts, self._when), False, when
        try:
            yield
        finally:
            self._interrupts, self._when = before

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen for the signals for the length of the block; only the main thread can."""
        handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in handlers.items() if not self._concluded else ():
                signal.signal(number, handler)

    def conclude(self) -> None:
        """Let SIGTERM change nothing any more about how this process ends; Ctrl-C ends one that hangs at that."""
        self._concluded = True
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def pass_on(self) -> None:
        """Give a signal that changed nothing here to whoever listens now."""
        if self._number is not None:
            signal.raise_signal(self._number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._number, self._at = True, number, time.monotonic()
            if self.last_resort is None and not _echoes():
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends a process that hangs outside of Python, too
            self._tell(number)
            if self._interrupts:
                threading.Thread(target=self._remind, daemon=True).start()
                raise KeyboardInterrupt
        elif number == signal.SIGINT and time.monotonic() - self._at > (_ECHO if _echoes() else 0.0):
            if self.last_resort is not None:
                self.last_resort()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        elif self._interrupts and frame is not None and time.monotonic() - self._at > _REMINDER:
            raise KeyboardInterrupt

    def _remind(self) -> None:
        time.sleep(_REMINDER)
        while self._interrupts:
            with self._reminding:
                if self._interrupts:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            time.sleep(_REMINDER)

    def _tell(self, number: int) -> None:
        """Say what happens now, once for a group; `print` is not safe in a handler."""
        if os.environ.get("RANK", "0") == "0" and (self._interrupts or self._when):
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            line = f"tlhub: {name}: stopping {self._when or 'now'}; another Ctrl-C ends at once\n"
            with suppress(OSError):
                os.write(2, line.encode())


def _echoes() -> bool:
    """Tell whether a launcher may repeat a signal; tlhub's own starts processes that no terminal reaches."""
    return "WORLD_SIZE" in os.environ


_current: StopRequest | None = None


@contextmanager
def listening(*, passes_on: bool = False) -> Iterator[StopRequest]:
    """Listen for SIGTERM and SIGINT for the length of the block; within another such block, that one's request.

    Args:
        passes_on: Let the caller's own handlers have a signal that came when the block was being concluded. Without
            it, the block tells itself whether one came.
    """
    global _current
    if _current is not None:
        yield _current
        return
    _current = request = StopRequest()
    try:
        with request.installed():
            yield request
    finally:
        _current = None
    if passes_on:
        request.pass_on()
