"""Losses as sums over examples: what torch's own mean gives, whatever the pieces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (the name that torch's own documentation uses)
from transformers.modeling_outputs import SequenceClassifierOutput

from tlhub.training.objectives import (
    CrossEntropy,
    LabelsCrossEntropy,
    Mixed,
    TargetError,
    balanced_weights,
    log_prior,
    positive_weights,
)

LABELS = np.array([0, 1, 1, 2, 2, 2, 1, 0], dtype=np.int64)
LOGITS = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def output(indices: np.ndarray) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=LOGITS[torch.from_numpy(indices)])


@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 2.0, 1.0])])
def test_the_mean_is_torch_s(weights: np.ndarray | None) -> None:
    objective = CrossEntropy(LABELS, class_weights=weights, label_smoothing=0.0)
    everything = np.arange(8)
    mean = objective.loss(output(everything), everything, 0) / objective.weight(everything, 0)
    given = None if weights is None else torch.from_numpy(weights).float()
    torch.testing.assert_close(mean, F.cross_entropy(LOGITS, torch.from_numpy(LABELS), weight=given))


def test_smoothing_is_torch_s() -> None:
    objective = CrossEntropy(LABELS, class_weights=None, label_smoothing=0.2)
    some = np.array([5, 0, 3])
    expected = F.cross_entropy(LOGITS[some], torch.from_numpy(LABELS[some]), label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(objective.loss(output(some), some, 0), expected)


def test_pieces_add_up_to_the_whole() -> None:
    objective = CrossEntropy(LABELS, class_weights=balanced_weights(LABELS, 4), label_smoothing=0.1)
    everything, pieces = np.arange(8), [np.array([7, 2]), np.array([0, 1, 3]), np.array([4, 5, 6])]
    whole = objective.loss(output(everything), everything, 0)
    torch.testing.assert_close(sum(objective.loss(output(piece), piece, 0) for piece in pieces), whole)
    assert sum(objective.weight(piece, 0) for piece in pieces) == pytest.approx(objective.weight(everything, 0))


def test_half_precision_logits_are_summed_in_float32() -> None:
    objective = CrossEntropy(LABELS, class_weights=None, label_smoothing=0.0)
    half = SequenceClassifierOutput(logits=LOGITS.bfloat16())
    assert objective.loss(half, np.arange(8), 0).dtype == torch.float32


def test_balanced_weights_give_every_class_the_same_share() -> None:
    weights = balanced_weights(LABELS, 4)
    counts = np.bincount(LABELS, minlength=4)
    np.testing.assert_allclose((weights * counts)[:3], 8 / 4)
    assert weights[3] == 1.0


EVERYTHING = np.arange(8)
LABELLED = np.random.default_rng(0).random((8, 4)) < 0.4


def mean(objective: Any, logits: torch.Tensor) -> torch.Tensor:
    return objective.loss(SequenceClassifierOutput(logits=logits), EVERYTHING, 0) / objective.weight(EVERYTHING, 0)


def test_one_logit_is_the_binary_cross_entropy() -> None:
    labels = (LABELS > 1).astype(np.int64)
    expected = F.binary_cross_entropy_with_logits(LOGITS[:, 0], torch.from_numpy(labels).float())
    torch.testing.assert_close(mean(CrossEntropy(labels), LOGITS[:, :1]), expected)


def test_the_focal_loss_is_torchvision_s() -> None:
    from torchvision.ops import sigmoid_focal_loss

    import tlhub  # noqa: F401  (its stand-ins let torchvision import where it does not fit torch)

    expected = sigmoid_focal_loss(LOGITS, torch.from_numpy(LABELLED).float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(mean(LabelsCrossEntropy(LABELLED, focal_gamma=2.0), LOGITS), expected)
    labels = (LABELS > 1).astype(np.int64)
    expected = sigmoid_focal_loss(LOGITS[:, 0], torch.from_numpy(labels).float(), alpha=-1, gamma=1.5, reduction="mean")
    torch.testing.assert_close(mean(CrossEntropy(labels, focal_gamma=1.5), LOGITS[:, :1]), expected)


def test_logit_adjustment_shifts_the_logits_by_the_log_prior() -> None:
    prior = log_prior(LABELS, 4)
    counts = np.bincount(LABELS, minlength=4) + 1  # one class has no example
    np.testing.assert_allclose(np.exp(prior), counts / counts.sum())
    expected = F.cross_entropy(LOGITS + 1.5 * torch.from_numpy(prior).float(), torch.from_numpy(LABELS))
    torch.testing.assert_close(mean(CrossEntropy(LABELS, prior=1.5 * prior), LOGITS), expected)


def test_several_labels_are_torch_s_binary_cross_entropy() -> None:
    targets = torch.from_numpy(LABELLED).float()
    torch.testing.assert_close(mean(LabelsCrossEntropy(LABELLED), LOGITS),
                               F.binary_cross_entropy_with_logits(LOGITS, targets))
    weights = positive_weights(LABELLED)
    np.testing.assert_allclose(weights * LABELLED.sum(0), 8 - LABELLED.sum(0))
    torch.testing.assert_close(
        mean(LabelsCrossEntropy(LABELLED, positive_weights=weights), LOGITS),
        F.binary_cross_entropy_with_logits(LOGITS, targets, pos_weight=torch.from_numpy(weights).float()))


def test_values_are_torch_s_errors() -> None:
    targets = np.random.default_rng(1).normal(size=(8, 4))
    values = torch.from_numpy(targets).float()
    torch.testing.assert_close(mean(TargetError(targets), LOGITS), F.mse_loss(LOGITS, values))
    torch.testing.assert_close(mean(TargetError(targets, huber_delta=0.3), LOGITS),
                               F.huber_loss(LOGITS, values, delta=0.3))


class Pairs:
    """Mixes each example with the next one in odd epochs."""

    def draw(self, epoch: int, indices: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(partners=(indices + epoch) % 8, kept=0.25 + indices / 16)


def test_mixed_examples_aim_at_mixed_targets() -> None:
    """By soft targets, which torch's cross-entropy takes; the partner depends on the epoch."""
    mixed = Mixed(CrossEntropy(LABELS, label_smoothing=0.1), Pairs())
    for epoch in (0, 1):
        kept = torch.from_numpy(0.25 + EVERYTHING / 16).float()[:, None]
        own = F.one_hot(torch.from_numpy(LABELS), 4).float()
        soft = kept * own + (1 - kept) * own.roll(-epoch, 0)
        expected = F.cross_entropy(LOGITS, soft, label_smoothing=0.1, reduction="sum")
        found = mixed.loss(SequenceClassifierOutput(logits=LOGITS), EVERYTHING, epoch)
        torch.testing.assert_close(found, expected)
        assert mixed.weight(EVERYTHING, epoch) == pytest.approx(8)


