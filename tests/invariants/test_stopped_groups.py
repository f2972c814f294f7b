"""Two processes: whatever ends one of them or the command, the group ends with the right code, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests import tiny
from tests.generated import write_texts

REPOSITORY = Path(__file__).parents[2]
LIMIT = 240
"""Seconds in which every command has to end, whatever happens to it; far more than any takes."""
SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
import tlhub
from tlhub import cli
from tlhub.errors import DataError

WHO, WHERE, WHAT = (os.environ.get("ACT") or "none none none").split()


def act():
    if WHO == "launcher":
        os.kill(os.getppid(), getattr(signal, WHAT))
        time.sleep(1)
    elif WHAT == "raise":
        raise DataError("as asked")
    else:
        os.kill(os.getpid(), getattr(signal, WHAT))
        time.sleep(30 if WHERE == "preparation" else 0)


def main(options):
    from tlhub import run
    from tlhub.training.loop import Callback

    mine = os.environ.get("RANK") == ("0" if WHO == "launcher" else WHO)
    real = run.prepare

    def prepare(*given, **named):
        if mine and WHERE == "preparation":
            act()
        return real(*given, **named)

    class Act(Callback):
        def on_step(self, job, progress):
            if mine and str(progress.step) == WHERE:
                act()

    run.prepare = prepare
    tlhub.finetune("text-classification", callbacks=[Act()], **options)


cli.recipe(main, task="text-classification")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.checkpoint(folder / "model", "bert")
    write_texts(folder / "data", {"train": 45, "validation": 12, "test": 12})
    (folder / "script.py").write_text(SCRIPT.format(root=str(REPOSITORY)))
    return folder


def run(world: Path, out: str, act: str = "") -> tuple[int, str, float]:
    """Return the exit code, the last line of stderr, and the seconds that it took."""
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, str(world / "script.py"), "--model", str(world / "model"), "--data", str(world / "data"),
         "--strategy", "full", "--max_steps", "24", "--batch_size", "8", "--train.checkpoint_every", "3",
         "--log.every", "1", "--evaluate.resamples", "20", "--num_processes", "2", "--out", str(world / out)],
        env={**os.environ, "ACT": act, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=LIMIT,
        check=False)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, (ended.stderr.splitlines() or [""])[-1], time.monotonic() - started


def steps(world: Path, out: str) -> list[int]:
    lines = [json.loads(line) for line in (world / out / "history.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if "loss" in line]


# Who is ended, at which step and how; the exit code, the end of the message, and the step of the checkpoint thereafter.
ENDS = [("launcher 4 SIGTERM", 75, "goes on from there", (4, 6)),
        ("1 8 SIGTERM", 75, "goes on from there", (9, 9)),
        ("1 13 SIGKILL", 1, "process 1 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint",
         (12, 12)),
        ("0 16 SIGKILL", 1, "process 0 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint",
         (15, 15)),
        ("launcher 17 SIGKILL", -9, "", (17, 19)),
        ("1 21 raise", 3, "as asked", (18, 21))]


@pytest.mark.timeout(900)
def test_a_group_goes_on_to_the_same_bits_whatever_ended_it(world: Path) -> None:
    assert run(world, "straight")[0] == 0
    for act, code, words, (first, last) in ENDS:
        ended, line, _ = run(world, "ended", act)
        assert (ended, line.endswith(words)) == (code, True), (act, line)
        deadline = time.monotonic() + 30
        while (world / "ended" / ".lock").exists() and time.monotonic() < deadline and "launcher" in act:
            time.sleep(0.1)  # processes that nobody waits for any more
        kept = max((world / "ended" / "checkpoints").glob("step-*"))
        assert first <= int(kept.name.split("-")[1]) <= last, (act, kept.name)
    assert len(ENDS) == 6
    assert run(world, "ended")[0] == 0
    assert steps(world, "ended") == steps(world, "straight") == list(range(1, 25))
    expected, found = (load_file(world / out / "model" / "model.safetensors") for out in ("straight", "ended"))
    assert expected.keys() == found.keys()
    assert all((expected[name] == found[name]).all() for name in expected)


@pytest.mark.parametrize(("act", "code", "words"), [
    ("1 preparation raise", 3, "tlhub: as asked"),
    ("1 preparation SIGTERM", 75, "tlhub: stopped on request; the same command goes on"),
    ("0 preparation SIGKILL", 1,
     "tlhub: process 0 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint"),
    ("launcher preparation SIGINT", 75, "tlhub: stopped on request; the same command goes on")])
def test_a_group_ends_before_training(world: Path, act: str, code: int, words: str) -> None:
    ended, line, _ = run(world, act.replace(" ", "-"), act)
    assert (ended, line) == (code, words)


def test_a_second_interrupt_ends_the_whole_group() -> None:
    marker = str(time.time_ns())
    process = subprocess.Popen(
        [sys.executable, "-c",
         f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from tlhub.launching import launch; "
         f"launch(['-c', 'import os, time; {marker}; os.write(1, bytes([49, 10])); time.sleep(90)'], 2)"],
        stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["1\n", "1\n"]
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    deadline = time.monotonic() + 10
    while _alive(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _alive(marker) == []


def _alive(words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words in path.read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return [number for number in found if number != str(os.getpid())]
