"""The task from beginning to end: what a run leaves, and that the finished one decides as it did."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tlhub
from tests import tiny
from tests.sounds import tone, write_sound
from tlhub import results
from tlhub.config import replace
from tlhub.errors import DataError, UsageError
from tlhub.wake_word.problem import KeywordSpotting

PITCHES = {"alexa": 300.0, "computer": 900.0, "mirror": 2000.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and tones of three kinds in noise by several speakers."""
    folder = tmp_path_factory.mktemp("words")
    tiny.checkpoint(folder / "model", "hubert")
    random = np.random.default_rng(0)
    lines = ["file_name,label,speaker,split"]
    for split, count in (("train", 12), ("validation", 8), ("test", 8)):
        for name, pitch in PITCHES.items():
            for number in range(count):
                file = f"{split}_{name}_{number}.wav"
                clip = tone(pitch * random.uniform(0.8, 1.2), 0.15) + 0.1 * random.normal(size=2400)
                write_sound(folder / "data" / file, clip.astype(np.float32))
                lines.append(f"{file},{name},{split}{number % 3},{split}")
    (folder / "data" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def fit(folder, out, keyword, strategy="linear_probe", **own):
    train = {} if strategy == "linear_probe" else {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-3}
    return tlhub.finetune("wake-word", model=str(folder / "model"), strategy=strategy, out=str(out), train=train,
                          data={"source": str(folder / "data"), "group_column": "speaker",
                                "cache_dir": str(folder / "cache")},
                          task_options={"keyword": keyword, "false_accept_rate": 0.1},
                          **{"evaluate": {"resamples": 10}, **own})


def test_a_probe_from_beginning_to_end(folder, tmp_path):
    run = fit(folder, tmp_path / "run", "computer", evaluate={"resamples": 10, "calibrate": True})
    assert (run.label_names, run.config.train.class_weights) == (("other", "computer"), "balanced")
    found = run.metrics
    assert list(found["test"]) == list(KeywordSpotting.metrics)
    assert found["test"]["miss_rate_at_fa_rate"] == {"0.01": None, "0.05": None}  # 16 other clips are too few
    assert found["operating_point"]["note"] is None
    assert found["operating_point"]["validation"]["false_accepts"] <= 1
    assert list(found["operating_point"]["test"]["groups"]) == ["test0", "test1", "test2"]
    assert {path.name for path in (run.folder / "plots").iterdir()} >= {
        "det_test.png", "det_test.csv", "det_validation.png", "confusion_test.png", "reliability_test.png"}
    text = (run.folder / "report.md").read_text()
    assert "whole groups at a time (test 3, validation 3)" in text
    assert text.index("## Scores") < text.index("## Operating point") < text.index("## Classes")
    assert text.index("det_test.png") < text.index("confusion_test.png")
    assert "none is in two splits" in text
    again = run.evaluate(str(folder / "data"))
    assert again["operating_point"]["test"] == found["operating_point"]["test"]
    assert again["intervals"]["average_precision"] == found["intervals"]["test"]["average_precision"]
    assert again["metrics"]["average_precision"] == pytest.approx(found["test"]["average_precision"])
    stored = json.loads((run.folder / "evaluations" / "001.json").read_text())
    assert stored["operating_point"] == again["operating_point"]
    said = [row["label"] for row in run.predict([str(path) for path in (folder / "data").glob("test_*.wav")])]
    point = found["operating_point"]["test"]
    assert said.count("computer") == point["positives"] - point["misses"] + point["false_accepts"]
    # Other data need not have the table that the run's had.
    for number, name in enumerate(["computer", "computer", "mirror"]):
        write_sound(tmp_path / "other" / name / f"{number}.wav", tone(PITCHES[name], 0.15))
    run.config = replace(run.config, {"data.metadata": "metadata.csv", "data.label_column": "label"})
    assert run.evaluate(str(tmp_path / "other"))["operating_point"]["test"]["positives"] == 2


def test_the_best_epoch_is_that_of_the_highest_average_precision(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)  # the first test looks at the plots
    run = fit(folder, tmp_path / "run", "computer,alexa", strategy="head", log={"every": 1})
    assert run.label_names == ("other", "computer", "alexa")
    assert run.config.evaluate.best == "average_precision"
    lines = [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]
    scores = [line["validation"] for line in lines if "validation" in line]
    assert all(line["miss_rate_at_fa_rate"] == {"0.01": None, "0.05": None} for line in scores)
    assert run.metrics["validation"]["average_precision"] == max(line["average_precision"] for line in scores)
    assert list(run.metrics["operating_point"]["test"]["keywords"]) == ["computer", "alexa"]


def test_wrong_input(folder, tmp_path):
    with pytest.raises(DataError, match=r"keyword 'komputer' is no class .* did you mean 'computer'"):
        fit(folder, tmp_path / "a", "komputer")
    with pytest.raises(UsageError, match="'miss_rate_at_fa_rate' is no score by itself; take one of: accuracy"):
        fit(folder, tmp_path / "b", "computer", evaluate={"best": "miss_rate_at_fa_rate"})
