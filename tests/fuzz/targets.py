"""What is fuzzed: readers of files that others wrote, each as a function of a file's content.

A reader may refuse a content by an error of tlhub's; anything else is a fault.
"""

from __future__ import annotations

import atexit
import functools
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from safetensors.torch import save

from tests import tiny
from tests.data_files import csv_rows, png
from tests.sounds import sound, tone
from tlhub import options
from tlhub.config import NEXT_TOKEN, SINGLE_LABEL, DataConfig
from tlhub.data.decode import open_image
from tlhub.data.prepare import prepare
from tlhub.data.sound import open_sound, sound_seconds
from tlhub.data.tables import read_table
from tlhub.errors import TlhubError
from tlhub.finished import Run
from tlhub.folder import RunFolder
from tlhub.models.adapter_files import read_labels
from tlhub.models.head_files import read_head
from tlhub.models.inspection import inspect_checkpoint, read_header
from tlhub.models.loading import read_settings
from tlhub.models.origin import Origin
from tlhub.models.processors import load_processor
from tlhub.training import checkpointing

Target = Callable[[bytes], object]


@functools.cache
def place() -> Path:
    """Return the folder in which contents are laid out; in memory where the system has such a place."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="tlhub-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def one_file(name: str, content: bytes) -> Path:
    path = place() / "one" / name
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def table(ending: str) -> Target:
    return lambda content: read_table([one_file(f"train{ending}", content)], "train", place() / "tables")


def prepared(name: str, modality: str, problem: str) -> Target:
    def read(content: bytes) -> None:
        source = one_file(name, content)
        prepare(DataConfig(source=str(source), cache_dir=str(place() / "cache")), modality, problems=(problem,), seed=0)

    return read


def configuration(content: bytes) -> None:
    options.from_kwargs(config=str(one_file("x.yaml", content)))


def command_line(content: bytes) -> None:
    words = content.decode("utf-8", "replace").replace("\0", " ").split("\n")
    if not {"-h", "--help"} & set(words):
        options.parse(words)


@functools.cache
def stored() -> Path:
    """Return a checkpoint as runs keep them."""
    tensors = {"model": {"a": torch.arange(6.0)}, "optimizer": {}}
    return checkpointing.save(place() / "stored", "step-000000001", checkpointing.Snapshot(tensors, {"step": 1}))


def checkpoint_file(name: str) -> Target:
    def read(content: bytes) -> None:
        folder = place() / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stored(), folder / stored().name)
        changed = (folder / stored().name / name).read_bytes() != content
        (folder / stored().name / name).write_bytes(content)
        found = checkpointing.latest(folder, "step")
        assert (found is None) == changed
        shutil.copytree(stored(), folder / stored().name, dirs_exist_ok=True)
        (folder / stored().name / name).write_bytes(content)
        checkpointing.load(folder / stored().name)

    return read


def header(content: bytes) -> None:
    read_header(one_file("model.safetensors", content), "some")


@functools.cache
def whole(kind: str) -> Path:
    return tiny.checkpoint(place() / "whole" / kind, kind)


def spoilt(kind: str, name: str, content: bytes) -> Origin:
    """Return a tiny checkpoint of which one file has another content."""
    folder = place() / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole(kind), folder)
    (folder / name).write_bytes(content)
    inspect_checkpoint(folder, "some")
    return Origin("some", "local", None, "", folder)


def settings(content: bytes) -> None:
    read_settings(spoilt("bert", "config.json", content), "AutoModelForSequenceClassification")


def processor(kind: str, name: str) -> Target:
    return lambda content: load_processor(spoilt(kind, name, content), tiny.auto_names(kind)[1])


def labels(content: bytes) -> None:
    read_labels(one_file("labels.json", content).parent)


def head(content: bytes) -> None:
    folder = one_file("head.json", content).parent
    (folder / "head.safetensors").write_bytes(save({"0.weight": torch.ones(2, 4), "0.bias": torch.ones(2)}))
    read_head(folder)


def run_folder(name: str) -> Target:
    def read(content: bytes) -> None:
        folder = one_file("status.json", b'{"state": "finished"}').parent
        (folder / "config.yaml").write_bytes(b"task: x\n")
        (folder / name).write_bytes(content)
        assert isinstance(RunFolder(folder).record, dict)
        Run(folder)

    return read


def parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": ["a b", "c d"] * 4, "label": ["x", "y"] * 4}), stream)
    return stream.getvalue()


TALKS = [[{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": "a"}] for number in range(12)]
CHAT = "".join(json.dumps({"messages": talk}) + "\n" for talk in TALKS)
YAML = """task: text-classification
model: {name: bert, head: linear}
data: {source: texts, max_train_examples: null}
strategy: {name: lora, rank: 16, targets: [a, b]}
train: {epochs: 5, learning_rate: 1.0e-3}
seed: 0
"""
RECORD = YAML + "record: {label_names: [a, b], pairs: false, given: {}, identity: {}}\n"
LABELS = {"label_names": ["a", "b"], "base": "x", "revision": None, "base_weight_hash": "0", "auto_model": "A",
          "problem_type": None}
HEAD = {"kind": "native", "widths": [], "activation": "gelu", "dropout": 0.0, "in_features": 4, "bias": True,
        "label_names": ["a", "b"], "problem_type": "single_label_classification", "base": None}

TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "csv": (table(".csv"), lambda: [csv_rows(4).encode(), b'a;b\r\n"x;y";2\r\n', b"a\tb\n1\t2\n"]),
    "jsonl": (table(".jsonl"), lambda: [b'{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', b'[{"a": [1]}]']),
    "parquet": (table(".parquet"), lambda: [parquet()]),
    "texts": (prepared("train.csv", "text", SINGLE_LABEL), lambda: [csv_rows(24).encode()]),
    "records": (prepared("train.jsonl", "text", SINGLE_LABEL), lambda: [
        "".join(json.dumps({"text": f"text {n}", "label": "ab"[n % 2]}) + "\n" for n in range(24)).encode()]),
    "corpus": (prepared("train.txt", "corpus", NEXT_TOKEN), lambda: [b"one line\nanother line\n" * 20]),
    "chat": (prepared("train.jsonl", "corpus", NEXT_TOKEN), lambda: [CHAT.encode()]),
    "image": (open_image, lambda: [png(1, kind=kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")]),
    "sound": (lambda content: (open_sound(content), sound_seconds(content)), lambda: [
        sound(tone(seconds=0.02), kind=kind) for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU", "MP3")]),
    "yaml": (configuration, lambda: [YAML.encode()]),
    "command-line": (command_line, lambda: [b"text-classification\n--model\nbert\n--data\ntexts\n--strategy.rank\n4",
                                            b"--data.target_columns\n[a, b]\n--seed=3\n--train.compile\ntrue"]),
    "manifest": (checkpoint_file("manifest.json"), lambda: [(stored() / "manifest.json").read_bytes()]),
    "state": (checkpoint_file("state.json"), lambda: [(stored() / "state.json").read_bytes()]),
    "stored": (checkpoint_file("model.safetensors"), lambda: [(stored() / "model.safetensors").read_bytes()]),
    "safetensors": (header, lambda: [save({"a": torch.ones(2, 3), "b": torch.ones(1)}), save({})]),
    "config": (settings, lambda: [(whole("bert") / "config.json").read_bytes()]),
    "tokenizer": (processor("bert", "tokenizer.json"), lambda: [(whole("bert") / "tokenizer.json").read_bytes()]),
    "tokenizer-config": (processor("bert", "tokenizer_config.json"),
                         lambda: [(whole("bert") / "tokenizer_config.json").read_bytes()]),
    "preprocessor": (processor("vit", "preprocessor_config.json"),
                     lambda: [(whole("vit") / "preprocessor_config.json").read_bytes()]),
    "labels": (labels, lambda: [json.dumps(LABELS).encode()]),
    "head": (head, lambda: [json.dumps(HEAD).encode()]),
    "run": (run_folder("config.yaml"), lambda: [RECORD.encode()]),
    "status": (run_folder("status.json"), lambda: [b'{"state": "finished", "exit_code": 0}']),
}
"""By name: the reader, and contents to begin with."""


def judge(name: str, content: bytes) -> str:
    """Give a content to a reader, and return the fault that it shows; nothing where there is none."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[name][0](content)
    except (TlhubError, SystemExit):
        return ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return ""


