"""Defaults: only what is open is filled in, each with a reason."""

from __future__ import annotations

import dataclasses

import pytest

from tlhub.config import REGRESSION, SINGLE_LABEL, RunConfig, replace
from tlhub.options import effective, why_without_effect
from tlhub.registry import STRATEGIES, TASKS
from tlhub.training.defaults import Facts, resolve

FACTS = Facts(examples=5000, modality="text", convolutional=False, hidden=768, metrics=("accuracy", "loss"),
              best="accuracy", problem_type=SINGLE_LABEL, loss="cross_entropy")


def config(strategy: str, task: str = "text-classification", **values: object) -> RunConfig:
    return replace(RunConfig(task=task), {"strategy.name": strategy, **values})


def test_pictures_with_values_are_not_enlarged() -> None:
    facts = dataclasses.replace(FACTS, modality="image", problem_type=REGRESSION, loss="mse")
    assert resolve(config("full", "image-regression"), facts)[0].data.crop == "none"
    assert resolve(config("full", "image-regression", **{"data.crop": "padded"}), facts)[0].data.crop == "padded"
    pictures = dataclasses.replace(FACTS, modality="image")
    assert resolve(config("full", "image-classification"), pictures)[0].data.crop == "resized"


def test_what_the_user_gave_is_kept() -> None:
    given = config("full", **{"train.learning_rate": 0.5, "train.epochs": 7.0, "evaluate.best": "loss"})
    resolved, chosen = resolve(given, FACTS)
    assert (resolved.train.learning_rate, resolved.train.epochs, resolved.evaluate.best) == (0.5, 7.0, "loss")
    assert {default.name for default in chosen} == {"evaluate.metrics", "data.problem_type", "train.batch_size",
                                                    "train.weight_decay", "train.loss",
                                                    "train.class_weights"}
    assert all(default.reason for default in chosen)


def test_resolving_twice_changes_nothing() -> None:
    seen = 0
    for strategy in STRATEGIES.names():
        for task in TASKS.names():
            facts = dataclasses.replace(FACTS, modality=TASKS.get(task).modality)
            once, _ = resolve(config(strategy, task), facts)
            twice, chosen = resolve(once, facts)
            assert once == twice
            assert not chosen
            seen += 1
    assert seen == len(STRATEGIES.names()) * len(TASKS.names()) == 48


def test_only_fields_with_an_effect_are_filled_in() -> None:
    resolved, chosen = resolve(config("linear_probe"), FACTS)
    assert {default.name for default in chosen} == {"data.problem_type", "evaluate.metrics", "evaluate.best",
                                                    "train.class_weights"}
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


def test_decay_that_an_optimizer_would_mix_with_the_gradient_is_off() -> None:
    for optimizer, decay in (("adamw", 0.01), ("adam", 0.0), ("sgd", 0.0), ("rmsprop", 0.0)):
        resolved, _ = resolve(config("full", **{"train.optimizer": optimizer}), FACTS)
        assert resolved.train.weight_decay == decay


def test_what_is_frozen_is_computed_once_unless_the_user_wants_augmentation() -> None:
    pictures = dataclasses.replace(FACTS, modality="image")
    found = {}
    for strategy in STRATEGIES.names():
        resolved, _ = resolve(config(strategy, "image-classification"), pictures)
        found[strategy] = (resolved.data.flip, resolved.data.crop)
    still = {strategy for strategy, views in found.items() if views == (False, "none")}
    assert still == {"head", "last_k"}
    assert {views for strategy, views in found.items() if strategy not in still} == {(True, "resized"), (None, None)}
    resolved, _ = resolve(config("last_k", "image-classification", **{"data.flip": True}), pictures)
    assert (resolved.data.flip, resolved.data.crop) == (True, "none")


def test_the_last_blocks_alone_bear_a_higher_rate() -> None:
    rates = {strategy: resolve(config(strategy), FACTS)[0].train.learning_rate for strategy in ("full", "last_k")}
    assert rates["last_k"] == pytest.approx(3 * rates["full"])


def test_networks_of_sound_are_trained_at_a_rate_that_falls_with_the_square_of_their_width() -> None:
    sound = dataclasses.replace(FACTS, modality="audio", metrics=("accuracy",))
    rates = {width: resolve(config("full", "audio-classification"), dataclasses.replace(sound, hidden=width))[0]
             .train.learning_rate for width in (144, 384, 768)}
    assert rates == {144: pytest.approx(1e-3), 384: pytest.approx(1.6e-4), 768: pytest.approx(4e-5)}


def test_narrow_networks_of_texts_bear_much_higher_rates() -> None:
    rates = {width: resolve(config("full"), dataclasses.replace(FACTS, hidden=width))[0].train.learning_rate
             for width in (96, 192, 384, 768)}
    assert rates == {96: pytest.approx(1e-3), 192: pytest.approx(6.4e-4), 384: pytest.approx(8e-5),
                     768: pytest.approx(4e-5)}
