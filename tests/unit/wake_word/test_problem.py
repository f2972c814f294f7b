"""Keyword spotting: the operating point, predictions at it, its plots, and what the report says."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tlhub import options
from tlhub.evaluation.outcomes import log_odds
from tlhub.models.outputs import temperature
from tlhub.wake_word.problem import KeywordSpotting

ONE, TWO = ("other", "computer"), ("other", "computer", "alexa")


def config(names=ONE, **own):
    return options.from_kwargs("wake-word", model="-", data="-", task_options={"keyword": list(names[1:]), **own})


def example(names=ONE, others=300, keywords=60, seed=0):
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.zeros(others, np.int64), random.integers(1, len(names), keywords)])
    return random.normal(size=(len(labels), len(names))) + 2 * np.eye(len(names))[labels], labels


def facts(names=ONE, groups=None, **own):
    validation, test = example(names), example(names, seed=1)
    return KeywordSpotting().facts({"validation": validation[0], "test": test[0]},
                                   {"validation": validation[1], "test": test[1]},
                                   {"validation": None, "test": groups}, names, config(names, **own))


@pytest.fixture(scope="module")
def groups():
    names = [f"group s{number % 7}" for number in range(350)] + [f"row {number}" for number in range(10)]
    return np.array(names, dtype=object)


def test_the_threshold_is_that_of_validation_on_every_split():
    point = facts()["operating_point"]
    outputs, labels = example(seed=1)
    assert point["validation"]["false_accepts"] == 3
    accepted = log_odds(outputs) >= point["log_odds"]
    assert point["test"]["misses"] == (~accepted & (labels > 0)).sum()
    assert point["test"]["false_accepts"] == (accepted & (labels == 0)).sum()
    assert point["threshold"] == pytest.approx(1 / (1 + np.exp(-point["log_odds"])))
    assert point["note"] is None
    looser = facts(false_accept_rate=0.1)["operating_point"]
    assert looser["validation"]["false_accepts"] == 30
    assert looser["threshold"] < point["threshold"]


def test_everything_is_plain_json(groups):
    for names in (ONE, TWO):
        found = facts(names, groups)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_finished_run_keeps_its_threshold():
    known = facts()
    outputs, labels = example(seed=2)
    found = KeywordSpotting(known).facts({"test": outputs}, {"test": labels}, {"test": None}, ONE, config())
    point = found["operating_point"]
    assert "validation" not in point
    assert {point[key] == known["operating_point"][key] for key in ("threshold", "log_odds", "note")} == {True}
    assert point["test"]["misses"] == (log_odds(outputs[labels > 0]) < point["log_odds"]).sum()
    outputs, labels = example(keywords=0)
    only = KeywordSpotting(known).facts({"test": outputs}, {"test": labels}, {"test": None}, ONE, config())
    assert only["operating_point"]["test"]["miss_rate"] is None


@pytest.mark.parametrize("names", [ONE, TWO])
def test_predictions_are_made_by_the_threshold(names):
    known = facts(names)
    outputs, labels = example(names, seed=1)
    rows = KeywordSpotting(known).predictions(outputs.astype(np.float32), names)
    said = np.array([names.index(row["label"]) for row in rows])
    assert ((said > 0) & (labels == 0)).sum() == known["operating_point"]["test"]["false_accepts"]
    assert ((said == 0) & (labels > 0)).sum() == known["operating_point"]["test"]["misses"]
    assert (said == outputs.argmax(axis=1)).mean() < 1  # one half is another threshold
    for row, values in zip(rows, outputs, strict=True):
        assert list(row["scores"]) == list(names)
        assert sum(row["scores"].values()) == pytest.approx(1)
        assert row["score"] == row["scores"][row["label"]]
        keywords = {name: row["scores"][name] for name in names[1:]}
        assert row["label"] in ("other", max(keywords, key=keywords.__getitem__))
        assert (row["label"] != "other") == (log_odds(values[None])[0] >= known["operating_point"]["log_odds"])


def test_several_keywords_are_told_one_by_one():
    point = facts(TWO)["operating_point"]["test"]
    outputs, labels = example(TWO, seed=1)
    rows = point["keywords"]
    assert sum(row["positives"] for row in rows.values()) == point["positives"] == 60
    assert sum(row["misses"] for row in rows.values()) == point["misses"]
    accepted = log_odds(outputs) >= facts(TWO)["operating_point"]["log_odds"]
    confused = accepted & (labels == 1) & (outputs[:, 2] > outputs[:, 1])
    assert rows["computer"]["confused"] == confused.sum() > 0
    assert "keywords" not in facts()["operating_point"]["test"]


def test_groups_are_told_by_name_and_rows_without_one_are_not(groups):
    point = facts(groups=groups)["operating_point"]
    rows = point["test"]["groups"]
    assert sorted(rows) == [f"s{number}" for number in range(7)]
    assert sum(row["positives"] + row["negatives"] for row in rows.values()) == 350
    assert rows["s0"]["miss_rate"] == rows["s0"]["misses"] / rows["s0"]["positives"]
    assert "groups" not in point["validation"]


def test_a_temperature_leaves_the_decisions_as_they_are():
    """Of two classes the threshold moves with the scores, so the same clips are accepted, at another probability."""
    validation, test = example(), example(seed=1)
    points = []
    for divide in (temperature(1.0), temperature(3.0)):
        outputs = {"validation": divide.apply(validation[0]), "test": divide.apply(test[0])}
        labels = {"validation": validation[1], "test": test[1]}
        points.append(KeywordSpotting().facts(outputs, labels, {"validation": None, "test": None}, ONE,
                                              config())["operating_point"])
    assert points[1]["test"] == points[0]["test"]
    assert points[1]["log_odds"] == pytest.approx(points[0]["log_odds"] / 3)


def test_too_few_others_are_told_in_the_log_the_metrics_and_the_report(caplog):
    caplog.set_level("INFO", "tlhub")
    outputs, labels = example(others=40)
    found = KeywordSpotting().facts({"validation": outputs}, {"validation": labels}, {"validation": None}, ONE,
                                    config())
    assert "beware: the 40 other clips of validation are too few" in caplog.text
    (section,) = KeywordSpotting().sections(found)
    assert any(line.startswith("> **Warning.** The 40 other clips of validation are too few") for line in section)
    scores = KeywordSpotting().score(outputs, labels, KeywordSpotting.metrics)
    assert scores["miss_rate_at_fa_rate"]["0.01"] is None
    assert scores["miss_rate_at_fa_rate"]["0.05"] is not None


def test_the_report_tells_the_worst_groups_first(groups):
    found = facts(TWO, groups)
    text = "\n".join(KeywordSpotting().sections(found)[0])
    point = found["operating_point"]
    assert f"at least {point['threshold']:.6g}." in text
    assert "while at most 1% of the other clips are accepted" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| test")] == ["test"]
    assert "By keyword, on test:" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| s")]
    worst = {name: row["miss_rate"] for name, row in point["test"]["groups"].items()}
    assert rows[0] == max(worst, key=lambda name: (worst[name], point["test"]["groups"][name]["false_accept_rate"]))


def test_the_trade_off_is_drawn_and_written(tmp_path):
    problem = KeywordSpotting(facts(TWO))
    outputs, labels = example(TWO, seed=1)
    drawn = problem.draw(outputs, labels, TWO, "test", tmp_path)
    assert [path.name for path in drawn] == ["det_test.png", "det_test.csv", "confusion_test.png"]
    with Image.open(drawn[0]) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    with drawn[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 + len(np.unique(log_odds(outputs)))
    assert (rows[0]["log_odds"], rows[0]["false_accepts"], rows[0]["misses"]) == ("inf", "0", "60")
    middle = rows[100]
    # Nine digits of the score are written, so the clip at the threshold itself may fall to either side.
    assert abs((log_odds(outputs)[labels > 0] < float(middle["log_odds"])).sum() - int(middle["misses"])) <= 1
    assert all(int(row["misses of computer"]) + int(row["misses of alexa"]) == int(row["misses"]) for row in rows)


def test_a_split_of_one_side_has_no_trade_off(tmp_path):
    outputs, labels = example(keywords=0)
    drawn = KeywordSpotting(facts()).draw(outputs, labels, ONE, "test", tmp_path)
    assert [path.name for path in drawn] == ["confusion_test.png"]
