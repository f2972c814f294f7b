"""Runs that are stopped again and again, and started again each time, until they are done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from setups import CHECKPOINT_EVERY, STEPS, Setup
from starts import FORKED, FRESH, PATIENCE, POLL, TRAINING_BEGINS, Started, marked, started
from state import State, last_step, look, place, result, resumed_at, status, writing

KILL, TERM, RANKS, LAUNCHERS = "kill", "term", "ranks", "launchers"
PHASES = {"start": 0.25, "training": 0.35, "saving": 0.2, "ending": 0.2}
"""Shares of the signals that are meant for each part of a start's work."""
SAVING = 0.06
"""Seconds that a checkpoint takes at most."""
FRESH_SHARE = 0.2
"""Share of the starts that are not forks."""


@dataclass(frozen=True)
class Moment:
    """When a start is to get its signal; drawn before the run begins.

    Attributes:
        how: `FRESH` or `FORKED`.
        phase: The part of the work.
        share: How far into the time that this part takes.
        step: In training, the step from which that time counts.
        rank: Which process of a group.
    """

    how: str
    phase: str
    share: float
    step: int
    rank: int


def draw(part: str, setup: Setup, life: int, count: int, seed: int) -> list[Moment]:
    """Draw the moments of one run; those in the ending, which take a run to its last step, come last.

    Args:
        part: Which test.
        setup: The run.
        life: Its number.
        count: How many moments.
        seed: What they are drawn from, with the names and numbers above.
    """
    random = np.random.default_rng([seed, life, *f"{part} {setup.name}".encode()])
    phases = [str(phase) for phase in random.choice(list(PHASES), count, p=list(PHASES.values()))]
    steps = sorted(int(step) for step in random.integers(0, STEPS, count))
    forked = (random.random(count) >= FRESH_SHARE) & setup.alone
    return [Moment(FORKED if fork else FRESH, phase, float(share), step, int(rank)) for fork, phase, share, step, rank
            in zip(forked, sorted(phases, key="ending".__eq__), random.random(count), steps,
                   random.integers(0, 2, count), strict=True)]


class Journal:
    """What was seen, one line an event, so that a script that is stopped goes on where it was.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def entries(self, run: str | None = None) -> list[dict[str, Any]]:
        """Return the events so far, of one run or of all."""
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]
        return [entry for entry in found if run in (None, entry["run"])]

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write down an event, and print what is wrong in it."""
        with self._lock, self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        for problem in entry.get("problems", ()):
            print(f"PROBLEM in {entry['run']}: {problem}", flush=True)


@dataclass
class Durations:
    """Seconds that parts of the work took when last seen; at first, guesses."""

    start: dict[str, float] = field(default_factory=lambda: {FRESH: 8.0, FORKED: 1.0})
    training: float = 0.3
    ending: float = 2.0


