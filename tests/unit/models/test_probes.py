import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tlhub.errors import TlhubError
from tlhub.models import probes
from tlhub.models.probes import RidgeResult, choose_features, fit_logistic, principal_axes, ridge_loo, stratified_folds


def example(count, size, classes=3, seed=0, signal=1.0):
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
    centres = signal * random.normal(size=(classes, size))
    features = (random.normal(size=(count, size)) + centres[labels]) * random.uniform(0.1, 5, size) + 3
    return features.astype(np.float32), labels


def refit(rows, targets, penalty, centre):
    """Ridge by the normal equations, with an unpenalised intercept where `centre`."""
    if centre:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    ridge = penalty * np.eye(rows.shape[1])
    if centre:
        ridge[-1, -1] = 0
    return np.linalg.solve(rows.T @ rows + ridge, rows.T @ targets)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_leave_one_out_equals_as_many_refits(count, size, penalty, centre):
    features, labels = example(count, size)
    result = ridge_loo(features, labels, 3, penalties=[penalty], centre=centre)
    axes, _ = principal_axes(features, centre=centre)
    rows = (features.astype(np.float64) - axes.mean.numpy()) / axes.scale.numpy()
    absolute = penalty * float(axes.energies.mean())
    targets = np.eye(3)[labels]
    expected = []
    for left_out in range(count):
        others = np.arange(count) != left_out
        weights = refit(rows[others], targets[others], absolute, centre)
        expected.append(np.append(rows[left_out], 1.0)[:len(weights)] @ weights)
    assert np.abs(result.outputs - np.array(expected)).max() < 1e-10
    assert result.accuracy == np.mean(np.argmax(expected, axis=1) == labels)
    assert result.standard_error == pytest.approx(np.sqrt(result.accuracy * (1 - result.accuracy) / count))


@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
def test_leverages_sum_to_the_effective_rank_and_one(count, size):
    features, labels = example(count, size)
    axes, _ = principal_axes(features)
    result = ridge_loo(features, labels, 3, penalties=[0.1])
    effective = float((axes.energies / (axes.energies + 0.1 * axes.energies.mean())).sum())
    assert result.leverages.sum() == pytest.approx(effective + 1, abs=1e-10)


@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
def test_coordinates_are_a_rotation_of_standardised_features(count, size):
    features, _ = example(count, size)
    axes, coordinates = principal_axes(features)
    standard = (features - features.mean(0, dtype=np.float64)) / axes.scale.numpy()
    assert axes.scale.numpy() == pytest.approx(features.std(0, dtype=np.float64), rel=1e-4)
    assert coordinates.shape == (count, min(size, count - 1))
    assert (coordinates @ coordinates.T).numpy() == pytest.approx(standard @ standard.T, abs=1e-8)
    assert (coordinates.T @ coordinates).numpy() == pytest.approx(np.diag(axes.energies.numpy()), abs=1e-8)


def test_ridge_takes_the_best_penalty_and_is_the_same_at_any_scale():
    features, labels = example(60, 30, signal=0.4)
    singles = {penalty: ridge_loo(features, labels, 3, penalties=[penalty]) for penalty in probes.RIDGE_PENALTIES}
    best = ridge_loo(features, labels, 3)
    assert best.accuracy == max(single.accuracy for single in singles.values())
    assert (best.outputs == singles[best.penalty].outputs).all()
    assert ridge_loo(features * np.float32(2**-20), labels, 3).outputs == pytest.approx(best.outputs, abs=1e-9)


def test_a_constant_feature_changes_nothing():
    features, labels = example(60, 10)
    more = np.hstack([features, np.full((60, 1), 7.0, dtype=np.float32)])
    assert ridge_loo(more, labels, 3).outputs == pytest.approx(ridge_loo(features, labels, 3).outputs, abs=1e-4)
    assert np.isfinite(fit_logistic(more, labels, 3).weight).all()
    assert ridge_loo(np.ones((6, 4), dtype=np.float32), np.array([0, 1] * 3), 2).outputs.shape == (6, 2)


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
    found = fit_logistic(features, labels, 3, seed=4)
    monkeypatch.setattr(probes, "_PATIENCE", 100)
    _, coordinates = principal_axes(features)
    folds = stratified_folds(labels, seed=4)
    scores = {}
    for penalty in probes.LOGISTIC_PENALTIES:
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
    choose = probes._choose_penalty
    monkeypatch.setattr(probes, "_choose_penalty", lambda problem, held_out, penalties: (
        seen.append((len(held_out), len(penalties))), choose(problem, held_out, penalties))[1])
    features, labels = example(60, 10)
    for budget in (1e9, 3 * 60 * 10 * 3, 1):
        monkeypatch.setattr(probes, "_FOLD_BUDGET", budget)
        fit_logistic(features, labels, 3)
    assert seen == [(5, 11), (3, 6), (1, 6)]


def test_large_problems_are_fitted_to_nearly_the_same_optimum(monkeypatch):
    features, labels = example(60, 10, signal=0.3)
    exact = fit_logistic(features, labels, 3, penalties=[0.01])
    monkeypatch.setattr(probes, "_FOLD_BUDGET", 1)
    large = fit_logistic(features, labels, 3, penalties=[0.01])
    assert features @ large.weight.T + large.bias == pytest.approx(features @ exact.weight.T + exact.bias, abs=0.01)


def test_the_same_call_gives_the_same_bits():
    features, labels = example(70, 20)
    first, second = (fit_logistic(features, labels, 3, seed=1) for _ in range(2))
    assert (first.weight == second.weight).all()
    assert (first.bias == second.bias).all()


def test_folds_are_stratified_and_depend_on_the_seed():
    labels = np.repeat([0, 1, 2], [50, 12, 3])
    folds = stratified_folds(labels, seed=0)
    counts = np.array([np.bincount(folds[labels == label], minlength=5) for label in range(3)])
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert set(np.bincount(folds)) == {13}
    assert (folds != stratified_folds(labels, seed=1)).any()


def test_features_that_are_not_finite_are_an_error():
    features, labels = example(20, 4)
    features[3, 2] = np.inf
    with pytest.raises(TlhubError, match="features of 1 of 20 examples are not finite"):
        ridge_loo(features, labels, 3)
    with pytest.raises(TlhubError, match="not finite"):
        fit_logistic(features, labels, 3)


@pytest.mark.parametrize(("native", "expected"), [(0.895, "native"), (0.85, "mean")])
def test_native_features_are_taken_within_one_standard_error(native, expected):
    def result(accuracy):
        return RidgeResult(accuracy, 0.01, 1.0, np.zeros((1, 2)), np.zeros(1))

    assert choose_features({"native": result(native), "mean": result(0.9), "first": result(0.7)}) == expected
    assert choose_features({"first": result(0.7), "mean": result(0.6)}) == "first"
