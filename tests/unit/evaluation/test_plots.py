import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from tlhub.errors import TlhubError
from tlhub.evaluation import plots
from tlhub.evaluation.calibration import reliability
from tlhub.evaluation.plots import confusion, curves, predicted_against_true


def ink(path):
    return (np.asarray(Image.open(path).convert("L")) < 200).mean()


@pytest.fixture
def panels(monkeypatch):
    """Keep the panels of every figure that is saved: title, labels of the lines, axes."""
    seen = []
    save = plots._save

    def kept(figure, path, resolution):
        seen.extend(figure.axes)
        return save(figure, path, resolution)

    monkeypatch.setattr(plots, "_save", kept)
    return seen


@pytest.mark.parametrize("classes", [2, 12, 100])
def test_confusion_is_drawn_at_a_size_for_its_classes(tmp_path, classes):
    names = [f"class {'x' * (number % 60)} {number}" for number in range(classes)]
    path = confusion(np.diag(np.arange(1, classes + 1)), names, tmp_path / "confusion.png")
    width, height = Image.open(path).size
    assert 400 < height < 6000
    assert width / classes > 12
    assert ink(path) > 0.005


def test_names_are_drawn_as_they_are(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        confusion(np.eye(3, dtype=np.int64), ["$x_$1", "花", "{"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").exists()


def test_curves_of_losses_and_validations(tmp_path):
    history = [{"step": step, "epoch": 1.0, "loss": 1 / step, "learning_rate": 1e-3} for step in range(1, 20)]
    history += [{"step": 10, "validation": {"accuracy": 0.5, "loss": float("nan")}},
                {"step": 19, "validation": {"accuracy": 0.8, "loss": 0.3}}]
    path = curves(history, tmp_path / "curves.png")
    assert Image.open(path).size[0] == 1000
    assert ink(path) > 0.003
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


HISTORY = [{"step": 5, "loss": 2.0, "learning_rate": 1e-3, "grad_norm": 9.0}, {"step": 10, "loss": 1.0},
           {"step": 10, "validation": {"accuracy": 0.5, "loss": 1.5}}]


def test_both_losses_share_a_panel_unless_they_are_different_quantities(tmp_path, panels):
    curves(HISTORY, tmp_path / "curves.png")
    assert [axes.get_title() for axes in panels] == ["loss", "accuracy", "learning rate"]
    training, validation = panels[0].lines
    assert training.get_xydata().tolist() == [[5, 2], [10, 1]]
    assert validation.get_xydata().tolist() == [[10, 1.5]]
    assert [text.get_text() for text in panels[0].get_legend().texts] == ["training", "validation"]
    assert {axes.get_xlim() for axes in panels} == {(0.0, 10.2)}
    panels.clear()
    curves(HISTORY, tmp_path / "curves.png", one_loss=False)
    assert [axes.get_title() for axes in panels] == ["training loss", "validation loss", "accuracy", "learning rate"]


def test_a_metric_of_training_joins_that_of_validation(tmp_path, panels):
    curves([*HISTORY, {"step": 5, "accuracy": 0.4}], tmp_path / "curves.png")
    assert {line.get_label() for line in panels[1].lines} == {"training", "validation"}


def test_predictions_are_drawn_target_by_target(tmp_path, panels):
    labels = np.array([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]])
    path = predicted_against_true(labels + np.array([0.0, 5.0]), labels, ["$a_$", "b"], tmp_path / "predicted.png")
    assert [axes.get_title() for axes in panels] == ["$a_$: R² 1.000", "b: R² 0.625"]
    assert panels[1].collections[0].get_offsets().tolist() == [[10, 15], [20, 25], [30, 35]]
    assert panels[1].get_xlim() == panels[1].get_ylim() == (9.0, 36.0)
    assert ink(path) > 0.003


def test_one_target_constant_targets_and_many_targets(tmp_path, panels, monkeypatch):
    monkeypatch.setattr(plots, "_MOST_TARGETS", 2)
    predicted_against_true(np.ones(3), np.ones(3), ["a"], tmp_path / "one.png")
    assert panels[0].get_xlim() == (0.5, 1.5)
    panels.clear()
    predicted_against_true(np.ones((3, 4)), np.ones((3, 4)), list("abcd"), tmp_path / "many.png")
    assert len(panels) == 2
    assert panels[0].figure.get_suptitle() == "the first 2 of 4 targets"
    with pytest.raises(TlhubError, match="NaN for 1 of 3"):
        predicted_against_true(np.array([1.0, np.nan, 2.0]), np.ones(3), ["a"], tmp_path / "nan.png")


def test_reliability_is_drawn_before_and_after(tmp_path, panels):
    logits, labels = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.05, 0.95]])), np.array([0, 1, 1])
    found = {"before": reliability(logits, labels), "after": reliability(logits / 2, labels)}
    path = plots.reliability(found, tmp_path / "reliability.png")
    assert [axes.get_title() for axes in panels] == ["before: ECE 0.217", "",
                                                     f"after: ECE {found['after'].ece:.3f}", ""]
    bars = {round(bar.get_x(), 3): bar.get_height() for bar in panels[0].patches}
    assert bars == {round(11 / 15, 3): 0.5, round(14 / 15, 3): 1.0}
    assert sum(bar.get_height() for bar in panels[1].patches) == pytest.approx(1)
    assert ink(path) > 0.01


def test_an_empty_history_is_no_error(tmp_path):
    assert curves([], tmp_path / "curves.png").exists()
