"""What a fine-tuned model has to beat: always the same answer, and neighbours among frozen features.

The type of the labels says what they are: classes (int64, shape (n,)), several labels (bool, shape (n, c)) or values
(float64, shape (n, t)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from tlhub.data.batches import Inputs
from tlhub.evaluation.metrics import compute
from tlhub.evaluation.scores import Scores

_EXAMPLES = 256
"""Texts looked at a time."""
_CHUNK = 32_000_000
"""Similarities held at a time."""


def majority(train_labels: np.ndarray, test_labels: np.ndarray, names: Sequence[str], classes: int) -> Scores:
    """Score the prediction that says the training data's most frequent class, with the classes' frequencies as odds.

    Of several labels it says those that most training examples have. Frequencies are smoothed by one example a class,
    or one with and one without each label, so that what training lacks costs a finite loss.

    Args:
        train_labels: Classes, int64, shape (m,), or several labels, bool, shape (m, c).
        test_labels: The same for n examples.
        names: Metrics by name.
        classes: The number of classes or labels c.

    Returns:
        Plain numbers by metric.
    """
    if train_labels.dtype == np.bool_:
        present = train_labels.sum(axis=0)
        logits = np.log((present + 1.0) / (len(train_labels) - present + 1.0))
    else:
        counts = np.bincount(train_labels, minlength=classes) + 1.0
        logits = np.log(counts / counts.sum())
    return compute(names, np.tile(logits, (len(test_labels), 1)), test_labels)


def mean(train_labels: np.ndarray, test_labels: np.ndarray, names: Sequence[str]) -> Scores:
    """Score the prediction that says the mean of the training data.

    Args:
        train_labels: Values, float64, shape (m, t).
        test_labels: Values, float64, shape (n, t).
        names: Metrics by name.

    Returns:
        Plain numbers by metric.
    """
    return compute(names, np.tile(train_labels.mean(axis=0), (len(test_labels), 1)), test_labels)


def unigram(train: Inputs, scored: Inputs, names: Sequence[str]) -> Scores:
    """Score the prediction of every token by how often it occurs in the training data, whatever comes before it.

    Frequencies are smoothed by one for each token up to the last in the vocabulary that occurs at all.

    Args:
        train: Texts as tokens; their batches have `targets` and `owners`.
        scored: The same for n examples.
        names: Metrics by name.

    Returns:
        Plain numbers by metric.
    """
    learned = [targets for targets, _ in _targets(train)]
    asked = list(_targets(scored))
    size = 1 + max(int(tokens.max(initial=0)) for tokens in (*learned, *(tokens for tokens, _ in asked)))
    counts = np.bincount(np.concatenate(learned), minlength=size) + 1.0
    losses = -np.log(counts / counts.sum())
    sums = [np.stack([np.bincount(owners, values[tokens], minlength=len(part))
                      for values in (losses, np.arange(size) == counts.argmax())], axis=1)
            for (tokens, owners), part in zip(asked, _parts(scored), strict=True)]
    return compute(names, np.concatenate(sums), scored.labels)


def _parts(inputs: Inputs) -> list[np.ndarray]:
    return [np.arange(start, min(start + _EXAMPLES, len(inputs))) for start in range(0, len(inputs), _EXAMPLES)]


def _targets(inputs: Inputs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the tokens that are to be predicted, and the example that each belongs to, of one part after the other."""
    for part in _parts(inputs):
        batch = inputs.batch(part, None, torch.device("cpu"))
        there = batch["targets"] >= 0
        yield batch["targets"][there].numpy(), batch["owners"][there].numpy()


def knn(train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, labels: np.ndarray,
        names: Sequence[str], *, k: int = 5) -> Scores:
    """Score the answer of the k nearest training examples by cosine similarity.

    For classes it is their majority, for several labels the majority about each label, for values their mean. Of
    answers with equally many votes the one that is closer in sum wins. The odds are those of the votes, and of one more
    that is spread evenly.

    Args:
        train_features: float32, shape (m, d).
        train_labels: Of any kind, for m examples.
        features: float32, shape (n, d).
        labels: Of the same kind, for n examples.
        names: Metrics by name.
        k: Neighbours asked; at most m.

    Returns:
        Plain numbers by metric.
    """
    return compute(names, knn_outputs(train_features, train_labels, features, k=k,
                                      classes=1 + int(max(train_labels.max(), labels.max()))), labels)


def knn_outputs(bank: np.ndarray, labels: np.ndarray, queries: np.ndarray | None = None, *, classes: int,
                k: int = 5, groups: np.ndarray | None = None) -> np.ndarray:
    """Return what the k nearest examples by cosine similarity answer, as `knn` scores it.

    Args:
        bank: Features of the examples that are asked, float32, shape (m, d).
        labels: Of any kind, for m examples.
        queries: Features of the examples to be answered, float32, shape (n, d); None for those of the bank, each
            answered by the others.
        classes: The number of classes; of no meaning for labels of other kinds.
        k: Neighbours asked; at most m.
        groups: Of the bank's examples, shape (m,), where they answer each other and none of the same group may; None
            for each by itself.

    Returns:
        Odds of classes or labels, or values, float32 or float64, shape (n, c).
    """
    asked, others = _unit(bank), queries is None
    wanted = asked if queries is None else _unit(queries)
    answers = torch.from_numpy(np.asarray(labels))
    width = labels.shape[1] if labels.ndim > 1 else classes
    members = torch.from_numpy(np.unique(np.arange(len(asked)) if groups is None else groups, return_inverse=True)[1])
    count = min(k, len(asked) - (int(members.bincount().max()) if others else 0))
    outputs = []
    step = max(1, _CHUNK // max(len(asked), k * width))
    for start in range(0, len(wanted), step):
        similarity = wanted[start:start + step] @ asked.T
        if others:
            similarity[members[start:start + step, None] == members] = -torch.inf
        similarity, nearest = similarity.topk(count, dim=1)
        # Similarities lie in [-1, 1]: their sum stays below one vote, so it only decides between equal votes.
        outputs.append(_poll(answers[nearest], 1 + similarity / (4 * k), width))
    joined: np.ndarray = torch.cat(outputs).numpy()
    return joined


def _poll(answers: torch.Tensor, weights: torch.Tensor, classes: int) -> torch.Tensor:
    """Return logits or values, shape (b, c), for the answers of k neighbours, (b, k) or (b, k, c); weights (b, k)."""
    if answers.is_floating_point():
        return answers.mean(dim=1)
    if answers.dtype == torch.bool:
        present = (weights[:, :, None] * answers).sum(dim=1)
        return torch.log((present + 0.5) / (weights.sum(dim=1, keepdim=True) - present + 0.5))
    votes = torch.zeros(len(answers), classes).scatter_add_(1, answers, weights)
    return torch.log(votes + 1 / classes)


def _unit(features: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(np.array(features, dtype=np.float32)), dim=1)
