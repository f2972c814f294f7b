import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from tlhub.evaluation.baselines import knn, majority, mean


def accuracy(*arrays, **choices):
    return knn(*arrays, ["accuracy"], **choices)["accuracy"]


def test_majority_by_hand():
    scores = majority(np.array([1, 1, 1, 0]), np.array([1, 1, 0, 2]), ["accuracy", "recall_macro", "loss"], 3)
    # Smoothed frequencies of the three classes: 2/7, 4/7, 1/7.
    loss = -(2 * np.log(4 / 7) + np.log(2 / 7) + np.log(1 / 7)) / 4
    assert scores == pytest.approx({"accuracy": 0.5, "recall_macro": 1 / 3, "loss": loss})


def test_knn_equals_sklearn(monkeypatch):
    random = np.random.default_rng(0)
    train_labels, labels = random.integers(0, 3, 90), random.integers(0, 3, 40)
    centres = random.normal(size=(3, 8))
    train = (centres[train_labels] + random.normal(size=(90, 8))).astype(np.float32)
    test = (centres[labels] + random.normal(size=(40, 8))).astype(np.float32)
    # With k=1 there are no ties, which the two resolve differently.
    peer = KNeighborsClassifier(1, metric="cosine").fit(train, train_labels).score(test, labels)
    assert accuracy(train, train_labels, test, labels, k=1) == peer
    whole = accuracy(train, train_labels, test, labels)
    monkeypatch.setattr("tlhub.evaluation.baselines._CHUNK", 7 * 90)
    assert accuracy(train, train_labels, test, labels) == whole


def test_knn_counts_votes_before_closeness():
    angles = np.array([0.0, 0.5, 0.6, 0.7, 3.0])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    assert accuracy(train, np.array([0, 1, 1, 0, 0]), query, np.array([1]), k=3) == 1.0
    # Two votes each: class 0 is closer in sum.
    assert accuracy(train, np.array([0, 1, 1, 0, 1]), query, np.array([0]), k=4) == 1.0


def test_knn_ignores_the_length_of_features():
    train = np.array([[1, 0], [0, 1]], dtype=np.float32)
    features = np.array([[100, 1], [0.001, 0.01]], dtype=np.float32)
    assert accuracy(train, np.array([0, 1]), features, np.array([0, 1]), k=1) == 1.0


def test_knn_of_classes_by_hand():
    train = np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
    scores = knn(train, np.array([0, 0, 2]), train[:1], np.array([0]), ["accuracy", "loss"], k=3)
    # Votes of nearly 2, 0 and 1, weighted by up to a twelfth more, and a third of a vote for each of the classes.
    cosines = np.array([1, 1 / np.sqrt(1.01), 0])
    votes = np.array([(1 + cosines[:2] / 12).sum(), 0, 1]) + 1 / 3
    assert scores == pytest.approx({"accuracy": 1.0, "loss": -np.log(votes[0] / votes.sum())}, abs=1e-6)


def test_a_class_that_training_lacks_is_missed():
    train = np.eye(2, dtype=np.float32)
    assert accuracy(train, np.array([0, 1]), train, np.array([0, 2]), k=1) == 0.5
    assert accuracy(train, np.array([0, 3]), train, np.array([0, 2]), k=1) == 0.5


def test_majority_of_several_labels_by_hand():
    train = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    test = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    scores = majority(train, test, ["accuracy", "loss"], 3)
    # Smoothed odds: 4 to 2, 2 to 4, 2 to 4.
    assert scores["accuracy"] == 0.5
    assert scores["loss"] == pytest.approx((5 * -np.log(2 / 3) - np.log(1 / 3)) / 6)


def test_the_mean_of_training_is_said_of_every_test_example():
    train = np.array([[0.0, 10.0], [2.0, 30.0]])
    test = np.array([[1.0, 20.0], [4.0, 26.0]])
    assert mean(train[:, :1], test[:, :1], ["mae", "r2"]) == pytest.approx({"mae": 1.5, "r2": 1 - 9 / 4.5})
    assert mean(train, test, ["mae"]) == pytest.approx({"mae": (1.5 + 3) / 2})


def test_knn_gives_the_mean_of_neighbours_values_as_sklearn_does():
    random = np.random.default_rng(0)
    train, test = (random.normal(size=(count, 8)).astype(np.float32) for count in (60, 20))
    train_values, values = (data[:, :2].astype(np.float64) * [1, 50] + 7 for data in (train, test))
    peer = KNeighborsRegressor(5, metric="cosine").fit(train, train_values).predict(test)
    scores = knn(train, train_values, test, values, ["mae", "r2"])
    assert scores["mae"] == pytest.approx(np.abs(peer - values).mean())
    assert scores["r2"] > mean(train_values, values, ["r2"])["r2"] + 0.2


def test_knn_votes_on_each_label_by_itself():
    random = np.random.default_rng(0)
    train, test = (random.normal(size=(count, 6)).astype(np.float32) for count in (80, 30))
    train_labels, labels = (data[:, :3] > 0 for data in (train, test))
    peer = KNeighborsClassifier(5, metric="cosine").fit(train, train_labels).predict(test)
    scores = knn(train, train_labels, test, labels, ["accuracy", "f1_micro"])
    assert scores["accuracy"] == pytest.approx((peer == labels).all(axis=1).mean())
    assert scores["accuracy"] > majority(train_labels, labels, ["accuracy"], 3)["accuracy"]
