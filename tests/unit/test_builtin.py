"""What tlhub brings: found by name, complete in the package, small enough, and its terms stated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from tlhub import builtin
from tlhub.errors import CheckpointError, DataError
from tlhub.registry import TASKS

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "tlhub"
FILES = [path for path in (PACKAGE / "builtin").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
CHECKPOINTS = ("builtin/audio", "builtin/text", "builtin/vision")
MIB = 2**20


def test_names() -> None:
    assert builtin.CHECKPOINTS == CHECKPOINTS
    assert builtin.DATASETS == ("builtin/digits", "builtin/messages", "builtin/python_reference", "builtin/wake_word")
    assert builtin.is_builtin("builtin/misspelt")
    assert not builtin.is_builtin("builtins/vision")


def test_a_wrong_name_says_which_there_are(tmp_path: Path) -> None:
    for name, words in (("builtin/visoin", "no checkpoint that tlhub brings"), ("builtin/", "no checkpoint that tlhub"),
                        ("builtin/../models/vision", "no checkpoint"), ("builtin/digits", "a data set, no checkpoint")):
        with pytest.raises(CheckpointError, match=rf"'{name}' is {words}.*; valid: builtin/audio, builtin/text, "):
            builtin.checkpoint_folder(name)
    for name, words in (("builtin/digit", "no data set that tlhub brings"), ("builtin/", "no data set that tlhub"),
                        ("builtin/../data/digits", "no data set"), ("builtin/text", "a checkpoint, no data set")):
        with pytest.raises(DataError, match=rf"'{name}' is {words}.*; valid: builtin/digits, builtin/messages, "):
            builtin.data_folder(name, tmp_path)


def test_the_one_data_set_that_is_made_here(tmp_path: Path) -> None:
    folder = builtin.data_folder("builtin/python_reference", tmp_path)
    assert tmp_path in folder.parents
    assert len(list(folder.rglob("*.txt"))) > 50


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name: str) -> None:
    folder, card = builtin.checkpoint_folder(name), builtin.read_card(name)
    with safe_open(folder / builtin.WEIGHTS, framework="np") as file:
        slices = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118 (no mapping)
    # What is computed with is said by the configuration: float16 is slow on CPUs.
    assert {part.get_dtype() for part in slices} <= {"F16", "I64"}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert 500_000 < card.parameters < 5_000_000
    assert card.size == (folder / builtin.WEIGHTS).stat().st_size <= 8_000_000
    assert card.tasks
    assert set(card.tasks) <= set(TASKS.names())
    assert card.data
    assert all(part.name and part.terms for part in card.data)
    assert card.command.startswith("python recipes/pretrain.py ")
    assert (REPOSITORY / card.command.split()[2]).is_file()
    model_card, licenses = (folder / "README.md").read_text(), builtin.LICENSES.read_text()
    assert f"## {name}" in licenses
    assert [part.name for part in card.data if part.name not in model_card or part.name not in licenses] == []


@pytest.mark.parametrize("name", ["builtin/digits", "builtin/messages", "builtin/python_reference",
                                  "builtin/wake_word"])
def test_data_sets_state_their_terms(name: str) -> None:
    assert f"## {name}" in builtin.LICENSES.read_text()
    assert "icen" in (PACKAGE / "builtin" / "data" / name.removeprefix(builtin.PREFIX) / "README.md").read_text()


def test_sizes() -> None:
    assert len(FILES) > 20
    size = {part: sum(path.stat().st_size for path in FILES if path.is_relative_to(PACKAGE / "builtin" / part))
            for part in ("models", "data")}
    assert 3 * MIB < size["models"] <= 20 * MIB
    assert MIB / 2 < size["data"] <= 3 * MIB


def test_every_file_is_in_the_package() -> None:
    # tomllib is not in Python 3.10, and the line is plain enough to read.
    project = (REPOSITORY / "pyproject.toml").read_text()
    line = re.search(r"^\[tool\.setuptools\.package-data\]\ntlhub = \[(.*)\]$", project, re.MULTILINE)
    assert line
    globs = re.findall(r'"([^"]+)"', line[1])
    found = {path for pattern in globs for path in PACKAGE.glob(pattern) if path.is_file()}
    found |= {path for pattern in globs if pattern.endswith("/**")
              for path in PACKAGE.glob(f"{pattern}/*") if path.is_file()}
    assert [path for path in FILES if path.suffix != ".py" and path not in found] == []
