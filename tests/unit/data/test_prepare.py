from __future__ import annotations

import dataclasses
import json
import os

import datasets
import numpy as np
import pytest

from tests.data_files import csv_rows, png, write, write_images
from tlhub.config import SINGLE_LABEL
from tlhub.data.audit import write_quarantine
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.errors import DataError


def sizes(data):
    return {split: len(part) for split, part in data.splits.items()}


def test_one_table_becomes_three_splits(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(100))
    data = prepare(config(path), "text", seed=0)
    assert sizes(data) == {"train": 80, "validation": 10, "test": 10}
    assert list(data.splits) == ["train", "validation", "test"]
    assert data.label_names == ("neg", "pos")
    assert any("made from 100 rows" in note for note in data.notes)
    part = data.splits["test"]
    for text, label, name in zip(part.inputs, part.labels, part.ids, strict=True):
        number = int(text.split()[-1])
        assert (label, name) == (number % 2, f"a.csv:{number + 2}")
    assert data.fingerprint == prepare(config(path), "text", seed=0).fingerprint
    assert data.fingerprint != prepare(config(path), "text", seed=1).fingerprint


def test_validation_is_cut_from_train_and_given_splits_stay(tmp_path, config):
    write(tmp_path / "d" / "train.csv", csv_rows(50))
    write(tmp_path / "d" / "test.csv", csv_rows(20, first=50))
    assert sizes(prepare(config(tmp_path / "d"), "text", seed=0)) == {"train": 45, "validation": 5, "test": 20}
    write(tmp_path / "d" / "validation.csv", csv_rows(10, first=70))
    assert sizes(prepare(config(tmp_path / "d"), "text", seed=0)) == {"train": 50, "validation": 10, "test": 20}
    os.remove(tmp_path / "d" / "train.csv")
    with pytest.raises(DataError, match="no training split, only test, validation"):
        prepare(config(tmp_path / "d"), "text", seed=0)


def test_identical_examples_leave_the_training_side(tmp_path, config):
    write(tmp_path / "d" / "train.csv", csv_rows(30))
    write(tmp_path / "d" / "validation.csv", csv_rows(10, first=28))
    write(tmp_path / "d" / "test.csv", csv_rows(10, first=37))
    data = prepare(config(tmp_path / "d"), "text", seed=0)
    assert sizes(data) == {"train": 28, "validation": 9, "test": 10}
    texts = [text for part in data.splits.values() for text in part.inputs]
    assert len(set(texts)) == len(texts)
    assert any("2 examples identical to one in another split are dropped from train" in note for note in data.notes)


def test_groups_stay_together(tmp_path, config):
    lines = "".join(f"text {n},{n % 2},g{n // 10}\n" for n in range(200))
    path = write(tmp_path / "a.csv", "text,label,group\n" + lines)
    data = prepare(config(path), "text", seed=0)
    sets = [set(part.groups) for part in data.splits.values()]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 20


def test_groups_that_given_splits_divide_leave_the_training_side(tmp_path, config):
    write(tmp_path / "d" / "train.csv", "text,label,who\n" + "".join(f"t{n},{n % 2},{n // 4}\n" for n in range(40)))
    write(tmp_path / "d" / "dev.csv", "text,label,who\n" + "".join(f"v{n},{n % 2},{n + 20}\n" for n in range(4)))
    write(tmp_path / "d" / "test.csv", "text,label,who\nx,0,1\ny,1,30\nz,1,\n")
    data = prepare(config(tmp_path / "d", group_column="who"), "text", seed=0)
    assert sizes(data) == {"train": 36, "validation": 4, "test": 3}
    assert any("4 examples of a group that is also in another split" in note for note in data.notes)


@pytest.mark.parametrize(("labels", "expected"), [
    (["10", "9", "2"], ("2", "9", "10")), (["b", "a", "10"], ("10", "a", "b")),
    (["1.5", "-1", "1"], ("-1", "1", "1.5")),
])
def test_order_of_label_names(tmp_path, config, labels, expected):
    path = write(tmp_path / "a.csv", csv_rows(60, classes=tuple(labels)))
    assert prepare(config(path), "text", seed=0).label_names == expected


