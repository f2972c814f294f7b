"""A run from beginning to end: what it leaves, how it goes on, what it refuses, and that its options act."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import tlhub
from tests import tiny
from tests.generated import WORDS, write_texts
from tlhub import results
from tlhub import run as run_module
from tlhub.config import TrainConfig, as_dict
from tlhub.errors import CheckpointError, DataError, StoppedError, TlhubError, UsageError
from tlhub.finished import Run
from tlhub.options import from_kwargs
from tlhub.training import callbacks, checkpointing

TASK = "text-classification"


@dataclass
class World:
    """A model and data for runs of a few steps."""

    model: Path
    data: Path

    def fit(self, out: Path, *, overwrite: bool = False, train: dict[str, Any] | None = None, **options: Any) -> Run:
        """Run 6 steps of `full`, or what the options say; a probe has no steps, and a file brings its own."""
        if "config" not in options:
            options = {"model": str(self.model), "data": str(self.data), "strategy": "full", **options}
            options["evaluate"] = {"resamples": 10, **options.get("evaluate", {})}
            if "linear_probe" not in str(options["strategy"]):
                steps = {} if train and "epochs" in train else {"max_steps": 6}
                options["train"] = {"batch_size": 8, "learning_rate": 1e-2, **steps, **(train or {})}
                options["log"] = {"every": 1, **options.get("log", {})}
        return tlhub.finetune(TASK, out=str(out), overwrite=overwrite, **options)


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots, which take most of a tiny run's time, where they are not looked at."""
    if request.node.name != "test_what_a_run_leaves":
        monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World(tiny.checkpoint(folder / "model", "bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
                 write_texts(folder / "data", {"train": 26, "validation": 9, "test": 9}))


def history(run: Run | Path) -> list[dict[str, Any]]:
    folder = run if isinstance(run, Path) else run.folder
    return callbacks.read_history(folder / "history.jsonl")


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in history(run) if "loss" in line]


def rates(run: Run) -> list[float]:
    return [line["learning_rate"] for line in history(run) if "loss" in line]


def validations(run: Run) -> list[int]:
    return [line["step"] for line in history(run) if "validation" in line]


def scores(run: Run) -> dict[str, Any]:
    return {name: run.metrics[name] for name in ("validation", "test", "intervals", "baselines", "parameters", "data")}


def test_what_a_run_leaves(world: World, tmp_path: Path) -> None:
    run = world.fit(tmp_path / "run")
    assert {path.name for path in run.folder.iterdir()} == {
        "config.yaml", "metrics.json", "status.json", "history.jsonl", "quarantine.csv", "report.md", "model", "plots"}
    assert json.loads((run.folder / "status.json").read_text()) == {"state": "finished", "exit_code": 0, "reason": ""}
    assert run.metrics.keys() == {
        "task", "problem_type", "model", "strategy", "seed", "validation", "test", "intervals", "groups", "breakdown",
        "calibration", "baselines", "parameters", "data", "time", "throughput", "peak_memory_mib"}
    assert run.metrics["data"] == {"train": 26, "validation": 9, "test": 9, "classes": 3}
    assert run.metrics["time"].keys() == {"prepare_s", "train_s", "evaluate_s"}
    assert all(value > 0 for value in run.metrics["time"].values())
    seen = run.metrics["throughput"]["examples_per_s"] * run.metrics["time"]["train_s"]
    assert seen == pytest.approx(26 + 2 * 8)
    record = yaml.safe_load((run.folder / "config.yaml").read_text())["record"]
    assert record["label_names"] == sorted(WORDS)
    assert len(record["checkpoint"]["sha256"]) == len(record["data_fingerprint"]) == 64
    assert {"torch", "transformers", "tlhub"} <= record["versions"].keys()


