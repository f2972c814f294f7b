"""Every command that is shown anywhere parses, also those that cannot run where tests run."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser

from tests.docs.blocks import PAGES, REPOSITORY, blocks, commands
from tlhub import cli, options
from tlhub.parsers import FINETUNE

RECIPES = REPOSITORY / "recipes"
COMMANDS = {command.name: command for command, _ in cli._COMMANDS}


def shown() -> list[tuple[str, str]]:
    """Return every command line that is shown and not run (test_pages.py), with the file that shows it."""
    found = []
    for path in PAGES:
        found += [(path.name, line) for block in blocks(path) if block.kind == "apart" for line in commands(block.text)]
    for path in RECIPES.rglob("*.yaml"):
        lines = re.findall(r"^# (?:Command:|Then:)? +(.*)$", path.read_text(), re.MULTILINE)
        found += [(path.name, line) for line in commands("\n".join(lines))]
    for path in RECIPES.glob("*.py"):
        lines = [line for line in commands(path.read_text()) if not line.startswith("tlhub ")]
        found += [(path.name, line) for line in lines]
    return found


def check_finetune(words: Sequence[str]) -> None:
    """Check the options of a fine-tuning."""
    options.parse(words)


def check_script(words: Sequence[str]) -> None:
    """Check the options of a recipe's script, or the stages of what `recipes/pretrain.py` is given."""
    script = Path(words[0])
    assert script.is_file()
    if script.stem == "pretrain":
        stages = list(yaml.safe_load_all(Path(words[1]).read_text()))
        assert stages
        for stage in stages:
            options.from_kwargs(**{"model": "-", **stage, "data": {"source": "-", **stage.get("data", {})}})
    else:
        check_finetune([script.stem.replace("_", "-"), *words[1:]])


@pytest.mark.parametrize(("name", "line"), shown(), ids=lambda value: value[:60])
def test_a_command_that_is_shown_is_understood(name: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    program, *words = shlex.split(line, comments=True)
    if program == "python":
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
    kinds = Counter(Path(name).suffix for name, _ in shown())
    assert kinds[".md"] == 20
    # Each recipe shows one, two of them three more, three of them one more; each script of a task two, pretrain one.
    assert kinds[".yaml"] == len(list(RECIPES.glob("*/*.yaml"))) - len(list(RECIPES.glob("accelerate/*"))) + 6 + 3
    assert kinds[".py"] == 2 * 6 + 1


def test_the_options_that_are_named_exist() -> None:
    prose = "".join(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE) for page in PAGES)
    named = set(re.findall(r"`--([a-z_.]+)", prose))
    assert len(named) >= 60
    assert named <= {*FINETUNE.option_names(), *(name for command in COMMANDS.values()
                                                 for name in command.option_names()), "help"}


def test_every_command_has_its_place_in_the_documentation() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert len(COMMANDS) >= 6
    assert [name for name in COMMANDS if f"tlhub {name}" not in text] == []
