import numpy as np
import pytest

from tests.features import example
from tlhub.errors import TlhubError
from tlhub.models import probes
from tlhub.models.axes import principal_axes
from tlhub.models.logistic import fit_logistic, stratified_folds
from tlhub.models.probes import RidgeResult, choose_features, fit_probe, ridge_loo


def kinds_of_labels(count, size):
    """Features, and classes, several labels, and values of unlike scales that they tell."""
    features, labels = example(count, size)
    random = np.random.default_rng(1)
    values = features @ random.normal(size=(size, 3)) * [0.01, 1, 100] + [5, 0, -1000]
    return features, {"classes": labels, "labels": values > np.median(values, axis=0), "values": values}


def refit(rows, targets, penalty, centre):
    """Ridge by the normal equations, with an unpenalised intercept where `centre`."""
    if centre:
        rows = np.hstack([rows, np.ones((len(rows), 1))])
    ridge = penalty * np.eye(rows.shape[1])
    if centre:
        ridge[-1, -1] = 0
    return np.linalg.solve(rows.T @ rows + ridge, rows.T @ targets)


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_leave_one_out_equals_as_many_refits(count, size, penalty, centre, kind):
    features, kinds = kinds_of_labels(count, size)
    labels = kinds[kind]
    result = ridge_loo(features, labels, 3, penalties=[penalty], centre=centre)
    axes, _ = principal_axes(features, centre=centre)
    rows = (features.astype(np.float64) - axes.mean.numpy()) / axes.scale.numpy()
    absolute = penalty * float(axes.energies.mean())
    targets = np.eye(3)[labels] if kind == "classes" else labels.astype(np.float64)
    expected = []
    for left_out in range(count):
        others = np.arange(count) != left_out
        weights = refit(rows[others], targets[others], absolute, centre)
        expected.append(np.append(rows[left_out], 1.0)[:len(weights)] @ weights)
    spread = targets.std(axis=0)
    assert np.abs((result.outputs - np.array(expected)) / spread).max() < 1e-9
    each = np.mean(1 - ((expected - targets) / spread) ** 2, axis=1)
    if kind == "classes":
        each = np.argmax(expected, axis=1) == labels
    assert result.measure == ("accuracy" if kind == "classes" else "R2")
    assert result.score == pytest.approx(np.mean(each))
    assert result.standard_error == pytest.approx(np.std(each) / np.sqrt(count))
    everything = refit(rows, targets, absolute, centre)
    fitted = features @ result.weight.T + (result.bias if centre else 0.0)
    assert (result.bias is None) is (not centre)
    expected = np.hstack([rows, np.ones((count, 1))])[:, :len(everything)] @ everything
    assert np.abs((fitted - expected) / spread).max() < 1e-9


@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
def test_leverages_sum_to_the_effective_rank_and_one(count, size):
    features, labels = example(count, size)
    axes, _ = principal_axes(features)
    result = ridge_loo(features, labels, 3, penalties=[0.1])
    effective = float((axes.energies / (axes.energies + 0.1 * axes.energies.mean())).sum())
    assert result.leverages.sum() == pytest.approx(effective + 1, abs=1e-10)


def test_ridge_takes_the_best_penalty_and_is_the_same_at_any_scale():
    features, labels = example(60, 30, signal=0.4)
    singles = {penalty: ridge_loo(features, labels, 3, penalties=[penalty]) for penalty in probes.RIDGE_PENALTIES}
    best = ridge_loo(features, labels, 3)
    assert best.score == max(single.score for single in singles.values())
    assert (best.outputs == singles[best.penalty].outputs).all()
    assert ridge_loo(features * np.float32(2**-20), labels, 3).outputs == pytest.approx(best.outputs, abs=1e-9)


def test_a_constant_feature_changes_nothing():
    features, labels = example(60, 10)
    more = np.hstack([features, np.full((60, 1), 7.0, dtype=np.float32)])
    assert ridge_loo(more, labels, 3).outputs == pytest.approx(ridge_loo(features, labels, 3).outputs, abs=1e-4)
    assert np.isfinite(fit_logistic(more, labels, 3).weight).all()
    assert ridge_loo(np.ones((6, 4), dtype=np.float32), np.array([0, 1] * 3), 2).outputs.shape == (6, 2)


def test_features_that_are_not_finite_are_an_error():
    features, labels = example(20, 4)
    features[3, 2] = np.inf
    with pytest.raises(TlhubError, match="features of 1 of 20 examples are not finite"):
        ridge_loo(features, labels, 3)
    with pytest.raises(TlhubError, match="not finite"):
        fit_logistic(features, labels, 3)


@pytest.mark.parametrize(("native", "expected"), [(0.895, "native"), (0.85, "mean")])
def test_native_features_are_taken_within_one_standard_error(native, expected):
    def result(score):
        nothing = np.zeros((1, 2))
        return RidgeResult(score, 0.01, "accuracy", 1.0, nothing, np.zeros(1), nothing, None)

    assert choose_features({"native": result(native), "mean": result(0.9), "first": result(0.7)}) == expected
    assert choose_features({"first": result(0.7), "mean": result(0.6)}) == "first"


