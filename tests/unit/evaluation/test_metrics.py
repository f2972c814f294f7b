from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import sklearn.metrics
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tlhub.errors import TlhubError, UsageError
from tlhub.evaluation.metrics import METRICS, compute, confusion_matrix, direction, load_metric

CLASS_METRICS = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_micro", "f1", "mcc", "ece", "loss")
KEYWORD_METRICS = ("average_precision", "miss_rate_at_fa_rate")
VALUE_METRICS = ("pearson", "mae", "rmse", "r2")


def example(classes, count=300, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    return random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels], labels


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_class_metrics_equal_sklearn(classes):
    logits, labels = example(classes)
    predictions = logits.argmax(axis=1)
    average = {"average": "macro", "zero_division": 0}
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predictions),
        "precision_macro": sklearn.metrics.precision_score(labels, predictions, **average),
        "recall_macro": sklearn.metrics.recall_score(labels, predictions, **average),
        "f1_macro": sklearn.metrics.f1_score(labels, predictions, **average),
        "f1_micro": sklearn.metrics.f1_score(labels, predictions, average="micro"),
        "f1": sklearn.metrics.f1_score(labels, predictions, average="binary" if classes == 2 else "macro"),
        "mcc": sklearn.metrics.matthews_corrcoef(labels, predictions),
        "loss": sklearn.metrics.log_loss(labels, softmax(logits), labels=range(classes)),
    }
    assert compute(list(expected), logits, labels) == pytest.approx(expected, abs=1e-12)


def test_a_class_that_occurs_nowhere_is_not_averaged():
    logits = np.log(np.array([[0.6, 0.2, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1]]))
    labels = np.array([0, 1, 2])
    expected = sklearn.metrics.f1_score(labels, [0, 1, 0], average="macro", zero_division=0)
    assert compute(["f1_macro"], logits, labels)["f1_macro"] == pytest.approx(expected)
    assert expected == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_ece_by_hand():
    # Confidences .8, .8 (bin 12, one right of two) and .95 (bin 15, right): (2 |.5 - .8| + 1 |1 - .95|) / 3
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.05, 0.95]]))
    assert compute(["ece"], logits, np.array([0, 1, 1]))["ece"] == pytest.approx((2 * 0.3 + 0.05) / 3)
    one_hot = np.where(np.eye(3, dtype=bool), 0.0, -1e9)
    assert compute(["ece"], one_hot, np.arange(3))["ece"] == 0.0


def labels_example(count=200, labels=5, seed=0):
    random = np.random.default_rng(seed)
    wanted = random.random((count, labels)) < np.linspace(0.1, 0.6, labels)
    return 2 * wanted - 1 + random.normal(size=wanted.shape), wanted


def test_metrics_of_several_labels_equal_sklearn():
    logits, labels = labels_example()
    decided = logits > 0
    macro, probabilities = {"average": "macro", "zero_division": 0}, 1 / (1 + np.exp(-logits))
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, decided),
        "precision_macro": sklearn.metrics.precision_score(labels, decided, **macro),
        "recall_macro": sklearn.metrics.recall_score(labels, decided, **macro),
        "f1_macro": sklearn.metrics.f1_score(labels, decided, **macro),
        "f1_micro": sklearn.metrics.f1_score(labels, decided, average="micro"),
        "loss": np.mean([sklearn.metrics.log_loss(labels[:, column], probabilities[:, column])
                         for column in range(5)]),
    }
    assert compute(list(expected), logits.astype(np.float32), labels) == pytest.approx(expected, abs=1e-6)
    assert compute(["f1_macro"], logits[:, :1], labels[:, :1])["f1_macro"] == pytest.approx(
        sklearn.metrics.f1_score(labels[:, 0], decided[:, 0]))


def test_a_label_that_no_example_has_and_none_is_given_is_not_averaged():
    logits, labels = labels_example()
    more = np.concatenate([logits, -np.ones((200, 1))], axis=1), np.pad(labels, ((0, 0), (0, 1)))
    names = ["precision_macro", "recall_macro", "f1_macro", "f1_micro", "accuracy"]
    assert compute(names, *more) == compute(names, logits, labels)
    nothing = compute(names, -np.ones((3, 2)), np.zeros((3, 2), dtype=bool))
    assert nothing == dict.fromkeys(names, 0.0) | {"accuracy": 1.0}


def test_calibration_of_several_labels_is_that_of_all_decisions():
    # Decided with confidence .8, .8 (one right of two) and .95, .95 (right): (2 |.5 - .8| + 2 |1 - .95|) / 4
    probabilities = np.array([[0.8, 0.05], [0.2, 0.95]])
    labels = np.array([[True, False], [True, True]])
    logits = np.log(probabilities / (1 - probabilities))
    assert compute(["ece"], logits, labels)["ece"] == pytest.approx((0.6 + 0.1) / 4)
    pairs = np.stack([np.zeros(4), logits.ravel()], axis=1)
    assert compute(["ece"], logits, labels) == pytest.approx(compute(["ece"], pairs, labels.ravel().astype(np.int64)))