def test_labels_are_matched_by_name(tmp_path, config):
    for split, names in (("train", ["b", "a"]), ("test", ["a", "b"])):
        features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        rows = {"text": [f"{split} {n}" for n in range(40)], "label": [n % 2 for n in range(40)]}
        (tmp_path / "d").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "d" / f"{split}.parquet"))
    data = prepare(config(tmp_path / "d"), "text", seed=0)
    assert data.label_names == ("b", "a")
    assert data.splits["test"].labels[:2].tolist() == [1, 0]


def test_numbers_as_labels_in_jsonl(tmp_path, config):
    rows = [json.dumps({"text": f"t{n}", "label": n % 2}) for n in range(40)]
    path = write(tmp_path / "a.jsonl", "\n".join(rows))
    assert prepare(config(path), "text", seed=0).label_names == ("0", "1")
    path = write(tmp_path / "b.jsonl", "\n".join([*rows, '{"text": "x", "label": NaN}']))
    with pytest.raises(DataError, match=r"b.jsonl:41: no label in column 'label' \(1 of 41 rows"):
        prepare(config(path), "text", seed=0)


@pytest.mark.parametrize("missing", ["", "nan", "  "])
def test_missing_label_names_the_row(tmp_path, config, missing):
    path = write(tmp_path / "a.csv", csv_rows(20) + f"more,{missing}\n")
    with pytest.raises(DataError, match=r"a.csv:22: no label in column 'label'"):
        prepare(config(path), "text", seed=0)


@pytest.mark.parametrize(("cell", "words"), [("", "no labels"), ("-1", "-1 as the label of every row")])
def test_test_split_without_labels_is_left_out(tmp_path, config, cell, words):
    write(tmp_path / "d" / "train.csv", csv_rows(50))
    write(tmp_path / "d" / "dev.csv", csv_rows(10, first=50))
    write(tmp_path / "d" / "test.csv", f"text,label\na,{cell}\nb,{cell}\n")
    data = prepare(config(tmp_path / "d"), "text", seed=0)
    assert sizes(data) == {"train": 50, "validation": 10}
    assert any(f"split 'test' has {words}" in note for note in data.notes)


def test_classes_that_splits_do_not_share(tmp_path, config):
    write(tmp_path / "d" / "train.csv", csv_rows(60, classes=("a", "b", "c")))
    write(tmp_path / "d" / "test.csv", csv_rows(10, first=70, classes=("a", "b")))
    assert any("1 classes have no example in test: c" in note
               for note in prepare(config(tmp_path / "d"), "text", seed=0).notes)
    write(tmp_path / "d" / "test.csv", csv_rows(10, first=70, classes=("a", "z")))
    with pytest.raises(DataError, match="class 'z' is in split 'test' and not in train"):
        prepare(config(tmp_path / "d"), "text", seed=0)


@pytest.mark.parametrize(("classes", "words"), [(("a",), "has only the class 'a'"),
                                                (tuple(f"c{n}" for n in range(60)), "60 different labels")])
def test_labels_that_are_no_classes(tmp_path, config, classes, words):
    path = write(tmp_path / "a.csv", csv_rows(60, classes=classes))
    with pytest.raises(DataError, match=words):
        prepare(config(path), "text", seed=0)


def test_training_subset_by_class(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(100))
    data = prepare(config(path, max_train_examples=10), "text", seed=0)
    assert sizes(data) == {"train": 10, "validation": 10, "test": 10}
    assert np.bincount(data.splits["train"].labels).tolist() == [5, 5]
    with pytest.raises(DataError, match="max_train_examples 1 is less than the 2 classes"):
        prepare(config(path, max_train_examples=1), "text", seed=0)


def test_fewer_examples_are_scored(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(100))
    data = prepare(config(path, max_evaluation_examples=6), "text", seed=0)
    assert sizes(data) == {"train": 80, "validation": 6, "test": 6}
    assert [np.bincount(data.splits[split].labels).tolist() for split in ("validation", "test")] == [[3, 3], [3, 3]]
    assert "validation is scored on 6 of 10 examples" in data.notes
    assert sizes(prepare(config(path, max_evaluation_examples=1), "text", seed=0))["test"] == 1
    whole = prepare(config(path, max_evaluation_examples=10), "text", seed=0)
    assert whole.fingerprint == prepare(config(path), "text", seed=0).fingerprint != data.fingerprint


def test_empty_texts_are_quarantined(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(200) + ",pos\n")
    data = prepare(config(path), "text", seed=0)
    assert [dataclasses.astuple(bad) for bad in data.quarantined] == [("all", "a.csv:202", "no text")]
    with pytest.raises(DataError, match=r"1 of 201 examples cannot be used, the first is 'a.csv:202': no text"):
        prepare(config(path, max_bad_fraction=0.001), "text", seed=0)


