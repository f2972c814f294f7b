"""Defaults: only what is open is filled in, each with a reason."""

from __future__ import annotations

import dataclasses

import pytest

from tlhub.config import RunConfig, replace
from tlhub.options import effective, why_without_effect
from tlhub.registry import STRATEGIES, TASKS
from tlhub.training.defaults import Facts, resolve

FACTS = Facts(examples=5000, text=True, convolutional=False, hidden=768, metrics=("accuracy", "loss"), best="accuracy")


def config(strategy: str, task: str = "text-classification", **values: object) -> RunConfig:
    return replace(RunConfig(task=task), {"strategy.name": strategy, **values})


def test_what_the_user_gave_is_kept() -> None:
    given = config("full", **{"train.learning_rate": 0.5, "train.epochs": 7.0, "evaluate.best": "loss"})
    resolved, chosen = resolve(given, FACTS)
    assert (resolved.train.learning_rate, resolved.train.epochs, resolved.evaluate.best) == (0.5, 7.0, "loss")
    assert {default.name for default in chosen} == {"evaluate.metrics", "train.batch_size", "train.weight_decay"}
    assert all(default.reason for default in chosen)


def test_resolving_twice_changes_nothing() -> None:
    seen = 0
    for strategy in STRATEGIES.names():
        for task in TASKS.names():
            facts = dataclasses.replace(FACTS, text=task.startswith("text"))
            once, _ = resolve(config(strategy, task), facts)
            twice, chosen = resolve(once, facts)
            assert once == twice
            assert not chosen
            seen += 1
    assert seen == 10


def test_only_fields_with_an_effect_are_filled_in() -> None:
    resolved, chosen = resolve(config("linear_probe"), FACTS)
    assert {default.name for default in chosen} == {"evaluate.metrics", "evaluate.best"}
    assert "learning_rate" not in effective(resolved)["train"]
    for strategy in STRATEGIES.names():
        _, chosen = resolve(config(strategy), FACTS)
        for default in chosen:
            section, _, key = default.name.partition(".")
            fields = {field.name: field for field in dataclasses.fields(getattr(config(strategy), section))}
            assert why_without_effect(fields[key].metadata, config(strategy)) is None, default


def test_steps_make_epochs_needless() -> None:
    resolved, _ = resolve(config("full", **{"train.max_steps": 5}), FACTS)
    assert resolved.train.epochs is None


@pytest.mark.parametrize(("examples", "batch_size"), [(40, 8), (5000, 16), (100_000, 32)])
def test_small_data_gets_small_batches(examples: int, batch_size: int) -> None:
    resolved, _ = resolve(config("full"), dataclasses.replace(FACTS, examples=examples))
    assert resolved.train.batch_size == batch_size


def test_augmentation_is_off_where_features_are_cached() -> None:
    facts = dataclasses.replace(FACTS, text=False)
    assert resolve(config("head", "image-classification"), facts)[0].data.flip is False
    assert resolve(config("full", "image-classification"), facts)[0].data.crop is True
