"""SIGTERM and SIGINT at every moment of a run: its exit code, and the same bits on going on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests import tiny
from tests.generated import write_texts
from tlhub import results, workbench
from tlhub import run as run_module
from tlhub.cli import main
from tlhub.folder import RunFolder
from tlhub.training import callbacks, checkpointing, store

STEPS = 12
ASKED = (signal.SIGTERM, signal.SIGINT)

# Where the signal comes: the holder of a function, its name, at which of its calls, and how long it takes thereafter.
PLACES: dict[str, tuple[Any, str, int, float]] = {
    "data preparation": (run_module, "prepare", 1, 30),
    "loading the checkpoint": (run_module, "load_checkpoint", 1, 30),
    "before training": (results, "begin", 1, 30),
    "the first step": (callbacks.Audit, "on_gradients", 1, 0),
    "a later step": (callbacks.Audit, "on_gradients", 2, 0),
    "a report": (callbacks.History, "on_report", 5, 0),
    "a validation": (workbench, "predict_logits", 2, 0),
    "the last validation": (workbench, "predict_logits", 3, 0),
    "a save": (checkpointing, "save", 2, 0),
    "the last step": (callbacks.History, "on_report", STEPS, 0),
    "what is kept for the end": (store.CheckpointStore, "finish", 1, 0),
    "the final evaluation": (results, "score_split", 1, 30),
    "plots": (results, "_draw", 1, 30),
    "saving the model": (results, "save_model", 1, 30),
}


def arguments(world: Path, out: Path, *extra: str) -> list[str]:
    return ["finetune", "text-classification", "--model", str(world / "model"), "--data", str(world / "data"),
            "--strategy", "full", "--max_steps", str(STEPS), "--batch_size", "8", "--train.evaluate_every", "4",
            "--train.checkpoint_every", "3", "--log.every", "1", "--evaluate.resamples", "20", "--out", str(out),
            *extra]


def outcome(run: Path) -> tuple[Any, ...]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    history = [{key: value for key, value in line.items() if not key.endswith("per_s")} for line in lines]
    metrics = json.loads((run / "metrics.json").read_text())
    scores = {name: metrics[name] for name in ("validation", "test", "intervals", "baselines")}
    weights = {name: value.tobytes() for name, value in load_file(run / "model" / "model.safetensors").items()}
    return history, scores, weights


@pytest.fixture(scope="module", autouse=True)
def _no_plots() -> Iterator[None]:
    """Draw none, which takes most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_draw", lambda bench, outputs, content: None)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.checkpoint(folder / "model", "bert")
    write_texts(folder / "data", {"train": 45, "validation": 12, "test": 12})
    return folder


@pytest.fixture(scope="module")
def straight(world: Path) -> tuple[Any, ...]:
    assert main(arguments(world, world / "straight")) == 0
    return outcome(world / "straight")


def signalled(holder: Any, name: str, call: int, rest: float, number: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Send this process a signal at a call of a function, which goes on for `rest` seconds; return the calls."""
    real: Callable[..., Any] = getattr(holder, name)
    calls: list[int] = []

    def wrapped(*given: Any, **named: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] == call:
            os.kill(os.getpid(), number)
            time.sleep(rest)
        return real(*given, **named)

    patch.setattr(holder, name, wrapped)
    return calls


def test_every_place_is_tried() -> None:
    assert len(PLACES) == 14


@pytest.mark.parametrize(("place", "number"), list(zip(PLACES, itertools.cycle(ASKED), strict=False)))
def test_a_run_stops_anywhere_and_goes_on_to_the_same_bits(
        world: Path, straight: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str], place: str, number: int) -> None:
    holder, name, call, rest = PLACES[place]
    before = [signal.getsignal(which) for which in ASKED]
    with monkeypatch.context() as patch:
        calls = signalled(holder, name, call, rest, number, patch)
        started = time.monotonic()
        assert main(arguments(world, tmp_path / "run")) == 75
        assert time.monotonic() - started < 25, "it is not waited for"
    assert len(calls) >= call
    assert "stopped on request" in capfd.readouterr().err.splitlines()[-1]
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert [signal.getsignal(which) for which in ASKED] == before
    assert not (tmp_path / "run" / ".lock").exists()
    assert main(arguments(world, tmp_path / "run")) == 0
    assert outcome(tmp_path / "run") == straight


def test_a_step_after_the_request_is_not_begun(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signalled(callbacks.Audit, "on_gradients", 5, 0, signal.SIGTERM, monkeypatch)
    assert main(arguments(world, tmp_path / "run")) == 75
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 5
    assert (tmp_path / "run" / "checkpoints" / "step-000000005").exists()


def test_a_validation_is_given_up_and_repeated(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def validated() -> list[int]:
        lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
        return [line["step"] for line in lines if "validation" in line]

    with monkeypatch.context() as patch:
        signalled(workbench, "predict_logits", 2, 0, signal.SIGTERM, patch)
        assert main(arguments(world, tmp_path / "run")) == 75
    assert validated() == [4]
    assert main(arguments(world, tmp_path / "run")) == 0
    assert validated() == [4, 8, 12]


def test_stopped_at_every_chance(world: Path, straight: tuple[Any, ...], tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sitting does one step, or one validation, and the history is that of one sitting."""
    stops = 0
    while True:
        with monkeypatch.context() as patch:
            signalled(workbench, "predict_logits", 1, 0, signal.SIGTERM, patch)
            signalled(callbacks.Audit, "on_gradients", 1, 0, signal.SIGTERM, patch)
            code = main(arguments(world, tmp_path / "run", "--train.evaluate_every", "2"))
        if code == 0 or stops > 3 * STEPS:
            break
        assert code == 75
        stops += 1
        if stops % 2 == 0:  # what is given up again and again would never be done
            with monkeypatch.context() as patch:
                signalled(callbacks.Audit, "on_gradients", 1, 0, signal.SIGTERM, patch)
                code = main(arguments(world, tmp_path / "run", "--train.evaluate_every", "2"))
            if code == 0:
                break
            assert code == 75
            stops += 1
    assert main(arguments(world, tmp_path / "other", "--train.evaluate_every", "2")) == 0
    assert code == 0
    assert stops >= STEPS
    assert outcome(tmp_path / "run") == outcome(tmp_path / "other")


def test_what_comes_after_the_end_changes_nothing(world: Path, straight: tuple[Any, ...], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = RunFolder.write_status, []

    def late(self: RunFolder, state: str, exit_code: int | None = None, reason: str = "") -> None:
        if state == "finished":
            asked.append(state)
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, state, exit_code, reason)

    monkeypatch.setattr(RunFolder, "write_status", late)
    assert main(arguments(world, tmp_path / "run")) == 0
    assert asked == ["finished"]
    assert outcome(tmp_path / "run") == straight


AT_ITS_EDGES = """
import atexit, os, signal, sys
sys.path.insert(0, {root!r})
from tlhub.cli import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
if {late}:
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
sys.exit(main())
"""


@pytest.mark.parametrize(("module", "late", "code"), [
    ("torch", False, 75), ("transformers.models.bert.modeling_bert", False, 75), ("none", True, 0)])
def test_a_process_is_asked_while_it_begins_and_while_it_ends(world: Path, tmp_path: Path, module: str, late: bool,
                                                              code: int) -> None:
    script = AT_ITS_EDGES.format(root=str(Path(__file__).parents[2]), module=module, late=late)
    ended = subprocess.run([sys.executable, "-c", script, *arguments(world, tmp_path / "run")], capture_output=True,
                           text=True, timeout=120, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