def test_what_does_not_vary_is_left_out_of_r2():
    features, kinds = kinds_of_labels(40, 50)
    # The computed variance of these is not quite 0.
    values, constant = kinds["values"], np.full((40, 1), 123.456)
    assert constant.var() > 0
    more, alone = ridge_loo(features, np.hstack([values, constant]), 4), ridge_loo(features, values, 3)
    assert more.score == pytest.approx(alone.score)
    assert ridge_loo(features, constant, 1, penalties=[1e-3]).score == 0.0


def test_r2_is_the_same_at_any_scale_of_the_values():
    features, kinds = kinds_of_labels(40, 50)
    values = kinds["values"]
    first, second = ridge_loo(features, values, 3), ridge_loo(features, 1e6 * values + 1e8, 3)
    assert (first.penalty, first.score) == pytest.approx((second.penalty, second.score))


@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60), (60, 3)])
@pytest.mark.parametrize("centre", [True, False])
def test_groups_are_left_out_whole(count, size, centre):
    features, labels = example(count, size)
    groups = np.arange(count) // 4 * (np.arange(count) > 5)  # one large, and the last a small one
    result = ridge_loo(features, labels, 3, penalties=[0.1], centre=centre, groups=groups)
    axes, _ = principal_axes(features, centre=centre)
    rows = (features.astype(np.float64) - axes.mean.numpy()) / axes.scale.numpy()
    expected = np.empty((count, 3))
    for group in np.unique(groups):
        mine = groups == group
        weights = refit(rows[~mine], np.eye(3)[labels[~mine]], 0.1 * float(axes.energies.mean()), centre)
        expected[mine] = np.hstack([rows[mine], np.ones((mine.sum(), 1))])[:, :len(weights)] @ weights
    assert np.abs(result.outputs - expected).max() < 1e-9
    assert result.score == pytest.approx(np.mean(expected.argmax(axis=1) == labels))
    alone = ridge_loo(features, labels, 3, penalties=[0.1], centre=centre)
    assert ridge_loo(features, labels, 3, penalties=[0.1], centre=centre, groups=np.arange(count)).score == alone.score
    assert ridge_loo(features, labels, 3, penalties=[0.1], centre=centre, groups=np.zeros(count)).score == alone.score


def test_features_that_tell_the_speaker_are_not_taken_for_those_that_tell_the_word():
    random = np.random.default_rng(0)
    speakers = np.repeat(np.arange(24), 10)
    words = np.tile(np.repeat([0, 1], 5), 24)
    habits = random.normal(size=(24, 2, 60))  # how each speaker says each word, which no other does
    voice = habits[speakers, words] + 0.3 * random.normal(size=(240, 60))
    word = (2 * words[:, None] - 1) + random.normal(size=(240, 1))
    known = {kind: ridge_loo(values, words, 2) for kind, values in (("voice", voice), ("word", word))}
    unheard = {kind: ridge_loo(values, words, 2, groups=speakers)
               for kind, values in (("voice", voice), ("word", word))}
    assert (choose_features(known), choose_features(unheard)) == ("voice", "word")
    assert unheard["voice"].score < 0.7 < unheard["word"].score
    assert fit_probe(voice, words, 2, groups=speakers).score < 0.7 < fit_probe(voice, words, 2).score
    values = words[:, None].astype(np.float64)
    assert fit_probe(voice, values, 1, groups=speakers).score < 0 < fit_probe(voice, values, 1).score


def test_a_probe_of_classes_or_labels_is_logistic():
    features, kinds = kinds_of_labels(60, 6)
    for kind, weights in (("classes", np.array([1.0, 2.0, 3.0])), ("labels", None)):
        found = fit_probe(features, kinds[kind], 3, seed=2, class_weights=weights, label_smoothing=0.1)
        peer = fit_logistic(features, kinds[kind], 3, folds=stratified_folds(kinds[kind], seed=2),
                            class_weights=weights, label_smoothing=0.1)
        assert (found.weight == peer.weight).all()
        assert (found.penalty, found.score) == (peer.penalty, peer.cv_score)
        assert found.measure == "cross-validated accuracy"


@pytest.mark.parametrize("bias", [True, False])
def test_a_probe_of_values_gives_their_own_units(bias):
    random = np.random.default_rng(0)
    features = random.normal(size=(80, 10)).astype(np.float32) + 2
    slopes = random.normal(size=(2, 10)) * [[0.01], [100]]
    values = features @ slopes.T + (np.array([3.0, -500.0]) if bias else 0.0)
    values += 0.1 * random.normal(size=values.shape) * values.std(axis=0)
    found = fit_probe(features, values, 2, bias=bias)
    assert found.weight == pytest.approx(slopes, abs=0.15 * np.abs(slopes).max(axis=1, keepdims=True).max())
    assert (found.weight / slopes)[np.abs(slopes) > 0.5 * np.abs(slopes).max(axis=1, keepdims=True)] == \
        pytest.approx(1, abs=0.15)
    assert (found.bias is None) is (not bias)
    assert found.measure == "leave-one-out R2"
    assert found.score == pytest.approx(0.99, abs=0.005)


def test_noisy_values_get_a_larger_penalty_than_clean_ones():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 30)).astype(np.float32)
    clean = features @ random.normal(size=(30, 1))
    noisy = clean + 3 * clean.std() * random.normal(size=(60, 1))
    assert fit_probe(features, clean, 1).penalty < 1e-3
    assert fit_probe(features, noisy, 1).penalty > 0.1
