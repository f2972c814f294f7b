"""Every recipe is read, and run for a few steps on stand-ins of its checkpoint and its data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from safetensors.torch import load_file

import tlhub
from tests.recipes import checkpoints, standins
from tests.recipes.checkpoints import KINDS
from tlhub.errors import UsageError
from tlhub.evaluation.scores import flat
from tlhub.options import from_kwargs

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "recipes"
SCRIPTS = sorted(path for path in RECIPES.glob("*.py") if path.stem != "pretrain")
FILES = sorted(path for script in SCRIPTS for path in (RECIPES / script.stem).glob("*.yaml"))
PRETRAINING = sorted((RECIPES / "pretrain").glob("*.yaml"))
"""Stages of the embedded checkpoints' making, which `pretrain.py` carries out."""
FEW_SPEAKERS = {"audio_classification/emotion_lora.yaml", "wake_word/speech_commands_full.yaml"}
"""Recipes whose stand-in data have too few speakers for an interval."""
LAUNCHES = sorted((RECIPES / "accelerate").glob("*.yaml"))
DRIVER = str(REPOSITORY / "tests" / "recipes" / "drive.py")
TRANSFERS = {"full": "parameters", "linear_probe": "features", "scratch": "structure"}
"""What each strategy takes over."""


def transfers(path: Path) -> list[str]:
    """Return the strategies with which a recipe has to run: features alone do not go on with a text."""
    return [word for word in TRANSFERS if path.parent.name != "text_generation" or word != "linear_probe"]


TOGETHER = [(path, word) for path in FILES for word in transfers(path) if not path.stem.endswith(f"_{word}")]
"""Recipes with another kind of transfer than their own."""
UNSCORED = ("sst2_full", "food101_lora")
"""The test split of the first has no labels, and the second has none."""
STEMS_FROZEN = ("superb_ks_full", "speech_commands_full")
"""The recipes that train everything but the layers before the first block."""
DRAWN = ("cats_and_dogs_head", "body_length_head", "computer_asr_last_k")
"""The recipes of which plots are drawn, which take most of a tiny run's time."""


def name(path: Path) -> str:
    return path.relative_to(RECIPES).as_posix()


def script(path: Path) -> str:
    return str(RECIPES / f"{path.parent.name}.py")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False,
                          timeout=240)


def drive(report: Path, commands: list[list[str]], *drawn: str) -> subprocess.CompletedProcess[str]:
    """Run commands in one process, which have to end well."""
    ended = run(DRIVER, str(report), json.dumps(commands), *drawn)
    assert json.loads(Path(f"{report}.0").read_text()) == {"codes": [0] * len(commands), "processes": 1}, ended.stderr
    return ended


