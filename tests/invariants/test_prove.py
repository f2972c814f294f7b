"""`tlhub prove` on every task, and on runs that are broken on purpose: it has to say what does not hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.generated import write_corpus, write_images, write_measured, write_sounds, write_texts
from tests.wrong import working_in
from tlhub import cli, run
from tlhub.data import problem_types
from tlhub.models import checkpoints, freezing, saving
from tlhub.proving import agreement, prove, trials
from tlhub.proving.proof import NOT_APPLICABLE, Finding
from tlhub.strategies import full, lora
from tlhub.training import objectives, store
from tlhub.training.job import Callback, Job

PROOFS = ("tensors", "resume", "processes", "accumulation", "reload", "labels")
CASES = {
    "image-classification": ("resnet", "images", "--strategy full --data.mixup 0.4 --train.sampling balanced"),
    "image-regression": ("vit", "measured", "--strategy lp_ft --data.label_column brightness"),
    "text-classification": ("bert", "texts", "--strategy lora --strategy.adapter_dropout 0.1"),
    "audio-classification": ("hubert", "sounds", "--strategy last_k --strategy.k 1 --data.noise 10"),
    "wake-word": ("whisper", "sounds", "--strategy gradual_unfreezing --keyword high"),
    "text-generation": ("gpt2", "corpus", "--strategy full"),
}
OTHERS = {
    "a probe": ("text-classification", "bert", "texts", "--strategy linear_probe"),
    "a head of its own": ("image-classification", "resnet", "images", "--strategy head --model.head 12"),
    "nothing but new layers": ("text-classification", "bert", "texts", "--strategy head --model.save_base false"),
    "one sigmoid": ("text-classification", "distilbert", "two", "--strategy full --model.sigmoid true"),
    "adapters with statistics": ("image-classification", "convnextv2", "images", "--strategy lora"),
    "a method of its own start": ("text-classification", "roberta", "texts",
                                  "--strategy lora --strategy.method pissa --strategy.rank 4"),
    "fresh weights": ("image-classification", "resnet", "images", "--strategy scratch --data.randaugment 2"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets and checkpoints by name."""
    folder = tmp_path_factory.mktemp("made")
    counts = {"train": 48, "validation": 12, "test": 12}
    write_texts(folder / "texts", counts)
    write_images(folder / "images", counts)
    write_measured(folder / "measured", counts)
    write_sounds(folder / "sounds", counts)
    write_corpus(folder / "corpus", {**counts, "train": 300})
    (folder / "two").mkdir()
    for split in counts:
        lines = (folder / "texts" / f"{split}.csv").read_text().splitlines()
        (folder / "two" / f"{split}.csv").write_text("\n".join(line for line in lines if "weather" not in line) + "\n")
    for kind in ("resnet", "vit", "bert", "distilbert", "roberta", "hubert", "whisper", "convnextv2"):
        tiny.checkpoint(folder / kind, kind)
    tiny.generator(folder / "gpt2", "gpt2")
    return folder


def proven(made: Path, folder: Path, task: str, kind: str, data: str, options: str, code: int = 0) -> dict[str, Any]:
    """Run `tlhub prove`, check its exit code, and return the content of `proof.json`."""
    words = ["prove", task, "--model", str(made / kind), "--data", str(made / data), "--out", str(folder / "proofs")]
    with working_in(folder):
        assert cli.main([*words, *options.split()]) == code
    found: dict[str, Any] = json.loads((folder / "proofs" / "proof.json").read_text())
    assert [proof["name"] for proof in found["proofs"]] == list(PROOFS)
    assert (folder / "proofs" / "proof-runs").exists() == (code == 1)
    return found


def without_second_process(patch: pytest.MonkeyPatch) -> None:
    """Leave out the one proof that starts processes of its own, for the sake of time."""
    patch.setattr(prove, "prove_processes", lambda subject, folder: Finding(NOT_APPLICABLE, "left out"))


