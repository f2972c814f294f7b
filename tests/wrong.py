"""Command lines that have to fail, and what they have to say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tlhub import cli


@dataclass(frozen=True)
class Wrong:
    """A command line that must fail.

    Attributes:
        words: What follows `tlhub`.
        code: The exit code.
        given: What of the command line the message repeats.
        told: What else the message says.
    """

    words: str
    code: int
    given: str
    told: str = ""


def said(words: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command line, check its exit code, and return the one line in which it says why."""
    assert cli.main(words.split()) == code
    output = capsys.readouterr().err
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if line.startswith("tlhub: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("tlhub: ")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder the working one, with its own cache, and leave the process as it was."""
    before, handler, cache = Path.cwd(), signal.getsignal(signal.SIGTERM), os.environ.get("TLHUB_CACHE")
    os.chdir(folder)
    os.environ["TLHUB_CACHE"] = str(folder / "cache")
    try:
        yield
    finally:
        os.chdir(before)
        signal.signal(signal.SIGTERM, handler)
        if cache is None:
            os.environ.pop("TLHUB_CACHE", None)
        else:
            os.environ["TLHUB_CACHE"] = cache
