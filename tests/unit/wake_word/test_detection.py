"""The curve, the threshold and the rates, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tlhub.evaluation.metrics import compute
from tlhub.wake_word.detection import Threshold, det_curve, find_threshold, rates


def example(others=200, keywords=40, seed=0, digits=None):
    random = np.random.default_rng(seed)
    wanted = np.repeat([False, True], [others, keywords])
    scores = random.normal(size=others + keywords) + 2 * wanted
    return scores if digits is None else np.round(scores, digits), wanted


@pytest.mark.parametrize("digits", [None, 0])
def test_the_curve_counts_at_every_distinct_score(digits):
    scores, wanted = example(digits=digits)
    curve = det_curve(scores, wanted)
    assert curve.thresholds.tolist() == [np.inf, *sorted(set(scores), reverse=True)]
    for threshold, false_accepts, misses in zip(curve.thresholds, curve.false_accepts, curve.misses, strict=True):
        assert false_accepts == (scores[~wanted] >= threshold).sum()
        assert misses == (scores[wanted] < threshold).sum()
    assert (curve.false_accepts[0], curve.misses[0]) == (0, 40)
    assert (curve.false_accepts[-1], curve.misses[-1]) == (200, 0)
    assert (curve.negatives, curve.positives) == (200, 40)


def test_the_curve_of_nothing_is_the_point_where_nothing_is_accepted():
    curve = det_curve(np.zeros(0), np.zeros(0, dtype=bool))
    assert (curve.thresholds.tolist(), curve.false_accepts.tolist(), curve.misses.tolist()) == ([np.inf], [0], [0])


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("rate", [0.005, 0.01, 0.05, 0.29, 0.999])
def test_the_threshold_is_the_lowest_that_keeps_to_the_rate(rate, digits):
    scores, wanted = example(digits=digits)
    found = find_threshold(scores, wanted, rate)
    assert found.note is None
    assert (scores[~wanted] >= found.log_odds).mean() <= rate + 1e-9
    lower = scores[scores < found.log_odds].max()
    assert (scores[~wanted] >= lower).mean() > rate


def test_the_threshold_gives_the_miss_rate_that_metrics_tell():
    scores, wanted = example()
    logits = np.stack([np.zeros(240), scores], axis=1)
    told = compute(["miss_rate_at_fa_rate"], logits, wanted.astype(np.int64))["miss_rate_at_fa_rate"]
    for rate in (0.01, 0.05):
        found = find_threshold(scores, wanted, rate)
        assert rates(scores >= found.log_odds, wanted)["miss_rate"] == told[f"{rate:g}"]


def test_rounding_does_not_move_a_clip_over_the_threshold():
    scores, wanted = example()
    found = find_threshold(scores, wanted, 0.05)
    accepted = scores >= found.log_odds
    gap = np.abs(scores - found.log_odds).min()
    assert gap > 0
    assert ((scores.astype(np.float32) + 0.4 * gap >= found.log_odds) == accepted).all()


def test_equal_scores_are_accepted_together_or_not_at_all():
    scores, wanted = np.repeat([1.0, 2.0, 3.0], [150, 50, 20]), np.repeat([False, True, False, True], [150, 20, 30, 20])
    found = find_threshold(scores, wanted, 0.05)
    assert 2.0 < found.log_odds < 3.0
    assert rates(scores >= found.log_odds, wanted)["false_accepts"] == 0
    assert rates(scores >= found.log_odds, wanted)["misses"] == 20


@pytest.mark.parametrize(("others", "enough"), [(19, False), (20, True), (99, False), (100, True)])
def test_too_few_other_clips_are_told(others, enough):
    rate = 0.05 if others < 50 else 0.01
    scores, wanted = example(others=others)
    found = find_threshold(scores, wanted, rate)
    assert (found.note is None) == enough
    assert (scores[~wanted] >= found.log_odds).sum() == int(enough)
    if not enough:
        assert f"the {others} other clips of validation are too few to tell a false-accept rate of {rate:g}, which " \
               f"takes {round(1 / rate)}" in str(found.note)


def test_no_keyword_above_the_others_leaves_the_threshold_just_above_them():
    for scale in (1.0, 1e6, -1.0):
        scores, wanted = scale * np.array([3.0, 3.0, 3.0]), np.array([False, False, True])
        found = find_threshold(scores, wanted, 0.01)
        assert scores[0] < found.log_odds < scores[0] + 1e-5 * abs(scores[0])


def test_empty_sides():
    scores = np.linspace(-1, 1, 200)
    nothing_else = find_threshold(scores, np.ones(200, dtype=bool), 0.01)
    assert (nothing_else.probability, "no other clip" in str(nothing_else.note)) == (0.5, True)
    no_keyword = find_threshold(scores, np.zeros(200, dtype=bool), 0.01)
    assert (scores >= no_keyword.log_odds).sum() == 2
    found = rates(scores >= no_keyword.log_odds, np.zeros(200, dtype=bool))
    assert (found["positives"], found["miss_rate"], found["miss_rate_interval"]) == (0, None, None)
    assert found["false_accept_rate"] == 0.01


def test_rates_and_their_intervals():
    wanted = np.repeat([True, False], [100, 50])
    accepted = np.concatenate([np.ones(100), np.zeros(45), np.ones(5)]).astype(bool)
    found = rates(accepted, wanted)
    assert {name: found[name] for name in ("positives", "misses", "negatives", "false_accepts")} == {
        "positives": 100, "misses": 0, "negatives": 50, "false_accepts": 5}
    assert found["miss_rate_interval"] == pytest.approx([0, 0.037], abs=1e-4)
    assert found["false_accept_rate_interval"] == pytest.approx([0.0435, 0.2136], abs=1e-4)


@pytest.mark.parametrize("log_odds", [-800.0, -2.0, 0.0, 3.0, 800.0, np.inf])
def test_the_threshold_as_a_probability(log_odds):
    with np.errstate(over="ignore"):
        assert Threshold(log_odds).probability == pytest.approx(1 / (1 + np.exp(-log_odds)))
