"""Command lines that have to fail, and what they have to say."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tlhub import cli, results


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
    """Make a folder the working one, with its own cache and runs without plots, and leave the process as it was."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TLHUB_CACHE", str(folder / "cache"))
        # Plots take most of a tiny run's time; tests/unit/evaluation looks at them.
        patch.setattr(results, "_draw", lambda bench, outputs, content: None)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, handler)
