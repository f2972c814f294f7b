import pytest

from tlhub.config import MULTI_LABEL, REGRESSION
from tlhub.evaluation.report import losing_to, write_report

METRICS = {
    "task": "text-classification", "model": "tiny|bert", "strategy": "full", "seed": 0,
    "validation": {"accuracy": 0.91, "ece": 0.05}, "test": {"accuracy": 0.88, "ece": 0.04},
    "intervals": {"test": {"accuracy": [0.85, 0.91]}},
    "baselines": {"majority": {"accuracy": 0.5, "ece": 0.01}, "knn": {"accuracy": 0.8}},
    "parameters": {"total": 1_000_000, "trainable": 250_000},
    "data": {"train": 800, "validation": 100, "test": 100, "classes": 2},
    "time": {"train_s": 12.34}, "throughput": {"examples_per_s": 100.0}, "peak_memory_mib": 512.0,
}
CONFIG = {"data": {"source": "reviews.csv"}, "model": {"revision": None}, "evaluate": {"best": "accuracy"},
          "train": {"epochs": 3, "learning_rate": 1e-4, "batch_size": None}}


def test_report_tells_scores_intervals_and_baselines(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "curves.png").write_bytes(b"")
    text = write_report(tmp_path, config=CONFIG, metrics=METRICS, notes=["2 rows\nwere dropped"],
                        facts={"torch": "2.13.0"}).read_text()
    assert text.startswith("# text-classification: tiny|bert on reviews.csv\n\nStrategy `full`, seed 0: 250,000 of")
    assert "| accuracy | 0.8800 | 0.8500 to 0.9100 | higher |" in text
    assert "| ece      | 0.0400 |                  | lower  |" in text
    assert "| `knn`      | 0.8000   |        |" in text
    assert "- 2 rows were dropped\n" in text
    assert "![curves](plots/curves.png)" in text
    assert "tiny\\|bert" in text
    assert "| torch " in text
    assert "Warning" not in text
    assert text.endswith("|\n")
    assert "\n\n\n" not in text


def test_intervals_over_groups_say_so_and_few_groups_are_no_sample(tmp_path):
    def told(**more):
        return write_report(tmp_path, config=CONFIG, metrics={**METRICS, **more}).read_text()

    assert "resamples of the examples; they" in told()
    many = told(groups={"validation": {"all": 12, "fewest": 10}, "test": {"all": 1300, "fewest": 12}})
    assert "resamples of the examples, whole groups at a time (test 1,300, validation 12); they" in many
    assert "fewer than 10 groups" not in many
    assert "fewer than 10 groups" in told(groups={"test": {"all": 30, "fewest": 9}})


def test_every_table_has_one_width(tmp_path):
    text = write_report(tmp_path, config=CONFIG, metrics=METRICS).read_text().rstrip("\n")
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    assert all(len({len(line) for line in table}) == 1 for table in tables)


@pytest.mark.parametrize(("kind", "word"), [(MULTI_LABEL, "labels"), (REGRESSION, "targets"), (None, "classes")])
def test_the_number_of_outputs_is_called_what_they_are(tmp_path, kind, word):
    text = write_report(tmp_path, config=CONFIG, metrics={**METRICS, "problem_type": kind}).read_text()
    assert [line.split()[1] for line in text.splitlines() if line.endswith("| 2     |")] == [word]


def test_a_model_that_loses_is_told(tmp_path):
    weak = {**METRICS, "test": {"accuracy": 0.5, "ece": 0.3}}
    assert losing_to(weak, "accuracy") == [
        "The model does not beat the baseline `majority` on test: accuracy 0.5000 against 0.5000.",
        "The model does not beat the baseline `knn` on test: accuracy 0.5000 against 0.8000."]
    assert "> **Warning.** The model does not beat" in write_report(tmp_path, config=CONFIG, metrics=weak).read_text()


def test_the_chosen_metric_and_its_direction_decide():
    assert losing_to(METRICS) == []
    assert losing_to(METRICS, "ece") == [
        "The model does not beat the baseline `majority` on test: ece 0.0400 against 0.0100."]


def test_a_perfect_score_is_not_beaten():
    assert losing_to({"test": {"accuracy": 1.0}, "baselines": {"knn": {"accuracy": 1.0}}}) == []