def launch(configuration: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a script as `accelerate-launch --config_file ...` does."""
    path = RECIPES / "accelerate" / configuration
    return run("-m", "accelerate.commands.launch", "--config_file", str(path), *command)


def content(folder: Path) -> dict[str, Any]:
    """Return a run's `metrics.json`."""
    return json.loads((folder / "metrics.json").read_text())


def losses(folder: Path) -> list[float]:
    """Return the losses of the steps; a probe has no steps and no history."""
    path = folder / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return, for each recipe, what follows its script on the command line, less `--out` and what limits the steps."""
    folder = tmp_path_factory.mktemp("standins")
    found = {}
    for path in FILES:
        settings = yaml.safe_load(path.read_text())
        model, data = settings["model"]["name"], settings["data"]["source"]
        for value, make in ((model, lambda at, kind=KINDS[model]: checkpoints.make(at, kind)),
                            (data, standins.MAKERS[data])):
            if not (folder / value).exists():
                make(folder / value)
        found[name(path)] = ["--config", str(path), "--model", str(folder / model), "--data", str(folder / data),
                             "--data.cache_dir", str(folder / "cache"), "--evaluate.resamples", "20"]
        if path.parent.name == "text_generation":
            found[name(path)] += ["--task_options.sample_tokens", "5"]
    return found


def command(path: Path, arguments: dict[str, list[str]], out: Path, word: str | None = None) -> list[str]:
    """Return a command that runs a recipe for three steps, with another strategy where a word names one."""
    strategy = word or yaml.safe_load(path.read_text())["strategy"]["name"]
    words = [script(path), *arguments[name(path)], "--out", str(out)]
    if word is not None:
        words += ["--strategy", word]
    if strategy != "linear_probe":
        words += ["--max_steps", "3", "--batch_size", "8", "--log.every", "1"]
    if strategy not in ("linear_probe", "head"):
        words += ["--model.dropout", "0"]
    return words


@pytest.fixture(scope="module")
def done(arguments: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run each recipe by its script, in one process, and return the runs' folders."""
    folder = tmp_path_factory.mktemp("python")
    folders = {name(path): folder / path.stem for path in FILES}
    commands = [command(path, arguments, folders[name(path)]) for path in FILES]
    ended = drive(folder / "report", commands, *(str(folder / stem) for stem in DRAWN))
    assert [line for line in ended.stdout.splitlines() if line.startswith("report: ")] == [
        f"report: {out / 'report.md'}" for out in folders.values()]
    return folders


def test_every_script_has_recipes() -> None:
    scripts = [path.stem for path in SCRIPTS]
    assert scripts == ["audio_classification", "image_classification", "image_regression", "text_classification",
                       "text_generation", "wake_word"]
    assert len(FILES) == 19
    assert [sum(path.parent.name == script for path in FILES) for script in scripts] == [2, 7, 1, 5, 2, 2]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_recipe_is_a_configuration(path: Path) -> None:
    config = from_kwargs(config=str(path))
    assert config.task.replace("-", "_") == path.parent.name
    assert path.stem.endswith(config.strategy.name)
    assert config.model.name in KINDS
    assert config.data.source in standins.MAKERS
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    head = [line for line in text.splitlines() if line.startswith("#")]
    for wanted in ("# Command:   accelerate-launch ", "# Expected:  ", "# Licences:  "):
        assert sum(line.startswith(wanted) for line in head) == 1, wanted
    shown = [line for line in head if line.startswith("# Transfer:  ")]
    assert len(shown) == 1
    assert re.findall(r"(\w+) \(--strategy (\w+)\)", shown[0]) == [(TRANSFERS[word], word) for word in transfers(path)]
    assert f" --config recipes/{name(path)}" in text


def test_scripts_are_a_screenful() -> None:
    lengths = [len(path.read_text().splitlines()) for path in SCRIPTS]
    assert len(lengths) == 6
    assert max(lengths) <= 60


def test_stages_of_pretraining_are_configurations() -> None:
    stages = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in PRETRAINING}
    assert {stem: len(some) for stem, some in stages.items()} == {"audio": 3, "text": 2, "vision": 2}
    for some in stages.values():
        assert [stage["strategy"] for stage in some] == ["scratch", *["full"] * (len(some) - 1)]
        for stage in some:
            data = {"source": "data", **stage.get("data", {})}
            config = from_kwargs(**{"model": "model", **stage, "data": data})
            assert (config.seed, config.train.learning_rate) == (stage["seed"], stage["train"]["learning_rate"])


def test_launch_configurations_are_read_by_accelerate() -> None:
    found = {path.stem: load_config_from_file(str(path)) for path in LAUNCHES}
    assert {stem: (config.num_machines, config.num_processes) for stem, config in found.items()} == {
        "cpu": (1, 1), "cpu_2proc": (1, 2), "ddp": (1, 4), "deepspeed_zero3": (1, 4), "fsdp2": (1, 4), "gpu": (1, 1),
        "multi_machine": (2, 8)}
    assert {stem for stem, config in found.items() if config.use_cpu} == {"cpu"}
    for path in LAUNCHES:
        assert path.read_text().startswith("# ")
        parsed = launch_command_parser().parse_args(["--config_file", str(path), "recipe.py"])
        checked = _validate_launch_command(parsed)[0]
        assert checked.multi_gpu == (path.stem in ("cpu_2proc", "ddp", "multi_machine")), path.stem
        assert checked.use_fsdp == (path.stem == "fsdp2")
        assert checked.use_deepspeed == (path.stem == "deepspeed_zero3")


