"""Data that vanish or rot while a run reads them, and steps that are not finite: what a run does and writes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tlhub
from tests import tiny
from tests.generated import write_images, write_sounds, write_texts
from tlhub import results
from tlhub import run as run_module
from tlhub.data import image
from tlhub.data.prepare import prepare
from tlhub.errors import DataError
from tlhub.finished import Run
from tlhub.training.job import Callback, Job, Progress, Report

KINDS = {"pictures": ("image-classification", "vit", write_images, "png"),
         "sounds": ("audio-classification", "wav2vec2", write_sounds, "wav")}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


def fit(folder: Path, kind: str, *, callbacks: Any = (), **data: Any) -> Run:
    task, architecture, write, _ = KINDS[kind]
    model = tiny.checkpoint(folder / "model", architecture)
    source = write(folder / "data", {"train": 24, "validation": 6, "test": 6})
    return tlhub.finetune(task, model=str(model), data={"source": str(source), **data}, strategy="full",
                          train={"epochs": 3.0, "batch_size": 8}, log={"every": 1}, evaluate={"resamples": 10},
                          out=str(folder / "run"), callbacks=callbacks)


def quarantine(run: Path) -> list[dict[str, str]]:
    with (run / "quarantine.csv").open() as file:
        return list(csv.DictReader(file))


def files(folder: Path, split: str, ending: str) -> list[Path]:
    return sorted((folder / "data" / split).rglob(f"*.{ending}"))


def one(folder: Path, number: int, ending: str) -> Path:
    """Return the training file with a number."""
    (path,) = (folder / "data" / "train").rglob(f"{number:04d}.{ending}")
    return path


class After(Callback):
    """Does something after the first step."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act

    def on_step(self, job: Job, progress: Progress) -> None:
        if progress.step == 1:
            self.act()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_before_the_cache_is_filled_is_quarantined(kind: str, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []

    def losing(*args: Any, **options: Any) -> Any:
        found = prepare(*args, **options)
        if not readings:
            for number in (0, 1):
                one(tmp_path, number, KINDS[kind][3]).unlink()
            one(tmp_path, 3, KINDS[kind][3]).write_bytes(b"rotten")
        readings.append(dict(options["lost"]))
        return found

    monkeypatch.setattr(run_module, "prepare", losing)
    run = fit(tmp_path, kind, max_bad_fraction=0.2)
    assert len(readings) == 2
    reasons = {(line["split"], line["id"].rpartition("/")[2].partition(".")[0]): line["reason"]
               for line in quarantine(run.folder)}
    assert reasons.keys() == {("train", "0000"), ("train", "0001"), ("train", "0003")}
    assert reasons["train", "0000"] == reasons["train", "0001"] == "cannot be read (No such file or directory)"
    assert "known format" in reasons["train", "0003"] or "not recognised" in reasons["train", "0003"]
    assert run.metrics["data"]["train"] == 21


def test_a_file_that_only_the_audit_could_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that rots on the disk without a change of its times, so that what is remembered of it still holds."""
    wrong = []

    def opened(source: Any) -> Any:
        if "0005" in str(source) and "train" in str(source):
            wrong.append(source)
            raise DataError(f"image '{source}' cannot be decoded (rot); replace the file")
        return original(source)

    original = image.open_image
    monkeypatch.setattr(image, "open_image", opened)
    run = fit(tmp_path, "pictures", max_bad_fraction=0.1)
    (line,) = quarantine(run.folder)
    assert (line["id"].endswith("0005.png"), line["reason"]) == (True, "cannot be decoded (rot)")
    assert len(wrong) == 1


def test_data_that_are_lost_faster_than_they_are_read_end_the_run(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(*args: Any, **options: Any) -> Any:
        found = prepare(*args, **options)
        files(tmp_path, "train", "png")[0].unlink()
        return found

    monkeypatch.setattr(run_module, "prepare", losing)
    with pytest.raises(DataError, match=r"changes while it is read \(3 files were lost, the last '.*png', which "
                                        r"cannot be read \(No such file or directory\)\); leave it alone"):
        fit(tmp_path, "pictures", max_bad_fraction=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_in_training_is_listed_and_others_stand_in(kind: str, tmp_path: Path) -> None:
    def lose() -> None:
        gone, rotten = files(tmp_path, "train", KINDS[kind][3])[:2]
        gone.unlink()
        rotten.write_bytes(b"rotten")

    run = fit(tmp_path, kind, callbacks=[After(lose)], max_bad_fraction=0.1, cache_limit_gib=0.0)
    assert len(quarantine(run.folder)) == 2
    assert all(line["split"] == "train" for line in quarantine(run.folder))
    assert any("No such file" in line["reason"] for line in quarantine(run.folder))
    assert run.metrics["data"]["train"] == 24
    assert "2 training examples were lost while the run went on" in (run.folder / "report.md").read_text()


@pytest.mark.parametrize(("split", "share", "words"), [
    ("train", 0.03, r"2 of 24 training examples were checked when the run began .*put them back"),
    ("validation", 0.5, r"No such file or directory\); it was checked when the run began: put it back, and the same"),
])
def test_too_much_that_is_lost_ends_the_run_and_it_goes_on_once_it_is_back(split: str, share: float, words: str,
                                                                         tmp_path: Path) -> None:
    kept: dict[Path, bytes] = {}

    def lose() -> None:
        for path in files(tmp_path, split, "png")[:2]:
            kept[path] = path.read_bytes()
            path.unlink()

    straight = fit(tmp_path / "straight", "pictures", max_bad_fraction=share, cache_limit_gib=0.0)
    with pytest.raises(DataError, match=words):
        fit(tmp_path, "pictures", callbacks=[After(lose)], max_bad_fraction=share, cache_limit_gib=0.0)
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    assert len(kept) == 2
    for path, content in kept.items():
        path.write_bytes(content)
    run = fit(tmp_path, "pictures", max_bad_fraction=share, cache_limit_gib=0.0)
    assert quarantine(run.folder) == []
    assert run.metrics["validation"] == straight.metrics["validation"]


class Poison(Callback):
    """Spoils what the model gives in two steps, and notes in which ones tensors move."""

    def __init__(self) -> None:
        self.moved: list[bool] = []
        self._step = 0
        self._before: dict[str, torch.Tensor] = {}

    def on_start(self, job: Job, progress: Progress) -> None:
        self._keep(job)

        def spoil(module: torch.nn.Module, _args: Any, output: Any) -> None:
            if module.training and self._step in (1, 4):
                output.logits = output.logits * float("nan")

        self._hook = job.model.register_forward_hook(spoil)

    def on_step(self, job: Job, progress: Progress) -> None:
        self._step, before = progress.step, self._before
        self._keep(job)
        self.moved.append(any(not torch.equal(value, before[name]) for name, value in self._before.items()))

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        assert np.isfinite(report.loss)

    def on_end(self, job: Job, progress: Progress) -> None:
        self._hook.remove()

    def _keep(self, job: Job) -> None:
        self._before = {name: value.clone() for name, value in job.model.state_dict().items()}


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("strategy", ["full", "lora", "gradual_unfreezing"])
def test_a_step_that_is_not_finite_is_reported_with_its_examples(strategy: str, micro_batch: int | None,
                                                                tmp_path: Path) -> None:
    data = write_texts(tmp_path / "data", {"train": 24, "validation": 6})
    poison = Poison()
    run = tlhub.finetune("text-classification", model=str(tiny.checkpoint(tmp_path / "model", "bert")), data=str(data),
                         strategy=strategy, train={"max_steps": 6, "batch_size": 8, "micro_batch_size": micro_batch},
                         log={"every": 3}, evaluate={"resamples": 10}, out=str(tmp_path / "run"), callbacks=[poison])
    assert poison.moved == [True, False, True, True, False, True]
    lines = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    found = [(line["step"], bad) for line in lines for bad in line.get("bad", ())]
    assert [(at, bad["step"], bad["count"]) for at, bad in found] == [(3, 2, 8), (6, 5, 8)]
    assert all(name.startswith("train.csv:") for _, bad in found for name in bad["examples"])
    assert not any(bad["examples"] == other["examples"] for (_, bad), (_, other) in [found])