def test_mixed_weights_are_those_of_both_examples() -> None:
    weights = balanced_weights(LABELS, 4)
    mixed = Mixed(CrossEntropy(LABELS, class_weights=weights), Pairs())
    kept = 0.25 + EVERYTHING / 16
    expected = (kept * weights[LABELS] + (1 - kept) * weights[np.roll(LABELS, -1)]).sum()
    assert mixed.weight(EVERYTHING, 1) == pytest.approx(expected)


def test_right_answers_are_counted() -> None:
    whole = SequenceClassifierOutput(logits=LOGITS)
    expected = int((LOGITS.argmax(1) == torch.from_numpy(LABELS)).sum())
    assert int(CrossEntropy(LABELS).right(whole, EVERYTHING)) == expected
    two = (LABELS > 1).astype(np.int64)
    single = SequenceClassifierOutput(logits=LOGITS[:, :1])
    assert int(CrossEntropy(two).right(single, EVERYTHING)) == int(((LOGITS[:, 0] > 0).numpy() == two).sum())
    assert torch.isnan(TargetError(np.zeros((8, 4))).right(whole, EVERYTHING))
    assert torch.isnan(Mixed(CrossEntropy(LABELS), Pairs()).right(whole, EVERYTHING))


def test_what_is_drawn_again_counts_as_its_example() -> None:
    weights = balanced_weights(LABELS, 4)
    objective = CrossEntropy(LABELS, class_weights=weights)
    once, again = np.array([1, 3]), np.array([9, 19])
    said = output(once)
    torch.testing.assert_close(objective.loss(said, again, 0), objective.loss(said, once, 0))
    assert objective.weight(again, 0) == objective.weight(once, 0)
    assert objective.right(said, again) == objective.right(said, once)

    class Mixing:
        def draw(self, epoch: int, indices: np.ndarray) -> SimpleNamespace:
            return SimpleNamespace(partners=indices[::-1], kept=np.full(len(indices), 0.25))

    mixed = Mixed(objective, Mixing())
    torch.testing.assert_close(mixed.loss(said, again, 0), mixed.loss(said, once, 0))
    assert mixed.weight(again, 0) == mixed.weight(once, 0)
