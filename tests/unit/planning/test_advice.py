import pytest

from tlhub.config import RunConfig, replace
from tlhub.planning.advice import Situation, advise
from tlhub.planning.estimates import Cost

USUAL = {"modality": "image", "examples": 1000, "rarest": 80, "imbalance": 1.2, "score": 0.8, "standard_error": 0.012,
         "kinds": {"native": 0.8, "layer_mean": 0.79}, "half": 0.75, "masked": False, "parameters": 4_000_000,
         "tokens": 0, "adapter": 60_000}
COSTS = [Cost(name, 10, seconds=1.0) for name in ("linear_probe", "last_k", "lora", "full", "lp_ft")]


def situation(**changes):
    return Situation(**{**USUAL, **changes})


@pytest.mark.parametrize(("changes", "strategies", "words"), [
    ({}, ("lora", "full"), "1,000 examples"),
    ({"rarest": 2}, ("linear_probe", ""), "2 of the rarest class"),
    ({"score": 0.97, "half": 0.965}, ("linear_probe", "lp_ft"), "the second half of the examples added +0.005"),
    ({"score": 1.0, "half": 1.0, "standard_error": 0.0}, ("linear_probe", "lp_ft"), "already give 1.000"),
    ({"score": 0.97, "half": 0.93}, ("lora", "full"), "1,000 examples"),
    ({"masked": True}, ("full", "lora"), "hidden parts"),
    ({"masked": True, "modality": "text"}, ("lora", "full"), "1,000 examples"),
    ({"kinds": {"native": 0.7, "mean": 0.76, "layer_mean": 0.8}}, ("lora", "full"), "+0.040 better than the last one"),
    ({"modality": "text", "rarest": 16}, ("linear_probe", "lora"), "16 texts"),
    ({"modality": "text", "rarest": None}, ("lora", "full"), "1,000 examples"),
    ({"examples": 20_000}, ("full", "lora"), "20,000 examples"),
    ({"modality": "corpus", "tokens": 50_000, "kinds": {}, "half": None}, ("lora", "full"), "50,000 tokens are fewer"),
    ({"modality": "corpus", "tokens": 500_000, "kinds": {}, "half": None}, ("full", "lora"), "4.0 million"),
    ({"modality": "corpus", "tokens": 10**9, "parameters": 10**9, "kinds": {}, "half": None}, ("lora", "full"),
     "1,000 million"),
])
def test_each_rule_decides_where_it_applies(changes, strategies, words):
    found = advise(situation(**changes), COSTS, RunConfig())
    assert (found.strategy, found.also) == strategies
    assert words in found.reason


def test_what_does_not_fit_is_not_advised():
    costs = [Cost("full", fits=False, reason="memory does not suffice"), Cost("lora", 10, seconds=1.0, micro_batch=4)]
    found = advise(situation(examples=30_000), costs, RunConfig())
    assert (found.strategy, found.also, found.options) == ("lora", "", {"train.micro_batch_size": "4"})
    assert "full cannot be had here (memory does not suffice)" in found.reason
    neither = [Cost("linear_probe", 5, seconds=1.0), *(Cost(name, reason="no") for name in ("lora", "full"))]
    assert advise(situation(), neither, RunConfig()).strategy == "linear_probe"


def test_rare_classes_are_told_of():
    config = RunConfig()
    assert "--train.logit_adjustment 1" in advise(situation(imbalance=12.0), COSTS, config).reason
    assert "adjustment" not in advise(situation(imbalance=9.0), COSTS, config).reason
    for balanced in ({"train.logit_adjustment": 1.0}, {"train.class_weights": "balanced"},
                     {"train.sampling": "balanced"}, {"train.sampling": "sqrt"}):
        assert "adjustment" not in advise(situation(imbalance=12.0), COSTS, replace(config, balanced)).reason
    unbalanced = replace(config, {"train.class_weights": "none"})
    assert "--train.logit_adjustment 1" in advise(situation(imbalance=12.0), COSTS, unbalanced).reason