def test_divided_models_are_what_their_configurations_ask_for() -> None:
    def asked(stem: str) -> Any:
        words = ["--config_file", str(RECIPES / "accelerate" / f"{stem}.yaml"), "recipe.py"]
        return _validate_launch_command(launch_command_parser().parse_args(words))[0]

    sharded = prepare_multi_gpu_env(asked("fsdp2"))
    assert (sharded["ACCELERATE_USE_FSDP"], sharded["FSDP_VERSION"]) == ("true", "2")
    assert sharded["FSDP_RESHARD_AFTER_FORWARD"] == "true"
    zero = asked("deepspeed_zero3")
    zero.deepspeed_fields_from_accelerate_config = ""
    partitioned = prepare_deepspeed_cmd_env(zero)[1]
    assert (partitioned["ACCELERATE_USE_DEEPSPEED"], partitioned["ACCELERATE_DEEPSPEED_ZERO_STAGE"]) == ("true", "3")


def test_every_recipe_runs(done: dict[str, Path]) -> None:
    assert len(done) == 19
    assert {recipe for recipe, out in done.items() if not content(out)["intervals"]["validation"]} == FEW_SPEAKERS
    for recipe, out in done.items():
        metrics = content(out)
        assert np.isfinite([value for value in flat(metrics["validation"]).values() if value is not None]).all()
        if recipe not in FEW_SPEAKERS:
            assert set(metrics["validation"]) == set(metrics["intervals"]["validation"])
        assert bool(metrics.get("test")) == (out.name not in UNSCORED), recipe
        assert metrics["baselines"], recipe
        assert len(losses(out)) == (0 if "linear_probe" in recipe else 3), recipe
    assert adapted(done["image_classification/food101_lora.yaml"]) == {"q_proj", "v_proj"}
    assert adapted(done["text_generation/chat_lora.yaml"]) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                                              "up_proj", "down_proj"}


def adapted(folder: Path) -> set[str]:
    """Return the layers that have adapters, by the ends of their names."""
    adapter = json.loads((folder / "model" / "adapter_config.json").read_text())
    return {target.rpartition(".")[2] for target in adapter["target_modules"]}


def test_what_the_headers_promise_is_there(done: dict[str, Path]) -> None:
    cats = done["image_classification/cats_and_dogs_head.yaml"]
    assert (cats / "plots" / "curves.png").exists()
    head = load_file(cats / "model" / "head.safetensors")
    assert sorted(len(tensor) for tensor in head.values()) == [2, 2, 256, 256]  # one sigmoid, saved as two classes
    lengths = done["image_regression/body_length_head.yaml"]
    assert (lengths / "plots" / "predicted_test.png").exists()
    assert set(content(lengths)["test"]) == {"mae", "rmse", "r2", "pearson"}
    assert set(content(done["image_classification/pictures_full.yaml"])["test"]) == {
        "loss", "accuracy", "recall_macro", "f1_macro"}


