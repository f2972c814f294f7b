import time

import numpy as np
import pytest

from tlhub.evaluation.intervals import bootstrap_intervals, group_counts, paired_interval
from tlhub.evaluation.metrics import METRICS, compute
from tlhub.evaluation.outcomes import ClassOutcome
from tlhub.seeding import generator

NAMES = ["accuracy", "precision_macro", "recall_macro", "f1_macro", "mcc", "ece", "loss"]


def example(count=300, classes=4, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return random.normal(size=(count, classes)) + np.eye(classes)[labels], labels


def test_intervals_are_those_of_scoring_each_resample():
    logits, labels = example(count=60)
    draws = generator(3, "bootstrap").integers(0, 60, (25, 60), dtype=np.int32)
    scores = [compute(NAMES, logits[draw], labels[draw]) for draw in draws]
    found = bootstrap_intervals(NAMES, logits, labels, resamples=25, seed=3, level=0.9)
    for name in NAMES:
        expected = np.quantile([score[name] for score in scores], [0.05, 0.95])
        assert found[name] == pytest.approx(tuple(expected), abs=1e-12)


def drawn_by_group(groups, resamples, seed):
    names, random = np.unique(groups), generator(seed, "bootstrap")
    for chosen in random.integers(0, len(names), (resamples, len(names))):
        yield np.concatenate([np.flatnonzero(groups == names[one]) for one in chosen])


def test_groups_are_drawn_whole():
    logits, labels = example(count=60)
    groups = np.random.default_rng(1).integers(0, 7, 60).astype(str).astype(object)
    scores = [compute(NAMES, logits[draw], labels[draw]) for draw in drawn_by_group(groups, 25, 3)]
    found = bootstrap_intervals(NAMES, logits, labels, groups=groups, resamples=25, seed=3, level=0.9)
    other = logits[::-1]
    losses = [[compute(["loss"], one[draw], labels[draw])["loss"] for draw in drawn_by_group(groups, 25, 3)]
              for one in (logits, other)]
    for name in NAMES:
        expected = np.quantile([score[name] for score in scores], [0.05, 0.95])
        assert found[name] == pytest.approx(tuple(expected), abs=1e-12)
    assert paired_interval("loss", logits, other, labels, groups=groups, resamples=25, seed=3, level=0.9) \
        == pytest.approx(tuple(np.quantile(np.subtract(*losses), [0.05, 0.95])), abs=1e-12)


def test_groups_of_one_example_are_examples_and_alike_ones_widen_an_interval():
    logits, labels = example(count=40)
    alone = bootstrap_intervals(["accuracy"], logits, labels, resamples=500, seed=0)
    assert bootstrap_intervals(["accuracy"], logits, labels, groups=np.arange(40), resamples=500, seed=0) == alone
    copies = np.repeat(np.arange(40), 9)
    low, high = bootstrap_intervals(["accuracy"], logits[copies], labels[copies], groups=copies, resamples=500,
                                    seed=0)["accuracy"]
    narrow = bootstrap_intervals(["accuracy"], logits[copies], labels[copies], resamples=500, seed=0)["accuracy"]
    assert high - low == pytest.approx(np.diff(alone["accuracy"])[0], rel=0.2)
    assert narrow[1] - narrow[0] < (high - low) / 2


def test_resamples_of_groups_that_lack_a_class_tell_nothing_of_it():
    # Three speakers say the keyword, perfectly told; everything else is by itself.
    labels = np.array([1] * 60 + [0] * 300)
    groups = np.concatenate([np.repeat(np.arange(3), 20), np.arange(3, 303)])
    logits = np.stack([-labels, labels], axis=1) * 2.0
    found = bootstrap_intervals(["average_precision", "f1_macro"], logits, labels, groups=groups, resamples=300, seed=0)
    assert found == {"average_precision": (1.0, 1.0), "f1_macro": (1.0, 1.0)}
    assert group_counts(groups, labels) == {"all": 303, "fewest": 3}


def test_groups_that_cannot_tell_give_no_interval():
    logits, labels = example(count=40)
    for groups in (np.zeros(40), labels):  # one group; a group for each of the four classes
        assert bootstrap_intervals(NAMES, logits, labels, groups=groups, resamples=50, seed=0) == {}
        assert paired_interval("accuracy", logits, -logits, labels, groups=groups, resamples=50, seed=0) is None
    assert group_counts(np.arange(40), labels) is None
    assert group_counts(None, labels) is None
    assert group_counts(labels % 2, labels / 3) == {"all": 2, "fewest": 2}
    with pytest.raises(ValueError, match="3 groups of 40 examples"):
        bootstrap_intervals(["loss"], logits[:, 0], labels / 3, groups=np.array([0, 0, 1]), resamples=5, seed=0)


def test_intervals_of_several_labels_and_targets_are_those_of_scoring_each_resample():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(60, 3))
    draws = generator(3, "bootstrap").integers(0, 60, (25, 60), dtype=np.int32)
    several = ["accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_micro", "ece", "loss"]
    for labels, names in ((random.random((60, 3)) < 0.3, several),
                          (random.normal(size=(60, 3)), ["mae", "rmse", "r2", "pearson", "loss"])):
        scores = [compute(names, outputs[draw], labels[draw]) for draw in draws]
        found = bootstrap_intervals(names, outputs, labels, resamples=25, seed=3, level=0.9)
        assert list(found) == names
        for name in names:
            expected = np.quantile([score[name] for score in scores], [0.05, 0.95])
            assert found[name] == pytest.approx(tuple(expected), abs=1e-12)


