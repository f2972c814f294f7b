"""Starting the command, watching it from outside, and sending it signals."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

FRESH, FORKED = "fresh", "forked"
"""How the command is started: as a user does, or as a fork of a process that has imported the libraries."""
POLL = 0.004
"""Seconds between two looks at a run."""
PATIENCE = 300.0
"""Seconds after which a process that should have ended counts as hanging."""
MARK = "RELIABILITY_BENCHMARK"
TRAINING_BEGINS = "trained: "
CONTINUED = "continued after step "


def prepare_forks() -> Any:
    """Return a context whose processes are forks of one that has imported the libraries and has one thread.

    Importing takes several seconds of every start; so most starts leave it out, and as many more can be tried.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tlhub.run"])
    return context


def run_command(words: Sequence[str], log: str) -> None:
    """Be the `tlhub` command; what it says goes to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from tlhub import cli

    sys.exit(cli.main(list(words)))


@dataclass
class Started:
    """A command that was started.

    Attributes:
        log: What it says.
        pid: Its process.
        ended: Waits up to so many seconds, and returns the exit code, or None where it has not ended.
        began: When it was started, in seconds of `time.monotonic`.
        mark: Found in the environment of each of its processes.
    """

    log: Path
    pid: int
    ended: Callable[[float], int | None]
    mark: str
    began: float = field(default_factory=time.monotonic)

    def said(self) -> str:
        """Return what it has said so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def ranks(self) -> dict[int, int]:
        """Return the processes of its group that are alive: rank -> pid."""
        found = {}
        for pid, environment in marked(self.mark):
            if "RANK" in environment and "LOCAL_RANK" in environment:
                found[int(environment["RANK"])] = pid
        return found


def marked(mark: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the living processes whose environment has the mark, with that environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            content = (folder / "environ").read_bytes()
            if mark.encode() in content and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                pairs = (line.partition("=") for line in content.decode(errors="replace").split("\0"))
                yield int(folder.name), {name: value for name, _, value in pairs}
        except OSError:
            continue  # it ended meanwhile, or is somebody else's


@contextmanager
def started(words: Sequence[str], log: Path, how: str, forks: Any) -> Iterator[Started]:
    """Start the command; at the end of the block nothing of it is left.

    Args:
        words: The command's, without `tlhub`.
        log: Where it says what it says.
        how: `FRESH` or `FORKED`.
        forks: The context of `prepare_forks`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    mark = uuid.uuid4().hex
    if how == FORKED:
        child = forks.Process(target=run_command, args=(list(words), str(log)))
        child.start()

        def ended(seconds: float) -> int | None:
            wait([child.sentinel], seconds)
            code: int | None = child.exitcode
            return code

        command = Started(log, child.pid, ended, mark)
    else:
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, "-m", "tlhub", *words], stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=file, env={**os.environ, MARK: mark})

        def ended(seconds: float) -> int | None:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None

        command = Started(log, process.pid, ended, mark)
    try:
        yield command
    finally:
        while command.ended(0.0) is None:
            os.kill(command.pid, signal.SIGKILL)
            command.ended(1.0)
        for pid, _ in marked(mark):
            end(pid)


def end(pid: int) -> None:
    """Kill a process, unless it has ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}
