"""The whole quickstart: its runs, in a folder of their own that can be gone on with, and the page that shows them."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlhub import builtin, locking
from tlhub.environment import versions
from tlhub.errors import DiskFullError, StoppedError, UsageError, is_disk_full
from tlhub.folder import RunFolder
from tlhub.quickstart import crew
from tlhub.quickstart.page import write_page
from tlhub.quickstart.shows import SHOWS, Show

logger = logging.getLogger(__name__)

PAGE, LOG, STATE, FINDINGS = "index.html", "log.txt", "quickstart.json", "findings.json"
_LOCK = ".lock"
_MOST_PROCESSES = 4
"""Each holds the libraries, about a gibibyte."""


@dataclass(frozen=True)
class Outcome:
    """What the quickstart found.

    Attributes:
        folder: Where its runs and its page are.
        findings: What `tlhub.quickstart.findings.find` gave for each task, in the order of the shows.
        seconds: Of this command and of those that it goes on with.
    """

    folder: Path
    findings: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / PAGE


def quickstart(out: str | None = None, *, overwrite: bool = False, seed: int = 0, shows: Sequence[Show] = SHOWS,
               ) -> Outcome:
    """Carry out the runs of every show, compare them, and write the page.

    Args:
        out: The folder; default: `runs/quickstart-<n>`, the highest n that is not finished, otherwise the next.
        overwrite: Replace another quickstart in the folder.
        seed: Of every run.
        shows: What is run.

    Raises:
        UsageError: The folder holds a finished quickstart, or something else.
        StoppedError: It was asked to stop; the same command goes on.
        TlhubError: A run failed.
    """
    started = time.monotonic()
    with _taken(out, seed, shows, overwrite=overwrite) as folder:
        processes = min(_MOST_PROCESSES, _cores())
        work = _Work(folder.path, seed, shows)
        logger.info("quickstart: %d runs of %d tasks, %d at a time, in %s", work.total, len(shows), processes,
                    folder.path)
        terms = _terms(shows)
        for name, words in terms.items():
            logger.info("%s was trained on %s; the terms: %s", name, words, builtin.LICENSES)
        crew.carry_out(work.jobs(), work.done, processes=processes, log=folder.path / LOG)
        findings = tuple(_read(folder.path, show) for show in shows)
        seconds = _state(folder)["seconds"] + time.monotonic() - started
        outcome = Outcome(folder.path, findings, seconds)
        facts = {"seconds": seconds, "processes": processes, "seed": seed, "terms": terms, "versions": versions()}
        write_page(outcome.page, findings, facts)
    return outcome


class _Work:
    """What is still to be done: runs, and behind the last one of a task its comparison."""

    def __init__(self, folder: Path, seed: int, shows: Sequence[Show]) -> None:
        self.folder = folder
        self.seed = seed
        self.shows = {show.task: show for show in shows}
        self.open = {show.task: set(show.strategies) for show in shows}
        self.total = sum(map(len, self.open.values()))
        self.ended = 0

    def jobs(self) -> list[crew.Job]:
        """Return all runs."""
        return [self._job(show, strategy) for show in self.shows.values() for strategy in show.strategies]

    def _job(self, show: Show, strategy: str | None) -> crew.Job:
        return {"show": show.plain(), "strategy": strategy, "folder": str(self.folder), "seed": self.seed}

    def done(self, job: crew.Job) -> list[crew.Job]:
        """Tell of a run, and return what is next."""
        show, strategy = self.shows[job["show"]["task"]], job["strategy"]
        if strategy is None:
            return []
        self.ended += 1
        self.open[show.task].remove(strategy)
        metrics = json.loads((show.run_folder(strategy, self.folder) / "metrics.json").read_text(encoding="utf-8"))
        logger.info("[%2d/%d] %-20s %-12s %s %.3f  (%.0f s)", self.ended, self.total, show.task, strategy,
                    show.metric.replace("_", " "), metrics["test"][show.metric], sum(metrics["time"].values()))
        return [] if self.open[show.task] else [self._job(show, None)]


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _terms(shows: Sequence[Show]) -> dict[str, str]:
    """Return what each embedded checkpoint was trained on, and the terms of that."""
    names = dict.fromkeys(show.model for show in shows if builtin.is_builtin(show.model))
    return {name: builtin.read_card(name).terms for name in names}


def _read(folder: Path, show: Show) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / show.task / FINDINGS).read_text(encoding="utf-8"))
    return content


@contextmanager
def _taken(out: str | None, seed: int, shows: Sequence[Show], *, overwrite: bool) -> Iterator[RunFolder]:
    """Hold the folder for the length of the block, and write into its `quickstart.json` how that ended.

    Raises:
        UsageError: It holds something else, or another command is at work there.
    """
    asked = {"seed": seed, "shows": json.loads(json.dumps([show.plain() for show in shows]))}
    folder = RunFolder(Path(out) if out else _default_path(asked))
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with locking.held(folder.path / _LOCK, patience=0.0):
            _settle(folder, asked, overwrite=overwrite)
            with _status_of(folder, time.monotonic()):
                yield folder
    except BlockingIOError:
        raise UsageError(f"--out {str(folder.path)!r} is in use by {locking.holder(folder.path / _LOCK)}; wait until "
                         "it ends, or name another folder") from None
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"the disk is full, where {str(folder.path)!r} is or the cache; free some space, and "
                                "the same command goes on") from error
        raise UsageError(f"--out {str(folder.path)!r} cannot be written ({error}); name another folder") from error


def _settle(folder: RunFolder, asked: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder ready for a quickstart, or for going on with the one that it holds.

    Raises:
        UsageError: It holds something else.
    """
    given, held = f"--out {str(folder.path)!r}", {path.name for path in folder.path.iterdir()} - {_LOCK}
    before = _state(folder)
    if held and "shows" not in before:
        raise UsageError(f"{given} is not empty and holds no quickstart; name another folder")
    same = all(before.get(name) == value for name, value in asked.items())
    if held and (overwrite or before.get("state") == "finished" or not same):
        if not overwrite:
            what = "a finished quickstart" if before.get("state") == "finished" else "a quickstart of another kind"
            raise UsageError(f"{given} holds {what}; name another folder, or pass --overwrite")
        for show in before["shows"]:
            shutil.rmtree(folder.path / Path(str(show["task"])).name, ignore_errors=True)
        for name in (PAGE, LOG):
            (folder.path / name).unlink(missing_ok=True)
        before = {}
    folder.write_json(STATE, {"state": "running", "seconds": before.get("seconds", 0.0), **asked})


def _state(folder: RunFolder) -> dict[str, Any]:
    try:
        content = json.loads((folder.path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def _status_of(folder: RunFolder, started: float) -> Iterator[None]:
    state = "failed"
    try:
        yield
        state = "finished"
    except BaseException as error:
        state = "stopped" if isinstance(error, (StoppedError, KeyboardInterrupt)) else state
        raise
    finally:
        held = _state(folder)
        seconds = held.get("seconds", 0.0) + time.monotonic() - started
        folder.write_json(STATE, {**held, "state": state, "seconds": seconds})


def _default_path(asked: dict[str, Any]) -> Path:
    root = Path("runs")
    numbers = sorted(int(match[1]) for path in root.glob("quickstart-*")
                     if (match := re.fullmatch(r"quickstart-(\d+)", path.name)))
    for number in reversed(numbers):
        before = _state(RunFolder(root / f"quickstart-{number}"))
        if before.get("state") != "finished" and all(before.get(name) == value for name, value in asked.items()):
            return root / f"quickstart-{number}"
    return root / f"quickstart-{(numbers or [0])[-1] + 1}"


