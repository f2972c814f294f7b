from __future__ import annotations

import numpy as np
import pytest

from tlhub.data.splits import allocate, draw, make_splits
from tlhub.errors import DataError

FRACTIONS = [("test", 0.1), ("validation", 0.1)]


def test_allocation_sums_and_is_proportional():
    assert allocate(np.array([70, 20, 10]), 10).tolist() == [7, 2, 1]
    assert allocate(np.array([1, 1, 100]), 50, keep=1).tolist() == [0, 0, 50]
    assert allocate(np.array([2, 2]), 100).tolist() == [2, 2]


def test_splits_are_stratified_disjoint_and_complete():
    labels = np.repeat(["a", "b", "c"], [700, 200, 100])
    parts = make_splits(labels, None, FRACTIONS, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 800, "test": 100, "validation": 100}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1000))
    assert np.unique(labels[parts["test"]], return_counts=True)[1].tolist() == [70, 20, 10]
    again, other = (make_splits(labels, None, FRACTIONS, seed=seed) for seed in (0, 1))
    assert all((parts[name] == again[name]).all() for name in parts)
    assert (parts["test"] != other["test"]).any()


def test_small_classes_stay_in_training():
    labels = np.array(["a"] * 30 + ["rare"])
    assert 30 in make_splits(labels, None, FRACTIONS, seed=3)["train"]
    with pytest.raises(DataError, match="too few"):
        make_splits(np.array(["a", "b"]), None, FRACTIONS, seed=0)
    with pytest.raises(DataError, match=r"validation 1\.5"):
        make_splits(labels, None, [("validation", 1.5)], seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided(seed):
    random = np.random.default_rng(seed)
    groups = random.integers(0, 60, 1000)
    labels = (groups % 3 + (random.random(1000) < 0.3)).astype(str)
    parts = make_splits(labels, groups, FRACTIONS, seed=seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1000))
    sets = [set(groups[part]) for part in parts.values()]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert 60 < len(parts["test"]) < 140
    assert set(labels[parts["train"]]) == set(labels)


def test_few_groups():
    labels = np.array(["a", "b"] * 15)
    parts = make_splits(labels, np.repeat([0, 1, 2], 10), FRACTIONS, seed=0)
    assert sorted(len(part) for part in parts.values()) == [10, 10, 10]
    with pytest.raises(DataError, match="2 groups cannot be divided into train, test, validation"):
        make_splits(labels, np.repeat([0, 1], 15), FRACTIONS, seed=0)
    with pytest.raises(DataError, match="keeps every class"):
        make_splits(np.repeat(["a", "b", "c"], 10), np.repeat([0, 1, 2], 10), FRACTIONS, seed=0)


def test_subset_keeps_proportions_and_every_class():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    chosen = draw(labels, 100, seed=0, purpose="test")
    counts = np.bincount(labels[chosen])
    assert counts.sum() == 100
    assert 85 <= counts[0] <= 90
    assert counts[2] >= 1
    assert np.bincount(labels[draw(labels, 3, seed=0, purpose="test")]).tolist() == [1, 1, 1]
