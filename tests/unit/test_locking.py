"""One process at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tlhub.locking import held, holder

HOLD = """
import sys, time
from pathlib import Path
from tlhub.locking import held
with held(Path(sys.argv[1]), patience=0):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another_holds(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_lock_goes_with_its_file(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    for _ in range(2):
        with held(lock, patience=0):
            assert str(os.getpid()) in holder(lock)
            with pytest.raises(BlockingIOError), held(lock, patience=0):
                pytest.fail("held twice")
        assert list(tmp_path.iterdir()) == []
    assert holder(lock) == "another process"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_holds(lock) as process:
        with pytest.raises(BlockingIOError), held(lock, patience=0):
            pytest.fail("held twice")
        assert holder(lock).startswith(f"process {process.pid} on ")
        process.send_signal(signal.SIGKILL)
        started = time.monotonic()
        with held(lock, patience=10):
            assert time.monotonic() - started < 5


def test_who_waits_for_a_file_that_is_removed_takes_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, real, removed = tmp_path / ".lock", fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not removed:
            removed.append(handle)
            lock.unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with held(lock, patience=5):
        assert lock.exists()
    assert len(removed) == 1


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             caplog: pytest.LogCaptureFixture) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    caplog.set_level(logging.WARNING, "tlhub")
    with held(tmp_path / ".lock", patience=0):
        assert "knows no locks" in caplog.text
