"""A run that is stopped goes on by the same command, as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlhub
from tests import tiny
from tests.generated import write_corpus, write_images, write_measured, write_sounds, write_texts
from tests.interruptions import Interrupter, Moment, Watch, interrupted, left
from tlhub import cli, results
from tlhub.errors import StoppedError
from tlhub.finished import Run
from tlhub.registry import STRATEGIES, TASKS
from tlhub.training.loop import Callback

COUNTS = {"train": 21, "validation": 6, "test": 6}
SLOW = {
    "text-classification": ("bert", write_texts),
    "image-classification": ("resnet", write_images),
}

STEPS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "micro_batch_size": 3, "checkpoint_every": 2}
AUGMENTED = {"shift": 0.02, "gain": 6, "noise": 10, "time_masks": 1, "frequency_masks": 1}
Case = tuple[str, str, Callable[..., Path], dict[str, Any]]
CASES: dict[str, Case] = {
    "texts, dropout": ("text-classification", "bert", write_texts, {"strategy": "full"}),
    "texts, windows of reports": (
        "text-classification", "roberta", write_texts,
        {"strategy": "full", "train": {"optimizer": "sgd", "patience": 9, "evaluate_every": 1}, "log": {"every": 4}}),
    "texts, lora": ("text-classification", "bert", write_texts, {"strategy": "lora"}),
    "texts, unfreezing": ("text-classification", "distilbert", write_texts, {"strategy": "gradual_unfreezing"}),
    "texts, probe first": ("text-classification", "bert", write_texts, {"strategy": "lp_ft"}),
    "texts, head": ("text-classification", "bert", write_texts, {"strategy": {"name": "head", "features": "mean"}}),
    "texts, last blocks": ("text-classification", "bert", write_texts, {"strategy": {"name": "last_k", "k": 1}}),
    "pictures, two workers": ("image-classification", "convnextv2", write_images,
                              {"strategy": "full", "launch": {"workers": 2}, "data": {"cache_limit_gib": 0}}),
    "pictures, no workers": ("image-classification", "resnet", write_images,
                             {"strategy": "full", "launch": {"workers": 0}, "data": {"cache_limit_gib": 0},
                              "train": {"average": 0.9}}),
    "pictures, mixed": ("image-classification", "vit", write_images,
                        {"strategy": "full", "train": {"sampling": "sqrt"},
                         "data": {"mixup": 0.4, "cutmix": 1.0, "randaugment": 2, "erasing": 0.5}}),
    "values, last blocks": ("image-regression", "swin", write_measured,
                            {"strategy": {"name": "last_k", "k": 1}, "data": {"label_column": "brightness"}}),
    "sounds, lora": ("audio-classification", "wavlm", write_sounds,
                     {"strategy": "lora", "launch": {"workers": 0}, "data": {"cache_limit_gib": 0, **AUGMENTED}}),
    "keywords": ("wake-word", "whisper", write_sounds,
                 {"strategy": "full", "launch": {"workers": 2}, "data": AUGMENTED,
                  "task_options": {"keyword": "high"}}),
    "packed blocks": ("text-generation", "qwen", write_corpus,
                      {"strategy": "full", "data": {"block_size": 12, "max_train_examples": 21}}),
    "packed records, lora": ("text-generation", "llama", write_texts, {"strategy": "lora"}),
}

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import tlhub
from tlhub.cli import recipe

def main(options):
    from tests.interruptions import Interrupter, Moment
    tlhub.finetune("text-classification", callbacks=[Interrupter(Moment("step", {step}))], **options)

recipe(main, task="text-classification")
"""
DIVISIONS: dict[str, dict[str, Any]] = {
    "one process": {}, "two processes": {"num_processes": 2}, "small micro-batches": {"train.micro_batch_size": 2}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


def fitting(case: str, folder: Path) -> Callable[..., Run]:
    """Return what begins or continues the run of a case."""
    task, kind, make_data, choices = CASES[case]
    make_model = tiny.generator if task == "text-generation" else tiny.checkpoint
    model, data = make_model(folder / "model", kind), make_data(folder / "data", COUNTS)
    given = {**choices, "train": {**STEPS, **choices.get("train", {})}, "log": choices.get("log", {"every": 1}),
             "data": {"source": str(data), **choices.get("data", {})}, "evaluate": {"resamples": 10}}

    def fit(callbacks: list[Callback], out: str = "run", **train: Any) -> Run:
        return tlhub.finetune(task, model=str(model), out=str(folder / out), callbacks=callbacks,
                              **{**given, "train": {**given["train"], **train}})

    return fit


def moments(epoch: int, total: int) -> list[Moment]:
    """Return interruptions of every kind, several in one epoch and in later ones too."""
    return [Moment("step", 1), Moment("window", 2), Moment("kill", 2), Moment("step", epoch),
            Moment("killed validation", epoch), Moment("validation", epoch), Moment("step", epoch + 1),
            Moment("kill", epoch + 2), Moment("step", 2 * epoch + 1), Moment("window", total), Moment("step", total),
            Moment("saving")]


@pytest.mark.parametrize("case", CASES)
def test_interrupted_again_and_again_it_comes_to_the_same_bits(case: str, tmp_path: Path) -> None:
    fit = fitting(case, tmp_path)
    straight = Watch()
    fit([straight], "straight")
    epoch, total = straight.steps_per_epoch, straight.total_steps
    assert (epoch, total) == (3, 9)
    chosen = [*([Moment("validation", 0)] if "probe" in case else []), *moments(epoch, total)]
    _, watch, came = interrupted(fit, chosen)
    assert came == chosen
    assert len(watch.sittings) == len(chosen) + 1
    assert watch.digests == straight.digests
    assert sorted(watch.digests) == list(range(total + 1))
    expected, found = (left(tmp_path / out) for out in ("straight", "run"))
    assert found["history"] == expected["history"]
    assert found == expected
    assert len(expected["tensors"]) > 4


def test_every_strategy_that_trains_and_every_task_is_interrupted() -> None:
    named = {choices["strategy"] if isinstance(choices["strategy"], str) else choices["strategy"]["name"]
             for *_, choices in CASES.values()}
    assert named == set(STRATEGIES.names()) - {"linear_probe", "scratch"}  # one has no steps, one trains as `full` does
    assert {task for task, *_ in CASES.values()} == set(TASKS.names())
    assert len(CASES) == 15


@pytest.mark.parametrize("kind", ["step", "kill", "window"])
def test_it_does_not_matter_after_which_step_a_run_is_interrupted(kind: str, tmp_path: Path) -> None:
    fit = fitting("texts, dropout", tmp_path)
    straight = Watch()
    fit([straight], "straight")
    expected = left(tmp_path / "straight")
    for step in range(1, straight.total_steps + 1):
        def again(callbacks: list[Callback], out: str = f"run-{step}") -> Run:
            return fit(callbacks, out)

        moment = Moment(kind, step)
        _, watch, came = interrupted(again, [moment])
        assert came == [moment]
        # What was not saved is done again: after a kill, and the window that was begun.
        at = {"step": step, "kill": step - step % 2 if step < 9 else 8, "window": (step - 1) - (step - 1) % 2}[kind]
        assert watch.sittings == [0, at]
        assert watch.digests == straight.digests
        assert left(tmp_path / f"run-{step}") == expected
    assert straight.total_steps == 9


def command(task: str, model: Path, data: Path, out: Path) -> list[str]:
    return ["finetune", task, "--model", str(model), "--data", str(data), "--strategy", "full", "--epochs", "15",
            "--batch_size", "8", "--log.every", "1", "--evaluate.resamples", "10", "--out", str(out)]


def history(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("per_s")} for line in lines]


