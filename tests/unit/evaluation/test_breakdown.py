import json

import numpy as np
import pytest
import sklearn.metrics

from tlhub.errors import TlhubError
from tlhub.evaluation.breakdown import breakdown, per_target, recall_of_classes
from tlhub.evaluation.metrics import compute


def test_classes_equal_sklearns_report():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 100)
    logits = random.normal(size=(100, 3)) + np.eye(3)[labels]
    found = breakdown(logits, labels, ["a", "b", "c"])
    expected = sklearn.metrics.classification_report(labels, logits.argmax(axis=1), target_names=list("abc"),
                                                     output_dict=True)
    for name in "abc":
        assert found[name] == pytest.approx({"examples": expected[name]["support"], "f1": expected[name]["f1-score"],
                                             "precision": expected[name]["precision"],
                                             "recall": expected[name]["recall"]})
    assert recall_of_classes(logits, labels).mean() == pytest.approx(
        compute(["recall_macro"], logits, labels)["recall_macro"])


def test_what_there_is_nothing_to_compute_of_is_none():
    # Class 2 is said once and never right, class 3 has one example and is never said, class 4 occurs nowhere.
    logits = np.eye(5)[[0, 0, 2, 0]]
    found = breakdown(logits, np.array([0, 0, 0, 3]), ["a", "b", "c", "d", "e"])
    assert found["a"] == {"examples": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3}
    assert found["c"] == {"examples": 0, "precision": 0.0, "recall": None, "f1": 0.0}
    assert found["d"] == {"examples": 1, "precision": None, "recall": 0.0, "f1": 0.0}
    assert found["e"] == {"examples": 0, "precision": None, "recall": None, "f1": None}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert np.isnan(recall_of_classes(logits, np.array([0, 0, 0, 3]))).tolist() == [False, True, True, False, True]


def test_labels_by_hand():
    logits = np.array([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    labels = np.array([[True, False], [False, True], [True, True]])
    assert breakdown(logits, labels, ["a", "b"]) == {
        "a": {"examples": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5},
        "b": {"examples": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}}
    assert recall_of_classes(logits, labels).tolist() == [0.5, 0.5]


def test_each_target_has_the_scores_of_it_alone():
    random = np.random.default_rng(0)
    labels, noise = random.normal(size=(2, 30, 3))
    values = labels + noise
    found = breakdown(values, labels, ["x", "y", "z"])
    assert list(found) == ["x", "y", "z"]
    names = ["mae", "rmse", "r2", "pearson"]
    assert found["y"] == compute(names, values[:, 1], labels[:, 1])
    for name in names:
        assert compute([name], values, labels)[name] == pytest.approx(np.mean([row[name] for row in found.values()]))


def test_a_single_target_is_not_repeated():
    values = np.arange(4.0)[:, None]
    assert breakdown(values, values, ["x"]) == {}
    assert per_target(values, values, ["x"])["x"]["r2"] == 1.0


def test_values_have_no_recall_and_nan_no_scores():
    with pytest.raises(ValueError, match="float64 are values"):
        recall_of_classes(np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(TlhubError, match="NaN for 1 of 2"):
        per_target(np.array([[0.0], [np.inf]]), np.zeros((2, 1)), ["x"])
