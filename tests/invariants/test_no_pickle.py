"""No command opens or writes a pickle: whatever could is made to fail, and every command runs."""

from __future__ import annotations

import json
import pickle
import pickletools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import joblib
import pytest
import torch

from tests import generated, tiny
from tests.wrong import working_in
from tlhub import cli
from tlhub.training import store

WAYS = [(torch, "save"), (torch, "load"), (torch.serialization, "save"), (torch.serialization, "load"),
        (pickle, "load"), (pickle, "dump"), (dill, "load"), (dill, "dump"), (joblib, "load"), (joblib, "dump")]
IN_MEMORY = ("multiprocessing", "multiprocess", "concurrent", "torch.distributed", "torch.multiprocessing",
             "accelerate", "datasets.fingerprint", "datasets.utils._dill")
"""What passes objects between processes, or takes fingerprints of them, without a file."""
FEW = "--evaluate.resamples 2 --batch_size 4 --out"
COMMANDS = [
    f"finetune text-classification --model bert --data texts --strategy full --max_steps 2 {FEW} runs/text",
    f"finetune text-classification --model bert --data texts --strategy lora --max_steps 2 {FEW} runs/lora",
    f"finetune text-classification --model bert --data texts.parquet --strategy last_k --max_steps 2 {FEW} runs/last",
    f"finetune image-classification --model vit --data images --strategy head --max_steps 2 {FEW} runs/image",
    "finetune image-classification --model vit --data images --strategy linear_probe --evaluate.resamples 2 "
    "--out runs/probe",
    f"finetune image-regression --model resnet --data measured --strategy full --max_steps 2 {FEW} runs/measured "
    "--data.label_column redness",
    f"finetune audio-classification --model wav2vec2 --data sounds --strategy full --max_steps 2 {FEW} runs/sound",
    f"finetune wake-word --model hubert --data sounds --keyword high --strategy lp_ft --max_steps 2 {FEW} runs/wake",
    f"finetune text-generation --model gpt2 --data corpus --strategy gradual_unfreezing --max_steps 4 {FEW} runs/words",
    f"finetune text-generation --model gpt2 --data chat.jsonl --strategy full --max_steps 2 {FEW} runs/chat",
    f"finetune text-classification --model runs/lora --data texts --strategy full --max_steps 2 {FEW} runs/again",
    *[f"evaluate runs/{run} --data {data}" for run, data in (("text", "texts"), ("lora", "texts"), ("image", "images"),
                                                             ("probe", "images"), ("sound", "sounds"),
                                                             ("words", "corpus"))],
    *[f"predict runs/{run} {given}" for run, given in (
        ("text", "hello"), ("lora", "hello"), ("last", "hello"), ("image", "images/test"), ("probe", "images/test"),
        ("measured", "images/test"), ("sound", "sounds/test"), ("wake", "sounds/test"), ("again", "hello"),
        ("words", "hello --max_new_tokens 3"), ("chat", "hello --max_new_tokens 3"))],
    *[f"data check {task} --data {data}" for task, data in (
        ("text-classification", "texts"), ("image-classification", "images"),
        ("image-regression", "measured --data.label_column redness"),
        ("audio-classification", "sounds"), ("wake-word", "sounds --keyword high"), ("text-generation", "corpus"))],
    "plan text-classification --data texts --model bert --out plans/text",
    "models", "doctor",
    "prove text-classification --model bert --data texts --strategy full --out proofs/text",
]
COUNT = 38
IN_PROCESSES = {"quickstart"}
"""What carries out others of these commands, in processes of its own."""
DONE: list[str] = []