def test_a_finished_run_is_loaded_and_scores_the_same(world: World, tmp_path: Path) -> None:
    done = world.fit(tmp_path / "run", evaluate={"resamples": 50})
    run = tlhub.load(done.folder)
    with (world.data / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    predictions = run.predict([row["text"] for row in rows])
    right = np.mean([found["label"] == row["label"] for found, row in zip(predictions, rows, strict=True)])
    assert right == pytest.approx(run.metrics["test"]["accuracy"])
    assert all(sum(found["scores"].values()) == pytest.approx(1) for found in predictions)
    again = tlhub.evaluate(run, str(world.data))
    assert again["metrics"] == pytest.approx(run.metrics["test"])
    stored = json.loads((run.folder / "evaluations" / "001.json").read_text())
    assert stored["accuracy"] == run.metrics["test"]["accuracy"]
    tlhub.evaluate(run.folder, str(world.data))
    assert len(list((run.folder / "evaluations").iterdir())) == 2
    assert run.predict([]) == []


def test_labels_are_matched_by_name(world: World, tmp_path: Path) -> None:
    """A checkpoint that knows the classes in another order, scored on data whose rows come in another one."""
    run = world.fit(tmp_path / "run", strategy={"name": "linear_probe", "features": "native"})
    turned = tiny.checkpoint(tmp_path / "turned", "bert", tuple(reversed(run.label_names)))
    weights = load_file(run.folder / "model" / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0)
    model = tiny.model("bert", tuple(reversed(run.label_names)))
    model.load_state_dict(weights)
    model.save_pretrained(turned)
    kept = world.fit(tmp_path / "kept", model=str(turned), train={"max_steps": 1, "learning_rate": 1e-12})
    assert kept.label_names == run.label_names
    assert abs(run.metrics["test"]["loss"] - np.log(3)) > 1e-3
    assert kept.metrics["test"]["loss"] == pytest.approx(run.metrics["test"]["loss"], abs=1e-4)


def test_a_finished_run_is_kept_unless_overwriting_is_asked_for(world: World, tmp_path: Path) -> None:
    run = world.fit(tmp_path / "run", strategy="linear_probe")
    before = (run.folder / "metrics.json").read_bytes()
    with pytest.raises(UsageError, match="holds a finished run"):
        world.fit(tmp_path / "run", strategy="linear_probe")
    assert (run.folder / "metrics.json").read_bytes() == before
    assert run.metrics["strategy"] == "linear_probe"
    assert world.fit(tmp_path / "run", overwrite=True).metrics["strategy"] == "full"


@pytest.mark.parametrize("strategy", ["full", "linear_probe"])
def test_a_recorded_configuration_repeats_the_run(world: World, tmp_path: Path, strategy: str) -> None:
    first = world.fit(tmp_path / "first", strategy=strategy)
    again = world.fit(tmp_path / "again", config=str(first.folder / "config.yaml"))
    assert scores(again) == scores(first)
    assert as_dict(dataclasses.replace(again.config, out=None)) == as_dict(dataclasses.replace(first.config, out=None))
    assert losses(again) == losses(first)


class StopAt(callbacks.Checkpointing):
    """Behaves as if a signal came after step 4."""

    def _stopped(self, job: Any, progress: Any) -> bool:
        return progress.step == 4


@pytest.fixture
def stopped(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], World]:
    """Return a function that begins a run on data of its own, stopped after step 4, and returns where it was begun."""
    def begin(out: Path, **options: Any) -> World:
        data = Path(shutil.copytree(world.data, tmp_path / "own"))
        own = World(world.model, data)
        with monkeypatch.context() as patch:
            patch.setattr(callbacks, "Checkpointing", StopAt)
            with pytest.raises(StoppedError, match="after step 4 of 6"):
                own.fit(out, **options)
        return own
    return begin


def test_a_stopped_run_goes_on(world: World, tmp_path: Path, stopped: Any) -> None:
    own = stopped(tmp_path / "run", train={"evaluate_every": 2})
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    with pytest.raises(CheckpointError, match="holds no finished run"):
        tlhub.load(tmp_path / "run")
    with pytest.raises(UsageError, match="unfinished run of another configuration"):
        own.fit(tmp_path / "run", train={"evaluate_every": 2, "learning_rate": 1e-3})
    run = own.fit(tmp_path / "run", train={"evaluate_every": 2})
    straight = world.fit(tmp_path / "straight", train={"evaluate_every": 2})
    assert losses(run) == losses(straight)
    assert validations(run) == [2, 4, 6]
    assert scores(run) == scores(straight)
    assert not (run.folder / "checkpoints").exists()