def test_extreme_logits_of_labels_have_finite_losses():
    scores = compute(["loss", "ece"], np.array([[-1e4, 1e4]], dtype=np.float32), np.array([[False, True]]))
    assert scores == {"loss": 0.0, "ece": 0.0}


def test_regression_metrics_of_several_targets_equal_sklearn():
    random = np.random.default_rng(0)
    labels = random.normal(size=(50, 3)) * [1.0, 10.0, 0.1] + [0.0, 100.0, 5.0]
    values = labels + random.normal(size=(50, 3)) * [1.0, 2.0, 0.1]
    expected = {"pearson": np.mean([np.corrcoef(labels[:, column], values[:, column])[0, 1] for column in range(3)]),
                "mae": sklearn.metrics.mean_absolute_error(labels, values),
                "rmse": sklearn.metrics.root_mean_squared_error(labels, values),
                "r2": sklearn.metrics.r2_score(labels, values),
                "loss": sklearn.metrics.mean_squared_error(labels, values)}
    assert compute(list(expected), values, labels) == pytest.approx(expected, abs=1e-10)
    assert compute(["r2"], values[:, :1], labels[:, :1]) == compute(["r2"], values[:, 0], labels[:, 0])


def test_regression_metrics_equal_sklearn_and_numpy():
    random = np.random.default_rng(0)
    labels = random.normal(size=50)
    values = labels + random.normal(size=50)
    expected = {"pearson": np.corrcoef(labels, values)[0, 1],
                "mae": sklearn.metrics.mean_absolute_error(labels, values),
                "rmse": sklearn.metrics.root_mean_squared_error(labels, values),
                "r2": sklearn.metrics.r2_score(labels, values)}
    assert compute(VALUE_METRICS, values[:, None], labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("values", "expected"), [([3.0, 3.0], 1.0), ([3.0, 4.0], 0.0)])
def test_constant_targets_give_finite_scores(values, expected):
    scores = compute(["pearson", "r2"], np.array(values), np.array([3.0, 3.0]))
    assert scores == {"pearson": 0.0, "r2": expected}


def test_constants_whose_mean_is_rounded_are_still_constant():
    constant, values = np.full(7, 0.1), np.linspace(0, 1, 7)
    assert constant.mean() != 0.1
    assert compute(["pearson", "r2"], values, constant) == {"pearson": 0.0, "r2": 0.0}
    assert compute(["pearson"], constant, values) == {"pearson": 0.0}


def test_a_constant_prediction_has_no_correlation():
    assert compute(["mcc"], np.array([[1.0, 0.0]] * 4), np.array([0, 1, 0, 1])) == {"mcc": 0.0}


def test_scores_are_plain_floats_under_the_asked_names():
    logits, labels = example(3)
    scores = compute(CLASS_METRICS, logits.astype(np.float32), labels)
    assert list(scores) == list(CLASS_METRICS)
    assert all(type(value) is float for value in scores.values())


def test_every_metric_is_loadable_under_its_name():
    assert set(METRICS) >= {*CLASS_METRICS, *KEYWORD_METRICS, *VALUE_METRICS}
    for name in METRICS:
        metric = load_metric(name)
        assert isinstance(metric, evaluate.Metric)
        assert metric.name == name


def test_combine_takes_classes_or_logits():
    logits, labels = example(3)
    names = ["accuracy", "f1_macro", "mcc"]
    combined = evaluate.combine([load_metric(name) for name in names])
    expected = compute(names, logits, labels)
    assert combined.compute(predictions=logits.argmax(axis=1), references=labels) == pytest.approx(expected)
    with_logits = evaluate.combine([load_metric(name) for name in (*names, "ece", "loss")])
    found = with_logits.compute(predictions=logits, references=labels)
    assert found == pytest.approx(compute([*names, "ece", "loss"], logits, labels))


def test_combine_takes_several_labels_as_decisions_or_logits():
    logits, labels = labels_example()
    names = ["accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_micro"]
    combined = evaluate.combine([load_metric(name) for name in names])
    expected = compute([*names, "ece", "loss"], logits, labels)
    decided = combined.compute(predictions=(logits > 0).astype(int), references=labels.astype(int))
    assert decided == pytest.approx({name: expected[name] for name in names})
    with_logits = evaluate.combine([load_metric(name) for name in expected])
    assert with_logits.compute(predictions=logits, references=labels) == pytest.approx(expected)