@dataclass
class Life:
    """One run, started and stopped until it is done.

    Attributes:
        part: `KILL` or `TERM`; in groups, `RANKS` or `LAUNCHERS`, which are killed.
        setup: The run.
        folder: Where it and its cache lie.
        forks: The context of `prepare_forks`.
        seen: What its parts take.
    """

    part: str
    setup: Setup
    folder: Path
    forks: Any
    seen: Durations

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    def sit(self, moment: Moment | None, number: int, how: str = FRESH) -> dict[str, Any]:
        """Start the command, send it a signal at a moment, or let it end, and return what was seen.

        Args:
            moment: When, and how it is started; None to let it end.
            number: Of the start.
            how: It is started, where there is no moment.
        """
        before = look(self.run)
        words = self.setup.words(self.run, self.folder / "cache")
        how = moment.how if moment else how
        log = self.folder / "logs" / f"{number:03d}.txt"
        with started(words, log, how, self.forks) as command:
            arrived = self._wait_for(command, moment, how, before)
            seen: dict[str, Any] = {"run": self.folder.name, "how": how, "log": log.name}
            if moment and arrived:
                seen |= {"phase": moment.phase, **self._stop(command, moment, before)}
            else:
                seen["code"] = command.ended(PATIENCE)
            seen["seconds"] = round(time.monotonic() - command.began, 2)
            seen["resumed_at"] = resumed_at(command.said())
            seen["said"] = [line[:300] for line in command.said().splitlines()[-1:]]
            left = [pid for pid, _ in marked(command.mark)]
        after = look(self.run)
        seen |= {"checkpoint_before": before.newest, "checkpoint_after": after.newest, "step": after.step}
        return {**seen, "problems": self._problems(seen, before, after, left)}

    def _wait_for(self, command: Started, moment: Moment | None, how: str, before: State) -> bool:
        """Wait until the moment has come, and return whether the command is still at work then."""
        if moment and moment.phase == "start":
            return self._wait_in_start(command, moment)
        began = self._wait_until(command, lambda: TRAINING_BEGINS in command.said())
        self.seen.start[how] = began or self.seen.start[how]
        if moment and moment.phase in ("training", "saving"):
            self._wait_until(command, lambda: last_step(self.run) >= moment.step)
            if moment.phase == "training":
                return command.ended(moment.share * self.seen.training) is None
            self._wait_until(command, lambda: bool(writing(self.run) - before.writing), poll=0.001)
            return command.ended(moment.share * SAVING) is None
        reached = self._wait_until(command, lambda: last_step(self.run) >= STEPS)
        if moment:
            return command.ended(moment.share * self.seen.ending) is None
        if reached and command.ended(PATIENCE) is not None:
            self.seen.ending = time.monotonic() - command.began - reached
            steps = STEPS - (resumed_at(command.said()) or 0)
            self.seen.training = 2 * CHECKPOINT_EVERY * (reached - began) / steps if steps else self.seen.training
        return False

    def _wait_in_start(self, command: Started, moment: Moment) -> bool:
        if self.part == TERM:  # what is promised begins with the first line
            self._wait_until(command, lambda: bool(command.said()))
        elif self.part == RANKS:
            self._wait_until(command, lambda: len(command.ranks()) > 1)
        left = self.seen.start[moment.how] - (time.monotonic() - command.began)
        return command.ended(moment.share * max(left, 0.5)) is None

    def _wait_until(self, command: Started, condition: Callable[[], bool], poll: float = POLL) -> float:
        """Wait for a condition; return the seconds since the start, 0 where it did not come about."""
        while command.ended(poll) is None and time.monotonic() - command.began < PATIENCE:
            if condition():
                return time.monotonic() - command.began
        return 0.0

    def _stop(self, command: Started, moment: Moment, before: State) -> dict[str, Any]:
        """Send the signal, and return what came of it."""
        where = place(command, self.run, before)
        victim = command.pid
        if self.part == RANKS:
            victim = command.ranks().get(moment.rank, 0)
            if not victim:
                return {"code": command.ended(PATIENCE), "place": None}
        sent = time.monotonic()
        os.kill(victim, signal.SIGTERM if self.part == TERM else signal.SIGKILL)
        code = command.ended(PATIENCE)
        while self.part == LAUNCHERS and any(marked(command.mark)) and time.monotonic() - sent < PATIENCE:
            time.sleep(0.1)
        reaction = time.monotonic() - sent
        if self.part == KILL:
            where = place(command, self.run, before)  # nothing moves any more
        return {"code": code, "place": where, "reaction": round(reaction, 3)}

    def _problems(self, seen: Mapping[str, Any], before: State, after: State, left: list[int]) -> list[str]:
        """Return what is not as it was promised."""
        expected = {KILL: -signal.SIGKILL, TERM: 75, RANKS: 1, LAUNCHERS: -signal.SIGKILL}[self.part]
        done = after.state == "finished"
        found = []
        if seen["code"] != (expected if seen.get("place") else 0) and not (done and seen.get("place")):
            found.append(f"exit code {seen['code']} (last line: {seen['said']})")
        if self.part == RANKS and seen.get("place") and not done and "SIGKILL" not in "".join(seen["said"]):
            found.append(f"it does not say that a process was killed (last line: {seen['said']})")
        if left:
            found.append(f"{len(left)} processes were left")
        if self.part == TERM and seen.get("place") and not done and status(self.run).get("exit_code") != 75:
            found.append(f"status.json says {status(self.run)}")
        if seen["resumed_at"] not in (None, before.newest):
            found.append(f"went on after step {seen['resumed_at']}, the newest checkpoint was {before.newest}")
        if after.newest is not None and not after.whole:
            found.append(f"checkpoint {after.newest} is not whole")
        if any((self.run / "checkpoints").glob("damaged-*")):
            found.append("a checkpoint was set aside as damaged")
        if not done and after.step - (after.newest or 0) > CHECKPOINT_EVERY:
            found.append(f"the work of steps {after.newest} to {after.step} is lost")
        return found


def live(life: Life, moments: list[Moment], journal: Journal, reference: Mapping[str, str]) -> None:
    """Carry a run through its moments to its end, and compare what it left with an undisturbed one.

    Args:
        life: The run.
        moments: When it is stopped.
        journal: Where all is written down; what is there already is not repeated.
        reference: What the undisturbed run left.
    """
    name = life.folder.name
    sittings = sum("code" in entry for entry in journal.entries(name))
    for number, moment in enumerate(moments[sittings:], start=sittings):
        if look(life.run).state == "finished" or any(entry.get("problems") for entry in journal.entries(name)):
            break
        journal.add(life.sit(moment, number))
    for number in (900, 901):  # the first may find a process of the last group still leaving
        if look(life.run).state != "finished":
            journal.add(life.sit(None, number, FORKED if life.setup.alone else FRESH))
    left = result(life.run) if look(life.run).state == "finished" else {}
    differing = [part for part, value in reference.items() if left.get(part) != value]
    journal.add({"run": name, "equal": not differing,
                 "problems": [f"{', '.join(differing)} differ from the undisturbed run's"] if differing else []})
    if not any(entry.get("problems") for entry in journal.entries(name)):
        shutil.rmtree(life.folder)