def test_what_the_headers_of_sounds_promise_is_there(done: dict[str, Path], arguments: dict[str, list[str]]) -> None:
    keywords = content(done["audio_classification/superb_ks_full.yaml"])
    assert keywords["data"]["classes"] == 12
    assert keywords["parameters"]["trainable"] < keywords["parameters"]["total"]
    emotions = (done["audio_classification/emotion_lora.yaml"] / "report.md").read_text()
    assert "groups of column 'speaker': train 4, validation 1, test 1; none is in two splits" in emotions
    computer = done["wake_word/computer_asr_last_k.yaml"]
    assert 256 in {len(tensor) for tensor in load_file(computer / "model" / "head.safetensors").values()}
    assert (computer / "plots" / "det_test.png").exists()
    assert content(computer)["operating_point"]["false_accept_rate"] == 0.01
    recipe = "wake_word/speech_commands_full.yaml"
    run, folder = tlhub.load(done[recipe]), Path(arguments[recipe][arguments[recipe].index("--data") + 1])
    assert run.label_names == ("other", "marvin", "sheila")
    assert run.metrics["operating_point"]["test"]["groups"]
    assert run.predict([str(next((folder / "marvin").iterdir()))])[0]["label"] in run.label_names


def test_what_the_headers_of_texts_promise_is_there(done: dict[str, Path]) -> None:
    run = tlhub.load(done["text_generation/shakespeare_gpt2_full.yaml"])
    texts = run.predict(["Once upon a time"], max_new_tokens=5, num_return_sequences=3)
    assert [set(row) for row in texts] == [{"input", "text"}] * 3
    assert [sample["prompt"] for sample in run.metrics["samples"]] == ["Once upon a time", "ROMEO:\n"]
    assert run.metrics["baselines"].keys() == {"checkpoint", "unigram"}
    assert content(done["text_generation/chat_lora.yaml"])["samples"][0]["before"]


def test_the_text_is_divided_as_its_header_says(tmp_path: Path) -> None:
    text = "".join(f"{number:07}\n" for number in range(139_425))[:1_115_394]
    (tmp_path / "input.txt").write_text(text)
    standins.run_shell(tmp_path, "text_generation/shakespeare_gpt2_full.yaml")
    parts = [(tmp_path / f"{split}.txt").read_text() for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1_003_854, 55_770, 55_770]
    assert "".join(parts) == text
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "text_generation"], ids=name)
def test_features_alone_are_refused_where_a_text_goes_on(path: Path) -> None:
    with pytest.raises(UsageError, match=r"'linear_probe' begins with a new head .* keeps the checkpoint's own last"):
        from_kwargs(config=str(path), strategy="linear_probe")


def test_only_new_layers_are_saved_restored_and_used(done: dict[str, Path], arguments: dict[str, list[str]]) -> None:
    recipe = "image_regression/body_length_head.yaml"
    saved = {path.name for path in (done[recipe] / "model").iterdir()}
    assert "head.safetensors" in saved
    assert "model.safetensors" not in saved
    run = tlhub.load(done[recipe])
    data = arguments[recipe][arguments[recipe].index("--data") + 1]
    predicted = run.predict([f"{data}/0.png", f"{data}/1.png"])
    assert [set(row) for row in predicted] == [{"input", "value"}] * 2
    assert predicted[0]["value"] != predicted[1]["value"]
    assert run.evaluate(data)["metrics"].keys() == content(done[recipe])["test"].keys()


def test_every_recipe_runs_with_each_kind_of_transfer(done: dict[str, Path], arguments: dict[str, list[str]],
                                                      tmp_path: Path) -> None:
    folders = {(path.stem, word): tmp_path / f"{path.stem}-{word}" for path, word in TOGETHER}
    drive(tmp_path / "report", [command(path, arguments, folders[path.stem, word], word) for path, word in TOGETHER])
    folders |= {(out.name, word): out for out in done.values() for word in TRANSFERS if out.name.endswith(f"_{word}")}
    assert len(TOGETHER) == 45
    assert len(folders) == 55
    for (stem, word), folder in folders.items():
        metrics = content(folder)
        assert metrics["strategy"] == word
        assert len(losses(folder)) == (0 if word == "linear_probe" else 3)
        parameters = metrics["parameters"]
        frozen = word == "linear_probe" or (stem in STEMS_FROZEN and word == "full")
        assert (parameters["trainable"] < parameters["total"]) == frozen, (stem, word)
    for path in FILES:
        full, scratch = (losses(folders[path.stem, word]) for word in ("full", "scratch"))
        assert full[0] != scratch[0], path.stem


