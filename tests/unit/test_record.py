"""A run goes on only with what it was begun with; what changed is named."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tlhub
from tests import tiny
from tests.generated import write_texts
from tests.wrong import working_in
from tlhub import record, results
from tlhub.errors import StoppedError, UsageError
from tlhub.finished import Run
from tlhub.training import defaults
from tlhub.training.loop import Callback, Job, Progress


class StopAt(Callback):
    """Ends the run behind a step, as a request to stop does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, job: Job, progress: Progress) -> None:
        if progress.step == self.step:
            raise StoppedError("as asked")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and a run that was stopped after its third step."""
    folder = tmp_path_factory.mktemp("world")
    tiny.checkpoint(folder / "model", "bert")
    write_texts(folder / "data", {"train": 24, "validation": 6})
    with working_in(folder), pytest.raises(StoppedError):
        fit(callbacks=[StopAt(3)])
    return folder


@pytest.fixture
def begun(stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where everything is."""
    shutil.copytree(stopped, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def fit(*, callbacks: Any = (), **options: Any) -> Run:
    train = {"max_steps": 4, "batch_size": 8, "checkpoint_every": 1, **options.pop("train", {})}
    return tlhub.finetune("text-classification", model="model", data="data", strategy="full", out="run", train=train,
                          evaluate={"resamples": 10}, callbacks=callbacks, **options)


def fewer(folder: Path) -> None:
    lines = (folder / "data" / "train.csv").read_text().splitlines()
    (folder / "data" / "train.csv").write_text("\n".join(lines[:-1]))


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / file).read_text()
        assert old in content
        (folder / file).write_text(content.replace(old, new))
    return change


def everywhere(*changes: tuple[str, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in (folder / "data").iterdir():
            for old, new in changes:
                path.write_text(path.read_text().replace(old, new))
    return change


def other_weights(folder: Path) -> None:
    path = folder / "model" / "model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, path, {"format": "pt"})


def template(folder: Path) -> None:
    (folder / "model" / "chat_template.jinja").write_text("{{ messages }}")


def settings(folder: Path) -> None:
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": "relu"}))


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "fewer examples": (fewer, "train had 24 examples, now 23"),
    "another text": (replace("data/train.csv", "train 5", "train five"), "the inputs of train changed"),
    "another text in validation": (replace("data/validation.csv", "validation 5", "five"),
                                   "the inputs of validation changed"),
    "other columns": (everywhere(("text,label", "text,class"), ("soup", "broth")),
                      r"the column of labels was \['label'\], now \['class'\]; the inputs of train changed"),
    "another name of a label": (everywhere((",food", ",meals")),
                                "the labels were food, sport, weather, now meals, sport, weather"),
    "other weights": (other_weights, "the checkpoint's weights changed"),
    "another tokenizer": (replace("model/tokenizer.json", '"lowercase": true', '"lowercase": false'),
                          r"the checkpoint's tokenizer\.json changed"),
    "a chat template": (template, r"the checkpoint's chat_template\.jinja is new"),
    "other settings": (settings, r"the checkpoint's config\.json changed"),
    "no tokenizer settings": (lambda folder: (folder / "model" / "tokenizer_config.json").unlink(),
                              r"the checkpoint's tokenizer_config\.json is gone"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_named(begun: Path, change: str) -> None:
    make, words = CHANGES[change]
    make(begun)
    with pytest.raises(UsageError, match=f"was begun with other content: {words}"):
        fit()
    assert json.loads((begun / "run" / "status.json").read_text())["exit_code"] == 2


def test_there_is_a_change_for_each_of_them() -> None:
    assert len(CHANGES) == 10


def test_options_that_changed_are_named(begun: Path) -> None:
    with pytest.raises(UsageError, match=r"another configuration \(train\.learning_rate left open, now 0\.5\); name"):
        fit(train={"learning_rate": 0.5})
    with pytest.raises(UsageError, match=r"\(seed 0, now 1; train\.batch_size 8, now 4\); name another folder"):
        fit(train={"batch_size": 4}, seed=1)


def test_what_the_run_filled_in_itself_stays(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = defaults.resolve

    def newer(config: Any, facts: Any) -> Any:
        resolved, chosen = resolve(config, facts)
        return defaults.replace(resolved, {"train.clip_norm": 7.0}), chosen

    monkeypatch.setattr(defaults, "resolve", newer)
    with pytest.raises(UsageError, match=r"other content: train\.clip_norm 1\.0, now 7\.0; put back"):
        fit()


def test_nothing_that_changed_goes_on(begun: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert fit().metrics["validation"]
    assert "continued after step 3 of 4" in caplog.text
    assert "beware: torch" not in caplog.text
    assert "last bits" not in caplog.text


def test_other_libraries_are_told_and_the_run_goes_on(begun: Path, monkeypatch: pytest.MonkeyPatch,
                                                      caplog: pytest.LogCaptureFixture) -> None:
    found = record.versions()
    monkeypatch.setattr(record, "versions", lambda: {**found, "torch": "99.0", "numpy": "98.0"})
    monkeypatch.setattr(record, "_device", lambda accelerator: "tpu")
    assert fit().metrics["validation"]
    assert f"beware: torch was {found['torch']}, now 99.0; device was cpu, now tpu; the run goes on" in caplog.text


def test_the_number_of_threads_is_that_of_the_beginning(begun: Path) -> None:
    before = torch.get_num_threads()
    seen = []

    class Look(Callback):
        def on_start(self, job: Job, progress: Progress) -> None:
            seen.append(torch.get_num_threads())

    torch.set_num_threads(before + 1)
    try:
        fit(callbacks=[Look()])
    finally:
        torch.set_num_threads(before)
    assert seen == [before]
