from pathlib import Path

import pytest

import tlhub
from tlhub.errors import UsageError
from tlhub.registry import STRATEGIES, TASKS, Registry

PACKAGE = Path(tlhub.__file__).parent


@pytest.mark.parametrize(("registry", "folder", "least"), [(TASKS, "tasks", 2), (STRATEGIES, "strategies", 5)])
def test_names_are_the_files_and_every_file_registers_its_class(registry, folder, least):
    stems = {path.stem for path in (PACKAGE / folder).glob("*.py")} - {"__init__", "base"}
    assert {name.replace("-", "_") for name in registry.names()} == stems
    assert len(stems) >= least
    classes = {registry.get(name) for name in registry.names()}
    assert len(classes) == len(stems)


def test_an_unknown_name_is_refused_with_the_closest_one():
    with pytest.raises(UsageError, match="strategy 'lorra' is not known; did you mean 'lora'"):
        STRATEGIES.get("lorra")
    with pytest.raises(UsageError, match="task 'text_classification' is not known"):
        TASKS.check("text_classification")


def test_a_name_is_registered_once_and_only_for_its_own_file():
    registry = Registry("strategy", "tlhub.strategies")
    registry.register("lora")(dict)
    with pytest.raises(KeyError, match="twice"):
        registry.register("lora")
    with pytest.raises(KeyError, match="name its file"):
        registry.register("lorra")