def test_every_recipe_runs_under_accelerate(done: dict[str, Path], arguments: dict[str, list[str]],
                                            tmp_path: Path) -> None:
    commands = [command(path, arguments, tmp_path / path.stem) for path in FILES]
    ended = launch("cpu.yaml", DRIVER, str(tmp_path / "report"), json.dumps(commands))
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "report.0").read_text())
    assert report == {"codes": [0] * 19, "processes": 1}, ended.stderr
    for path in FILES:
        assert content(tmp_path / path.stem)["data"] == content(done[name(path)])["data"]
        np.testing.assert_allclose(losses(tmp_path / path.stem), losses(done[name(path)]), atol=1e-6)


def test_two_processes_on_the_cpu_are_one_group(done: dict[str, Path], arguments: dict[str, list[str]],
                                                tmp_path: Path) -> None:
    path = RECIPES / "text_classification" / "sst2_full.yaml"
    ended = launch("cpu_2proc.yaml", DRIVER, str(tmp_path / "report"),
                   json.dumps([command(path, arguments, tmp_path / "run")]))
    assert ended.returncode == 0, ended.stderr
    reports = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("report.*"))]
    assert reports == [{"codes": [0], "processes": 2}] * 2
    assert ended.stdout.count("validation accuracy") == 1
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(done[name(path)]), atol=1e-6)


def test_a_divided_model_is_refused(arguments: dict[str, list[str]], tmp_path: Path) -> None:
    path = RECIPES / "text_classification" / "sst2_full.yaml"
    ended = run("-m", "accelerate.commands.launch", "--config_file", str(RECIPES / "accelerate" / "fsdp2.yaml"),
                "--num_processes", "1", *command(path, arguments, tmp_path / "run"))
    words = [line for line in ended.stderr.splitlines() if line.startswith("tlhub: ")]
    assert len(words) == 1
    assert "asks for FSDP" in words[0]
    assert not (tmp_path / "run").exists()


def test_a_script_by_itself(arguments: dict[str, list[str]], tmp_path: Path) -> None:
    path = RECIPES / "text_classification" / "ag_news_linear_probe.yaml"
    ended = run(*command(path, arguments, tmp_path / "run"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("test accuracy ")
    assert f"report: {tmp_path / 'run' / 'report.md'}\n" in ended.stdout


def test_wrong_input_ends_a_script_as_it_ends_tlhub(arguments: dict[str, list[str]], tmp_path: Path) -> None:
    recipe = "text_classification/sst2_full.yaml"
    here, given = script(RECIPES / recipe), arguments[recipe]
    (tmp_path / "empty").mkdir()
    wrong = {
        2: ["--strategy.ranc", "3"],
        3: ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "3")],
        4: ["--model", str(tmp_path / "empty"), "--out", str(tmp_path / "4")],
    }
    alone = run(here, *given, *wrong[3])
    assert alone.returncode == 3, alone.stderr
    assert alone.stderr.splitlines()[-1].startswith("tlhub: data ")
    ended = run(DRIVER, str(tmp_path / "report"), json.dumps([[here, *given, *words] for words in wrong.values()]))
    assert json.loads((tmp_path / "report.0").read_text())["codes"] == list(wrong), ended.stderr
    words = [line for line in ended.stderr.splitlines() if line.startswith("tlhub: ")]
    assert len(words) == 3
    for line, wanted in zip(words, ("ranc", "nowhere", "empty"), strict=True):
        assert wanted in line
    for code in (3, 4):
        assert json.loads((tmp_path / str(code) / "status.json").read_text())["exit_code"] == code