def mutated(content: bytes, random: np.random.Generator, others: list[bytes]) -> bytes:
    """Return a content with one to eight changes: bytes, blocks, numbers, and parts of others."""
    made = bytearray(content)
    for _ in range(int(random.integers(1, 9))):
        place = int(random.integers(len(made) + 1))
        size = int(random.integers(1, 9))
        kind = int(random.integers(8))
        if kind == 0 and made:
            made[place % len(made)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            made[place:place] = random.bytes(size)
        elif kind == 2:
            del made[place:place + size * int(random.choice([1, 1, 16]))]
        elif kind == 3:
            made[place:place + size] = random.choice(WORDS)
        elif kind == 4:
            made[place:place] = random.choice(WORDS)
        elif kind == 5:
            other = others[int(random.integers(len(others)))]
            start = int(random.integers(len(other) + 1))
            made[place:place + size] = other[start:start + 4 * size]
        elif kind == 6:
            made[place:place] = made[place:place + 4 * size] * int(random.choice([1, 2, 40]))
        else:
            made[place:place + 4] = int(random.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])).to_bytes(4, "little")
    return bytes(made)


WORDS = np.array([
    b"null", b"true", b"NaN", b"-1", b"0", b"1e999", b"9" * 25, b"9" * 5000, b'""', b"[]", b"{}",
    b"[[", b'{"a":', b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xc3(", b"\x1b[2J", b"\r\n", b"\n",
    b",", b'"', b"'", b":", b"&a ", b"*a", b"!!python/name:os.system", b"<<: ", b"../",
    b"/etc/passwd", b"auto_map", b"%", b"{}}", b"\xe2\x80\xa8", b"=1+1", b"a: ", b"\t", b"--",
    b"\x80\x04"], dtype=object)
"""What readers have words for, and what has misled others."""
