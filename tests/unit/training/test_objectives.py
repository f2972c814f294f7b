"""Losses as sums over examples: what torch's own mean gives, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)
from transformers.modeling_outputs import SequenceClassifierOutput

from tlhub.training.objectives import CrossEntropy, balanced_weights

LABELS = np.array([0, 1, 1, 2, 2, 2, 1, 0], dtype=np.int64)
LOGITS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def output(indices: np.ndarray) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=LOGITS[torch.from_numpy(indices)])


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 1.0])])
def test_the_mean_is_torch_s(weights: np.ndarray | None) -> None:
    objective = CrossEntropy(LABELS, class_weights=weights, label_smoothing=0.0)
    everything = np.arange(8)
    mean = objective.loss(output(everything), everything) / objective.weight(everything)
    given = None if weights is None else torch.from_numpy(weights).float()
    torch.testing.assert_close(mean, F.cross_entropy(LOGITS, torch.from_numpy(LABELS), weight=given))


def test_smoothing_is_torch_s() -> None:
    objective = CrossEntropy(LABELS, class_weights=None, label_smoothing=0.2)
    some = np.array([5, 0, 3])
    expected = F.cross_entropy(LOGITS[some], torch.from_numpy(LABELS[some]), label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(objective.loss(output(some), some), expected)


def test_pieces_add_up_to_the_whole() -> None:
    objective = CrossEntropy(LABELS, class_weights=balanced_weights(LABELS, 4), label_smoothing=0.1)
    everything, pieces = np.arange(8), [np.array([7, 2]), np.array([0, 1, 3]), np.array([4, 5, 6])]
    whole = objective.loss(output(everything), everything)
    torch.testing.assert_close(sum(objective.loss(output(piece), piece) for piece in pieces), whole)
    assert sum(objective.weight(piece) for piece in pieces) == pytest.approx(objective.weight(everything))


def test_half_precision_logits_are_summed_in_float32() -> None:
    objective = CrossEntropy(LABELS, class_weights=None, label_smoothing=0.0)
    half = SequenceClassifierOutput(logits=LOGITS.bfloat16())
    assert objective.loss(half, np.arange(8)).dtype == torch.float32


def test_balanced_weights_give_every_class_the_same_share() -> None:
    weights = balanced_weights(LABELS, 4)
    counts = np.bincount(LABELS, minlength=4)
    np.testing.assert_allclose((weights * counts)[:3], 8 / 4)
    assert weights[3] == 1.0