def test_damaged_images_are_quarantined(tmp_path, config):
    root = tmp_path / "d"
    write_images(root, {"cat": 40, "dog": 40})
    write(root / "cat" / "empty.png", b"")
    write(root / "cat" / "cut.jpg", png(5, (64, 64), "JPEG")[:-300])
    write(root / "dog" / "text.jpg", "this is no image")
    write(root / "dog" / "copy.png", png(1003))
    data = prepare(config(root, max_bad_fraction=0.1), "image", seed=0)
    assert {bad.id: bad.reason for bad in data.quarantined} == {
        "cat/empty.png": "is empty (0 bytes)", "dog/text.jpg": "is no image in a known format",
        "cat/cut.jpg": next(bad.reason for bad in data.quarantined if bad.id == "cat/cut.jpg")}
    assert "truncated" in next(bad.reason for bad in data.quarantined if bad.id == "cat/cut.jpg")
    write_quarantine(tmp_path / "quarantine.csv", data.quarantined)
    assert (tmp_path / "quarantine.csv").read_text().splitlines()[0] == "split,id,reason"
    with pytest.raises(DataError, match=r"3 of 84 examples cannot be used.*more than 1.0%"):
        prepare(config(root), "image", seed=0)


def test_missing_file_of_a_table_is_quarantined(tmp_path, config):
    write_images(tmp_path / "d", {"x": 20})
    lines = "".join(f"x/{n:03d}.png,{n % 2}\n" for n in range(20))
    write(tmp_path / "d" / "metadata.csv", "file_name,label\n" + lines + "x/none.png,1\n")
    data = prepare(config(tmp_path / "d", max_bad_fraction=0.1), "image", seed=0)
    assert [(bad.id, bad.reason) for bad in data.quarantined] == [
        ("metadata.csv:22", "cannot be read (No such file or directory)")]


def test_images_are_decoded_once_and_again_when_they_change(tmp_path, config, monkeypatch):
    write_images(tmp_path / "d", {"cat": 10, "dog": 10})
    first = prepare(config(tmp_path / "d"), "image", seed=0)
    monkeypatch.setattr("tlhub.data.audit.open_image", lambda content: pytest.fail("decoded again"))
    assert prepare(config(tmp_path / "d"), "image", seed=0).fingerprint == first.fingerprint
    monkeypatch.undo()
    write(tmp_path / "d" / "cat" / "000.png", png(999))
    assert prepare(config(tmp_path / "d"), "image", seed=0).fingerprint != first.fingerprint


def test_evaluation_data_use_the_column_of_groups_of_the_run_where_they_have_it(tmp_path, config):
    lines = "".join(f"good text {number},{number % 2},v{number % 3}\n" for number in range(9))
    target = Target(SINGLE_LABEL, ("0", "1"))

    def groups(header, name):
        path = write(tmp_path / f"{header}.csv", f"text,label,{header}\n{lines}")
        return prepare_evaluation(config(path), "text", target=target, group_column=name).groups

    assert len(set(groups("voice", "voice"))) == 3
    assert len(set(groups("group", "voice"))) == 3
    assert groups("voice", None) is None
    assert groups("voice", "patient") is None


def test_evaluation_data_uses_the_names_of_the_run(tmp_path, config):
    path = write(tmp_path / "a.csv", csv_rows(10))
    three, two = Target(SINGLE_LABEL, ("pos", "x", "neg")), Target(SINGLE_LABEL, ("neg", "pos"))
    assert prepare_evaluation(config(path), "text", target=three).labels[:3].tolist() == [2, 0, 2]
    with pytest.raises(DataError, match=r"a.csv:3: class 'pos' .* not known to the run, which has neg, b"):
        prepare_evaluation(config(path), "text", target=Target(SINGLE_LABEL, ("neg", "b")))
    write(tmp_path / "d" / "train.csv", csv_rows(10))
    write(tmp_path / "d" / "validation.csv", csv_rows(4))
    assert len(prepare_evaluation(config(tmp_path / "d"), "text", target=two)) == 14
    write(tmp_path / "d" / "test.csv", csv_rows(3))
    assert len(prepare_evaluation(config(tmp_path / "d"), "text", target=two)) == 3
