"""Scores of several parts, and everything that shows scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from tlhub import cli
from tlhub.evaluation import plots
from tlhub.evaluation.report import losing_to, write_report
from tlhub.evaluation.scores import flat, metric_of, one_number
from tlhub.training.callbacks import History, read_history

SCORES = {"accuracy": 0.75, "miss_rate_at_fa_rate": {"0.01": None, "0.05": 0.25}}


def test_parts_are_scores_of_their_own():
    assert flat(SCORES) == {"accuracy": 0.75, "miss_rate_at_fa_rate/0.01": None, "miss_rate_at_fa_rate/0.05": 0.25}
    assert [metric_of(name) for name in flat(SCORES)] == ["accuracy", *["miss_rate_at_fa_rate"] * 2]
    assert one_number(0.5) == 0.5
    for score in (None, {"0.01": 0.5}):
        with pytest.raises(TypeError, match="is not one number"):
            one_number(score)


def test_the_command_line_prints_the_parts_that_are_known():
    assert cli._scores(SCORES) == "accuracy 0.7500  miss_rate_at_fa_rate/0.05 0.2500"


def test_the_history_keeps_parts_and_trackers_get_them_one_by_one(tmp_path):
    sent = []
    accelerator = SimpleNamespace(is_main_process=True, log=lambda values, step: sent.append(values))
    History(tmp_path / "history.jsonl").write(SimpleNamespace(accelerator=accelerator),
                                              {"step": 3, "epoch": 1.0, "validation": SCORES})
    assert read_history(tmp_path / "history.jsonl")[0]["validation"] == SCORES
    assert sent == [{"epoch": 1.0, "validation/accuracy": 0.75, "validation/miss_rate_at_fa_rate/0.05": 0.25}]


def test_curves_have_a_panel_for_each_part():
    series = plots._series([{"step": step, "validation": SCORES} for step in (1, 2)], one_loss=True)
    assert series == {"accuracy": {"validation": [(1.0, 0.75), (2.0, 0.75)]},
                      "miss rate at fa rate/0.05": {"validation": [(1.0, 0.25), (2.0, 0.25)]}}


def test_the_report_has_a_line_for_each_part(tmp_path):
    metrics = {"task": "wake-word", "model": "m", "strategy": "full", "seed": 0, "test": SCORES, "validation": SCORES,
               "intervals": {"test": {"accuracy": [0.7, 0.8],
                                      "miss_rate_at_fa_rate": {"0.01": None, "0.05": [0.2, 0.3]}}},
               "baselines": {"majority": {"accuracy": 0.5, "miss_rate_at_fa_rate": {"0.01": None, "0.05": 0.125}}}}
    text = write_report(tmp_path, config={}, metrics=metrics, sections=[["## Further", "", "told"], []]).read_text()
    assert "| miss_rate_at_fa_rate/0.01 |        |                  | lower  |" in text
    assert "| miss_rate_at_fa_rate/0.05 | 0.2500 | 0.2000 to 0.3000 | lower  |" in text
    assert "| `majority` | 0.5000   |                           | 0.1250                    |" in text
    assert "A score without a value cannot be told from so few examples." in text
    assert "## Further\n\ntold\n" in text
    assert losing_to(metrics, "accuracy") == []
    assert losing_to(metrics, "miss_rate_at_fa_rate/0.05") == [
        "The model does not beat the baseline `majority` on test: miss_rate_at_fa_rate/0.05 0.2500 against 0.1250."]


def test_a_trade_off_of_many_lines_is_drawn(tmp_path):
    rates = np.linspace(0, 1, 50)
    curves = {f"keyword {number}": (rates, (1 - rates) ** (1 + number)) for number in range(10)}
    path = plots.trade_off(curves, {"keyword 3": (0.0, 1.0)}, tmp_path / "a.png", smallest=(0.02, 0.5))
    assert path.stat().st_size > 10_000
    assert plots._spread([0.001, 0.005, 0.01, 0.02, 0.1], 0.0006) == [0.005, 0.02, 0.1]
