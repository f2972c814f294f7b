"""Kinds of target from beginning to end: classes by one sigmoid, several labels, values, and pairs of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import tlhub
from tests import tiny
from tests.generated import WORDS, write_measured, write_table, write_texts
from tlhub import results
from tlhub.config import TrainConfig
from tlhub.errors import DataError, UsageError
from tlhub.finished import Run
from tlhub.models.outputs import IDENTITY, standardising
from tlhub.problems import PROBLEMS, MultiLabel, NextTokens, Regression, SingleLabel
from tlhub.training.callbacks import read_history

COUNTS = {"train": 40, "validation": 12, "test": 12}
QUICK = {"batch_size": 8, "learning_rate": 1e-2, "max_steps": 20}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots, which take most of a tiny run's time; tests/unit/evaluation looks at them."""
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: str(tiny.checkpoint(folder / kind, kind)) for kind in ("bert", "gpt2", "resnet")}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """Rows with a text, its topics, a value, and a second text that is about the same or not."""
    random = np.random.default_rng(0)
    names = list(WORDS)
    rows: dict[str, list[dict[str, object]]] = {}
    for split, count in COUNTS.items():
        rows[split] = []
        for row in range(count):
            topics = [name for name in names if random.random() < 0.5]
            said = [str(random.choice(WORDS[name])) for name in topics]
            same = row % 2
            other = names[row % 3] if same else names[(row + 1) % 3]
            rows[split].append({
                "text": " ".join([*said, "in", split, str(row)]), "topics": ";".join(topics),
                "stars": 0.5 + 2.25 * len(topics), "length": 100.0 * len(topics) + 3.5,
                "question": f"{random.choice(WORDS[names[row % 3]])} {split} {row}",
                "sentence": f"the {random.choice(WORDS[other])}", "related": ("no", "yes")[same]})
    return rows


def table(folder: Path, lines: dict[str, list[dict[str, object]]], *columns: str) -> str:
    """Write some columns of the rows and return the folder."""
    return str(write_table(folder, {split: [{name: row[name] for name in columns} for row in rows]
                                    for split, rows in lines.items()}))


def fit(task: str, model: Any, data: Any, out: Path, **options: Any) -> Run:
    given = options.pop("train", {})
    train = {} if "linear_probe" in str(options.get("strategy")) else {**QUICK, **given}
    evaluate = {"resamples": 10, **options.pop("evaluate", {})}
    log = {"log": {"every": 1}} if train else {}
    return tlhub.finetune(task, model=model, data=data, out=str(out), train=train, evaluate=evaluate, **log, **options)


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in read_history(run.folder / "history.jsonl") if "loss" in line]


def agrees(run: Run, data: str) -> None:
    """The saved model gives the scores that the trained one had."""
    assert run.evaluate(data)["metrics"] == pytest.approx(run.metrics["test"], abs=1e-4)


@pytest.mark.parametrize("strategy", ["full", "linear_probe", "lora"])
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_values_of_texts(kind: str, strategy: str, models: dict[str, str], lines: Any, tmp_path: Path,
                         caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = table(tmp_path / "data", lines, "text", "stars")
    run = fit("text-classification", models[kind], {"source": data, "problem_type": "regression"}, tmp_path / "run",
              strategy=strategy)
    assert run.metrics["test"].keys() == {"mae", "rmse", "r2", "pearson"}
    assert run.metrics["baselines"]["mean"]["r2"] <= 0
    assert ("has no bias, so a target far from 0 is learned slowly" in caplog.text) == (kind == "gpt2")
    assert (run.label_names, run.config.evaluate.best) == (("stars",), "rmse")
    agrees(run, data)
    (found,) = run.predict([str(lines["test"][0]["text"])])
    assert found.keys() == {"input", "value"}
    assert isinstance(found["value"], float)


def test_several_values_in_units_of_their_own(models: dict[str, str], lines: Any, tmp_path: Path) -> None:
    data = table(tmp_path / "data", lines, "text", "stars", "length")
    run = fit("text-classification", models["bert"],
              {"source": data, "problem_type": "regression", "target_columns": ["length", "stars"]}, tmp_path / "run",
              train={"max_steps": 60})
    assert run.label_names == ("length", "stars")
    assert run.config.evaluate.best == "r2"  # the root of the squared error would be that of length
    (found,) = run.predict([str(lines["test"][0]["text"])])
    assert 0 < found["value"]["stars"] < 15 < 30 < found["value"]["length"]
    assert run.metrics["test"]["r2"] > 0.2
    agrees(run, data)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder / "model")
    assert model.config.problem_type == "regression"
    assert model.config.id2label == {0: "length", 1: "stars"}


def test_a_regression_head_of_a_run_is_taken_on(models: dict[str, str], lines: Any, tmp_path: Path) -> None:
    """The head that a checkpoint brings is in the target's units, and training goes on in standardised ones."""
    data = {"source": table(tmp_path / "data", lines, "text", "stars"), "problem_type": "regression"}
    first = fit("text-classification", models["bert"], data, tmp_path / "first", train={"max_steps": 40})
    second = fit("text-classification", str(first.folder), data, tmp_path / "second",
                 train={"max_steps": 1, "learning_rate": 1e-9})
    assert second.metrics["test"]["rmse"] == pytest.approx(first.metrics["test"]["rmse"], rel=1e-3)


