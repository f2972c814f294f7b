"""Hostile checkpoints, configurations and runs, one case a line: refused before anything is loaded or run."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import generated, hostile, tiny
from tests.data_files import write
from tests.hostile import ANSI, CODE, PICKLE, Case, Make
from tests.unit.test_yaml_files import BOMB, MERGES
from tlhub import cli
from tlhub.folder import RunFolder

TEXT = "finetune text-classification --model {} --data texts --strategy full --max_steps 1 --batch_size 4"
PROBE = "finetune text-classification --model {} --data texts --strategy linear_probe"
FRESH = "finetune text-classification --model {} --data texts --strategy scratch --max_steps 1 --batch_size 4"
IMAGE = "finetune image-classification --model {} --data images --strategy linear_probe"
SOUND = "finetune audio-classification --model {} --data sounds --strategy linear_probe"
CHAT = "finetune text-generation --model {} --data chat.jsonl --strategy full --max_steps 1"
CONFIG = "finetune text-classification --config {}/x.yaml"
PREDICT = "predict {} hello"
EVALUATE = "evaluate {} --data texts"
GO_ON = ("finetune text-classification --model bert --data texts --strategy full --max_steps 2 --batch_size 4 "
         "--train.checkpoint_every 1 --evaluate.resamples 2 --out {}")
CASES_OF_CHECKPOINTS = 167


def copied(kind: str, *changes: Callable[[Path], object]) -> Make:
    """Return what copies a good checkpoint or run and spoils the copy."""
    def make(folder: Path) -> None:
        shutil.copytree(kind, folder, dirs_exist_ok=True)
        for change in changes:
            change(folder)

    return make


def put(name: str, content: bytes | str | object) -> Callable[[Path], object]:
    plain = content if isinstance(content, (bytes, str)) else json.dumps(content)
    return lambda folder: write(folder / name, plain)


def edit(name: str, **changes: object) -> Callable[[Path], object]:
    """Return what sets values of a JSON file."""
    return lambda folder: write(folder / name, json.dumps({**json.loads((folder / name).read_text()), **changes}))


def settings(**changes: object) -> Make:
    return copied("bert", edit("config.json", **changes))


def renamed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        (folder / "model.safetensors").unlink()
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return make


def header(content: Any, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def shards(places: object) -> Callable[[Path], object]:
    return put("model.safetensors.index.json", {"weight_map": places})


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        write(folder / "tokenizer.json", json.dumps(content))

    return make


def link(name: str, target: str = "OUT") -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target.replace("OUT", str(hostile.outside(folder))))

    return make


def yaml(content: bytes | str) -> Make:
    return lambda folder: write(folder / "x.yaml", content)


def given(text: str) -> Make:
    return yaml(f"model: bert\ndata: texts\nstrategy: linear_probe\n{text}\n")


def recorded(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        run = RunFolder(folder)
        content = run.config
        change(content)
        run.write_config(content, content.pop("record", {}))

    return make


def template(text: str) -> Make:
    return copied("gpt2", edit("tokenizer_config.json", chat_template=text),
                  lambda folder: (folder / "chat_template.jinja").unlink(missing_ok=True))


CODE_MAP = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model",
            "AutoModelForSequenceClassification": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
EVIL = put("evil.py", CODE)

REMOTE = [
    Case("code", TEXT, 4, "(evil.Config), which tlhub never does",
         copied("bert", EVIL, edit("config.json", auto_map=CODE_MAP))),
    Case("code-unknown-type", TEXT, 4, "never does",
         copied("bert", EVIL, edit("config.json", auto_map=CODE_MAP, model_type="evil"))),
    Case("code-of-others", TEXT, 4, "someone/x--evil.C", settings(auto_map={"AutoConfig": "someone/x--evil.C"})),
    Case("code-nested", TEXT, 4, "never does", settings(text_config={"auto_map": CODE_MAP})),
    Case("code-tokenizer", TEXT, 4, "'tokenizer_config.json'",
         copied("bert", EVIL, edit("tokenizer_config.json", auto_map=CODE_MAP))),
    Case("code-processor", IMAGE, 4, "(evil.P)", copied(
        "vit", EVIL, put("processor_config.json", {"auto_map": {"AutoImageProcessor": "evil.P"}}))),
    Case("code-images", IMAGE, 4, "(evil.P)",
         copied("vit", EVIL, edit("preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.P"}))),
    Case("code-sounds", SOUND, 4, "(evil.F)",
         copied("wav2vec2", EVIL, edit("preprocessor_config.json", auto_map={"AutoFeatureExtractor": "evil.F"}))),
    Case("code-fresh", FRESH, 4, "never does", copied("bert", EVIL, edit("config.json", auto_map=CODE_MAP))),
    Case("code-unknown-type-alone", TEXT, 4, "`evil`", copied("bert", EVIL, edit("config.json", model_type="evil"))),
    Case("code-other-file", TEXT, 4, "'config.5.0.0.json'",
         copied("bert", EVIL, edit("config.json", configuration_files=["config.5.0.0.json"]),
                put("config.5.0.0.json", {"model_type": "bert", "auto_map": CODE_MAP}))),
    Case("kernel", TEXT, 4, "compiled code from the Hub", settings(attn_implementation="evil/kernel")),
    Case("metric", "finetune text-classification --model bert --data texts --strategy linear_probe "
         "--evaluate.metrics {}/evil.py", 2, "only modules of `evaluate` itself", put("evil.py", CODE)),
    Case("metric-folder", "finetune text-classification --model bert --data texts --strategy linear_probe "
         "--evaluate.metrics {}", 2, "only modules of `evaluate` itself", put("metric-folder.py", CODE)),
]
SIZES = [
    Case("vocabulary", TEXT, 4, "many times as many", settings(vocab_size=10**12)),
    Case("hidden", TEXT, 4, "'{}'", settings(hidden_size=10**9, num_attention_heads=1)),
    Case("inner", TEXT, 4, "'{}'", settings(intermediate_size=10**15)),
    Case("positions", TEXT, 4, "'{}'", settings(max_position_embeddings=10**12)),
    Case("layers", TEXT, 4, "'num_hidden_layers' is 1e+12", settings(num_hidden_layers=10**12)),
    Case("some-layers", TEXT, 4, "more than", settings(num_hidden_layers=9000)),
    Case("many-layers", TEXT, 4, "'{}'", settings(num_hidden_layers=50_000)),
    Case("labels", TEXT, 4, "'num_labels'", settings(num_labels=10**15, id2label=None)),
    Case("fresh-vocabulary", FRESH, 4, "no model can be made", settings(vocab_size=10**12)),
    Case("fresh-layers", FRESH, 4, "'num_hidden_layers' is 1e+09", settings(num_hidden_layers=10**9)),
    Case("infinite", TEXT, 4, "'{}'",
         copied("bert", put("config.json", '{"model_type": "bert", "vocab_size": 1e999}'))),
    Case("picture", IMAGE, 4, "'{}'", copied("vit", edit("config.json", image_size=10**9))),
    Case("preprocessed", IMAGE, 4, "'height' is 1e+06", copied("vit", edit("preprocessor_config.json",
                                                                            size={"height": 10**6, "width": 10**6}))),
    Case("preprocessed-edge", IMAGE, 4, "makes images of 1000000 pixels a side",
         copied("resnet", edit("preprocessor_config.json", size={"shortest_edge": 10**6}))),
    Case("rate", SOUND, 4, "'sampling_rate'",
         copied("wav2vec2", edit("preprocessor_config.json", sampling_rate=10**9))),
    Case("fourier", SOUND, 4, "'n_fft'", copied("whisper", edit("preprocessor_config.json", n_fft=10**9))),
]
DESCRIPTIONS = [
    Case("nan", TEXT, 4, "it holds NaN",
         copied("bert", put("config.json", '{"model_type": "bert", "hidden_size": NaN}'))),
    Case("word", TEXT, 4, "config.json", settings(hidden_size="many")),
    Case("negative", TEXT, 4, "'{}'", settings(hidden_size=-16)),
    Case("no-heads", TEXT, 4, "'{}'", settings(num_attention_heads=0)),
    Case("half-a-layer", TEXT, 4, "config.json", settings(num_hidden_layers=1.5)),
    Case("activation", TEXT, 4, "'{}'", settings(hidden_act="os.system")),
    Case("type", TEXT, 4, "config.json", settings(model_type=["bert"])),
    Case("type-missing", TEXT, 4, "config.json", copied("bert", put("config.json", "{}"))),
    Case("number-type", TEXT, 4, "'{}'", settings(dtype="save")),
    Case("labels-list", TEXT, 4, "config.json", settings(id2label=["a", "b"])),
    Case("labels-words", TEXT, 4, "config.json", settings(id2label={"first": "a"})),
    Case("settings-list", TEXT, 4, "holds a list", copied("bert", put("config.json", "[1, 2]"))),
    Case("settings-deep", TEXT, 4, "config.json", copied("bert", put("config.json", '{"a":' * 100_000))),
    Case("settings-bytes", TEXT, 4, "config.json", copied("bert", put("config.json", PICKLE))),
    Case("settings-large", TEXT, 4, "MiB large", copied("bert", put("config.json", '{"a":"' + "x" * 2**24 + '"}'))),
    Case("settings-fifo", TEXT, 4, "is no file", copied("bert", lambda folder: (folder / "config.json").unlink(),
                                                        lambda folder: os.mkfifo(folder / "config.json"))),
    Case("quantised", TEXT, 4, "quantised", settings(quantization_config={"quant_method": "torchao"})),
    Case("ansi-label", TEXT, 0, "accuracy", copied("bert", edit("config.json", id2label={"0": ANSI, "1": "b"},
                                                               label2id={ANSI: 0, "b": 1}))),
    Case("ansi-type", TEXT, 4, "\\x1b[2J", settings(model_type=ANSI)),
    Case("image-settings", IMAGE, 4, "'{}'", copied("vit", edit("preprocessor_config.json", size="big"))),
    Case("image-mean", IMAGE, 4, "", copied("vit", edit("preprocessor_config.json", image_mean=["a"]))),
    Case("image-class", IMAGE, 4, "'{}'", copied("vit", edit("preprocessor_config.json",
                                                             image_processor_type="os.system"))),
    Case("sound-rate", SOUND, 4, "", copied("wav2vec2", edit("preprocessor_config.json", sampling_rate="fast"))),
    Case("sound-rate-none", SOUND, 4, "0 samples a second", copied("wav2vec2", edit("preprocessor_config.json",
                                                                                     sampling_rate=0))),
    Case("generation", "finetune text-generation --model {} --data corpus --strategy full --max_steps 1", 4,
         "generation_config.json", copied("gpt2", put("generation_config.json", '{"max_length": "x", "a": [')),),
    Case("timm-file", "finetune image-classification --model {} --data images --strategy full --max_steps 1", 4,
         "makes timm read other files", put("config.json", {
             "architecture": "resnet18", "num_classes": 2, "model_args": {"checkpoint_path": "/tmp/evil.pth"},
             "pretrained_cfg": {}})),
    Case("timm-folder", IMAGE, 4, "local-dir:/etc", copied("vit", put("config.json", {
        "model_type": "timm_wrapper", "architecture": "local-dir:/etc", "num_classes": 2, "pretrained_cfg": {}}))),
]
WEIGHTS = [
    *[Case(f"weights{ending}", TEXT, 4, f"only pytorch_model{ending}",
           copied("bert", renamed(f"pytorch_model{ending}")))
      for ending in (".bin", ".pt", ".pth", ".pkl", ".h5", ".ckpt", ".msgpack")],
    Case("pickle-renamed", TEXT, 4, "is a pickle", copied("bert", put("model.safetensors", PICKLE))),
    Case("zip-renamed", TEXT, 4, "is a pickle", copied("bert", put("model.safetensors", hostile.zip_of(Path())))),
    Case("pickle-beside", TEXT, 0, "accuracy", copied("bert", put("pytorch_model.bin", PICKLE), put("training_args.bin",
                                                                                                   PICKLE))),
    Case("weights-empty", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", b""))),
    Case("weights-cut", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", header({"a": {
        "dtype": "F32", "shape": [64, 64], "data_offsets": [0, 16384]}})))),
    Case("weights-header", TEXT, 4, "cannot be read",
         copied("bert", put("model.safetensors", struct.pack("<Q", 2**63)))),
    Case("weights-noise", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", header([1, 2])))),
    Case("weights-overlap", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", header({
        name: {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]} for name in "ab"})))),
    Case("weights-type", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", header({"a": {
        "dtype": "PICKLE", "shape": [16], "data_offsets": [0, 64]}})))),
    Case("weights-shape", TEXT, 4, "cannot be read", copied("bert", put("model.safetensors", header({"a": {
        "dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}})))),
    Case("weights-other", TEXT, 4, "hold 0%", copied("bert", weights(lambda state: (state.clear(), state.update(
        a=torch.ones(10**4)))))),
    Case("weights-half", TEXT, 4, "hold ", copied("bert", weights(lambda state: [
        state.pop(name) for name in [*state] if "layer.0" in name or "word" in name]))),
    Case("weights-shapes", TEXT, 4, "do not fit its config.json", copied("bert", weights(lambda state: state.update({
        "embeddings.LayerNorm.weight": torch.ones(5)})))),
    Case("weights-whole", TEXT, 4, "holds whole numbers (I64)", copied("bert", weights(lambda state: state.update({
        "embeddings.LayerNorm.weight": torch.ones(16, dtype=torch.int64)})))),
    Case("shard-out", TEXT, 4, "is no safetensors file beside it",
         copied("bert", shards({"a": "../../outside/model.safetensors"}))),
    Case("shard-pickle", TEXT, 4, "is no safetensors file beside it",
         copied("bert", shards({"a": "model.bin"}))),
    Case("shard-missing", TEXT, 4, "lacks 'model-2.safetensors'", copied("bert", shards({"a": "model-2.safetensors"}))),
    Case("shard-index", TEXT, 4, "does not say which file", copied("bert", shards([1]))),
    Case("weights-nan", PROBE, 4, "are not finite; check the checkpoint",
         copied("bert", weights(lambda state: state["embeddings.LayerNorm.weight"].fill_(
        float("nan"))))),
]
TOKENIZERS = [
    Case("tokenizer-noise", TEXT, 4, "AutoTokenizer finds nothing usable",
         copied("bert", put("tokenizer.json", PICKLE))),
    Case("tokenizer-list", TEXT, 4, "AutoTokenizer finds nothing usable", copied("bert", put("tokenizer.json", "[1]"))),
    Case("tokenizer-deep", TEXT, 4, "AutoTokenizer", copied("bert", put("tokenizer.json", '{"a":' * 100_000))),
    Case("tokenizer-model", TEXT, 4, "AutoTokenizer",
         copied("bert", tokenizer(lambda t: t["model"].update(type="Evil")))),
    Case("tokenizer-vocabulary", TEXT, 4, "AutoTokenizer",
         copied("bert", tokenizer(lambda t: t["model"].update(vocab={"a": -1})))),
    Case("tokenizer-pattern", TEXT, 4, "AutoTokenizer", copied("bert", tokenizer(lambda t: t.update(normalizer={
        "type": "Replace", "pattern": {"Regex": "(" * 5000}, "content": "x"})))),
    Case("tokenizer-endless", TEXT, 4, "cannot encode the texts", copied("bert", tokenizer(lambda t: t.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "([a-z ]+)+$"}, "behavior": "Isolated",
                       "invert": False})))),
    Case("tokenizer-class", TEXT, 4, "AutoTokenizer", copied("bert", edit("tokenizer_config.json",
                                                                          tokenizer_class="os.system"),
                                                             lambda folder: (folder / "tokenizer.json").unlink())),
    Case("tokenizer-tokens", TEXT, 4, "", copied("bert", edit("tokenizer_config.json", pad_token={"evil": 1}))),
    Case("tokenizer-larger", TEXT, 4, "tokens up to number 5000",
         copied("bert", tokenizer(lambda t: t["model"]["vocab"].update(evil=5000)))),
    Case("template-class", CHAT, 3, "chat template", template("{{ ''.__class__.__mro__[1].__subclasses__() }}")),
    Case("template-globals", CHAT, 3, "chat template",
         template("{{ cycler.__init__.__globals__.os.system('touch ran') }}")),
    Case("template-import", CHAT, 3, "chat template", template("{% include '/etc/passwd' %}")),
    Case("template-range", CHAT, 3, "chat template", template("{% for i in range(10**12) %}x{% endfor %}")),
    Case("template-wrong", CHAT, 3, "chat template", template("{% for %}")),
    Case("template-lookup", CHAT, 3, "chat template", template("{{ messages[99]['content'] }}")),
]
YAML = [
    Case("yaml-object", CONFIG, 2, "is not YAML", given("seed: !!python/object/apply:os.system ['touch ran']")),
    Case("yaml-name", CONFIG, 2, "is not YAML", given("seed: !!python/name:os.system")),
    Case("yaml-bomb", CONFIG, 2, "anchors that stand for more than", yaml(BOMB)),
    Case("yaml-merges", CONFIG, 2, "anchors that stand for more than", yaml(MERGES)),
    Case("yaml-circle", CONFIG, 2, "holds itself", given("log: &a {trackers: *a}")),
    Case("yaml-deep", CONFIG, 2, "more than 50 deep", yaml("[" * 200_000)),
    Case("yaml-date", CONFIG, 2, "month must be", given("seed: 2001-13-45")),
    Case("yaml-digits", CONFIG, 2, "4300 digits", given("seed: " + "9" * 9999)),
    Case("yaml-large-seed", CONFIG, 2, "seed", given("seed: " + "9" * 400)),
    Case("yaml-nan", CONFIG, 2, "train.learning_rate", yaml("model: bert\ndata: texts\nstrategy: full\n"
                                                           "train: {learning_rate: .nan}\n")),
    Case("yaml-bytes", CONFIG, 2, "is not UTF-8", yaml(PICKLE)),
    Case("yaml-zero", CONFIG, 2, "is not YAML", given("out: a\0b")),
    Case("yaml-ansi", CONFIG, 2, "is not YAML", given(f"out: {ANSI}")),
    Case("yaml-ansi-option", CONFIG, 2, "\\x1b[2J", given('"\\e[2J": 1')),
    Case("yaml-large", CONFIG, 2, "larger than 16 MiB", yaml("#" * (2**24 + 1))),
    Case("yaml-list", CONFIG, 2, "by name", yaml("- a\n")),
    Case("yaml-folder", CONFIG, 2, "Is a directory", lambda folder: (folder / "x.yaml").mkdir()),
    Case("yaml-zero-path", CONFIG, 2, "with a zero byte", given('out: "a\\0b"')),
    Case("yaml-zero-model", CONFIG, 2, "with a zero byte",
         yaml('model: "a\\0b"\ndata: texts\nstrategy: linear_probe\n')),
    Case("yaml-zero-data", CONFIG, 2, "with a zero byte", yaml('model: bert\ndata: "a\\0b"\nstrategy: linear_probe\n')),
]
RUNS = [
    Case("run-tags", PREDICT, 4, "is not YAML", copied("run", put("config.yaml", "a: !!python/name:os.system"))),
    Case("run-deep", PREDICT, 4, "more than 50 deep", copied("run", put("config.yaml", "[" * 200_000))),
    Case("run-noise", EVALUATE, 4, "config.yaml", copied("run", put("config.yaml", PICKLE))),
    Case("run-unknown", PREDICT, 4, "config.yaml", copied("run", put("config.yaml", "evil: 1\n"))),
    Case("run-no-record", PREDICT, 4, "config.yaml", copied("run", recorded(lambda c: c.pop("record")))),
    Case("run-labels", PREDICT, 4, "label", copied("run", recorded(lambda c: c["record"].update(label_names=["a"])))),
    Case("run-labels-word", PREDICT, 4, "label", copied("run", recorded(lambda c: c["record"].update(label_names=5)))),
    Case("run-other-file", PREDICT, 4, "names another file",
         copied("run", recorded(lambda c: c.update(config="x.yaml")))),
    Case("run-status", PREDICT, 4, "nothing by tlhub", copied("run", put("status.json", "[]"))),
    Case("run-status-noise", PREDICT, 4, "nothing by tlhub", copied("run", put("status.json", PICKLE))),
    Case("run-status-ansi", PREDICT, 4, "\\x1b[2J", copied("run", put("status.json", {"state": ANSI}))),
    Case("run-metrics", EVALUATE, 4, "metrics.json", copied("run", put("metrics.json", "["))),
    Case("run-metric", EVALUATE, 2, "only modules of `evaluate`", copied("run", put("evil.py", CODE), recorded(
        lambda c: c["evaluate"].update(metrics=["./given/run-metric/evil.py"])))),
    Case("run-code", PREDICT, 4, "never does", copied("run", put("model/evil.py", CODE),
                                                      edit("model/config.json", auto_map=CODE_MAP))),
    Case("run-pickle", PREDICT, 4, "is a pickle", copied("run", put("model/model.safetensors", PICKLE))),
    Case("run-bin", PREDICT, 4, "'{}", copied("run", lambda folder: renamed("pytorch_model.bin")(folder / "model"))),
    Case("run-no-model", PREDICT, 4, "is no folder", copied("run", lambda folder: shutil.rmtree(folder / "model"))),
    Case("run-evaluations", EVALUATE, 2, "is a link", copied("run", link("evaluations"))),
    Case("run-sizes", PREDICT, 4, "'{}", copied("run", edit("model/config.json", vocab_size=10**12))),
    Case("unfinished-link", GO_ON, 2, "is a link", copied("unfinished", link("model"))),
    Case("unfinished-checkpoints", GO_ON, 2, "is a link", copied("unfinished", link("checkpoints"))),
    Case("unfinished-history", GO_ON, 2, "is a link", copied("unfinished", link("history.jsonl", "OUT/secret.txt"))),
    Case("unfinished-temporary", GO_ON, 2, "is a link",
         copied("unfinished", link(".status.json.tmp", "OUT/secret.txt"))),
    Case("unfinished-lock", GO_ON, 2, "is a link", copied("unfinished", link(".lock", "OUT/secret.txt"))),
    Case("unfinished-tags", GO_ON, 2, "holds", copied("unfinished", put("config.yaml", "a: !!python/name:os.system"))),
    Case("unfinished-out", GO_ON, 0, "accuracy", copied("unfinished", link("checkpoints/step-999999999"))),
    Case("unfinished-pickle", GO_ON, 0, "accuracy", copied("unfinished", put("checkpoints/step-999999999/model.pt",
                                                                            PICKLE))),
    Case("adapter-bin", PREDICT, 4, "without 'adapter_model.safetensors'", copied("lora", lambda folder: (
        folder / "model/adapter_model.safetensors").rename(folder / "model/adapter_model.bin"))),
    Case("adapter-pickle", PREDICT, 4, "is a pickle", copied("lora", put("model/adapter_model.safetensors", PICKLE))),
    Case("adapter-kind", PREDICT, 4, "'XLORA'", copied("lora", edit("model/adapter_config.json", peft_type="XLORA"))),
    Case("adapter-module", PREDICT, 4, "asks for a module", copied("lora", put("megatron_evil.py", CODE), edit(
        "model/adapter_config.json", megatron_config={"a": 1}, megatron_core="megatron_evil"))),
    Case("adapter-code", PREDICT, 4, "never does",
         copied("lora", edit("model/adapter_config.json", auto_map=CODE_MAP))),
    Case("adapter-rank", PREDICT, 4, "'{}", copied("lora", edit("model/adapter_config.json", r=10**9))),
    Case("adapter-word", PREDICT, 4, "'{}", copied("lora", edit("model/adapter_config.json", r="many"))),
    Case("adapter-labels", PREDICT, 4, "labels.json", copied("lora", put("model/labels.json", PICKLE))),
    Case("adapter-base", PREDICT, 4, "has other weights",
         copied("lora_alone", edit("model/labels.json", base="../work/other"))),
    Case("adapter-base-gone", PREDICT, 4, "not there any more", copied("lora_alone", edit("model/labels.json",
                                                                                          base="/nowhere/evil"))),
    Case("adapter-base-other", PREDICT, 0, "scores", copied("lora", edit("model/adapter_config.json",
                                                                         base_model_name_or_path="/nowhere/evil"))),
    Case("head-noise", PREDICT, 4, "head.json", copied("head", put("model/head.json", PICKLE))),
    Case("head-widths", PREDICT, 4, "'{}", copied("head", edit("model/head.json", widths=[10**12]))),
    Case("head-words", PREDICT, 4, "the head in", copied("head", edit("model/head.json", widths="many"))),
    Case("head-kind", PREDICT, 4, "reads 'evil'", copied("head", edit("model/head.json", kind="evil"))),
    Case("head-pickle", PREDICT, 4, "is a pickle", copied("head", put("model/head.safetensors", PICKLE))),
    Case("head-activation", PREDICT, 4, "the head in", copied("head", edit("model/head.json", activation="eval"))),
    Case("ansi-predicted", "predict run \x1b[2J\u202e", 0, "\\u001b[2J\\u202e", lambda folder: None),
    Case("lines-of-bytes", "predict run {}/x.txt", 3, "is not UTF-8", put("x.txt", b"\xff\xfe")),
    Case("bomb-predicted", "predict image_run {}/x.png", 3, "too many pixels",
         put("x.png", hostile.png_of(60000, 60000))),
    Case("links-predicted", "predict image_run {}", 3, "leads out", lambda folder: hostile.linked(
        "OUT/secret.png", "a/x.png")(folder)),
]
CHECKPOINTS = [*REMOTE, *SIZES, *DESCRIPTIONS, *WEIGHTS, *TOKENIZERS, *YAML, *RUNS]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with good checkpoints, data and runs, from which the cases copy what they spoil."""
    with hostile.working_beside_secrets(tmp_path_factory.mktemp("hostile")) as folder:
        for kind in ("bert", "vit", "resnet", "wav2vec2", "whisper"):
            tiny.checkpoint(Path(kind), kind)
        tiny.checkpoint(Path("other"), "bert", seed=1)
        tiny.generator(Path("gpt2"), "gpt2")
        counts = {"train": 18, "validation": 9, "test": 9}
        generated.write_texts(Path("texts"), counts)
        generated.write_images(Path("images"), counts, size=16)
        generated.write_sounds(Path("sounds"), counts)
        generated.write_corpus(Path("corpus"), counts)
        talks = [[{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": f"a {n}"}] for n in range(20)]
        write(Path("chat.jsonl"), "\n".join(json.dumps({"messages": talk}) for talk in talks))
        quick = " --evaluate.resamples 2 --out "
        for words in (PROBE.format("bert") + quick + "run", IMAGE.format("vit") + quick + "image_run",
                      TEXT.format("bert").replace("full", "lora") + quick + "lora",
                      TEXT.format("bert").replace("full", "lora") + " --model.save_base false" + quick + "lora_alone",
                      TEXT.format("bert").replace("full", "head") + " --model.head 8" + quick + "head"):
            assert cli.main(words.split()) == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tlhub.results.finish", stopped)
            assert cli.main(GO_ON.format("unfinished").split()) == 75
        yield folder


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_number_of_cases() -> None:
    assert len(CHECKPOINTS) == len({case.name for case in CHECKPOINTS}) == CASES_OF_CHECKPOINTS


@pytest.mark.parametrize("case", CHECKPOINTS, ids=lambda case: case.name)
def test_hostile_checkpoints(work: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    hostile.check(work, case, capsys)
