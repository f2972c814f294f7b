import time

import numpy as np
import pytest

from tests import tiny
from tests.generated import write_images, write_sounds, write_table, write_texts
from tests.wrong import working_in
from tlhub import options, workbench
from tlhub.data.prepare import prepare
from tlhub.models import features
from tlhub.planning import costs, estimates
from tlhub.planning.candidates import Subject
from tlhub.planning.estimates import Cost, Estimates
from tlhub.registry import TASKS
from tlhub.strategies import full
from tlhub.training.processes import make_accelerator


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    counts = {"train": 24, "validation": 9}
    write_texts(folder / "texts", counts)
    write_images(folder / "images", counts)
    write_sounds(folder / "sounds", counts)
    write_table(folder / "two", {split: [{"text": f"{word} {row}", "label": word} for row in range(count)
                                         for word in ("rain", "bread")] for split, count in counts.items()})
    for kind in ("bert", "resnet", "whisper"):
        tiny.checkpoint(folder / kind, kind)
    with working_in(folder):
        yield folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(costs, "_ENOUGH_S", 0.0)


def subject(task, **choices):
    config = options.from_kwargs(task, **{"model": "x", **choices})
    kind = TASKS.get(task)()
    data = prepare(config.data, kind.modality, problems=kind.problems, seed=0, keywords=kind.keywords(config))
    return Subject(config, data, make_accelerator(config))


def slowed(function, seconds):
    """The same function, that much slower."""
    def later(*given, **named):
        time.sleep(seconds)
        return function(*given, **named)
    return later


def test_a_first_example_tells_whether_the_others_are_too_many(monkeypatch):
    sizes, real = [], features._forward

    def noted(extractor, inputs, order, *rest):
        sizes.append(len(order))
        time.sleep(0.03)
        return real(extractor, inputs, order, *rest)

    monkeypatch.setattr(features, "_forward", noted)
    monkeypatch.setattr(estimates, "PATIENCE_S", 0.4)  # enough for 13 examples, and for hundreds if they cost nothing
    monkeypatch.setattr(Estimates, "_cost", lambda self, name, folder: Cost(name))
    made = Estimates(subject("text-classification", data="texts"), "bert")
    assert [len(part) for part in made._few.values()] == [24, 9]
    made.all()
    assert sizes[:4] == [1, 1, 1, 1]  # both splits, once to warm up and once to be timed
    assert sizes[4:] == [16, 9]


def test_what_depends_on_the_model_alone_takes_no_longer_with_more_data(monkeypatch, tmp_path):
    given = subject("text-classification", data="texts", train={"max_steps": 1})
    made = Estimates(given, "bert")
    made._counts = {"train": 24_000, "validation": 9}
    monkeypatch.setattr(full, "with_head", slowed(full.with_head, 0.3))
    assert 0.3 < made._cost("full", tmp_path).seconds < 60
    monkeypatch.setattr(workbench, "cache_prefix", slowed(workbench.cache_prefix, 0.3))
    assert made._cost("last_k", tmp_path).seconds > 300


def test_options_without_effect_in_a_strategy_do_not_stand_in_its_way(tmp_path):
    made = Estimates(subject("text-classification", data="two", model={"name": "x", "sigmoid": True},
                             train={"gradient_checkpointing": True, "micro_batch_size": 4}), "bert")
    for strategy in ("linear_probe", "head", "lp_ft", "full"):
        found = made._cost(strategy, tmp_path)
        assert found.reason == ""
        assert found.at_once == (None if strategy == "linear_probe" else 4)


def test_memory_that_runs_out_is_a_finding(monkeypatch, tmp_path):
    made = Estimates(subject("text-classification", data="texts"), "bert")

    def run_out(*given, **named):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(full, "with_head", run_out)
    found = made._cost("full", tmp_path)
    assert (found.fits, found.seconds) == (False, None)
    assert "memory does not suffice" in found.reason
    monkeypatch.setattr(full, "with_head", lambda *given, **named: {}["a fault"])
    with pytest.raises(KeyError):
        made._cost("full", tmp_path)


def test_a_keyword_s_class_weights_are_those_of_its_runs():
    made = Estimates(subject("wake-word", data="sounds", keyword="high"), "whisper")
    assert made.config.train.class_weights == "balanced"


def test_nothing_of_a_trial_is_left_in_the_user_s_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(Estimates, "_cost", lambda self, name, folder: Cost(name))
    found = Estimates(subject("image-classification", data="images"), "resnet")
    monkeypatch.setenv("TLHUB_CACHE", str(tmp_path))
    found.all()
    assert found._features
    assert all(np.isfinite(values).all() for splits in found._features.values() for values in splits.values())
    assert list(tmp_path.iterdir()) == []