def test_accuracy_interval_is_close_to_the_normal_one():
    labels = np.zeros(400, dtype=np.int64)
    logits = np.where(np.arange(400)[:, None] % 5 == 0, [[0.0, 1.0]], [[1.0, 0.0]])
    low, high = bootstrap_intervals(["accuracy"], logits, labels, resamples=4000, seed=0)["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)


def test_values_and_their_metrics():
    random = np.random.default_rng(0)
    labels = random.normal(size=200)
    found = bootstrap_intervals(["rmse", "r2", "accuracy"], labels + random.normal(size=200) / 2, labels,
                                resamples=200, seed=0)
    assert set(found) == {"rmse", "r2"}
    assert found["rmse"][0] < 0.5 < found["rmse"][1]


def test_seed_decides_and_chunks_do_not_matter(monkeypatch):
    logits, labels = example()
    first = bootstrap_intervals(NAMES, logits, labels, resamples=50, seed=1)
    monkeypatch.setattr("tlhub.evaluation.intervals._CHUNK", 7 * 300)
    assert bootstrap_intervals(NAMES, logits, labels, resamples=50, seed=1) == first
    assert bootstrap_intervals(NAMES, logits, labels, resamples=50, seed=2) != first


def test_unknown_metrics_and_no_resamples_give_nothing():
    logits, labels = example()
    assert bootstrap_intervals(["bleu"], logits, labels, resamples=10, seed=0) == {}
    assert bootstrap_intervals(NAMES, logits, labels, resamples=0, seed=0) == {}


def test_every_metric_handles_leading_axes():
    logits, labels = example()
    outcome = ClassOutcome.from_logits(logits, labels).take(np.zeros((2, 3, 300), dtype=np.int64))
    shapes = {METRICS[name].measure(outcome).shape for name in NAMES}
    assert shapes == {(2, 3)}


def test_two_thousand_examples_take_seconds_at_most():
    logits, labels = example(count=2000)
    started = time.process_time()
    bootstrap_intervals(NAMES, logits, labels, resamples=1000, seed=0)
    assert time.process_time() - started < 5


def test_a_paired_interval_is_that_of_the_differences_of_each_resample():
    (one, labels), other = example(count=80), np.random.default_rng(5).normal(size=(80, 4))
    draws = generator(3, "bootstrap").integers(0, 80, (25, 80), dtype=np.int32)
    for name in ("accuracy", "f1_macro", "loss"):
        scores = [compute([name], one[draw], labels[draw])[name] - compute([name], other[draw], labels[draw])[name]
                  for draw in draws]
        found = paired_interval(name, one, other, labels, resamples=25, seed=3, level=0.9)
        assert found == pytest.approx(tuple(np.quantile(scores, [0.05, 0.95])), abs=1e-12)


def test_a_paired_interval_of_the_same_answers_is_nothing_and_narrower_than_of_others():
    logits, labels = example(count=300)
    assert paired_interval("accuracy", logits, logits, labels, resamples=100, seed=0) == (0.0, 0.0)
    near = logits + np.random.default_rng(0).normal(size=logits.shape) / 10
    low, high = paired_interval("accuracy", logits, near, labels, resamples=500, seed=0)
    alone = bootstrap_intervals(["accuracy"], logits, labels, resamples=500, seed=0)["accuracy"]
    assert high - low < (alone[1] - alone[0]) / 2