def test_combine_takes_lists_of_values():
    random = np.random.default_rng(0)
    labels, values = random.normal(size=(2, 20, 2))
    combined = evaluate.combine([load_metric(name) for name in VALUE_METRICS])
    assert combined.compute(predictions=values.tolist(), references=labels.tolist()) == pytest.approx(
        compute(VALUE_METRICS, values, labels))
    names = [*VALUE_METRICS, "loss"]
    combined = evaluate.combine([load_metric(name) for name in names])
    assert combined.compute(predictions=values[:, 0].tolist(), references=labels[:, 0].tolist()) == pytest.approx(
        compute(names, values[:, 0], labels[:, 0]))


def test_references_of_labels_other_than_0_and_1_are_refused():
    with pytest.raises(UsageError, match=r"metric 'loss': references of several labels are 0 or 1; found 3"):
        load_metric("loss").compute(predictions=[[1.0, 2.0]], references=[[1.0, 3.5]])


def test_other_metrics_get_plain_numbers_of_each_kind(monkeypatch):
    seen = []

    class Elsewhere:
        def compute(self, *, predictions, references):
            seen.append((predictions, references))
            return {"score": 0.5, "curve": [1, 2]}

    monkeypatch.setattr("tlhub.evaluation.metrics.evaluate.load", lambda name, **_: Elsewhere())
    logits, labels = labels_example(count=4)
    assert compute(["elsewhere"], logits, labels) == {"elsewhere_score": 0.5}
    assert seen[0][0].dtype == np.int64
    assert (seen[0][0] == (logits > 0)).all()
    assert (seen[0][1] == labels).all()
    compute(["elsewhere"], logits[:, :1], logits[:, 1:2])
    assert seen[1][0].shape == seen[1][1].shape == (4,)


def test_batches_add_up():
    logits, labels = example(4, count=40)
    metric = load_metric("f1_macro")
    for start in (0, 20):
        metric.add_batch(predictions=logits[start:start + 20], references=labels[start:start + 20])
    assert metric.compute() == pytest.approx(compute(["f1_macro"], logits, labels))


def test_evaluator_of_text_classification_uses_our_metric():
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]",
                                        model_max_length=8, model_input_names=["input_ids", "attention_mask"])
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=8, num_labels=2)).eval()
    texts, labels = ["good", "bad", "good good", "bad good"], np.array([0, 1, 0, 1])
    with torch.no_grad():
        logits = np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])
    for name in ("accuracy", "mcc"):
        found = evaluate.evaluator("text-classification").compute(
            model_or_pipeline=model, tokenizer=tokenizer, data=Dataset.from_dict({"text": texts, "label": labels}),
            metric=load_metric(name), label_mapping={"LABEL_0": 0, "LABEL_1": 1})
        assert found[name] == pytest.approx(compute([name], logits, labels)[name])


def test_other_names_go_to_evaluate_and_fail_in_one_line_offline(monkeypatch):
    monkeypatch.setattr("evaluate.utils.file_utils.time", SimpleNamespace(sleep=lambda seconds: None))
    with pytest.raises(UsageError, match=r"metric 'acuracy' is not one of tlhub's.*did you mean 'accuracy'") as failure:
        load_metric("acuracy")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["someone/metric", "./mine", "folder", "mine.py", "../mine"])
def test_scripts_of_anybodys_are_not_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine.py").write_text("raise SystemExit")
    monkeypatch.setattr("tlhub.evaluation.metrics.evaluate.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UsageError, match="only modules of `evaluate` itself are loaded"):
        load_metric(name)


def test_a_metric_of_another_kind_is_refused():
    logits, labels = example(3)
    with pytest.raises(UsageError, match=r"'rmse' does not apply to predicted classes; valid: accuracy"):
        compute(["rmse"], logits, labels)
    with pytest.raises(UsageError, match=r"'f1' does not apply to predicted values; valid: loss, mae"):
        compute(["f1"], np.zeros(3), np.zeros(3))
    with pytest.raises(UsageError, match=r"'mcc' does not apply to predicted several labels; valid: accuracy, ece"):
        compute(["mcc"], np.zeros((3, 2)), np.ones((3, 2), dtype=bool))


def test_nan_logits_are_an_error_not_a_score():
    logits, labels = example(3)
    logits[4, 1] = np.nan
    with pytest.raises(TlhubError, match="infinity or NaN for 1 of 300 examples"):
        compute(["accuracy"], logits, labels)
    for wrong, right in ((logits[:, :1], np.zeros((300, 1))), (logits, np.zeros((300, 3), dtype=bool))):
        bad = wrong.copy()
        bad[4] = np.nan
        with pytest.raises(TlhubError, match="NaN for 1 of 300 examples"):
            compute(["loss"], bad, right)


def test_direction():
    assert [direction(name) for name in ("accuracy", "r2", "ece", "loss", "rmse", "mape")] == [1, 1, -1, -1, -1, -1]


def test_confusion_matrix_equals_sklearn():
    logits, labels = example(5)
    predictions = logits.argmax(axis=1)
    found = confusion_matrix(predictions, labels, 6)
    assert (found == sklearn.metrics.confusion_matrix(labels, predictions, labels=range(6))).all()
