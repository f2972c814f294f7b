"""Processes that carry out jobs side by side: started once, as their libraries take seconds, and stopped together."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlhub.errors import CheckpointError, DataError, StoppedError, TlhubError, UsageError
from tlhub.stopping import StopRequest, listening

Job = dict[str, Any]
"""What a worker reads, as plain values."""
_MODULE = "tlhub.quickstart.worker"
_PACE = 0.1
_ERRORS = {kind.exit_code: kind for kind in (UsageError, DataError, CheckpointError, StoppedError)}


@dataclass
class _Member:
    """One process, and the thread that talks to it."""

    process: subprocess.Popen[str]
    answers: queue.Queue[tuple[_Member, Job, dict[str, Any]]]
    jobs: queue.Queue[Job] = field(default_factory=queue.Queue)

    def talk(self) -> None:
        """Hand each job to the process, and its answer back."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        while True:
            job = self.jobs.get()
            line = ""
            with suppress(OSError):  # a process that is gone gives no answer
                self.process.stdin.write(json.dumps(job) + "\n")
                self.process.stdin.flush()
                line = self.process.stdout.readline()
            self.answers.put((self, job, self._answer(line)))

    def _answer(self, line: str) -> dict[str, Any]:
        if not line:
            return self._ending()
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            self.process.kill()
            return {"code": 1, "reason": f"a process of the quickstart said {line.strip()[:80]!r}, which is no answer"}
        return found

    def _ending(self) -> dict[str, Any]:
        code = self.process.wait()
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended (exit code {code})"
        return {"code": 1, "reason": f"a process of the quickstart {how}; the same command goes on"}


def carry_out(jobs: Sequence[Job], done: Callable[[Job], Sequence[Job]], *, processes: int, log: Path) -> None:
    """Carry out jobs in several processes, each in the order given.

    Args:
        jobs: What `tlhub.quickstart.worker` does.
        done: Called with each job that is done, in the order in which they end; returns jobs that are next.
        processes: How many at a time.
        log: File for what they have to say.

    Raises:
        StoppedError: This process was asked to stop; the jobs under way were given time to keep what they have.
        TlhubError: A job failed; of the kind that its exit code says. The file has more of it.
    """
    waiting = list(jobs)
    with listening() as stop, stop.deferring("once the runs have kept what they have"), \
            _crew(min(processes, len(waiting)), log, stop) as (members, answers):
        for member in members:
            member.jobs.put(waiting.pop(0))
        busy, told = len(members), False
        failed: TlhubError | None = None
        while busy:
            with suppress(queue.Empty):
                member, job, answer = answers.get(timeout=_PACE)
                busy -= 1
                if answer["code"]:
                    failed = failed or _ERRORS.get(answer["code"], TlhubError)(
                        f"{answer['reason']} (more in {str(log)!r})")
                else:
                    waiting[:0] = done(job)
                    if waiting and not (failed or stop.requested):
                        member.jobs.put(waiting.pop(0))
                        busy += 1
            if (failed or stop.requested) and not told:
                told = True
                _send(members, signal.SIGTERM)
    if stop.requested:
        raise StoppedError("stopped on request; the same command goes on")
    if failed:
        raise failed


@contextmanager
def _crew(count: int, log: Path, stop: StopRequest) -> Iterator[tuple[list[_Member], queue.Queue[Any]]]:
    """Start the processes, and end them with the block."""
    answers: queue.Queue[Any] = queue.Queue()
    members: list[_Member] = []
    # One thread each: scores depend on how many there are. Nothing is asked of the network.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not {"", str(Path.cwd())} & set(sys.path):
        environment["PYTHONSAFEPATH"] = "1"  # a user's own evaluate.py is not the library of this name
    with log.open("a", encoding="utf-8") as notes:
        stop.last_resort = lambda: _send(members, signal.SIGKILL)
        try:
            for _ in range(count):
                # In sessions of their own: a terminal's Ctrl-C reaches this process alone, which passes it on.
                members.append(_Member(subprocess.Popen(
                    [sys.executable, "-m", _MODULE, str(os.getpid())], env=environment, start_new_session=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=notes, text=True, encoding="utf-8"), answers))
                threading.Thread(target=members[-1].talk, daemon=True).start()
            yield members, answers
        finally:
            _send(members, signal.SIGKILL)
            for member in members:
                member.process.wait()
            stop.last_resort = None


def _send(members: Sequence[_Member], which: signal.Signals) -> None:
    for member in members:
        if member.process.poll() is None:
            member.process.send_signal(which)
