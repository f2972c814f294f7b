import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tlhub.evaluation.baselines import knn, majority


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
    assert knn(train, train_labels, test, labels, k=1) == peer
    whole = knn(train, train_labels, test, labels)
    monkeypatch.setattr("tlhub.evaluation.baselines._CHUNK", 7 * 90)
    assert knn(train, train_labels, test, labels) == whole


def test_knn_counts_votes_before_closeness():
    angles = np.array([0.0, 0.5, 0.6, 0.7, 3.0])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    assert knn(train, np.array([0, 1, 1, 0, 0]), query, np.array([1]), k=3) == 1.0
    # Two votes each: class 0 is closer in sum.
    assert knn(train, np.array([0, 1, 1, 0, 1]), query, np.array([0]), k=4) == 1.0


def test_knn_ignores_the_length_of_features():
    train = np.array([[1, 0], [0, 1]], dtype=np.float32)
    features = np.array([[100, 1], [0.001, 0.01]], dtype=np.float32)
    assert knn(train, np.array([0, 1]), features, np.array([0, 1]), k=1) == 1.0