class PickledError(BaseException):
    """A pickle would have been read or written. No `Exception`, so that nothing catches it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pickles")
    with working_in(folder):
        for kind in ("bert", "vit", "resnet", "wav2vec2", "hubert"):
            tiny.checkpoint(Path(kind), kind)
        tiny.generator(Path("gpt2"), "gpt2")
        counts = {"train": 24, "validation": 9, "test": 9}
        generated.write_texts(Path("texts"), counts)
        generated.write_images(Path("images"), counts, size=16)
        generated.write_measured(Path("measured"), counts, size=16)
        generated.write_sounds(Path("sounds"), counts)
        generated.write_corpus(Path("corpus"), counts)
        import pandas

        pandas.read_csv("texts/train.csv").to_parquet("texts.parquet")
        talks = [[{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": f"a {n}"}] for n in range(20)]
        Path("chat.jsonl").write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
        template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        Path("gpt2/chat_template.jinja").write_text(template)
        yield folder


@pytest.fixture(autouse=True)
def _one_cache(place: Path, _own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is prepared for all commands in one place, to look at it."""
    monkeypatch.setenv("TLHUB_CACHE", str(place / "cache"))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Make every way to a pickle fail but those in memory, which are counted by who took them."""
    allowed: Counter[str] = Counter()

    def fail(name: str) -> Callable[..., Any]:
        def failing(*_: object, **__: object) -> None:
            raise PickledError(name)

        return failing

    for owner, name in WAYS:
        monkeypatch.setattr(owner, name, fail(f"{owner.__name__}.{name}"))
    read = pickle.loads

    def loads(*args: Any, **options: Any) -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            module = frame.f_globals.get("__name__", "")
            if module.startswith(IN_MEMORY):
                allowed[module] += 1
                return read(*args, **options)
            frame = frame.f_back
        raise PickledError("pickle.loads")

    monkeypatch.setattr(pickle, "loads", loads)
    monkeypatch.setattr(dill, "loads", loads)
    return allowed


def test_the_number_of_commands() -> None:
    assert len(COMMANDS) == COUNT
    assert {words.split()[0] for words in COMMANDS} | IN_PROCESSES == {name.split()[0] for name in (
        command.name for command, _ in cli._COMMANDS)}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_runs_without_a_pickle(place: Path, refused: Counter[str], words: str,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 0, capsys.readouterr().err[-500:]
    assert not refused  # one process: not even queues
    DONE.append(words)


def test_nothing_that_was_written_is_a_pickle(place: Path) -> None:
    assert DONE == COMMANDS
    files = [path for top in ("runs", "cache", "proofs", "plans") for path in Path(top).rglob("*") if path.is_file()]
    assert len(files) > 150
    assert [path for path in files if is_pickle(path.read_bytes())] == []


def test_a_run_is_resumed_without_a_pickle(place: Path, refused: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = COMMANDS[0].replace("runs/text", "runs/resumed").split()
    with monkeypatch.context() as patch:
        patch.setattr("tlhub.results.finish", stopped)
        assert cli.main([*words, "--train.checkpoint_every", "1"]) == 75
    kept = [*Path("runs/resumed/checkpoints").iterdir()]
    assert kept
    resumed = []
    monkeypatch.setattr(store.checkpointing, "load", seen(store.checkpointing.load, resumed))
    assert cli.main([*words, "--train.checkpoint_every", "1"]) == 0
    assert len(resumed) == 1


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def seen(function: Callable[..., Any], calls: list[object]) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return function(*args, **options)

    return called


def is_pickle(content: bytes) -> bool:
    """Return whether a file's content is a pickle, alone or in a zip archive as torch writes it."""
    if content[:2] == b"PK":
        return True
    if content[:1] != b"\x80" or len(content) < 3 or content[1] > pickle.HIGHEST_PROTOCOL:
        return False
    try:
        for _ in pickletools.genops(content):
            pass
    except Exception:
        return False
    return True


def test_what_is_looked_for_is_found(tmp_path: Path, refused: Counter[str]) -> None:
    assert is_pickle(pickle.dumps([1, 2]))
    assert not is_pickle(b"\x80 words")
    for owner, name in WAYS:
        with pytest.raises(PickledError):
            getattr(owner, name)(b"", tmp_path / "x")
    with pytest.raises(PickledError):
        pickle.loads(pickle.dumps(1))