@pytest.mark.parametrize("task", SLOW)
def test_a_stopped_run_goes_on_to_the_same_bits(task: str, tmp_path: Path) -> None:
    kind, make_data = SLOW[task]
    model, data = tiny.checkpoint(tmp_path / "model", kind), make_data(tmp_path / "data", {"train": 45, "test": 12})
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert cli.main(command(task, model, data, straight)) == 0
    words = command(task, model, data, stopped)
    process = subprocess.Popen([sys.executable, "-m", "tlhub", *words], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None:
        if (stopped / "history.jsonl").exists() and len((stopped / "history.jsonl").read_text().splitlines()) > 8:
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 75, said
    assert json.loads((stopped / "status.json").read_text())["exit_code"] == 75
    steps_before = len(history(stopped))
    assert cli.main(words) == 0
    assert 8 < steps_before < len(history(straight))
    assert left(stopped) == left(straight)


@pytest.mark.parametrize(("first", "then"), [
    ("one process", "two processes"), ("two processes", "small micro-batches"), ("one process", "small micro-batches")])
def test_going_on_in_another_division_trains_on_the_same_batches(first: str, then: str, tmp_path: Path) -> None:
    model, data = tiny.checkpoint(tmp_path / "model", "bert"), write_texts(tmp_path / "data", COUNTS)
    options = {"model": str(model), "data": str(data), "strategy": "full", "epochs": 4, "batch_size": 8,
               "model.dropout": 0, "log.every": 1, "evaluate.resamples": 10}

    def sitting(out: str, division: str, step: int = 0) -> None:
        given = {**options, "out": str(tmp_path / out), **DIVISIONS[division]}
        if "num_processes" not in given:
            with pytest.raises(StoppedError) if step else nullcontext():
                tlhub.finetune("text-classification", callbacks=[Interrupter(Moment("step", step))], **given)
            return
        (tmp_path / "recipe.py").write_text(SCRIPT.format(root=str(Path(__file__).parents[2]), step=step))
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        done = subprocess.run([sys.executable, str(tmp_path / "recipe.py"), *words], text=True, check=False,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=600)
        assert done.returncode == (75 if step else 0), done.stderr

    sitting("straight", "one process")
    sitting("run", first, 5)
    assert [line["step"] for line in history(tmp_path / "run") if "loss" in line] == list(range(1, 6))
    sitting("run", then)
    expected, found = history(tmp_path / "straight"), history(tmp_path / "run")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for key in ("loss", "grad_norm"):
        before, after = ([line[key] for line in lines if key in line] for lines in (expected, found))
        assert len(before) == 12
        np.testing.assert_allclose(after, before, rtol=2e-6, atol=1e-6, err_msg=key)
