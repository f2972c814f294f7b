"""Sampling: each class its share, every example of a class alike."""

from __future__ import annotations

import numpy as np
import pytest

from tlhub.data.batches import training_batches
from tlhub.data.sampling import class_sampling, rarest_label

LABELS = np.repeat([0, 1, 2, 4], [64, 16, 4, 1])  # class 3 has no example


@pytest.mark.parametrize(("kind", "quota"), [("balanced", [22, 21, 21, 0, 21]), ("sqrt", [45, 23, 11, 0, 6])])
def test_each_class_has_its_share(kind: str, quota: list[int]) -> None:
    sampling = class_sampling(LABELS, kind, seed=0)
    assert sampling is not None
    assert sampling.quota.tolist() == quota
    order = np.concatenate(training_batches(85, None, 8, seed=0, epoch=0, sampling=sampling))
    assert np.bincount(LABELS[order % 85], minlength=5).tolist() == quota
    drawn = np.bincount(order % 85, minlength=85)
    for number in range(5):
        members = drawn[number == LABELS]
        assert len(members) == 0 or np.ptp(members) <= 1


def test_epochs_differ_and_repeat() -> None:
    sampling = class_sampling(LABELS, "balanced", seed=0)
    epochs = [np.concatenate(training_batches(85, None, 8, seed=0, epoch=epoch, sampling=sampling))
              for epoch in (0, 1, 0)]
    assert np.array_equal(epochs[0], epochs[2])
    assert set(epochs[0]) != set(epochs[1])


def test_nothing_is_sampled_by_default() -> None:
    assert class_sampling(LABELS, "natural", seed=0) is None


def test_what_is_drawn_again_has_a_number_of_its_own() -> None:
    sampling = class_sampling(LABELS, "balanced", seed=0)
    assert sampling is not None
    drawn = sampling.drawn(3)
    assert len(np.unique(drawn)) == 85
    assert (drawn[drawn % 85 == 84] // 85).tolist() == list(range(21))
    assert (drawn[LABELS[drawn % 85] == 0] < 85).all()


def test_lengths_are_those_of_the_examples() -> None:
    sampling = class_sampling(LABELS, "balanced", seed=0)
    lengths = np.arange(85) % 7
    for batch in training_batches(85, lengths, 8, seed=0, epoch=0, sampling=sampling):
        assert (np.diff(lengths[batch % 85]) >= 0).all()


def test_several_labels_count_as_the_rarest() -> None:
    labels = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]], dtype=bool)
    assert rarest_label(labels).tolist() == [2, 1, 0, 3, 2]
    sampling = class_sampling(labels, "balanced", seed=0)
    assert sampling is not None
    assert sampling.quota.sum() == 5
    assert sampling.quota.min() == 1