def test_changed_data_or_weights_are_refused_on_going_on(tmp_path: Path, stopped: Any) -> None:
    own = stopped(tmp_path / "run")
    original = (own.data / "train.csv").read_text()
    (own.data / "train.csv").write_text(original.replace("train 3", "train three"))
    with pytest.raises(UsageError, match="the inputs of train changed"):
        own.fit(tmp_path / "run")
    (own.data / "train.csv").write_text(original)
    run = own.fit(tmp_path / "run")
    assert len(losses(run)) == 6


def test_failures_are_recorded(world: World, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        world.fit(tmp_path / "run", data=str(tmp_path / "nowhere.csv"))
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    assert "nowhere.csv" in status["reason"]
    assert world.fit(tmp_path / "run").metrics["strategy"] == "full"


def test_the_best_weights_are_those_that_are_saved(world: World, tmp_path: Path) -> None:
    for best, choose in (("loss", min), ("accuracy", max)):
        run = world.fit(tmp_path / best, strategy={"name": "head", "features": "mean"}, evaluate={"best": best},
                        train={"evaluate_every": 1, "max_steps": 12, "learning_rate": 0.1})
        seen = [line["validation"][best] for line in history(run) if "validation" in line]
        assert len(set(seen)) > 1
        assert run.metrics["validation"][best] == pytest.approx(choose(seen), abs=1e-6)


def test_trackers_write_below_the_run_and_know_the_configuration(world: World, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = world.fit(tmp_path / "run", log={"trackers": ["tensorboard"]})
    written = [path for path in (run.folder / "trackers").rglob("*") if path.is_file()]
    assert any("tfevents" in path.name for path in written)
    settings = yaml.safe_load(next(path for path in written if path.name == "hparams.yml").read_text())
    assert settings["train.batch_size"] == 8
    assert settings["train.weight_decay"] == 0.01, "filled in by the run"
    assert list((tmp_path / "here").iterdir()) == []
    assert run.predict(["the rain"])[0]["label"] in run.label_names


def test_cached_features_are_those_of_the_present_weights_configuration_and_text(world: World, tmp_path: Path) -> None:
    probe = {"strategy": {"name": "linear_probe", "features": "mean"}}
    first = world.fit(tmp_path / "first", **probe)
    changed = Path(shutil.copytree(world.model, tmp_path / "changed"))
    settings = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**settings, "hidden_act": "relu"}))
    runs = [first, world.fit(tmp_path / "relu", model=str(changed), **probe),
            world.fit(tmp_path / "short", data={"source": str(world.data), "max_length": 4}, **probe),
            World(tiny.checkpoint(tmp_path / "other", "bert", seed=1), world.data).fit(tmp_path / "weights", **probe)]
    assert len({run.metrics["test"]["loss"] for run in runs}) == 4
    assert world.fit(tmp_path / "again", **probe).metrics["test"] == first.metrics["test"]


