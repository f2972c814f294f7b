"""`tlhub plan` on every task: candidates in order, what each strategy takes, and a command that works."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.generated import write_corpus, write_images, write_measured, write_sounds, write_texts
from tests.wrong import working_in
from tlhub import cli
from tlhub.models import features
from tlhub.planning import costs
from tlhub.registry import STRATEGIES
from tlhub.training.callbacks import read_history

CASES = {
    "image-classification": ("vit,resnet,bert", "images", ""),
    "image-regression": ("convnextv2", "measured", "--data.label_column brightness"),
    "text-classification": ("bert,roberta,vit", "texts", "--epochs 2"),
    "audio-classification": ("hubert,whisper", "sounds", ""),
    "wake-word": ("whisper", "sounds", "--keyword high"),
    "text-generation": ("gpt2,llama", "corpus", "--data.block_size 32"),
}
MIB = 2**20


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
    for kind in ("bert", "roberta", "vit", "resnet", "convnextv2", "hubert", "whisper"):
        tiny.checkpoint(folder / kind, kind)
    for kind in ("gpt2", "llama"):
        tiny.generator(folder / kind, kind)
    return folder


def planned(folder: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make a plan, and return what it says."""
    monkeypatch.setattr(costs, "_ENOUGH_S", 0.0)
    models, data, words = CASES[task]
    given = ["plan", task, "--model", models, "--data", data, *shlex.split(words), "--out", f"plans/{task}"]
    with working_in(folder):
        assert cli.main([*given, "--overwrite"]) == 0
    content: dict[str, Any] = json.loads((folder / "plans" / task / "plan.json").read_text())
    return content


@pytest.mark.parametrize("task", CASES)
def test_a_plan_is_made(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                        task: str) -> None:
    content = planned(made, task, monkeypatch)
    models = CASES[task][0].split(",")
    ranked, kept = content["candidates"], content["kept"]
    assert {row["name"] for row in ranked} | content["skipped"].keys() == set(models)
    unlike = {("bert", "image-classification"), ("vit", "text-classification")}
    assert set(content["skipped"]) == {name for name in models if (name, task) in unlike}
    assert kept[0]["name"] == ranked[0]["name"]
    assert (ranked[0]["behind"], ranked[0]["within_one_error"]) == (0.0, True)
    assert all(one["behind"] <= other["behind"] for one, other in itertools.pairwise(ranked))
    generates = task == "text-generation"
    assert all((row["features"] is None) == generates for row in ranked)
    expected = set(STRATEGIES.names()) - ({"linear_probe", "head", "lp_ft"} if generates else set())
    for row in kept:
        assert {cost["strategy"] for cost in row["costs"]} == expected
        assert [cost["reason"] for cost in row["costs"]] == [""] * len(expected)
        for cost in row["costs"]:
            assert 0 < cost["seconds"] < 3600
            assert cost["trained"] > 0
            assert cost["fits"]
            assert cost["peak"] is None or 100 * MIB < cost["peak"] < content["memory_limit"]
        assert row["advice"]["strategy"] in expected
    said = capsys.readouterr().out
    assert all(f"  {row['command']}\n" in said for row in kept)


def test_the_command_at_the_end_works_and_takes_what_was_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = planned(made, "text-classification", monkeypatch)
    row = content["kept"][0]
    told = {cost["strategy"]: cost for cost in row["costs"]}
    with working_in(made):
        # The features are those that were compared.
        monkeypatch.setattr("tlhub.models.features._forward", forwarded := Forwarded())
        commands = {"linear_probe": shlex.split(row["command"])[1:]}
        assert commands["linear_probe"][-2:] == ["--strategy", "linear_probe"]
        for strategy in ("lora", "full"):
            commands[strategy] = [*commands["linear_probe"][:-1], strategy, "--epochs", "2"]
        for strategy, words in commands.items():
            assert cli.main([*words, "--out", f"runs/{strategy}"]) == 0
            found = json.loads(Path(f"runs/{strategy}/metrics.json").read_text())
            assert found["parameters"]["trainable"] == told[strategy]["trained"]
            if strategy != "linear_probe":
                history = read_history(Path(f"runs/{strategy}/history.jsonl"))
                assert max(line["step"] for line in history) == told[strategy]["steps"]
        assert forwarded.sizes == [12, 12]  # validation and test alone, for the probe


class Forwarded:
    """Notes how many examples the checkpoint is run over."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._real = features._forward

    def __call__(self, extractor: Any, inputs: Any, order: Any, *rest: Any) -> Any:
        self.sizes.append(len(order))
        return self._real(extractor, inputs, order, *rest)


def test_a_language_model_is_scored_by_the_texts_as_a_run_scores_it(made: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    (made / "one").mkdir()
    for split in ("train", "validation"):  # without a test split, a run scores the checkpoint on validation
        (made / "one" / f"{split}.txt").write_text((made / "corpus" / f"{split}.txt").read_text())
    monkeypatch.setitem(CASES, "text-generation", ("gpt2", "one", "--data.block_size 32"))
    content = planned(made, "text-generation", monkeypatch)
    with working_in(made):
        words = "finetune text-generation --model gpt2 --data one --data.block_size 32 --max_steps 1 --out runs/one"
        assert cli.main([*words.split(), "--task_options.sample_tokens", "1"]) == 0
    found = json.loads((made / "runs/one/metrics.json").read_text())["baselines"]["checkpoint"]["bits_per_byte"]
    assert content["candidates"][0]["score"] == pytest.approx(found, rel=1e-5)
