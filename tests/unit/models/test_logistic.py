import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.features import example
from tlhub.models import logistic
from tlhub.models.axes import principal_axes
from tlhub.models.logistic import fit_logistic, stratified_folds


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("count", "size"), [(80, 6), (30, 50)])
@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_logistic_equals_sklearn(count, size, penalty, bias):
    features, labels = example(count, size, signal=0.5)
    found = fit_logistic(features, labels, 3, penalties=[penalty], bias=bias)
    axes, _ = principal_axes(features, centre=bias)
    rows = (features - axes.mean.numpy()) / axes.scale.numpy()
    peer = LogisticRegression(C=1 / (count * penalty), fit_intercept=bias, solver="newton-cg", tol=1e-10)
    expected = peer.fit(rows, labels).decision_function(rows)
    outputs = features @ found.weight.T + (found.bias if bias else 0.0)
    assert (found.bias is None) is (not bias)
    outputs, expected = outputs - outputs.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True)
    assert outputs == pytest.approx(expected, abs=1e-3)


def test_class_weights_equal_repeated_examples_and_sklearn():
    features, labels = example(80, 6, classes=2, signal=0.3)
    found = fit_logistic(features, labels, 2, penalties=[0.01], class_weights=np.array([1.0, 3.0]))
    axes, _ = principal_axes(features)
    rows = (features - axes.mean.numpy()) / axes.scale.numpy()
    weights = np.where(labels == 1, 3.0, 1.0)
    # For two classes, softmax weights +-w/2 cost half of what one vector w costs.
    peer = LogisticRegression(C=2 / (weights.sum() * 0.01), tol=1e-10, max_iter=10_000)
    peer.fit(rows, labels, sample_weight=weights)
    outputs = features @ found.weight.T + found.bias
    assert outputs[:, 1] - outputs[:, 0] == pytest.approx(peer.decision_function(rows), abs=1e-3)


def test_label_smoothing_is_at_its_optimum():
    features, labels = example(60, 5)
    found = fit_logistic(features, labels, 3, penalties=[0.01], label_smoothing=0.2)
    axes, _ = principal_axes(features)
    rows = (torch.from_numpy(features).double() - axes.mean) / axes.scale
    weight = (torch.from_numpy(found.weight) * axes.scale).requires_grad_()
    bias = (torch.from_numpy(found.bias) + torch.from_numpy(found.weight) @ axes.mean).requires_grad_()
    loss = torch.nn.functional.cross_entropy(rows @ weight.T + bias, torch.from_numpy(labels), label_smoothing=0.2)
    (loss + 0.005 * weight.pow(2).sum()).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-5


def test_the_penalty_is_the_one_that_predicts_held_out_folds_best(monkeypatch):
    features, labels = example(90, 40, signal=0.25)
    found = fit_logistic(features, labels, 3, folds=stratified_folds(labels, seed=4))
    monkeypatch.setattr(logistic, "_PATIENCE", 100)
    _, coordinates = principal_axes(features)
    folds = stratified_folds(labels, seed=4)
    scores = {}
    for penalty in logistic.LOGISTIC_PENALTIES:
        right = 0
        for fold in range(5):
            inside = folds != fold
            peer = LogisticRegression(C=1 / (inside.sum() * penalty), tol=1e-8, max_iter=10_000)
            right += (peer.fit(coordinates[inside], labels[inside]).predict(coordinates[~inside])
                      == labels[~inside]).sum()
        scores[penalty] = right / 90
    assert found.cv_score == pytest.approx(max(scores.values()), abs=1.5 / 90)
    assert scores[found.penalty] == pytest.approx(found.cv_score, abs=1.5 / 90)
    assert min(scores.values()) < max(scores.values()) - 3 / 90


def test_large_problems_score_fewer_folds(monkeypatch):
    seen = []
    choose = logistic._choose_penalty
    monkeypatch.setattr(logistic, "_choose_penalty", lambda problem, held_out, penalties: (
        seen.append((len(held_out), len(penalties))), choose(problem, held_out, penalties))[1])
    features, labels = example(60, 10)
    for budget in (1e9, 3 * 60 * 10 * 3, 1):
        monkeypatch.setattr(logistic, "_FOLD_BUDGET", budget)
        fit_logistic(features, labels, 3)
    assert seen == [(5, 11), (3, 6), (1, 6)]


def test_large_problems_are_fitted_to_nearly_the_same_optimum(monkeypatch):
    features, labels = example(60, 10, signal=0.3)
    exact = fit_logistic(features, labels, 3, penalties=[0.01])
    monkeypatch.setattr(logistic, "_FOLD_BUDGET", 1)
    large = fit_logistic(features, labels, 3, penalties=[0.01])
    assert features @ large.weight.T + large.bias == pytest.approx(features @ exact.weight.T + exact.bias, abs=0.01)


def test_the_same_call_gives_the_same_bits():
    features, labels = example(70, 20)
    first, second = (fit_logistic(features, labels, 3, folds=stratified_folds(labels, seed=1)) for _ in range(2))
    assert (first.weight == second.weight).all()
    assert (first.bias == second.bias).all()


