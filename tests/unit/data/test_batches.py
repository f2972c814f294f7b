"""Batches: a function of (seed, epoch) over the global index."""

from __future__ import annotations

import numpy as np
import pytest

from tlhub.data.batches import evaluation_batches, micro_batches, share, training_batches

LENGTHS = np.random.default_rng(0).lognormal(3, 0.7, 3000).astype(np.int64) + 1


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_every_example_once_and_the_same_again(lengths: np.ndarray | None) -> None:
    batches = training_batches(3000, lengths, 32, seed=1, epoch=2)
    assert len(batches) == 94
    assert sorted(np.concatenate(batches)) == list(range(3000))
    again = training_batches(3000, lengths, 32, seed=1, epoch=2)
    assert all(np.array_equal(first, second) for first, second in zip(batches, again, strict=True))
    other = training_batches(3000, lengths, 32, seed=1, epoch=3)
    assert not np.array_equal(np.concatenate(batches), np.concatenate(other))


def test_buckets_waste_little_padding() -> None:
    def waste(batches: list[np.ndarray]) -> float:
        padded = sum(LENGTHS[batch].max() * len(batch) for batch in batches)
        return 1 - LENGTHS.sum() / padded

    bucketed = waste(training_batches(3000, LENGTHS, 32, seed=0, epoch=0))
    assert bucketed < 0.05
    assert waste(training_batches(3000, None, 32, seed=0, epoch=0)) > 0.3


def test_shares_and_pieces_cover_a_batch() -> None:
    batch = np.arange(13)
    assert sorted(np.concatenate([share(batch, rank, 3) for rank in range(3)])) == list(range(13))
    assert [len(piece) for piece in micro_batches(batch, 5)] == [5, 5, 3]
    assert [len(piece) for piece in micro_batches(batch, None)] == [13]


def test_evaluation_begins_with_the_longest() -> None:
    batches = evaluation_batches(3000, LENGTHS, 100)
    assert LENGTHS[batches[0]].min() >= LENGTHS[batches[1]].max()
    assert sorted(np.concatenate(batches)) == list(range(3000))
