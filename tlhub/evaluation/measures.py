"""What each metric computes of an outcome: the same functions for one sample and for many resamples.

Shapes: n examples, c classes or labels, t targets, and `...` for any leading axes (none for a score, the resamples for
an interval). Every measure returns shape (...). Measures of values are means over the targets.
"""

from __future__ import annotations

import numpy as np

from tlhub.evaluation.outcomes import ClassOutcome, LabelsOutcome, Outcome, TokenOutcome, ValueOutcome

Decided = ClassOutcome | LabelsOutcome
"""An outcome of decisions that are right or wrong."""
FALSE_ACCEPT_RATES = (0.01, 0.05)
"""Shares of the first class's examples at which `miss_rates` are told."""


def accuracy(outcome: Decided) -> np.ndarray:
    """Return the share of right predictions; of several labels of an example, all have to be right."""
    return np.asarray(outcome.right.mean(axis=-1))


def precision_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of hits / predictions."""
    return _class_mean(outcome, precisions(outcome))


def recall_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of hits / examples."""
    return _class_mean(outcome, recalls(outcome))


def recalls(outcome: Decided) -> np.ndarray:
    """Return hits / examples of each class (or label), shape (..., c); 0 where there is no example."""
    return _ratio(outcome.hits, outcome.true_counts)


def precisions(outcome: Decided) -> np.ndarray:
    """Return hits / predictions of each class (or label), shape (..., c); 0 where it is never predicted."""
    return _ratio(outcome.hits, outcome.predicted_counts)


def f1_scores(outcome: Decided) -> np.ndarray:
    """Return the F1 score of each class (or label), shape (..., c); 0 where it occurs nowhere."""
    return _ratio(2 * outcome.hits, outcome.true_counts + outcome.predicted_counts)


def f1_macro(outcome: Decided) -> np.ndarray:
    """Return the mean over classes (or labels) of the F1 score."""
    return _class_mean(outcome, f1_scores(outcome))


def f1_micro(outcome: Decided) -> np.ndarray:
    """Return the F1 score of all decisions of all labels together; of classes it is the accuracy."""
    said = (outcome.true_counts + outcome.predicted_counts).sum(axis=-1)
    return _ratio(2 * outcome.hits.sum(axis=-1), said)


def f1(outcome: ClassOutcome) -> np.ndarray:
    """Return the F1 score of class 1 where there are two classes, otherwise the mean over classes."""
    return np.asarray(f1_scores(outcome)[..., 1]) if outcome.classes == 2 else f1_macro(outcome)


def mcc(outcome: ClassOutcome) -> np.ndarray:
    """Return the correlation of labels and predictions; 0 where either is constant.

    The multi-class form of Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation
    coefficient", from the margins of the confusion matrix.
    """
    total = outcome.true_counts.sum(axis=-1)
    true, predicted = outcome.true_counts, outcome.predicted_counts
    covariance = outcome.hits.sum(axis=-1) * total - (true * predicted).sum(axis=-1)
    true_variance = total**2 - (true**2).sum(axis=-1)
    predicted_variance = total**2 - (predicted**2).sum(axis=-1)
    return _ratio(covariance, np.sqrt(true_variance * predicted_variance))


def ece(outcome: Decided) -> np.ndarray:
    """Return the expected calibration error over 15 bins of equal width, (b/15, (b+1)/15].

    Guo et al. (2017), "On calibration of modern neural networks": sum over bins of n_b/n |accuracy_b - confidence_b|.
    Of several labels each decision counts, with the probability of what was decided as its confidence.
    """
    return np.asarray(np.abs(outcome.bin_gaps).sum(axis=-1))


def loss(outcome: Outcome) -> np.ndarray:
    """Return the mean loss: cross-entropy in nats (mean over labels of the binary one), or squared error of values.

    That of a language model is the mean over all tokens, so that longer examples count more.
    """
    if isinstance(outcome, TokenOutcome):
        return _ratio(outcome.losses.sum(axis=-1), outcome.tokens.sum(axis=-1))
    return np.asarray(outcome.losses.mean(axis=-1))


def perplexity(outcome: TokenOutcome) -> np.ndarray:
    """Return e to the mean loss: between how many equally likely tokens the model wavers."""
    return np.asarray(np.exp(loss(outcome)))


def bits_per_byte(outcome: TokenOutcome) -> np.ndarray:
    """Return the summed loss in bits over the text's bytes in UTF-8, which tokenizers of any kind share."""
    return _ratio(outcome.losses.sum(axis=-1) / np.log(2), outcome.sizes.sum(axis=-1))


def token_accuracy(outcome: TokenOutcome) -> np.ndarray:
    """Return the share of tokens that the model holds for the most likely one, given what comes before."""
    return _ratio(outcome.right.sum(axis=-1), outcome.tokens.sum(axis=-1))


