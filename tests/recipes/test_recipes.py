"""Every recipe is read, and run for a few steps on stand-ins of its checkpoint and its data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from tests import tiny
from tests.recipes import standins
from tlhub.options import from_kwargs

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "recipes"
FILES = sorted(path for path in RECIPES.glob("*/*.yaml") if path.parent.name != "accelerate")
LAUNCHES = sorted((RECIPES / "accelerate").glob("*.yaml"))
DRIVER = str(REPOSITORY / "tests" / "recipes" / "drive.py")
KINDS = {"google-bert/bert-base-cased": "bert", "sentence-transformers/all-MiniLM-L6-v2": "bert",
         "google/vit-base-patch16-224-in21k": "vit"}
"""The architecture of each checkpoint that the recipes name."""


def name(path: Path) -> str:
    return path.relative_to(RECIPES).as_posix()


def script(path: Path) -> str:
    return str(RECIPES / f"{path.parent.name}.py")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False,
                          timeout=240)


def launch(configuration: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a script as `accelerate-launch --config_file ...` does."""
    path = RECIPES / "accelerate" / configuration
    return run("-m", "accelerate.commands.launch", "--config_file", str(path), *command)


def losses(folder: Path) -> list[float]:
    """Return the losses of the steps; a probe has no steps and no history."""
    path = folder / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Return, for each recipe, what follows its script on the command line, less `--out`."""
    folder = tmp_path_factory.mktemp("standins")
    found = {}
    for path in FILES:
        content = yaml.safe_load(path.read_text())
        model, data = content["model"]["name"], content["data"]["source"]
        for value, make in ((model, lambda at, kind=KINDS[model]: tiny.checkpoint(at, kind)),
                            (data, standins.MAKERS[data])):
            if not (folder / value).exists():
                make(folder / value)
        steps = [] if content["strategy"]["name"] == "linear_probe" else ["--max_steps", "3", "--batch_size", "8",
                                                                          "--log.every", "1", "--model.dropout", "0"]
        found[name(path)] = ["--config", str(path), "--model", str(folder / model), "--data", str(folder / data),
                             "--data.cache_dir", str(folder / "cache"), *steps]
    return found


@pytest.fixture(scope="module")
def done(arguments: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run each recipe by its script, in one process, and return the runs' folders."""
    folder = tmp_path_factory.mktemp("python")
    folders = {name(path): folder / path.stem for path in FILES}
    commands = [[script(path), *arguments[name(path)], "--out", str(folders[name(path)])] for path in FILES]
    ended = run(DRIVER, str(folder / "report"), json.dumps(commands))
    assert json.loads((folder / "report.0").read_text()) == {"codes": [0, 0, 0, 0], "processes": 1}, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line.startswith("report: ")] == [
        f"report: {out / 'report.md'}" for out in folders.values()]
    return folders


def test_there_are_two_recipes_for_each_script() -> None:
    scripts = sorted(path.stem for path in RECIPES.glob("*.py"))
    assert scripts == ["image_classification", "text_classification"]
    assert len(FILES) == 4
    assert [sum(path.parent.name == script for path in FILES) for script in scripts] == [2, 2]


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
    assert f" --config recipes/{name(path)}" in text


def test_scripts_are_a_screenful() -> None:
    lengths = [len(path.read_text().splitlines()) for path in RECIPES.glob("*.py")]
    assert len(lengths) == 2
    assert max(lengths) <= 60


def test_launch_configurations_are_read_by_accelerate() -> None:
    assert [path.stem for path in LAUNCHES] == ["cpu", "cpu_2proc", "ddp", "gpu"]
    found = {path.stem: load_config_from_file(str(path)) for path in LAUNCHES}
    assert {stem: config.num_processes for stem, config in found.items()} == {
        "cpu": 1, "cpu_2proc": 2, "ddp": 4, "gpu": 1}
    assert {stem for stem, config in found.items() if config.use_cpu} == {"cpu"}
    for path in LAUNCHES:
        parsed = launch_command_parser().parse_args(["--config_file", str(path), "recipe.py"])
        checked = _validate_launch_command(parsed)[0]
        assert checked.multi_gpu == (found[path.stem].num_processes > 1), path.stem


def test_every_recipe_runs(done: dict[str, Path]) -> None:
    assert len(done) == 4
    for recipe, out in done.items():
        metrics = json.loads((out / "metrics.json").read_text())
        assert 0.0 <= metrics["validation"]["accuracy"] <= 1.0
        # SST-2's test split has no labels, and Food-101 has none.
        assert bool(metrics.get("test")) == ("sst2" not in recipe and "food101" not in recipe), recipe
        assert (out / "model" / "README.md").exists() or (out / "model" / "config.json").exists()
        assert len(losses(out)) == (0 if "linear_probe" in recipe else 3), recipe
    adapter = json.loads((done["image_classification/food101_lora.yaml"] / "model" / "adapter_config.json").read_text())
    endings = {target.rpartition(".")[2] for target in adapter["target_modules"]}
    assert endings == {"q_proj", "v_proj"}


def test_every_recipe_runs_under_accelerate(done: dict[str, Path], arguments: dict[str, list[str]],
                                            tmp_path: Path) -> None:
    commands = [[script(path), *arguments[name(path)], "--out", str(tmp_path / path.stem)] for path in FILES]
    ended = launch("cpu.yaml", DRIVER, str(tmp_path / "report"), json.dumps(commands))
    assert ended.returncode == 0, ended.stderr
    report = json.loads((tmp_path / "report.0").read_text())
    assert report == {"codes": [0, 0, 0, 0], "processes": 1}, ended.stderr
    for path in FILES:
        before = json.loads((done[name(path)] / "metrics.json").read_text())
        now = json.loads((tmp_path / path.stem / "metrics.json").read_text())
        assert now["data"] == before["data"]
        np.testing.assert_allclose(losses(tmp_path / path.stem), losses(done[name(path)]), atol=1e-6)


def test_two_processes_on_the_cpu_are_one_group(done: dict[str, Path], arguments: dict[str, list[str]],
                                                tmp_path: Path) -> None:
    recipe = "text_classification/sst2_full.yaml"
    command = [script(RECIPES / recipe), *arguments[recipe], "--out", str(tmp_path / "run")]
    ended = launch("cpu_2proc.yaml", DRIVER, str(tmp_path / "report"), json.dumps([command]))
    assert ended.returncode == 0, ended.stderr
    reports = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("report.*"))]
    assert reports == [{"codes": [0], "processes": 2}] * 2
    assert ended.stdout.count("validation accuracy") == 1
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(done[recipe]), atol=1e-6)


def test_a_script_by_itself(arguments: dict[str, list[str]], tmp_path: Path) -> None:
    path = RECIPES / "text_classification" / "ag_news_linear_probe.yaml"
    ended = run(script(path), *arguments[name(path)], "--out", str(tmp_path / "run"))
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
