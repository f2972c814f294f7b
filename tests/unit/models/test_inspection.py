"""What a checkpoint's files ask for is seen before a library reads them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tlhub.errors import CheckpointError
from tlhub.models.bounds import bounded
from tlhub.models.inspection import Brought, brought_by, inspect_checkpoint, read_header
from tlhub.models.loading import damage


def settings(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def file(name: str, content: str | bytes | object) -> Callable[[Path], object]:
    plain = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return lambda folder: (folder / name).write_bytes(plain.encode() if isinstance(plain, str) else plain)


def as_whole_numbers(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("query.weight"))
    save_file({**state, name: state[name].to(torch.int8)}, folder / "model.safetensors")


def as_whole_bias(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("query.bias"))
    save_file({**state, name: state[name].to(torch.int64)}, folder / "model.safetensors")


def index(**shards: object) -> Callable[[Path], object]:
    return file("model.safetensors.index.json", {"weight_map": shards})


CODE = {"AutoConfig": "evil.Config", "AutoModel": ["evil.Model", None]}
CASES: list[tuple[Callable[[Path], object], str]] = [
    (settings(auto_map=CODE), r"code of its own to be run \(evil\.Config\), which tlhub never does"),
    (settings(text_config={"auto_map": {"AutoModel": "org/repo--evil.Model"}}), r"org/repo--evil\.Model"),
    (file("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}}), r"\(evil\.Slow\)"),
    (file("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "evil.P"}}), r"\(evil\.P\)"),
    (file("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Q"}}), r"\(evil\.Q\)"),
    (file("config.1.0.0.json", {"auto_map": CODE}), r"'config\.1\.0\.0\.json'"),
    (settings(attn_implementation="evil/kernel"), "compiled code from the Hub"),
    (settings(_attn_implementation="evil/kernel@v1"), "compiled code from the Hub"),
    (settings(num_labels=10**12), "'num_labels' is 1e[+]12, more than 1000000"),
    (settings(num_hidden_layers=10**9), "'num_hidden_layers'"),
    (settings(depths=[2, 10**9]), "'depths'"),
    (settings(vision_config={"num_hidden_layers": 1e300}), "'num_hidden_layers'"),
    (file("preprocessor_config.json", {"size": {"height": 10**6}}), "'height' is 1e[+]06, more than 16384"),
    (file("preprocessor_config.json", {"n_fft": 10**9}), "'n_fft'"),
    (file("processor_config.json", {"feature_extractor": {"sampling_rate": 10**9}}), "'sampling_rate'"),
    (settings(pretrained_cfg={"input_size": [3, 10**6, 10**6]}), "'input_size'"),
    (settings(quantization_config={"quant_method": "torchao"}), "quantised"),
    (settings(model_args={"checkpoint_path": "/tmp/evil.pth"}), "makes timm read other files"),
    (settings(model_args={"pretrained": True}), "makes timm read other files"),
    (file("config.json", '{"hidden_size": NaN}'), "it holds NaN"),
    (file("config.json", "[" * 100_000), "cannot be read"),
    (file("config.json", "[]"), "holds a list"),
    (file("config.json", b"\xff\xfe{}"), "cannot be read"),
    (file("config.json", " " * (2**24 + 1)), "16 MiB large"),
    (file("adapter_config.json", {"peft_type": "XLORA"}), "of the kind 'XLORA'"),
    (file("adapter_config.json", {"peft_type": "LORA", "auto_map": CODE}), r"evil\.Config"),
    (file("adapter_config.json", {"peft_type": "LORA", "megatron_config": {}, "megatron_core": "evil"}), "'evil'"),
    (file("adapter_config.json", {"peft_type": "LORA"}), "without 'adapter_model.safetensors'"),
    (file("model.safetensors", pickle.dumps([1, 2, 3])), "is a pickle with another ending"),
    (file("model.safetensors", b"PK\x03\x04" + b"\0" * 100), "is a pickle with another ending"),
    (file("model.safetensors", b""), "cannot be read"),
    (file("model.safetensors", struct.pack("<Q", 2**62) + b"{}"), "cannot be read"),
    (file("model.safetensors", struct.pack("<Q", 50) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'),
     "cannot be read"),
    (as_whole_numbers, r"holds whole numbers \(I8\) as '.*query.weight'"),
    (as_whole_bias, r"holds whole numbers \(I64\) as '.*query.bias'"),
    (index(a="../elsewhere.safetensors"), "names '../elsewhere.safetensors', which is no safetensors file beside it"),
    (index(a="/etc/passwd"), "'/etc/passwd'"),
    (index(a="pytorch_model-1.bin"), "'pytorch_model-1.bin'"),
    (index(a="model-00001-of-00002.safetensors"), "lacks 'model-00001-of-00002.safetensors'"),
    (index(a=5), "does not say which file"),
    (lambda folder: os.mkfifo(folder / "tokenizer_config.json.fifo"), "is no file"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("whole") / "bert", "bert")


def test_the_number_of_cases() -> None:
    assert len(CASES) == 41


@pytest.mark.parametrize(("change", "words"), CASES, ids=range(len(CASES)))
def test_what_is_asked_for_is_refused_in_one_line(whole: Path, tmp_path: Path, change: Callable[[Path], object],
                                                  words: str) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    inspect_checkpoint(folder, "some")
    change(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        inspect_checkpoint(folder, "some")
    assert "\n" not in str(caught.value)
    assert "'some'" in str(caught.value)


def test_every_tiny_checkpoint_is_let_through(tmp_path: Path) -> None:
    kinds = (*tiny.TEXT_KINDS, *tiny.IMAGE_KINDS, *tiny.AUDIO_KINDS, "timm_resnet")
    for kind in kinds:
        inspect_checkpoint(tiny.checkpoint(tmp_path / kind, kind), kind)
    assert len(kinds) == 14


def masks(folder: Path) -> None:
    """What GPT-NeoX, GPT-Neo and GPT-2 were saved with: the causal mask as a buffer named `bias`."""
    state = load_file(folder / "model.safetensors")
    held = {f"layers.{number}.attention.bias": torch.ones(1, 1, 4, 4, dtype=kind)
            for number, kind in enumerate((torch.uint8, torch.bool))}
    save_file({**state, **held, "position_ids": torch.arange(4)}, folder / "model.safetensors")


LARGE = {"tennis player": 20_000, "width": 21_000, "label": 2 * 10**6, "stage": 10**7}
USUAL: dict[str, Callable[[Path], object]] = {
    "labels whose names are those of sizes": settings(
        id2label={str(number): name for name, number in LARGE.items()}, label2id=LARGE),
    "the same within": settings(text_config={"label2id": LARGE}),
    "masks of attention": masks,
    "settings of a trainer": file("ds_config.json", {"zero_optimization": {"stage3_max_live_parameters": 1e9}}),
    "a list beside them": file("class_index.json", ["a", "b"]),
    "figures beside them": file("train_config.json", '{"loss": NaN}'),
    "infinity": settings(time_step_limit=[0.0, float("inf")]),
    "pickles beside safetensors": file("training_args.bin", pickle.dumps([1])),
    "no code": settings(auto_map={}),
}


@pytest.mark.parametrize("name", USUAL)
def test_what_checkpoints_hold_is_let_through(whole: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    USUAL[name](tmp_path / "copy")
    inspect_checkpoint(tmp_path / "copy", "some")


def test_numbers_are_counted_without_being_read(whole: Path) -> None:
    state = load_file(whole / "model.safetensors")
    assert brought_by(whole.glob("*.safetensors"), "some") == Brought(
        len(state), sum(tensor.numel() for tensor in state.values()))
    assert read_header(whole / "model.safetensors", "some").keys() == state.keys()


@pytest.mark.parametrize(("error", "advice"), [
    (MemoryError(), "memory does not suffice"), (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory"),
    (KeyError("x"), "fetch it again")])
def test_a_library_that_lacks_memory_is_no_sign_of_damage(error: Exception, advice: str) -> None:
    with pytest.raises(CheckpointError, match=rf"'some' cannot be read .*; {advice}"), \
            damage("'some' cannot be read", "fetch it again"):
        raise error


def test_a_model_that_outgrows_its_files_is_not_built() -> None:
    with bounded("some", Brought(1, 10)):
        torch.nn.Linear(4, 5)
    with torch.device("meta"), pytest.raises(CheckpointError, match="many times as many"), \
            bounded("some", Brought(1, 10)):
        torch.nn.Embedding(10**12, 16)
    with torch.device("meta"), pytest.raises(CheckpointError, match="GiB, which is what this machine has"), \
            bounded("some", None):
        torch.nn.Embedding(10**12, 16)
    with pytest.raises(CheckpointError, match="more than 10008 layers"), bounded("some", Brought(1, 10)):
        torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(20_000)])
    torch.nn.Embedding(3, 2, device="meta")  # nothing is left behind


def test_weights_that_take_the_place_of_empty_ones_are_counted_once() -> None:
    with torch.device("meta"), bounded("some", Brought(2, 2**27)):
        layer = torch.nn.Linear(2**14, 2**14)
        for _ in range(8):
            layer.weight = torch.nn.Parameter(torch.empty(2**14, 2**14))
