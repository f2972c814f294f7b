import numpy as np
import pytest
from scipy.stats import weightedtau
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from tests.features import example
from tlhub.planning.scores import evidence, knn_loo, logme, weighted_tau

# The model-selection example of thuml/Transfer-Learning-Library, as its README prints it.
CIFAR10 = {"accuracy": (96.2, 97.5, 96.8, 97.7, 97.9, 97.2, 97.4, 97.4, 95.7, 96.8),
           "H": (5.911, 6.363, 6.567, 6.901, 6.945, 6.210, 6.547, 6.706, 5.928, 6.018),
           "LogME": (.293, .349, .388, .463, .469, .302, .343, .369, .291, .304)}
SUN397 = {"accuracy": (62.0, 65.7, 64.7, 64.8, 66.0, 62.3, 63.0, 64.7, 60.5, 60.7),
          "H": (71.35, 114.21, 110.39, 113.63, 116.51, 72.16, 95.80, 103.09, 75.90, 80.91),
          "LogME": (1.621, 1.648, 1.638, 1.642, 1.646, 1.614, 1.623, 1.624, 1.617, 1.625)}


def noisy(count, size, seed=0):
    """Features and a target in 0 and 1 that they tell in part."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, size)) * random.uniform(0.2, 3, size)
    signal = features @ random.normal(size=size) / size**0.5 + random.normal(size=count)
    return features, (signal > 0).astype(np.float64)


@pytest.mark.parametrize(("count", "size"), [(300, 40), (60, 200)])
def test_the_evidence_is_the_likelihood_of_the_linear_model(count, size):
    features, target = noisy(count, size)
    found = evidence(features, target)
    covariance = features @ features.T / found.alpha + np.eye(count) / found.beta
    _, logdet = np.linalg.slogdet(covariance)
    expected = -0.5 * (logdet + target @ np.linalg.solve(covariance, target) + count * np.log(2 * np.pi)) / count
    assert found.value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("count", "size"), [(300, 40), (60, 200)])
def test_the_evidence_is_the_largest_there_is(count, size):
    features, target = noisy(count, size)
    found = evidence(features, target)

    def likelihood(alpha, beta):
        covariance = features @ features.T / alpha + np.eye(count) / beta
        return -0.5 * (np.linalg.slogdet(covariance)[1] + target @ np.linalg.solve(covariance, target)
                       + count * np.log(2 * np.pi)) / count

    for up, down in ((1.3, 1), (1 / 1.3, 1), (1, 1.3), (1, 1 / 1.3)):
        assert likelihood(found.alpha * up, found.beta * down) < found.value + 1e-6


@pytest.mark.parametrize(("count", "size"), [(300, 40), (60, 200)])
def test_neither_scale_nor_repeated_columns_change_the_evidence(count, size):
    features, target = noisy(count, size)
    value = evidence(features, target).value
    for factor in (7, 0.01):
        assert evidence(factor * features, target).value == pytest.approx(value, abs=1e-3)
    found = evidence(features, target)
    for factor in (1e-8, 1e-3, 1e3, 1e4, 1e8):
        scaled = evidence(factor * features, target)
        assert scaled.value == pytest.approx(value, abs=1e-9)
        assert scaled.alpha == pytest.approx(found.alpha * factor**2)
        assert scaled.beta == pytest.approx(found.beta)
    assert evidence(np.hstack([features, features]) / 2**0.5, target).value == pytest.approx(value, abs=1e-6)


def test_features_that_say_all_or_nothing_have_an_evidence():
    target = np.repeat([0.0, 1.0], 20)
    for features in (np.zeros((40, 5)), np.eye(40), target[:, None] * [1.0, 1.0], np.vander(np.linspace(0, 1, 40))):
        for wanted in (target, np.zeros(40), np.ones(40)):
            assert np.isfinite(evidence(features, wanted).value)


def test_logme_is_the_mean_over_the_columns_of_a_target():
    features, labels = example(60, 10)
    columns = np.eye(3)[labels]
    each = [evidence(features, column).value for column in columns.T]
    assert logme(features, labels, 3) == pytest.approx(np.mean(each))
    assert logme(features, columns.astype(bool), 3) == pytest.approx(np.mean(each))
    values = features[:, :2] * [1, 100] + [5, -1000] + np.random.default_rng(0).normal(size=(60, 2)) * [1, 100]
    standardised = (values - values.mean(axis=0)) / values.std(axis=0)
    assert logme(features, values, 2) == pytest.approx(
        np.mean([evidence(features, column).value for column in standardised.T]))
    assert logme(features, values, 2) > logme(np.random.default_rng(1).normal(size=(60, 10)), values, 2)


def test_neighbours_are_asked_about_each_example_from_the_others():
    features, labels = example(50, 10)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    right, values, told = [], features @ np.ones((10, 1)), []
    for left_out in range(50):
        others = np.arange(50) != left_out
        model = KNeighborsClassifier(5, metric="cosine").fit(unit[others], labels[others])
        right.append(model.predict(unit[[left_out]])[0] == labels[left_out])
        told.append(KNeighborsRegressor(5, metric="cosine").fit(unit[others], values[others]).predict(unit[[left_out]]))
    assert 0.3 < np.mean(right) < 1
    assert knn_loo(features, labels, 3) == pytest.approx(np.mean(right), abs=0.04)  # equal votes are told by closeness
    expected = 1 - np.mean((np.concatenate(told) - values) ** 2) / values.var()
    assert knn_loo(features, values, 1) == pytest.approx(expected, abs=1e-5)
    assert knn_loo(features, values > 0, 1) == pytest.approx(knn_loo(features, (values > 0).astype(float), 1))


def test_neighbours_of_the_same_group_do_not_answer():
    features, labels = example(50, 10)
    twice = np.concatenate([features, features])
    groups = np.tile(np.arange(50), 2)
    assert knn_loo(twice, np.tile(labels, 2), 3, k=10, groups=groups) == knn_loo(features, labels, 3, k=5)
    assert knn_loo(twice, np.tile(labels, 2), 3, k=1) == 1.0


@pytest.mark.parametrize(("table", "score", "expected"), [
    (CIFAR10, "H", 0.800), (CIFAR10, "LogME", 0.785), (SUN397, "H", 0.918), (SUN397, "LogME", 0.748)])
def test_the_agreement_of_published_orders(table, score, expected):
    assert weighted_tau(table["accuracy"], table[score]) == pytest.approx(expected, abs=5e-4)


def test_the_agreement_is_scipy_s():
    random = np.random.default_rng(0)
    for count in (2, 3, 8, 20):
        one, other = random.normal(size=count), random.integers(0, 4, count)
        if count > 2 or other[0] != other[1]:
            assert weighted_tau(one, other) == pytest.approx(weightedtau(one, other).statistic)
    assert weighted_tau([1, 2, 3], [4, 5, 6]) == 1
    assert weighted_tau([1, 2, 3], [6, 5, 4]) == -1
    assert np.isnan(weighted_tau([1, 2], [3, 3]))
