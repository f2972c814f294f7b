from __future__ import annotations

import json

import datasets
import numpy as np
import pytest

from tests.data_files import write, write_images
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, DataConfig
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.data.values import Values
from tlhub.errors import DataError, UsageError

TEXT = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
ONLY = (REGRESSION,)


def table(path, header="text,score", rows=100, cell=lambda n: f"{n / 4:.2f}", more=""):
    return write(path, header + "\n" + "".join(f"t{n},{cell(n)}\n" for n in range(rows)) + more)


def test_values_come_back_as_they_are(tmp_path, config):
    data = prepare(config(table(tmp_path / "a.csv")), "text", problems=TEXT, seed=0)
    assert data.target == Target(REGRESSION, ("score",))
    for part in data.splits.values():
        assert (part.labels.dtype, part.labels.shape) == (np.float64, (len(part), 1))
        assert part.labels[:, 0].tolist() == [int(text[1:]) / 4 for text in part.inputs]
    assert any("'score' holds numbers with fractions: a regression" in note for note in data.notes)


def test_splits_and_subsets_cover_the_range(tmp_path, config):
    path = table(tmp_path / "a.csv", rows=200)
    data = prepare(config(path, max_train_examples=20), "text", problems=TEXT, seed=0)
    tenths = [np.bincount((part.labels[:, 0] * 4 // 20).astype(int), minlength=10) for part in data.splits.values()]
    assert [counts.tolist() for counts in tenths] == [[2] * 10] * 3
    assert len(prepare(config(path, max_train_examples=3), "text", problems=TEXT, seed=0).splits["train"]) == 3


def test_several_values(tmp_path, config):
    path = table(tmp_path / "a.csv", "text,b,a", cell=lambda n: f"{n},{-n / 2}")
    data = prepare(config(path, target_columns=["a", "b"]), "text", problems=TEXT, seed=0)
    assert data.target == Target(REGRESSION, ("a", "b"))
    part = data.splits["test"]
    assert part.labels.tolist() == [[-int(text[1:]) / 2, int(text[1:])] for text in part.inputs]


@pytest.mark.parametrize(("header", "chosen"), [("text,length", "length"), ("text,Value", "Value"), ("words,y", "y"),
                                                ("text,id,age", "age"), ("text,label,grams", "grams")])
def test_the_column_of_values(tmp_path, config, header, chosen):
    def cell(number):
        return {"id": f"{number},{number}", "label": f"ab,{number}"}.get(header.split(",")[1], number)

    data = prepare(config(table(tmp_path / "a.csv", header, cell=cell)), "text", problems=ONLY, seed=0)
    assert data.target.names == (chosen,)


@pytest.mark.parametrize(("cell", "shown"), [("tall", "'tall'"), ("nan", "'nan'"), ("-inf", "'-inf'"), ("", "nothing"),
                                             ('"3,5"', "'3,5'"), ("1_000", "'1_000'")])
def test_what_is_no_number_is_named(tmp_path, config, cell, shown):
    path = table(tmp_path / "a.csv", more=f"x,{cell}\ny,{cell}\n")
    with pytest.raises(DataError, match=rf"a.csv:102: column 'score' holds {shown}, which is no finite number \(2 of "
                                        r"102 rows of split 'all'\)"):
        prepare(config(path), "text", problems=TEXT, seed=0)


def test_numbers_of_records(tmp_path, config):
    rows = [json.dumps({"text": f"t{n}", "target": n * 0.5 if n != 7 else float("nan")}) for n in range(40)]
    path = write(tmp_path / "a.jsonl", "\n".join(rows))
    with pytest.raises(DataError, match=r"a.jsonl:8: column 'target' holds nan.*1 of 40"):
        prepare(config(path), "text", problems=ONLY, seed=0)
    path = write(tmp_path / "b.jsonl", "\n".join(rows[:7] + rows[8:]))
    assert prepare(config(path), "text", problems=ONLY, seed=0).splits["train"].labels.dtype == np.float64
    path = write(tmp_path / "c.jsonl", "\n".join(json.dumps({"text": f"t{n}", "target": [n]}) for n in range(40)))
    with pytest.raises(DataError, match=r"c.jsonl:1: column 'target' holds \[0\], which is no finite number"):
        prepare(config(path), "text", problems=ONLY, seed=0)


def test_constant_values_are_refused(tmp_path, config):
    with pytest.raises(DataError, match="column 'score' is 3 in all 40 training rows"):
        prepare(config(table(tmp_path / "a.csv", rows=40, cell=lambda n: "3")), "text", problems=ONLY, seed=0)
    write(tmp_path / "d" / "train.csv", "text,score\n" + "".join(f"t{n},{n // 39}\n" for n in range(40)))
    write(tmp_path / "d" / "validation.csv", "text,score\nt39,1\nb,1.5\n")  # takes the only other value out of train
    with pytest.raises(DataError, match="column 'score' is 0 in all 39 training rows"):
        prepare(config(tmp_path / "d"), "text", problems=ONLY, seed=0)


def test_the_fingerprint_covers_the_values(tmp_path, config):
    first = prepare(config(table(tmp_path / "a.csv")), "text", problems=TEXT, seed=0)
    other = table(tmp_path / "a.csv", cell=lambda n: f"{n / 4 + (0.001 if n == 50 else 0):.3f}")
    assert prepare(config(other), "text", problems=TEXT, seed=0).fingerprint != first.fingerprint


def test_unlabelled_test_split_is_left_out(tmp_path, config):
    for split, cell in (("train", lambda n: n), ("dev", lambda n: n + 0.5), ("test", lambda n: "NaN")):
        write(tmp_path / "d" / f"{split}.csv", "text,y\n" + "".join(f"{split}{n},{cell(n)}\n" for n in range(9)))
    data = prepare(config(tmp_path / "d"), "text", problems=ONLY, seed=0)
    assert set(data.splits) == {"train", "validation"}
    with pytest.raises(DataError, match=r"split 'test' of .* has no labels to score by"):
        prepare_evaluation(config(tmp_path / "d"), "text", target=data.target)


def test_evaluation_finds_the_values_by_name(tmp_path, config):
    target = Target(REGRESSION, ("a", "b"))
    path = table(tmp_path / "a.csv", "text,x,b,a", cell=lambda n: f"0,{n},{-n}", rows=3)
    assert prepare_evaluation(config(path), "text", target=target).labels.tolist() == [[0, 0], [-1, 1], [-2, 2]]
    turned = config(path, target_columns=["b", "a"])
    assert prepare_evaluation(turned, "text", target=target).labels.tolist() == [[0, 0], [-1, 1], [-2, 2]]
    named = config(path, target_columns=["x", "b"])
    assert prepare_evaluation(named, "text", target=target).labels.tolist() == [[0, 0], [0, 1], [0, 2]]
    with pytest.raises(DataError, match=r"1 columns are named \(x\), and the run predicts a, b"):
        prepare_evaluation(config(path, label_column="x"), "text", target=target)
    with pytest.raises(DataError, match=r"the run predicts y, and the data have the columns text, x, b, a;"):
        prepare_evaluation(config(path), "text", target=Target(REGRESSION, ("y",)))


def test_groups_with_values_of_their_own_can_be_divided(tmp_path, config):
    path = write(tmp_path / "a.csv", "text,y,group\n" + "".join(f"t{n},{n},g{n // 20}\n" for n in range(80)))
    data = prepare(config(path), "text", problems=ONLY, seed=0)
    assert sorted(len(part) for part in data.splits.values()) == [20, 20, 40]


def test_folders_whose_names_are_numbers(tmp_path, config):
    write_images(tmp_path / "n", {"0.5": 10, "2": 10})
    data = prepare(config(tmp_path / "n"), "image", problems=ONLY, seed=0)
    assert sorted(set(data.splits["train"].labels[:, 0])) == [0.5, 2.0]
    assert any("names of the 2 folders are taken as values" in note for note in data.notes)
    classes = prepare(config(tmp_path / "n"), "image", problems=(SINGLE_LABEL, MULTI_LABEL), seed=0)
    assert classes.target == Target(SINGLE_LABEL, ("0.5", "2"))
    write_images(tmp_path / "n", {"cat": 2}, first=5000)
    with pytest.raises(DataError, match=r"lie in class folders, and the name 'cat' is no number; .*metadata.csv"):
        prepare(config(tmp_path / "n"), "image", problems=ONLY, seed=0)
    write(tmp_path / "n" / "sizes.csv", "file_name,size\n")
    with pytest.raises(DataError, match=r"column 'size' is not read: .* class folders.*--data.metadata"):
        prepare(config(tmp_path / "n", label_column="size"), "image", problems=ONLY, seed=0)


def test_strata_leave_two_examples_or_more():
    for count in range(2, 60):
        values = np.random.default_rng(count).normal(size=(count, 2)) * [1, 1e6]
        sizes = np.bincount(Values(("a", "b")).strata(values))
        assert sizes.min() >= 2
        assert len(sizes) == max(1, min(10, count // 2))
    often_zero = np.concatenate([np.zeros(96), [1, 2, 3, 4]])[:, None]
    assert np.bincount(Values(("a",)).strata(often_zero)).tolist() == [96, 4]


def test_options_that_contradict_each_other(tmp_path, config):
    path = table(tmp_path / "a.csv")
    for options, words in (({"label_column": "score", "target_columns": ["score"]}, "exclude each other"),
                           ({"target_columns": ["score", "score"]}, "names a column twice"),
                           ({"target_columns": ["score"], "problem_type": SINGLE_LABEL}, "--data.label_column")):
        with pytest.raises(UsageError, match=words):
            prepare(config(path, **options), "text", problems=TEXT, seed=0)
    with pytest.raises(UsageError, match=r"--data.problem_type 'regression' is not for this task.*image-regression"):
        prepare(config(path, problem_type=REGRESSION, text_column="text"), "text", problems=TEXT[:2], seed=0)


def test_classes_count_by_their_names_and_not_by_their_numbers(tmp_path, config):
    def save(name: str, names: list[str]) -> DataConfig:
        rows = datasets.Dataset.from_dict({"text": [f"t{n}" for n in range(40)], "label": [n % 3 for n in range(40)]})
        features = rows.features | {"label": datasets.ClassLabel(names=names)}
        rows.cast(datasets.Features(features)).save_to_disk(str(tmp_path / name))
        return config(tmp_path / name)

    data = prepare(save("sizes", ["10", "2.5", "40"]), "text", problems=ONLY, seed=0)
    assert set(data.splits["train"].labels[:, 0]) == {10.0, 2.5, 40.0}
    with pytest.raises(DataError, match="holds 1, which is a class, and the classes are called 1, cat, 3, not all of"):
        prepare(save("animals", ["1", "cat", "3"]), "text", problems=ONLY, seed=0)


def test_a_test_split_of_one_value_beyond_training_has_no_labels(tmp_path, config):
    """GLUE keeps the values of STS-B's test back, and has -1 in their place."""
    for split, cell in (("train", lambda n: n / 2), ("dev", lambda n: n / 2), ("test", lambda n: -1)):
        write(tmp_path / "d" / f"{split}.csv", "text,score\n" + "".join(f"{split}{n},{cell(n)}\n" for n in range(9)))
    data = prepare(config(tmp_path / "d"), "text", problems=ONLY, seed=0)
    assert set(data.splits) == {"train", "validation"}
    assert any("split 'test' has -1 as the label of every row, which training never has, and is left out (9 rows)"
               in note for note in data.notes)
    with pytest.raises(DataError, match=r"split 'test' of .* has no labels to score by"):
        prepare_evaluation(config(tmp_path / "d"), "text", target=data.target)


def test_values_that_could_be_meant_are_scored_and_told(tmp_path, config):
    for split, cell in (("train", lambda n: n / 2), ("dev", lambda n: n / 2), ("test", lambda n: 3)):
        write(tmp_path / "d" / f"{split}.csv", "text,score\n" + "".join(f"{split}{n},{cell(n)}\n" for n in range(9)))
    data = prepare(config(tmp_path / "d"), "text", problems=ONLY, seed=0)
    assert len(data.splits["test"]) == 9
    assert "score is 3 in all 9 rows of test, so r2 and pearson say nothing there" in data.notes
    write(tmp_path / "d" / "test.csv", "text,score\nalone,7\n")
    assert len(prepare(config(tmp_path / "d"), "text", problems=ONLY, seed=0).splits["test"]) == 1