def test_without_a_test_split_validation_is_compared_and_said_to_be_optimistic(tmp_path):
    metrics = {name: value for name, value in METRICS.items() if name != "test"}
    assert losing_to({**metrics, "validation": {"accuracy": 0.6}}, "accuracy")[0].startswith(
        "The model does not beat the baseline `knn` on validation")
    assert "are optimistic" in write_report(tmp_path, config=CONFIG, metrics=metrics).read_text()


def test_a_perfect_error_of_0_is_not_beaten():
    assert losing_to({"test": {"mae": 0.0}, "baselines": {"mean": {"mae": 0.0}}}) == []


def report(folder, **content):
    return write_report(folder, config=CONFIG, metrics={**METRICS, **content}).read_text()


def test_classes_are_told_rarest_first(tmp_path):
    rows = {"cat": {"examples": 1200, "precision": 0.9, "recall": 0.95, "f1": 0.92},
            "tig|er": {"examples": 3, "precision": None, "recall": 0.0, "f1": 0.0}}
    text = report(tmp_path, breakdown={"validation": {"other": rows["cat"]}, "test": rows})
    assert """## Classes

On test, the rarest first:

| class   | examples | precision | recall | f1     |
|---------|----------|-----------|--------|--------|
| tig\\|er | 3        |           | 0.0000 | 0.0000 |
| cat     | 1,200    | 0.9000    | 0.9500 | 0.9200 |
""" in text
    assert "above one half" not in text


def test_of_many_classes_the_rarest_thirty_are_told(tmp_path):
    rows = {f"c{number}": {"examples": 100 - number, "recall": 1.0} for number in range(40)}
    text = report(tmp_path, breakdown={"test": rows})
    assert "On test, the 30 rarest of 40 classes:" in text
    assert "| c39 " in text
    assert "| c10 " in text
    assert "| c9 " not in text


def test_labels_and_targets_have_their_own_words(tmp_path):
    rows = {"red": {"examples": 3, "precision": 0.5, "recall": 0.25, "f1": 0.3}}
    text = report(tmp_path, breakdown={"test": rows}, problem_type=MULTI_LABEL)
    assert "## Labels" in text
    assert "| label | examples |" in text
    assert "A label is given where its probability is above one half." in text
    rows = {"width": {"mae": 2.5, "r2": 0.9}, "depth": {"mae": 0.25, "r2": -0.1}}
    text = report(tmp_path, breakdown={"test": rows}, test={"mae": 1.375, "r2": 0.4})
    assert "## Targets\n\nOn test:\n\n| target | mae    | r2      |\n" in text
    assert text.index("| width ") < text.index("| depth ")
    assert "in the units of the target" in text


@pytest.mark.parametrize("applied", [True, False])
def test_calibration_is_told(tmp_path, applied):
    text = report(tmp_path, calibration={"temperature": 1.8314, "applied": applied,
                                         "ece": {"validation": [0.1, 0.02], "test": [0.11, 0.03]}})
    assert "divided by a temperature of 1.831; the saved model " + ("divides" if applied else "does not") in text
    assert ("`--evaluate.calibrate true`" in text) is not applied
    assert "| test                       | 0.1100 | 0.0300 |" in text


def test_sections_without_content_are_left_out(tmp_path):
    text = report(tmp_path, breakdown={"test": {}})
    assert not any(f"## {title}" in text for title in ("Classes", "Labels", "Targets", "Calibration"))


def test_plots_are_shown_in_an_order_that_makes_sense(tmp_path):
    (tmp_path / "plots").mkdir()
    for name in ("augmentation", "reliability_test", "confusion_validation", "confusion_test", "curves"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"")
    text = report(tmp_path)
    places = [text.index(f"(plots/{name}.png)") for name in (
        "curves", "confusion_test", "confusion_validation", "reliability_test", "augmentation")]
    assert places == sorted(places)


def test_numbers_are_written_plainly(tmp_path):
    text = report(tmp_path, test={"r2": -1e-6}, parameters={"total": 7873, "trainable": 7873}, intervals={
        "test": {"r2": [-0.5, -1e-6]}})
    assert "7,873 of 7,873 parameters (100%)" in text
    assert "| r2     | 0.0000 | -0.5000 to 0.0000 | higher |" in text