def test_nothing_to_search_is_told(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlhub")
    assert "knn" in world.fit(tmp_path / "full", evaluate={"knn": True}).metrics["baselines"]
    assert "nothing to search" not in caplog.text
    scratch = world.fit(tmp_path / "scratch", strategy="scratch", evaluate={"knn": True})
    assert "knn" not in scratch.metrics["baselines"]
    assert "nothing to search" in caplog.text


# Every option of the section `train`, what it is set to, and what has to follow.
ACTS: dict[str, tuple[dict[str, Any], Callable[[Run, Run], bool]]] = {
    "epochs": ({"epochs": 0.5}, lambda run, base: len(losses(run)) == 2),
    "max_steps": ({"max_steps": 3}, lambda run, base: len(losses(run)) == 3 and rates(run)[-1] < rates(base)[2]),
    "batch_size": ({"batch_size": 13}, lambda run, base: validations(run) == [2, 4, 6]),
    "micro_batch_size": ({"micro_batch_size": 3}, lambda run, base: np.allclose(losses(run), losses(base), atol=1e-5)),
    "learning_rate": ({"learning_rate": 3e-3}, lambda run, base: max(rates(run)) == 3e-3),
    "weight_decay": ({"weight_decay": 20.0}, lambda run, base: losses(run)[:1] == losses(base)[:1]
                     and losses(run)[2:] != losses(base)[2:]),
    "optimizer": ({"optimizer": "sgd"}, lambda run, base: losses(run)[:1] == losses(base)[:1]
                  and abs(losses(run)[-1] - losses(base)[-1]) > 1e-3),
    "momentum": ({"optimizer": "sgd", "momentum": 0.0}, lambda run, base: losses(run)[:1] == losses(base)[:1]
                 and losses(run)[2:] != losses(base)[2:]),
    "schedule": ({"schedule": "constant"}, lambda run, base: len(set(rates(run))) == 1),
    "warmup_fraction": ({"warmup_fraction": 0.5}, lambda run, base: rates(run)[0] == pytest.approx(1e-2 / 3)),
    "clip_norm": ({"clip_norm": 1e-7}, lambda run, base: abs(losses(run)[-1] - losses(base)[-1]) > 1e-3),
    "label_smoothing": ({"label_smoothing": 0.3}, lambda run, base: losses(run)[0] != losses(base)[0]),
    "class_weights": ({"class_weights": "balanced"}, lambda run, base: losses(run)[0] != losses(base)[0]),
    "loss": ({"loss": "focal"}, lambda run, base: losses(run)[0] < losses(base)[0]),
    "focal_gamma": ({"loss": "focal", "focal_gamma": 0.0}, lambda run, base: np.allclose(losses(run), losses(base))),
    "logit_adjustment": ({"logit_adjustment": 1.0}, lambda run, base: losses(run)[0] != losses(base)[0]),
    "evaluate_every": ({"evaluate_every": 3}, lambda run, base: validations(run) == [3, 6]),
    "patience": ({"patience": 1, "evaluate_every": 1, "learning_rate": 1e-9},
                 lambda run, base: validations(run) == [1, 2] and len(losses(run)) == 2),
    "precision": ({"precision": "bf16"}, lambda run, base: 0 < abs(losses(run)[0] - losses(base)[0]) < 0.05),
}
ELSEWHERE = {"average", "checkpoint_every", "keep_last", "max_bad_steps", "compile", "gradient_checkpointing",
             "huber_delta", "sampling"}


def test_every_training_option_has_a_test() -> None:
    assert set(ACTS) | ELSEWHERE == {field.name for field in dataclasses.fields(TrainConfig)}
    assert len(ACTS) + len(ELSEWHERE) == 27


@pytest.fixture(scope="module")
def base(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return world.fit(tmp_path_factory.mktemp("base") / "run")


@pytest.mark.parametrize("name", ACTS)
def test_the_option_acts(name: str, world: World, base: Run, tmp_path: Path) -> None:
    options, follows = ACTS[name]
    run = world.fit(tmp_path / "run", train=options)
    assert follows(run, base), (losses(run), losses(base), rates(run), validations(run))
    assert json.loads((run.folder / "status.json").read_text())["state"] == "finished"


def test_micro_batches_are_no_larger_than_asked_for(world: World, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from tlhub.data.text import TextInputs

    sizes: list[int] = []
    whole = TextInputs.batch

    def spy(self: TextInputs, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        if epoch is not None:
            sizes.append(len(indices))
        return whole(self, indices, epoch, device)

    monkeypatch.setattr(TextInputs, "batch", spy)
    world.fit(tmp_path / "run", train={"micro_batch_size": 3, "max_steps": 2})
    assert sizes in ([3, 3, 2, 3, 3, 2], [2, 3, 3, 2], [3, 3, 2, 2])


def test_checkpoint_every_acts(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    save = checkpointing.save

    def spy(folder: Path, name: str, snapshot: Any) -> Path:
        written.append(name)
        return save(folder, name, snapshot)

    monkeypatch.setattr(checkpointing, "save", spy)
    world.fit(tmp_path / "run", train={"checkpoint_every": 2})
    assert written == ["step-000000002", "step-000000004", "step-000000006-final"]


@pytest.mark.parametrize("kept", [1, 3])
def test_keep_last_acts(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    left: list[set[str]] = []
    rotate = checkpointing.rotate

    def spy(folder: Path, *rest: Any) -> None:
        rotate(folder, *rest)
        left.append({path.name for path in folder.iterdir()})

    monkeypatch.setattr(checkpointing, "rotate", spy)
    world.fit(tmp_path / "run", train={"checkpoint_every": 1, "keep_last": kept})
    assert left[-1] == set(["step-000000006-final", "step-000000005", "step-000000004"][:kept])
    assert len(left) == 6


@pytest.mark.parametrize("limit", [1, 3])
def test_max_bad_steps_acts(world: World, tmp_path: Path, limit: int) -> None:
    with pytest.raises(TlhubError, match=f"not finite in {limit} steps in a row"):
        world.fit(tmp_path / "run", train={"max_bad_steps": limit, "learning_rate": 1e38, "evaluate_every": 6})
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"


def test_compile_acts_and_leaves_plain_names(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    real = torch.compile

    def eager(model: torch.nn.Module) -> Any:
        compiled.append(type(model).__name__)
        return real(model, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    probe = {"strategy": {"name": "head", "features": "native"}}
    run = world.fit(tmp_path / "run", train={"compile": True}, **probe)
    assert compiled == ["FeatureHead"]
    assert losses(run) == pytest.approx(losses(world.fit(tmp_path / "plain", **probe)), abs=1e-6)
    names = load_file(run.folder / "model" / "model.safetensors").keys()
    assert "classifier.weight" in names
    assert not [name for name in names if "_orig_mod" in name]


def test_half_precision_needs_an_accelerator_to_train_but_not_to_predict(world: World, base: Run,
                                                                        tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(UsageError, match="fp16"):
        world.fit(tmp_path / "run", train={"precision": "fp16"})
    folder = Path(shutil.copytree(base.folder, tmp_path / "moved"))
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["train"]["precision"] = "fp16"
    content["log"]["trackers"] = ["tensorboard"]
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    assert tlhub.load(folder).predict(["the rain"]) == base.predict(["the rain"])


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.dropout.*no effect"):
        from_kwargs(TASK, model={"name": "m", "dropout": 0.5}, data="d", strategy="head")


def test_lp_ft_keeps_the_probe_where_nothing_is_better(world: World, tmp_path: Path) -> None:
    probe = world.fit(tmp_path / "probe", strategy="linear_probe")
    run = world.fit(tmp_path / "run", strategy="lp_ft", train={"learning_rate": 10.0, "evaluate_every": 2})
    assert validations(run) == [0, 2, 4, 6]
    assert run.metrics["validation"] == pytest.approx(probe.metrics["validation"], abs=1e-5)
    other = world.fit(tmp_path / "full", train={"learning_rate": 10.0})
    assert other.metrics["validation"]["loss"] > 2 * run.metrics["validation"]["loss"]


def test_machines_that_do_not_share_the_folder_are_told(world: World, tmp_path: Path) -> None:
    class Two:
        """The first of two processes, of which the other one looks at another disk."""

        is_main_process, num_processes, device = True, 1, torch.device("cpu")

        def gather(self, seen: torch.Tensor) -> torch.Tensor:
            assert seen.tolist() == [True]
            return torch.tensor([True, False])

    config = from_kwargs(TASK, model=str(world.model), data=str(world.data), out=str(tmp_path / "run"))
    with pytest.raises(UsageError, match=r"run' is not seen by 1 of 2 processes; .* all machines share"):
        run_module._agreed_folder(Two(), config, ExitStack(), overwrite=False)


def test_a_head_that_is_not_taken_over_is_told(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = world.fit(tmp_path / "first", model={"name": str(world.model), "head": "4"})
    for strategy, told in (("full", True), ("linear_probe", False)):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="tlhub"):
            world.fit(tmp_path / strategy, model=str(first.folder), strategy=strategy)
        assert ("ends in a head of tlhub's own, which is not taken over" in caplog.text) == told
