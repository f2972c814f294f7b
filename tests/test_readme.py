"""What the documentation shows runs: the README's first run and its Python, and every command parses."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from tlhub import cli, options
from tlhub.parsers import FINETUNE

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
RECIPES = REPOSITORY / "recipes"
COMMANDS = {command.name: command for command in (cli.FINETUNE, cli.PROVE, cli.EVALUATE, cli.PREDICT, cli.DATA_CHECK,
                                                  cli.DOCTOR)}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    """Return every command line that is shown, with the file that shows it."""
    found = []
    for name in ("README.md", "CONTRIBUTING.md"):
        text = "\n".join(blocks((REPOSITORY / name).read_text(), "bash"))
        found += [(name, line) for line in text.splitlines()]
    for path in RECIPES.rglob("*.yaml"):
        lines = re.findall(r"^# (?:Command:|Then:)? +(.*)$", path.read_text(), re.MULTILINE)
        found += [(path.name, line) for line in lines]
    for path in RECIPES.glob("*.py"):
        text = path.read_text().replace("\\\n", " ")
        lines = re.findall(r"^    ((?:python|accelerate-launch) .*)$", text, re.MULTILINE)
        found += [(path.name, line) for line in lines]
    starts = ("tlhub ", "python recipes/", "accelerate-launch ")
    return [(name, line) for name, line in found if line.startswith(starts)]


def check_finetune(words: Sequence[str]) -> None:
    """Check the options of a fine-tuning, a run's configuration by that of the recipe which it repeats."""
    repeated = str(RECIPES / "text_classification" / "sst2_full.yaml")
    options.parse([repeated if word == "runs/sst2/config.yaml" else word for word in words])


def check_script(words: Sequence[str]) -> None:
    script = Path(words[0])
    assert script.is_file()
    check_finetune([script.stem.replace("_", "-"), *words[1:]])


@pytest.mark.parametrize(("name", "line"), shown(), ids=lambda value: value[:60])
def test_a_command_that_is_shown_is_understood(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    program, *words = shlex.split(line, comments=True)
    if words[-1] == "--help":
        assert words[0] in COMMANDS or words == ["--help"]
    elif program == "python":
        check_script(words)
    elif program == "accelerate-launch":
        parsed = launch_command_parser().parse_args(words)
        assert parsed.config_file is None or Path(parsed.config_file).is_file()
        check_script([parsed.training_script, *parsed.training_script_args])
    elif words[0] in ("finetune", "prove"):
        check_finetune(words[1:])
    else:
        command = COMMANDS["data check" if words[0] == "data" else words[0]]
        command.arguments(words[len(command.name.split()):])


def test_the_commands_are_found() -> None:
    names = [name for name, _ in shown()]
    assert names.count("README.md") == 26
    # Each recipe shows one, two of them three more, three of them one more; each script two.
    assert len(names) == 26 + 19 + 6 + 3 + 12


def test_the_options_that_are_named_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`--([a-z_.]+)", prose))
    assert len(named) >= 15
    assert named <= {*FINETUNE.option_names(), "help"}


def test_the_marked_blocks_are_what_ci_runs() -> None:
    marked = re.findall(r"^<!-- run in CI -->\n```bash\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(marked) == 4
    assert marked[0] == "pip install -c constraints.txt -e '.[dev]' && pytest\n"
    assert marked[2].startswith('cd "$(mktemp -d)"\n')


def test_the_first_run_and_what_follows_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"tlhub": "-m tlhub", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "work").mkdir()
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path / "work")}
    complete = [block for block in blocks(README, "bash") if "python - <<'END'" in block]
    assert [block.startswith("cd ") for block in complete] == [True, False]
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", "".join(complete)], env=environment, capture_output=True,
                          text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^splits +train 192, validation 24, test 24$", done.stdout, re.MULTILINE)
    assert re.search(r'^\{"input": "colours/red/0.png", "label": "red", ', done.stdout, re.MULTILINE)
    red, blue = map(float, re.findall(r'^\{"input": "[^"]*", "value": ([0-9.]+)\}$', done.stdout, re.MULTILINE))
    assert red > blue + 10

    folder = next(path.parent for path in (tmp_path / "work").glob("*/run"))
    monkeypatch.chdir(folder)
    examples = blocks(README, "python")
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    scores = [float(value) for value in (*printed[0].split(), printed[2])]
    assert scores[0] > 0.9 > scores[1]
    assert scores[2] > 0.9
    assert printed[3] == "{0: 'blue', 1: 'green', 2: 'red'}"