@pytest.mark.parametrize("task", CASES)
def test_every_task(task: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = proven(made, tmp_path, task, *CASES[task])
    outcomes = {proof["name"]: proof["outcome"] for proof in found["proofs"]}
    labels = "not applicable" if task == "text-generation" else "holds"
    assert outcomes == {**dict.fromkeys(PROOFS, "holds"), "labels": labels}
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == [*PROOFS, "proofs:"]
    figures = {proof["name"]: proof["figures"] for proof in found["proofs"]}
    assert figures["tensors"]["parameters"]["moved"]
    assert bool(figures["tensors"]["parameters"]["kept"]) == (task in ("text-classification", "audio-classification"))
    assert figures["resume"]["continued_after"] == trials.SAVED
    assert figures["resume"]["steps"] == trials.STEPS
    assert len(figures["processes"]["losses"]) == len(figures["accumulation"]["losses"]) == trials.COMPARED


def test_the_tasks_are_all_there() -> None:
    assert sorted(CASES) == sorted(run.TASKS.names())


@pytest.mark.parametrize("name", OTHERS)
def test_other_configurations(name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_second_process(monkeypatch)
    found = proven(made, tmp_path, *OTHERS[name])
    outcomes = {proof["name"]: proof["outcome"] for proof in found["proofs"]}
    fitted = ("resume", "accumulation") if name == "a probe" else ()
    assert {proof for proof in PROOFS if outcomes[proof] == "not applicable"} == {"processes", *fitted}


def train_a_frozen_layer(patch: pytest.MonkeyPatch) -> None:
    original = lora.freeze_all_but

    def freeze(model: Any, trainable: Callable[[str], bool]) -> None:
        original(model, lambda name: trainable(name) or "layer.0.output.LayerNorm" in name)

    patch.setattr(lora, "freeze_all_but", freeze)


def freeze_a_trained_layer(patch: pytest.MonkeyPatch) -> None:
    original = full.with_head

    def with_head(*args: Any, **options: Any) -> Any:
        model = original(*args, **options)
        model.get_parameter("bert.encoder.layer.0.output.dense.weight").requires_grad_(False)
        return model

    patch.setattr(full, "with_head", with_head)


def let_frozen_parts_train(patch: pytest.MonkeyPatch) -> None:
    """What the loop's own audit notices is a proof that failed too."""
    patch.setattr(freezing.StayInEvaluation, "__call__", lambda self, mode=True: self.module)
    patch.setattr(Callback, "on_step", lambda self, job, progress: next(job.model.buffers()).add_(1))


def forget_the_place(patch: pytest.MonkeyPatch) -> None:
    """Give every sitting the order of the first epoch first."""
    original, epochs = Job.batches, dict[int, int]()

    def batches(self: Job, epoch: int) -> Any:
        first = epochs.setdefault(id(self), epoch)
        return original(self, epoch - first)

    patch.setattr(Job, "batches", batches)


def forget_the_optimizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store, "load_state_tensors", lambda optimizer, tensors: None)


def weigh_parts_alike(patch: pytest.MonkeyPatch) -> None:
    """Average over each forward pass, where the whole batch is meant."""
    original = objectives.ExampleLoss.loss
    patch.setattr(objectives.ExampleLoss, "loss",
                  lambda self, output, part, epoch: original(self, output, part, epoch) * 8 / len(part))


def divide_nothing(patch: pytest.MonkeyPatch) -> None:
    original = trials.carry_out
    patch.setattr(agreement, "carry_out", lambda subject, folder, values: original(
        subject, folder, {**values, "train.micro_batch_size": 8}))


def disagree_between_processes(patch: pytest.MonkeyPatch) -> None:
    def launched(subject: Any, folder: Path, values: dict[str, Any]) -> None:
        trials.carry_out(subject, folder, {**values, "launch.num_processes": 1, "seed": 1})

    patch.setattr(agreement, "launched", launched)


def leave_the_head_out(patch: pytest.MonkeyPatch) -> None:
    change_the_head(patch, lambda tensors: {name: value for name, value in tensors.items() if "classifier" not in name})


def save_another_head(patch: pytest.MonkeyPatch) -> None:
    change_the_head(patch, lambda tensors: {name: value * (1 if "classifier" not in name else 1.01)
                                            for name, value in tensors.items()})


def change_the_head(patch: pytest.MonkeyPatch, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    original = saving.save_full

    def save(model: Any, processor: Any, folder: Path, *, label_names: tuple[str, ...]) -> None:
        original(model, processor, folder, label_names=label_names)
        save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})

    patch.setattr(saving, "save_full", save)


def turn_saved_names(patch: pytest.MonkeyPatch) -> None:
    original = saving.set_labels
    patch.setattr(saving, "set_labels", lambda settings, names, *rest: original(settings, names[::-1], *rest))


def turn_labels(patch: pytest.MonkeyPatch) -> None:
    original = problem_types.Classes.encode
    patch.setattr(problem_types.Classes, "encode",
                  lambda self, labels, ids, names, split: (original(self, labels, ids, names, split) + 1) % len(names))


def take_heads_over_as_they_lie(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoints, "permute_output_layer", lambda model, order: None)


FULL = "--strategy full"
BROKEN: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, set[str], str]] = {
    train_a_frozen_layer: ("--strategy lora", {"tensors", "reload", "labels"},
                           "frozen by lora, and moved: base_model.model.bert.encoder"),
    freeze_a_trained_layer: (FULL, {"tensors"}, "trained by full, and still: bert.encoder.layer.0.output.dense.weight"),
    let_frozen_parts_train: ("--strategy lora", set(PROOFS) - {"processes"}, "the run itself failed: training moved"),
    forget_the_place: (FULL, {"resume"}, "stopped after step 5, continued after 4; different: step 5"),
    forget_the_optimizer: (FULL, {"resume"}, "different: step"),
    weigh_parts_alike: (FULL, {"accumulation"}, "1x8 and 8x1: over 4 steps losses differ by"),
    divide_nothing: (FULL, {"accumulation"}, "8 examples one by one took 1 forward passes"),
    disagree_between_processes: (FULL, {"processes"}, "one process and two: over 4 steps losses differ by"),
    leave_the_head_out: (FULL, {"reload", "labels"}, "lacks 'classifier"),
    save_another_head: (FULL, {"reload", "labels"}, "outputs of 4 examples differ by"),
    turn_saved_names: (FULL, {"labels"}, "the saved model's outputs are named weather, sport, food"),
    turn_labels: (FULL, {"labels"}, "36 of 36 labels are not those of the data, the first is train.csv:"),
    take_heads_over_as_they_lie: (FULL, {"labels"}, "with its labels in another order mixes their outputs up"),
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_run_that_is_broken(damage: Callable[[pytest.MonkeyPatch], None], made: Path, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options, failing, words = BROKEN[damage]
    if "processes" not in failing:
        without_second_process(monkeypatch)
    damage(monkeypatch)
    found = proven(made, tmp_path, "text-classification", "bert", "texts", options, code=1)
    assert not found["holds"]
    failed = {proof["name"]: proof["words"] for proof in found["proofs"] if proof["outcome"] == "FAILS"}
    assert set(failed) == failing
    assert words in " ".join(failed.values())
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    said = ", ".join(name for name in PROOFS if name in failed)
    assert printed.err.splitlines()[-1] == f"tlhub: does not hold: {said}"


def test_the_broken_runs_are_counted() -> None:
    assert len(BROKEN) == 13
    assert set().union(*(failing for _, failing, _ in BROKEN.values())) == set(PROOFS)
