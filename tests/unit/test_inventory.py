"""The checkpoints that are at hand: embedded ones, and those of a Hub cache that the test lays out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.embedded import TERMS, embed
from tests.unit.models.test_origin import COMMIT
from tlhub import cli, inventory
from tlhub.registry import TASKS

CARD = "---\nlicense: {}\ntags:\n- x\n---\n# A model\n"
OTHER = COMMIT[::-1]


def cached(root: Path, name: str, card: str | None = None, commit: str = COMMIT) -> Path:
    """Return the folder of a new revision of a checkpoint in a cache."""
    folder = root / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir(exist_ok=True)
    (folder.parents[1] / "refs" / "main").write_text(commit)
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that is the Hub's cache, which is not made yet."""
    embed(monkeypatch, tmp_path / "models", "builtin/words", "bert")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def found() -> dict[str, inventory.Entry]:
    return {entry.name: entry for entry in inventory.checkpoints()}


def test_without_a_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    assert f"Words ({TERMS})" in capsys.readouterr().out
    cache.write_text("no folder")
    entries = inventory.checkpoints()
    assert [(entry.name, entry.revision, entry.tasks, entry.terms, entry.scores) for entry in entries] == [
        ("builtin/words", None, ("text-classification",), f"Words ({TERMS})", {"words": {"full": 0.5}})]


def test_what_a_cache_holds(cache: Path) -> None:
    kinds = {"bert": ("text-classification",), "vit": ("image-classification", "image-regression"),
             "hubert": ("audio-classification", "wake-word")}
    for kind in kinds:
        tiny.checkpoint(cached(cache, f"someone/tiny-{kind}", CARD.format("mit")), kind)
    tiny.generator(cached(cache, "gpt2", CARD.format("[mit, apache-2.0]")), "gpt2")
    tiny.checkpoint(cached(cache, "gpt2", CARD.format("other\nlicense_name: own"), OTHER), "gpt2")
    (cached(cache, "timm/net") / "config.json").write_text('{"architecture": "resnet18"}')
    shutil.copyfile(cache / "models--gpt2/snapshots" / COMMIT / "model.safetensors",
                    cache / "models--timm--net/snapshots" / COMMIT / "model.safetensors")
    (cache / "datasets--someone--rows" / "snapshots").mkdir(parents=True)
    entries = inventory.checkpoints()[1:]
    assert [(entry.name, entry.revision) for entry in entries] == [
        ("gpt2", COMMIT), ("gpt2", OTHER), ("someone/tiny-bert", COMMIT), ("someone/tiny-hubert", COMMIT),
        ("someone/tiny-vit", COMMIT), ("timm/net", COMMIT)]
    for kind, tasks in kinds.items():
        entry = found()[f"someone/tiny-{kind}"]
        assert (entry.tasks, entry.terms, entry.note) == (tasks, "mit", "")
        assert entry.parameters == sum(parameter.numel() for parameter in tiny.model(kind).parameters())
        assert entry.size > 4 * entry.parameters
    assert [entry.tasks for entry in entries[:2]] == [("text-classification", "text-generation"),
                                                      ("text-classification",)]  # the second has no last layer
    assert [entry.terms for entry in entries[:2]] == ["mit, apache-2.0", "own"]
    assert (entries[-1].tasks, entries[-1].terms) == (kinds["vit"], "not stated in its cached files")


def test_what_cannot_be_used_says_why(cache: Path) -> None:
    """Files of others: nothing in them may end the command."""
    tiny.checkpoint(cached(cache, "a/pickled", "---\n{}"), "bert")
    (cache / "models--a--pickled/snapshots" / COMMIT / "model.safetensors").rename(
        cache / "models--a--pickled/snapshots" / COMMIT / "pytorch_model.bin")
    tiny.checkpoint(cached(cache, "b/damaged", "---\nlicense: [*a]\n---\n"), "bert")
    (cache / "models--b--damaged/snapshots" / COMMIT / "model.safetensors").write_bytes(b"\xff" * 40)
    tiny.checkpoint(cached(cache, "c/described", "---\nlicense: {mit: 1}\n---\n"), "bert")
    (cache / "models--c--described/snapshots" / COMMIT / "config.json").write_text("[1")
    (cached(cache, "d/adapter") / "adapter_config.json").write_text("{}")
    tiny.checkpoint(cached(cache, "e/type"), "bert")
    (cache / "models--e--type/snapshots" / COMMIT / "config.json").write_text('{"model_type": "bart\\u001b[31m"}')
    (cached(cache, "f/nothing") / "README.md").write_bytes(b"---\n\xff")
    entries = found()
    assert {name[2:]: (entry.tasks, entry.note) for name, entry in entries.items() if name != "builtin/words"} == {
        "pickled": ((), "no safetensors"), "damaged": (("text-classification",), ""),
        "described": ((), "no usable config.json"), "adapter": ((), "an adapter"),
        "type": ((), "type bart\x1b[31m serves no task"), "nothing": ((), "no safetensors")}
    assert entries["b/damaged"].parameters is None
    assert entries["c/described"].terms == "{'mit': 1}"


def test_the_table(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.checkpoint(cached(cache, "someone/type", CARD.format("'\\e[31m'")), "bert")
    tiny.checkpoint(cached(cache, "someone/coloured", '---\nlicense: "\\e[31mred"\n---\n'), "bert")
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "tasks", "parameters", "size", "revision", "terms"]
    starts = [lines[0].index(word) for word in ("tasks", "revision", "terms")]
    assert all(line[start - 2:start] == "  " != line[start:start + 2] for line in lines[:4] for start in starts)
    assert lines[2].endswith(f"{COMMIT[:12]}  \\x1b[31mred")
    assert [line.split() for line in lines[5:7]] == [["test", "scores", "full"], ["builtin/words", "words", "0.500"]]
    assert cli.main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == ["builtin/words", "someone/coloured", "someone/type"]
    assert listed[1]["terms"] == "\x1b[31mred"


def test_the_tables_of_transformers_are_those_of_the_tasks() -> None:
    import transformers

    served = {task: f"AutoModelFor{table.title().replace('_', '').replace('Lm', 'LM')}"
              for table, tasks in inventory.SERVES.items() for task in tasks}
    assert served == {name: TASKS.get(name).auto_model for name in TASKS.names()}
    sizes = []
    for table, types in inventory._tables().items():
        names: Any = getattr(transformers.models.auto.modeling_auto, inventory._TABLE.format(table))
        assert types == dict(names)
        sizes.append(len(types))
    assert min(sizes) > 10


def test_torch_is_not_imported(tmp_path: Path) -> None:
    code = ("import sys; from tlhub import cli; cli.main(['models']); "
            "print({'torch', 'transformers', 'numpy'} & set(sys.modules))")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={**os.environ, "HF_HOME": str(tmp_path)})
    assert shown.stdout.endswith("\nset()\n")
