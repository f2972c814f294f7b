import dataclasses

import pytest

from tlhub import config
from tlhub.config import PROBLEM_TYPES, SECTIONS, SHORT_OPTIONS, TASK_OPTIONS, RunConfig, replace
from tlhub.errors import UsageError
from tlhub.limits import NUMBERS, head_widths
from tlhub.registry import STRATEGIES, TASKS

FIELDS = [(section, field) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
FIELDS += [("task_options", field) for cls in TASK_OPTIONS.values() for field in dataclasses.fields(cls)]


def test_every_field_has_words_and_names_only_what_there_is():
    assert len(FIELDS) > 50
    for section, field in FIELDS:
        assert len(field.metadata["help"]) > 10, f"{section}.{field.name}"
        assert set(field.metadata["strategies"]) <= set(STRATEGIES.names()), f"{section}.{field.name}"
        assert set(field.metadata["tasks"]) <= set(TASKS.names()), f"{section}.{field.name}"
        assert set(field.metadata["problems"]) <= set(PROBLEM_TYPES), f"{section}.{field.name}"
        for other, values in (field.metadata["requires"], field.metadata["unless"]):
            assert bool(other) == bool(values), f"{section}.{field.name}"
            if other:
                choices = {f"{part}.{one.name}": one.metadata["choices"] for part, one in FIELDS}[other]
                assert not choices or set(values) <= set(choices), f"{section}.{field.name}"


def test_defaults_are_among_the_choices():
    checked = [field.default in (None, *field.metadata["choices"]) for _, field in FIELDS if field.metadata["choices"]]
    assert len(checked) >= 6
    assert all(checked)


def test_every_number_has_its_limits():
    numbers = {
        f"{section}.{field.name}" for section, field in FIELDS if {"int", "float"} & set(field.type.split(" | "))
    }
    assert numbers | {"seed"} == set(NUMBERS)
    assert len(numbers) > 20


def test_short_options_name_fields():
    full = {f"{section}.{field.name}" for section, field in FIELDS}
    assert {name for name in SHORT_OPTIONS.values() if not name.startswith("task_options.")} <= full


def test_replace_sets_nested_fields_and_keeps_the_rest():
    changed = replace(RunConfig(task="text-classification"), {"train.epochs": 3.0, "train.batch_size": 8, "seed": 5})
    assert (changed.train.epochs, changed.train.batch_size, changed.seed) == (3.0, 8, 5)
    assert changed.task == "text-classification"
    assert changed.train.schedule == "cosine"


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 3


def test_lists_are_not_shared_between_configurations():
    assert config.EvaluateConfig().metrics is not config.EvaluateConfig().metrics


@pytest.mark.parametrize(("head", "widths"), [("linear", ()), ("64", (64,)), ("1024,512", (1024, 512))])
def test_head_widths(head, widths):
    assert head_widths(head) == widths


@pytest.mark.parametrize("head", ["", "big", "64,", "0", "-3", "1.5"])
def test_a_head_that_is_none_is_refused(head):
    with pytest.raises(UsageError, match="neither 'linear' nor positive widths"):
        head_widths(head)
