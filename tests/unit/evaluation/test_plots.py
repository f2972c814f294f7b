import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from tlhub.evaluation.plots import confusion, curves


def ink(path):
    return (np.asarray(Image.open(path).convert("L")) < 200).mean()


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


def test_an_empty_history_is_no_error(tmp_path):
    assert curves([], tmp_path / "curves.png").exists()
