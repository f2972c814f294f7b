"""Processes and signals without a run: how a group ends, and what a second Ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlhub import launching
from tlhub.launching import _Group
from tlhub.stopping import StopRequest

WORDS = {
    "finish": "launching.leave(Ending(0))",
    "fail": "launching.leave(Ending(3, 'bad data')); sys.exit(3)",
    "wait": "time.sleep(60)",
    "vanish": "pass",
    "crash": "os.kill(os.getpid(), 9)",
    "stop": "signal.signal(signal.SIGTERM, lambda *_: (launching.leave(Ending(75, 'stopped')), os._exit(75)));"
            "print('ready', flush=True); time.sleep(60)",
    "defy": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
    "outlive": "launching.follow_launcher(); time.sleep(60)",
}
WORKER = "import os, signal, sys, time\nfrom tlhub import launching\nfrom tlhub.launching import Ending\n" + "\n".join(
    f"if sys.argv[1 + launching.rank()] == {word!r}:\n    {action}" for word, action in WORDS.items())


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{WORKER}")
    return str(path)


def group_of(script: str, folder: Path, *words: str) -> _Group:
    group = _Group(folder, len(words))
    group.start([script, *words], {"WORLD_SIZE": str(len(words)), "PATH": "/bin"})
    return group


@pytest.mark.parametrize(("words", "code", "reason"), [
    (("finish", "finish"), 0, ""), (("fail", "wait"), 3, "bad data"), (("stop", "fail"), 3, "bad data"),
    (("vanish", "finish"), 1, "process 0 of 2 ended without a word (exit code 0); --debug may show more"),
    (("stop", "crash"), 1, "process 1 of 2 was killed (SIGKILL); the same command goes on from the last checkpoint")])
def test_how_a_group_ends(script: str, tmp_path: Path, words: tuple[str, str], code: int, reason: str) -> None:
    started = time.monotonic()
    ending = group_of(script, tmp_path, *words).wait(StopRequest())
    assert (ending.code, ending.reason) == (code, reason)
    assert time.monotonic() - started < 10


def test_a_request_is_passed_on(script: str, tmp_path: Path) -> None:
    group, stop = group_of(script, tmp_path, "wait", "wait"), StopRequest()
    stop.requested = True
    assert group.wait(stop).code == 75, "also by processes that do not listen yet"
    assert [process.returncode for process in group.processes] == [-signal.SIGTERM] * 2


def test_what_does_not_end_is_killed_in_the_end(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_GRACE", 0.2)
    group = group_of(script, tmp_path, "fail", "defy")
    assert group.wait(StopRequest()).code == 3
    assert group.processes[1].returncode in (-signal.SIGKILL, -signal.SIGTERM)


def test_processes_do_not_outlive_the_command(script: str, tmp_path: Path) -> None:
    code = (f"import os, sys, time\nsys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
            "from pathlib import Path\nfrom tlhub.launching import _Group\n"
            f"group = _Group(Path({str(tmp_path)!r}), 1)\n"
            f"group.start([{script!r}, 'outlive'], {{'WORLD_SIZE': '1', 'PATH': '/bin'}})\n"
            "print(group.processes[0].pid, flush=True)\ntime.sleep(60)")
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    status = Path(f"/proc/{launcher.stdout.readline().strip()}/stat")
    assert status.exists()
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 10
    while status.exists() and status.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split()[2] == "Z"


SCRIPT = """
import os, signal, sys, time
from tlhub import stopping
stopping._ECHO = 0.3
with stopping.listening() as stop, stop.deferring("later"):
    {extra}
    print("ready", flush=True)
    for _ in range(1000):
        time.sleep(0.01)
"""


def sent(extra: str, *signals: int, pause: float = 0.1, **environment: str) -> tuple[int, str]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(extra=extra)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True, env={**os.environ, **environment})
    assert process.stdout is not None
    process.stdout.readline()
    for number in signals:
        process.send_signal(number)
        time.sleep(pause)
    alive = process.poll() is None
    if alive:
        process.kill()
    return 0 if alive else process.wait(timeout=10), process.stdout.read()


@pytest.mark.parametrize(("signals", "code"), [
    ((signal.SIGINT, signal.SIGINT), -signal.SIGINT), ((signal.SIGTERM, signal.SIGINT), -signal.SIGINT),
    ((signal.SIGINT, signal.SIGTERM, signal.SIGTERM), 0)])
def test_a_second_interrupt_ends_at_once(signals: tuple[int, ...], code: int) -> None:
    assert sent("", *signals) == (code, "")


def test_what_has_to_go_with_the_process_goes() -> None:
    extra = "stop.last_resort = lambda: print('gone', flush=True)"
    assert sent(extra, signal.SIGINT, signal.SIGINT) == (-signal.SIGINT, "gone\n")


def test_what_a_launcher_repeats_is_one_interrupt() -> None:
    """torchrun passes on to its processes the Ctrl-C that the terminal gave them as well."""
    assert sent("", signal.SIGINT, signal.SIGINT, WORLD_SIZE="2") == (0, "")
    assert sent("", signal.SIGINT, signal.SIGINT, pause=0.5, WORLD_SIZE="2") == (-signal.SIGINT, "")


def test_nothing_changes_a_decided_ending() -> None:
    assert sent("stop.conclude()", signal.SIGTERM, signal.SIGTERM) == (0, "")
