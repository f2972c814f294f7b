"""What a run's folder shows from outside: where the run is, which checkpoints are whole, and how it came out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setups import STEPS
from starts import CONTINUED, TRAINING_BEGINS, Started, read_json

CHANGING = ("time", "throughput", "peak_memory_mib")
"""What two equal runs need not have in common in `metrics.json`."""


@dataclass(frozen=True)
class State:
    """A run's folder at one moment.

    Attributes:
        step: The last step that the history tells of, 0 for none.
        newest: The step of the newest checkpoint, None where there is none.
        whole: Whether every file of that checkpoint has the digest that its manifest states, read here.
        writing: Folders that a checkpoint is being written to, with what tells them from others of the same name.
        state: What `status.json` says; empty where there is none.
    """

    step: int
    newest: int | None
    whole: bool
    writing: frozenset[tuple[str, int]]
    state: str


def look(run: Path) -> State:
    """Return the state of a run's folder."""
    checkpoints = run / "checkpoints"
    names = sorted(path.name for path in checkpoints.iterdir()) if checkpoints.exists() else []
    steps = [name for name in names if name.startswith("step-")]
    newest = int(steps[-1].split("-")[1]) if steps else None
    return State(last_step(run), newest, bool(steps) and is_whole(checkpoints / steps[-1]), writing(run),
                 status(run).get("state", ""))


def writing(run: Path) -> frozenset[tuple[str, int]]:
    """Return the folders that a checkpoint is being written to, with what tells them from others of the same name."""
    found = set()
    for path in run.glob("checkpoints/.writing-*"):
        try:
            found.add((path.name, path.stat().st_ino))
        except FileNotFoundError:
            continue  # it was renamed meanwhile
    return frozenset(found)


def status(run: Path) -> dict[str, Any]:
    """Return what `status.json` says; empty where there is none."""
    return read_json(run / "status.json")


def is_whole(checkpoint: Path) -> bool:
    """Return whether the files of a checkpoint are those of its manifest, with the same digests."""
    try:
        digests = json.loads((checkpoint / "manifest.json").read_text())
        names = {path.name for path in checkpoint.iterdir()}
        return names == {*digests, "manifest.json"} and all(
            hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def last_step(run: Path) -> int:
    """Return the step of the last whole line of the history, 0 where there is none."""
    try:
        with (run / "history.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    for line in reversed(lines[:-1]):  # what follows the last line feed is half a line
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0


def place(command: Started, run: Path, before: State) -> str:
    """Return in which part of its work a command is, or was when it was killed.

    Args:
        command: It.
        run: The run's folder.
        before: The folder's state when the command was started.
    """
    said, now = command.said(), look(run)
    if now.state == "finished":
        return "after the end"
    if now.writing - before.writing:
        return "saving"
    if TRAINING_BEGINS not in said:
        return "start-up" if said else "before the first line"
    return "ending" if now.step >= STEPS else "training"


def resumed_at(said: str) -> int | None:
    """Return the step after which a command says that it went on, None where it says nothing of it."""
    found = [line for line in said.splitlines() if line.startswith(CONTINUED)]
    return int(found[-1].removeprefix(CONTINUED).split()[0]) if found else None


def result(run: Path) -> dict[str, str]:
    """Return digests of what a finished run left: the weights, the history and the scores."""
    weights = hashlib.sha256()
    for path in sorted((run / "model").rglob("*.safetensors")):
        weights.update(path.name.encode() + path.read_bytes())
    history = [without(json.loads(line), [f"{unit}_per_s" for unit in ("examples", "tokens")])
               for line in (run / "history.jsonl").read_text().splitlines()]
    scores = without(read_json(run / "metrics.json"), CHANGING)
    return {"weights": weights.hexdigest(), "history": _digest(history), "scores": _digest(scores)}


def without(content: Mapping[str, Any], names: Any) -> dict[str, Any]:
    """Return a mapping without some of its names."""
    return {name: value for name, value in content.items() if name not in names}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
