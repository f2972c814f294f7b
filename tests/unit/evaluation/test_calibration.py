import numpy as np
import pytest

from tlhub.errors import TlhubError
from tlhub.evaluation.calibration import fit_temperature, reliability
from tlhub.evaluation.metrics import compute


def example(count=500, classes=4, sharpness=3.0, seed=0):
    """Return logits that are `sharpness` times as sure as the labels, drawn from their softmax, allow."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 2
    noise = random.gumbel(size=logits.shape)
    return logits * sharpness, (logits + noise).argmax(axis=1)


def loss(logits, labels, temperature):
    return compute(["loss"], logits / temperature, labels)["loss"]


@pytest.mark.parametrize("sharpness", [0.05, 1.0, 3.0, 20.0])
def test_the_temperature_is_the_best_of_its_neighbourhood_and_of_a_grid(sharpness):
    logits, labels = example(sharpness=sharpness)
    found = fit_temperature(logits, labels)
    best = loss(logits, labels, found)
    assert best < min(loss(logits, labels, found * (1 + 1e-4)), loss(logits, labels, found * (1 - 1e-4)))
    assert best <= min(loss(logits, labels, temperature) for temperature in np.geomspace(0.01, 100, 200))
    assert found == pytest.approx(sharpness, rel=0.15)


def test_scaled_logits_scale_the_temperature_and_probabilities_stay():
    logits, labels = example()
    found = fit_temperature(logits, labels)
    assert fit_temperature(7 * logits, labels) == pytest.approx(7 * found, rel=1e-8)
    assert fit_temperature(logits + np.arange(len(logits))[:, None], labels) == pytest.approx(found, rel=1e-8)


def test_calibration_error_falls_on_other_data_and_decisions_stay():
    logits, labels = example(count=3000)
    temperature = fit_temperature(logits[:1000], labels[:1000])
    before = compute(["ece", "accuracy"], logits[1000:], labels[1000:])
    after = compute(["ece", "accuracy"], logits[1000:] / temperature, labels[1000:])
    assert after["accuracy"] == before["accuracy"]
    assert after["ece"] < before["ece"] / 3


def test_where_the_likelihood_has_no_best_temperature():
    logits = np.array([[2.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    assert fit_temperature(logits, np.array([0, 1, 1])) == 1.0
    # All wrong: the surer, the worse.
    assert fit_temperature(logits, np.array([1, 0, 0])) == pytest.approx(100)


def test_a_single_mistake_among_sure_answers_converges():
    logits = np.tile([1000.0, 0.0, -1e6], (300, 1))
    labels = np.zeros(300, dtype=np.int64)
    labels[0] = 1
    # 1000 / T is the log of 299 to 1, as the third class has no share.
    assert fit_temperature(logits, labels) == pytest.approx(100)
    assert fit_temperature(logits / 10, labels) == pytest.approx(100 / np.log(299), rel=1e-4)


def test_nan_logits_are_refused():
    with pytest.raises(TlhubError, match="NaN for 1 of 2 examples"):
        fit_temperature(np.array([[0.0, np.nan], [0.0, 1.0]]), np.array([0, 0]))


def test_reliability_by_hand():
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.05, 0.95]]))
    found = reliability(logits, np.array([0, 1, 1]))
    assert found.counts.tolist() == [0] * 11 + [2, 0, 0, 1]
    assert found.confidence[[11, 14]] == pytest.approx([0.8, 0.95])
    assert found.accuracy[[11, 14, 0]].tolist() == [0.5, 1.0, 0.0]
    assert found.ece == pytest.approx((2 * 0.3 + 0.05) / 3)