@pytest.mark.parametrize(("strategy", "head", "loss"), [
    ("linear_probe", None, None), ("full", None, None), ("full", None, "huber"), ("lora", None, None),
    ("head", "8", None)])
def test_values_of_pictures(strategy: str, head: str | None, loss: str | None, models: dict[str, str],
                            tmp_path: Path) -> None:
    data = str(write_measured(tmp_path / "data", COUNTS))
    views = {"flip": False, "crop": "none"} if strategy in ("full", "lora") else {}
    run = fit("image-regression", {"name": models["resnet"], **({"head": head} if head else {})},
              {"source": data, "label_column": "brightness", **views}, tmp_path / "run", strategy=strategy,
              train={"max_steps": 60, **({"loss": loss} if loss else {})})
    assert run.metrics["test"]["r2"] > 0.5
    assert run.metrics["data"]["classes"] == 1
    agrees(run, data)
    (found,) = run.predict([str(tmp_path / "data" / "test_000.png")])
    assert 20 < found["value"] < 260


def test_other_data_may_name_the_values_otherwise(models: dict[str, str], tmp_path: Path,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    data = str(write_measured(tmp_path / "data", COUNTS))
    for number, own in enumerate(({"label_column": "brightness"}, {"target_columns": ["brightness"]})):
        run = fit("image-regression", models["resnet"], {"source": data, **own}, tmp_path / str(number),
                  strategy="linear_probe")
        for other in ({"label_column": "redness"}, {"target_columns": ["redness"]}):
            assert run.evaluate(data, **other)["metrics"]["mae"] > run.evaluate(data)["metrics"]["mae"] + 10
    (tmp_path / "data" / "metadata.csv").write_text("file_name,brightness\n" + "".join(
        f"train_{row:03d}.png,{row}\n" for row in range(5)))
    with caplog.at_level("INFO", "tlhub"):
        run.evaluate(data)
    assert "values from 'brightness'" in caplog.text
    assert "has no test split: all its rows are scored" in caplog.text


@pytest.mark.parametrize("strategy", ["full", "linear_probe", "lora"])
def test_several_labels(strategy: str, models: dict[str, str], lines: Any, tmp_path: Path) -> None:
    data = table(tmp_path / "data", lines, "text", "topics")
    run = fit("text-classification", models["bert"],
              {"source": data, "label_column": "topics", "label_separator": ";"}, tmp_path / "run", strategy=strategy)
    assert run.metrics["test"].keys() == set(MultiLabel.metrics)
    assert run.label_names == tuple(sorted(WORDS))
    agrees(run, data)
    (found,) = run.predict([str(lines["test"][0]["text"])])
    assert found["label"] == [name for name, value in found["scores"].items() if value > 0.5]
    model = run._model()
    config = getattr(model, "config", None)
    assert config is not None
    assert config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("options", [{}, {"strategy": "lora"}, {"model.head": "8"}, {"strategy": "head"}])
def test_one_sigmoid_is_saved_as_two_outputs(options: dict[str, Any], models: dict[str, str], lines: Any,
                                             tmp_path: Path) -> None:
    data = table(tmp_path / "data", lines, "question", "related")
    model = {"name": models["bert"], "sigmoid": True}
    if "model.head" in options:
        model["head"] = options["model.head"]
    run = fit("text-classification", model, {"source": data, "label_column": "related"}, tmp_path / "run",
              strategy=options.get("strategy", "full"))
    agrees(run, data)
    (found,) = run.predict(["rain"])
    assert list(found["scores"]) == ["no", "yes"]
    assert sum(found["scores"].values()) == pytest.approx(1)


def test_pairs_of_texts(models: dict[str, str], lines: Any, tmp_path: Path) -> None:
    data = table(tmp_path / "data", lines, "question", "sentence", "related")
    run = fit("text-classification", models["bert"],
              {"source": data, "label_column": "related", "text_column": "question", "text_pair_column": "sentence"},
              tmp_path / "run")
    first = lines["test"][0]
    pair = (str(first["question"]), str(first["sentence"]))
    by_tuple, by_line = run.predict([pair, "\t".join(pair)])
    assert by_tuple == by_line
    assert run.predict([pair[::-1]])[0]["scores"] != by_tuple["scores"]
    with pytest.raises(DataError, match=r"'one text only'.*TAB|tab"):
        run.predict(["one text only"])
    agrees(run, data)


def test_a_pair_for_a_run_of_single_texts_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    run = fit("text-classification", models["bert"], str(write_texts(tmp_path / "data", COUNTS)), tmp_path / "run",
              strategy="linear_probe")
    with pytest.raises(DataError, match="is a pair, and the run was trained on single texts"):
        run.predict([("one", "two")])


def test_calibration_divides_the_saved_logits(models: dict[str, str], tmp_path: Path) -> None:
    data = str(write_texts(tmp_path / "data", COUNTS))
    plain = fit("text-classification", models["bert"], data, tmp_path / "plain")
    cooled = fit("text-classification", models["bert"], data, tmp_path / "cooled", evaluate={"calibrate": True})
    found = plain.metrics["calibration"]
    assert (found["applied"], cooled.metrics["calibration"]["applied"]) == (False, True)
    assert found["temperature"] == pytest.approx(cooled.metrics["calibration"]["temperature"])
    before, after = found["ece"]["test"]
    assert (plain.metrics["test"]["ece"], cooled.metrics["test"]["ece"]) == pytest.approx((before, after))
    logits = [run.logits(run.inputs(run.task.read(["the rain"], pairs=False))) for run in (plain, cooled)]
    np.testing.assert_allclose(logits[1], logits[0] / found["temperature"], atol=1e-5)
    agrees(cooled, data)


def test_rare_classes_can_be_drawn_more_often(models: dict[str, str], tmp_path: Path) -> None:
    """With every third text of a class left out, the losses differ, and the saved model scores as the trained one."""
    data = write_texts(tmp_path / "data", COUNTS)
    kept = [line for row, line in enumerate((data / "train.csv").read_text().splitlines()) if row < 8 or row % 3]
    (data / "train.csv").write_text("\n".join(kept) + "\n")
    runs = {kind: fit("text-classification", models["bert"], str(data), tmp_path / kind, train={"sampling": kind})
            for kind in ("natural", "sqrt", "balanced")}
    assert len({losses(run)[0] for run in runs.values()}) == 3
    agrees(runs["balanced"], str(data))


def test_weights_and_priors_make_up_for_what_sampling_leaves() -> None:
    labels, flags = np.repeat([0, 1], [90, 10]), np.repeat([[True, False], [False, True]], [90, 10], axis=0)
    found = {}
    for kind in ("natural", "sqrt", "balanced"):
        train = TrainConfig(class_weights="balanced", sampling=kind, loss="cross_entropy", logit_adjustment=1.0)
        single = SingleLabel().objective(labels, 2, train, IDENTITY)
        several = MultiLabel().objective(flags, 2, train, IDENTITY)
        found[kind] = (float(single.weights[-1] / single.weights[0]), float(np.ptp(single.prior.numpy())),
                       float(several.positive_weights[1]))
    assert found["natural"] == pytest.approx((9, np.log(9), 9))
    assert found["sqrt"] == pytest.approx((3, np.log(3), 3))
    assert found["balanced"] == pytest.approx((1, 0, 1), abs=1e-6)


def test_huber_s_delta_acts(models: dict[str, str], lines: Any, tmp_path: Path) -> None:
    data = {"source": table(tmp_path / "data", lines, "text", "stars"), "problem_type": "regression"}
    options = {"squared": {}, "far": {"loss": "huber", "huber_delta": 100.0},
               "near": {"loss": "huber", "huber_delta": 0.01}}
    first = {name: losses(fit("text-classification", models["bert"], data, tmp_path / name,
                              train={"max_steps": 1, **train}))[0] for name, train in options.items()}
    assert first["far"] == pytest.approx(first["squared"] / 2)
    assert first["near"] < first["squared"] / 10


@pytest.mark.parametrize(("options", "words"), [
    ({"train": {"loss": "mse"}}, "--train.loss 'mse' is no loss for this kind of target; take one of: cross_entropy"),
    ({"model": {"sigmoid": True}}, "--model.sigmoid tells two classes apart, and the data have 3"),
    ({"evaluate": {"best": "rmse"}}, "'rmse' does not apply"),
])
def test_what_does_not_fit_the_kind_of_target(options: dict[str, Any], words: str, models: dict[str, str],
                                              tmp_path: Path) -> None:
    data = str(write_texts(tmp_path / "data", COUNTS))
    model = {"name": models["bert"], **options.pop("model", {})}
    with pytest.raises(UsageError, match=words):
        tlhub.finetune("text-classification", model=model, data=data, out=str(tmp_path / "run"), **options)


def test_every_kind_of_target_trains_towards_what_it_scores() -> None:
    """The outputs that make each loss smallest are those that its own metrics call perfect."""
    values = np.random.default_rng(0).normal(size=(20, 2)) * 7 + 3
    labels = {"single_label_classification": np.arange(20) % 2, "multi_label_classification": values > 3,
              "regression": values, "next_token": np.full((20, 2), 3)}
    perfect = {"single_label_classification": np.eye(2)[np.arange(20) % 2] * 50,
               "multi_label_classification": np.where(values > 3, 50.0, -50.0), "regression": values,
               "next_token": np.tile([0.0, 3.0], (20, 1))}
    assert labels.keys() == PROBLEMS.keys()
    for name, kind in PROBLEMS.items():
        best = kind().score(perfect[name], labels[name], [kind.best])[kind.best]
        assert best == pytest.approx(0.0 if kind in (Regression, NextTokens) else 1.0)
        assert (kind is SingleLabel) == (labels[name].ndim == 1)
    undo = standardising(values, centre=True)
    np.testing.assert_allclose(undo.apply(undo.standardise(values)), values, rtol=1e-5)
    assert np.array_equal(IDENTITY.standardise(values), values)
