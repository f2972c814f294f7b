"""Finding all classes but the first: average precision, and what is missed at a rate of false accepts."""

import numpy as np
import pytest
import sklearn.metrics

from tlhub.evaluation.intervals import bootstrap_intervals, wilson
from tlhub.evaluation.metrics import METRICS, compute, direction, load_metric
from tlhub.evaluation.outcomes import ClassOutcome, log_odds
from tlhub.seeding import generator

NAME = "miss_rate_at_fa_rate"


def example(others=300, keywords=60, classes=2, seed=0, digits=None):
    """Return logits whose odds overlap, rounded so that some are equal, and labels."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(others, np.int64), random.integers(1, classes, keywords)])
    logits = random.normal(size=(others + keywords, classes)) + 1.5 * np.eye(classes)[labels]
    return logits if digits is None else np.round(logits, digits), labels


def by_trying(logits, labels, rate):
    """Return the least share missed over every threshold that keeps to the rate."""
    scores = log_odds(logits)
    negatives, positives = scores[labels == 0], scores[labels > 0]
    return min((positives < threshold).mean() for threshold in [*scores, np.inf]
               if (negatives >= threshold).mean() <= rate + 1e-9)


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("classes", [2, 4])
def test_miss_rates_are_the_least_that_keep_to_the_rate(classes, digits):
    logits, labels = example(classes=classes, digits=digits)
    found = compute([NAME], logits, labels)[NAME]
    assert found == pytest.approx({part: by_trying(logits, labels, float(part)) for part in ("0.01", "0.05")})
    assert found["0.01"] >= found["0.05"]


def test_log_odds_are_of_any_class_but_the_first():
    logits, _ = example(classes=4)
    chance = 1 - np.exp(logits[:, 0]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(log_odds(logits), np.log(chance / (1 - chance)))


@pytest.mark.parametrize(("others", "told"), [(19, []), (20, ["0.05"]), (99, ["0.05"]), (100, ["0.01", "0.05"])])
def test_a_rate_needs_as_many_others_as_make_one_false_accept(others, told):
    logits, labels = example(others=others)
    found = compute([NAME], logits, labels)[NAME]
    assert [part for part, value in found.items() if value is not None] == told
    intervals = bootstrap_intervals([NAME], logits, labels, resamples=20, seed=0)[NAME]
    assert [part for part, interval in intervals.items() if interval is not None] == told


@pytest.mark.filterwarnings("error")
def test_one_side_alone_tells_nothing():
    logits, _ = example()
    for labels in (np.zeros(360, np.int64), np.ones(360, np.int64)):
        assert compute([NAME], logits, labels) == {NAME: {"0.01": None, "0.05": None}}
        assert bootstrap_intervals([NAME], logits, labels, resamples=5, seed=0) == {NAME: {"0.01": None, "0.05": None}}
    assert compute(["average_precision"], logits, np.zeros(360, np.int64)) == {"average_precision": 0.0}


def test_the_same_answer_to_all_finds_nothing():
    """All scores are equal, so accepting one accepts all: no threshold keeps to a rate but the one that misses all."""
    labels = np.repeat([0, 1], [200, 20])
    scores = compute([NAME, "average_precision"], np.zeros((220, 2)), labels)
    assert scores == {NAME: {"0.01": 1.0, "0.05": 1.0}, "average_precision": pytest.approx(20 / 220)}


def test_certain_logits_are_still_told_apart():
    """Probabilities are 1 from log odds of 37 on; here they are 50 for others and 60 for keywords."""
    labels = np.repeat([0, 1], [100, 10])
    logits = np.stack([np.zeros(110), np.where(labels > 0, 60.0, 50.0)], axis=1)
    assert compute([NAME], logits, labels) == {NAME: {"0.01": 0.0, "0.05": 0.0}}


@pytest.mark.parametrize("digits", [None, 0])
def test_average_precision_equals_sklearn(digits):
    for classes in (2, 3):
        logits, labels = example(classes=classes, digits=digits)
        expected = sklearn.metrics.average_precision_score(labels > 0, log_odds(logits))
        assert compute(["average_precision"], logits, labels) == {"average_precision": pytest.approx(expected)}


def test_intervals_of_parts_are_those_of_scoring_each_resample():
    names = [NAME, "average_precision"]
    logits, labels = example(others=150, keywords=30)
    draws = generator(3, "bootstrap").integers(0, 180, (25, 180), dtype=np.int32)
    found = bootstrap_intervals(names, logits, labels, resamples=25, seed=3, level=0.9)
    for part in ("0.01", "0.05"):
        scores = [by_trying(logits[draw], labels[draw], float(part)) for draw in draws]
        assert found[NAME][part] == pytest.approx(tuple(np.quantile(scores, [0.05, 0.95])))
    shapes = {METRICS[name].measure(ClassOutcome.from_logits(logits, labels).take(draws.reshape(5, 5, 180))).shape
              for name in names}
    assert shapes == {(5, 5, 2), (5, 5)}


def test_the_module_of_evaluate_gives_the_same():
    logits, labels = example(classes=3)
    found = load_metric(NAME).compute(predictions=logits, references=labels)
    assert found == compute([NAME], logits, labels)
    assert [direction(name) for name in (NAME, f"{NAME}/0.01", "average_precision")] == [-1, -1, 1]


@pytest.mark.parametrize(("count", "total", "low", "high"), [
    (0, 100, 0.0, 0.0370), (100, 100, 0.9630, 1.0), (3, 10, 0.1078, 0.6032), (50, 1000, 0.0381, 0.0653)])
def test_wilson_s_interval(count, total, low, high):
    assert wilson(count, total) == pytest.approx((low, high), abs=1e-4)
    assert wilson(0, 0) is None