def average_precision(outcome: ClassOutcome) -> np.ndarray:
    """Return the average precision of finding all classes but the first by their probability; 0 without such examples.

    The sum over the distinct probabilities of (recall there - recall above) times precision there, as in scikit-learn.
    """
    order = np.argsort(-outcome.log_odds, axis=-1, kind="stable")
    scores = np.take_along_axis(outcome.log_odds, order, axis=-1)
    found = np.take_along_axis(outcome.labels > 0, order, axis=-1)
    count = scores.shape[-1]
    precision = found.cumsum(axis=-1) / np.arange(1, count + 1)
    # Of examples with equal probabilities all are accepted or none: each has the precision at the last of them.
    last = np.ones(scores.shape, dtype=bool)
    last[..., :-1] = scores[..., 1:] != scores[..., :-1]
    ends = np.where(last, np.arange(count), count)
    ends = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    return _ratio((found * np.take_along_axis(precision, ends, axis=-1)).sum(axis=-1), found.sum(axis=-1))


def miss_rates(outcome: ClassOutcome) -> np.ndarray:
    """Return the share of other examples that is missed where few of the first class's are accepted, shape (..., r).

    For each of `FALSE_ACCEPT_RATES` the threshold of the probability is the lowest that accepts no larger share of the
    first class. Without examples of the first class, or without others, it is NaN.
    """
    first = outcome.labels == 0
    count = first.sum(axis=-1)
    missed, others = [], (~first).sum(axis=-1)
    falling = -np.sort(-np.where(first, outcome.log_odds, -np.inf), axis=-1)
    for rate in FALSE_ACCEPT_RATES:
        # The first one too many: what is not above it has to be rejected, or with its equals it would be accepted too.
        refused = np.take_along_axis(falling, allowed(rate, count)[..., None], axis=-1)
        missed.append(_ratio(((outcome.log_odds <= refused) & ~first).sum(axis=-1), others))
    return np.asarray(np.where(((others > 0) & (count > 0))[..., None], np.stack(missed, axis=-1), np.nan))


def miss_rates_told(outcome: ClassOutcome) -> np.ndarray:
    """Return which `miss_rates` the examples can tell, bool, shape (..., r).

    A rate takes as many examples of the first class as make one false accept: of 20, none accepted shows nothing about
    a rate of 0.01.
    """
    first = (outcome.labels == 0).sum(axis=-1)
    told = np.stack([allowed(rate, first) > 0 for rate in FALSE_ACCEPT_RATES], axis=-1)
    return np.asarray(told & (outcome.labels.shape[-1] > first)[..., None])


def allowed(rate: float, count: np.ndarray) -> np.ndarray:
    """Return how many of some examples may be accepted at a rate below 1, int64, of the shape of `count`."""
    # 0.29 of 100 is 28.999999999999996 in floating point.
    return np.asarray(np.floor(rate * np.asarray(count) + 1e-9).astype(np.int64))


def pearson(outcome: ValueOutcome) -> np.ndarray:
    """Return Pearson's correlation; 0 where either side is constant."""
    left = outcome.labels - outcome.labels.mean(axis=-2, keepdims=True)
    right = outcome.predictions - outcome.predictions.mean(axis=-2, keepdims=True)
    norms = np.sqrt((left**2).sum(axis=-2) * (right**2).sum(axis=-2))
    vary = _varies(outcome.labels) & _varies(outcome.predictions)
    return np.asarray(np.where(vary, _ratio((left * right).sum(axis=-2), norms), 0.0).mean(axis=-1))


def mae(outcome: ValueOutcome) -> np.ndarray:
    """Return the mean absolute error."""
    return np.asarray(np.abs(outcome.labels - outcome.predictions).mean(axis=(-2, -1)))


def rmse(outcome: ValueOutcome) -> np.ndarray:
    """Return the root of the mean squared error."""
    squares = (outcome.labels - outcome.predictions) ** 2
    return np.asarray(np.sqrt(squares.mean(axis=-2)).mean(axis=-1))


def r2(outcome: ValueOutcome) -> np.ndarray:
    """Return 1 - residual / total sum of squares; for constant labels 1 if all are met, otherwise 0."""
    residual = ((outcome.labels - outcome.predictions) ** 2).sum(axis=-2)
    total = ((outcome.labels - outcome.labels.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-2)
    constant = np.where(residual == 0, 1.0, 0.0)
    return np.asarray(np.where(_varies(outcome.labels), 1.0 - _ratio(residual, total), constant).mean(axis=-1))


def _class_mean(outcome: Decided, scores: np.ndarray) -> np.ndarray:
    """Average over the classes that occur among labels or predictions, as scikit-learn does for classes.

    A label that no example has and none is given says nothing of the model; where that holds for all, the mean is 0.
    """
    occurs = outcome.true_counts + outcome.predicted_counts > 0
    return _ratio((scores * occurs).sum(axis=-1), occurs.sum(axis=-1))


def _varies(values: np.ndarray) -> np.ndarray:
    """Tell for each target whether it varies: deviations from a mean are not exactly 0 where it does not."""
    return np.asarray(values.max(axis=-2) > values.min(axis=-2))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0."""
    zero = denominator == 0
    return np.asarray(np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator)))