def test_folds_are_stratified_and_depend_on_the_seed():
    labels = np.repeat([0, 1, 2], [50, 12, 3])
    folds = stratified_folds(labels, seed=0)
    counts = np.array([np.bincount(folds[labels == label], minlength=5) for label in range(3)])
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert set(np.bincount(folds)) == {13}
    assert (folds != stratified_folds(labels, seed=1)).any()


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_folds_never_divide_a_group(count):
    random = np.random.default_rng(count)
    labels, groups = random.integers(0, 3, 240), random.integers(0, count, 240).astype(str)
    folds = stratified_folds(labels, seed=0, groups=groups)
    assert set(folds) == set(range(min(count, 5)))
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    if count == 40:
        counts = np.array([np.bincount(folds[labels == label], minlength=5) for label in range(3)])
        assert (counts.max(axis=1) - counts.min(axis=1)).max() < 0.35 * len(labels) / 15 * 2
        assert (folds != stratified_folds(labels, seed=1, groups=groups)).any()
    one = stratified_folds(labels, seed=0, groups=np.zeros(240))
    assert (one == stratified_folds(labels, seed=0)).all()


def several(count, size, seed=0):
    """Features and three labels that they tell: two common ones and a rare one."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, size)) * random.uniform(0.1, 5, size) + 3
    scores = (features - 3) @ random.normal(size=(size, 3)) / size + 0.3 * random.normal(size=(count, 3))
    labels = scores > np.quantile(scores, [0.5, 0.6, 0.9], axis=0).diagonal()
    return features.astype(np.float32), labels


def outputs_of(found, features):
    return features @ found.weight.T + (0.0 if found.bias is None else found.bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("count", "size"), [(80, 6), (30, 50)])
@pytest.mark.parametrize("weights", [None, [3.0, 1.0, 9.0]])
def test_each_of_several_labels_equals_sklearn(count, size, bias, weights):
    features, labels = several(count, size)
    found = fit_logistic(features, labels, 3, penalties=[0.01], bias=bias,
                         class_weights=None if weights is None else np.array(weights))
    axes, _ = principal_axes(features, centre=bias)
    rows = (features - axes.mean.numpy()) / axes.scale.numpy()
    outputs = outputs_of(found, features)
    for label in range(3):
        each = np.where(labels[:, label], 1.0 if weights is None else weights[label], 1.0)
        peer = LogisticRegression(C=1 / (each.sum() * 0.01), fit_intercept=bias, solver="newton-cg", tol=1e-10)
        expected = peer.fit(rows, labels[:, label], sample_weight=each).decision_function(rows)
        assert outputs[:, label] == pytest.approx(expected, abs=1e-3)


def test_a_label_that_all_or_none_have_leaves_the_others_as_they_are():
    features, labels = several(60, 5)
    more = np.column_stack([labels, np.zeros(60, dtype=bool), np.ones(60, dtype=bool)])
    found, alone = (outputs_of(fit_logistic(features, part, part.shape[1], penalties=[0.01]), features)
                    for part in (more, labels))
    assert found[:, :3] == pytest.approx(alone, abs=1e-4)
    assert (found[:, 3] < -3).all()
    assert (found[:, 4] > 3).all()
    # Nothing weighs where the only label has no weight.
    idle = fit_logistic(features, more, 5, penalties=[0.01], class_weights=np.array([1.0, 1, 1, 1, 0]))
    assert np.isfinite(idle.weight).all()
    assert outputs_of(idle, features)[:, :3] == pytest.approx(alone, abs=1e-4)


def test_the_penalty_of_several_labels_is_that_of_least_held_out_loss(monkeypatch):
    monkeypatch.setattr(logistic, "_PATIENCE", 100)
    features, labels = several(90, 40)
    found = fit_logistic(features, labels, 3, folds=stratified_folds(labels, seed=4))
    _, coordinates = principal_axes(features)
    folds = stratified_folds(labels, seed=4)
    losses, right = {}, {}
    for penalty in logistic.LOGISTIC_PENALTIES:
        odds = np.empty((90, 3))
        for fold in range(5):
            inside = folds != fold
            for label in range(3):
                peer = LogisticRegression(C=1 / (inside.sum() * penalty), tol=1e-8, max_iter=10_000)
                peer.fit(coordinates[inside], labels[inside, label])
                odds[~inside, label] = peer.decision_function(coordinates[~inside])
        losses[penalty] = np.logaddexp(0, np.where(labels, -odds, odds)).mean()
        right[penalty] = ((odds > 0) == labels).mean()
    assert losses[found.penalty] == pytest.approx(min(losses.values()), abs=1e-3)
    assert found.cv_score == pytest.approx(right[found.penalty], abs=1.5 / 270)


def test_held_out_examples_count_by_their_class_weights():
    features = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    labels = np.repeat([0, 1], [180, 20])
    # These features tell nothing: the frequent class is said, which is right for 180 of 180 + 4 x 20.
    found = fit_logistic(features, labels, 2, penalties=[1.0], class_weights=np.array([1.0, 4.0]))
    assert found.cv_score == pytest.approx(180 / 260)


def test_folds_of_several_labels_divide_the_rarest_evenly():
    _, labels = several(100, 4)
    folds = stratified_folds(labels, seed=0)
    rare = np.bincount(folds[labels[:, 2]], minlength=5)
    assert rare.tolist() == [2] * 5
