from __future__ import annotations

import json

import datasets
import numpy as np
import pytest

from tests.data_files import write
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, DataConfig
from tlhub.data.label_sets import LabelSets
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.errors import DataError, UsageError

TEXT = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
SETS = [("a",), ("b", "a"), ("c",), (), ("b", "c", "a")]


def sets_of(number):
    return SETS[number % len(SETS)]


def check(data, names=("a", "b", "c")):
    """Check every label against the number in its text."""
    assert data.target == Target(MULTI_LABEL, names)
    for part in data.splits.values():
        assert (part.labels.dtype, part.labels.shape) == (bool, (len(part), len(names)))
        for text, row in zip(part.inputs, part.labels, strict=True):
            assert {name for name, held in zip(names, row, strict=True) if held} == set(sets_of(int(text[1:])))


def rows(sets):
    return "\n".join(json.dumps({"text": f"t{n}", "labels": sets(n)}) for n in range(60))


def test_lists_of_names(tmp_path, config):
    data = prepare(config(write(tmp_path / "a.jsonl", rows(sets_of))), "text", problems=TEXT, seed=0)
    check(data)
    assert any("column 'labels' holds lists: several labels for each example" in note for note in data.notes)
    assert any("by rarest label" in note for note in data.notes)


def test_lists_of_numbers_of_declared_classes(tmp_path, config):
    names = ["c", "b", "a"]
    features = datasets.Features({"text": datasets.Value("string"),
                                  "topics": datasets.List(datasets.ClassLabel(names=names))})
    content = {"text": [f"t{n}" for n in range(60)], "topics": [[*map(names.index, sets_of(n))] for n in range(60)]}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(tmp_path / "a.parquet"))
    check(prepare(config(tmp_path / "a.parquet"), "text", problems=TEXT, seed=0), ("c", "b", "a"))


@pytest.mark.parametrize("mark", [";", "|", ",", " / "])
def test_texts_with_a_separator(tmp_path, config, mark):
    lines = "".join(f't{n},"{mark.join(sets_of(n)) or mark}"\n' for n in range(60))
    options = {} if len(mark) == 1 else {"label_separator": mark}
    data = config(write(tmp_path / "a.csv", "text,label\n" + lines), problem_type=MULTI_LABEL, **options)
    check(prepare(data, "text", problems=TEXT, seed=0))


def test_a_given_separator_tells_the_kind(tmp_path, config):
    lines = "".join(f"t{n},{'+'.join(sets_of(n)) or '+'}\n" for n in range(60))
    path = write(tmp_path / "a.csv", "text,label\n" + lines)
    check(prepare(config(path, label_separator="+"), "text", problems=TEXT, seed=0))


def flags(path, *, yes="1", no="0", more=""):
    lines = "".join(f"t{n},{','.join(yes if name in sets_of(n) else no for name in 'bac')}\n" for n in range(60))
    return write(path, f"text,b,a,c\n{lines}{more}")


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("true", "False"), ("1.0", "0.0")])
def test_columns_of_0_and_1(tmp_path, config, yes, no):
    data = config(flags(tmp_path / "a.csv", yes=yes, no=no), target_columns=["c", "a", "b"])
    prepared = prepare(data, "text", problems=TEXT, seed=0)
    check(prepared, ("c", "a", "b"))
    assert any("'c', 'a', 'b' hold 0 and 1: several labels" in note for note in prepared.notes)


def test_wrong_flags(tmp_path, config):
    path = flags(tmp_path / "a.csv", more="t60,0,maybe,1\nt61,1,2,\n")
    with pytest.raises(DataError, match=r"a.csv:62: column 'a' holds 'maybe', which is neither 0 nor 1 \(2 of 62 rows"):
        prepare(config(path, target_columns=["a", "b", "c"], problem_type=MULTI_LABEL), "text", problems=TEXT, seed=0)
    path = write(tmp_path / "b.csv", "text,a,b,c\n" + "".join(f"t{n},{n % 2},{n // 2 % 2},0\n" for n in range(60)))
    with pytest.raises(DataError, match=r"column 'c' is 0 in all 48 training rows.*leave it out"):
        prepare(config(path, target_columns=["a", "b", "c"]), "text", problems=TEXT, seed=0)
    with pytest.raises(DataError, match=r"one column of 0 and 1, 'a'; .*--data.label_column"):
        prepare(config(path, target_columns=["a"]), "text", problems=TEXT, seed=0)
    with pytest.raises(UsageError, match=r"names one column, 'a'; several labels need"):
        prepare(config(path, target_columns=["a"], problem_type=MULTI_LABEL), "text", problems=TEXT, seed=0)


@pytest.mark.parametrize(("cells", "options", "words"), [
    (("a;b", "a,b"), {}, r"holds ';' and ',', such as 'a;b'; say which .*--data.label_separator"),
    (("a b", "c"), {}, r"holds no ';' or '\|' or ',' between labels, its first value is 'a b'; .*--data.label_separa"),
    (("a;b", "c"), {"label_separator": "/"}, r"holds no '/' between labels, its first value is 'a;b'"),
    (("['a', 'b']", "['c']"), {}, r"a.csv:2: column 'label' holds \"\['a', 'b'\]\", a list written as text"),
    (("a;", "a;"), {}, "has only the label 'a' in 60 rows"),
])
def test_unclear_separators(tmp_path, config, cells, options, words):
    lines = "".join(f't{n},"{cells[n % 2]}"\n' for n in range(60))
    data = config(write(tmp_path / "a.csv", "text,label\n" + lines), problem_type=MULTI_LABEL, **options)
    with pytest.raises(DataError, match=words):
        prepare(data, "text", problems=TEXT, seed=0)


@pytest.mark.parametrize(("sets", "words"), [
    (lambda n: [0, 1, 1] if n % 2 else [1, 0, 0], r"a.jsonl:1: the lists in column .* hold 0 and 1 \(\[1, 0, 0\]"),
    (lambda n: [["b"]] if n == 3 else [["a"]], r"a.jsonl:1: the list in column 'labels' holds \['a'\]"),
    (lambda n: None if n == 3 else ["a", "b"], r"a.jsonl:4: no label in column 'labels' \(1 of 60"),
    (lambda n: [f"x{n}"], r"60 different labels in 60 rows"),
])
def test_wrong_lists(tmp_path, config, sets, words):
    path = write(tmp_path / "a.jsonl", rows(sets))
    with pytest.raises(DataError, match=words):
        prepare(config(path), "text", problems=TEXT, seed=0)


def test_a_separator_of_lists(tmp_path, config):
    path = write(tmp_path / "a.jsonl", rows(sets_of))
    with pytest.raises(UsageError, match=r"data.label_separator ';' has no effect: column 'labels' holds lists"):
        prepare(config(path, label_separator=";"), "text", problems=TEXT, seed=0)


def test_every_label_stays_in_training(tmp_path, config):
    sets = [("common",)] * 40 + [("common", "rare")] * 12 + [("rare", "rarer")] * 3 + [("other", "rare", "common")] * 4
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(sets))
        path = write(tmp_path / f"{seed}.jsonl", rows(lambda n, order=order: sets[order[n % len(sets)]]))
        data = prepare(config(path, max_train_examples=5), "text", problems=TEXT, seed=seed)
        assert data.splits["train"].labels.any(axis=0).all()
        assert len(data.splits["train"]) == 5
    with pytest.raises(DataError, match=r"max_train_examples 2 is less than the \d kinds of examples"):
        prepare(config(path, max_train_examples=2), "text", problems=TEXT, seed=0)


def test_a_label_that_is_nobodys_rarest_has_a_stratum():
    few = np.fromiter([("a", "b"), ("b", "c"), ("a", "c"), ()], dtype=object)
    assert LabelSets(("x",), None, None).strata(few).tolist() == [0, 1, 0, 3]  # the only one of 1 has c
    sets = [("a", "b")] * 3 + [("b", "c")] * 3 + [("a", "c", "d")] * 2 + [("a",)] + [("c",)]
    strata = LabelSets(("x",), None, None).strata(np.fromiter(sets, dtype=object, count=len(sets)))
    for chosen in range(20):
        picked = [np.random.default_rng(chosen).choice(np.flatnonzero(strata == part)) for part in np.unique(strata)]
        assert {name for index in picked for name in sets[index]} == {"a", "b", "c", "d"}
    hidden = [("a", "b")] * 2 + [("b", "c")] * 2 + [("c", "a")] * 5
    strata = LabelSets(("x",), None, None).strata(np.fromiter(hidden, dtype=object, count=len(hidden)))
    assert sorted(np.bincount(strata).tolist()) == [1, 3, 5]


def test_evaluation_matches_labels_by_name(tmp_path, config):
    target = Target(MULTI_LABEL, ("c", "a", "b"))
    one = write(tmp_path / "one.csv", "text,label\nx,a\ny,b\n")
    assert prepare_evaluation(config(one), "text", target=target).labels.tolist() == [[0, 1, 0], [0, 0, 1]]
    columns = write(tmp_path / "columns.csv", "text,a,b,c\nx,1,0,0\ny,1,1,0\n")
    assert prepare_evaluation(config(columns), "text", target=target).labels.tolist() == [[0, 1, 0], [0, 1, 1]]
    lists = write(tmp_path / "lists.jsonl", '{"text": "x", "label": []}\n{"text": "y", "label": ["c", "b"]}\n')
    given = config(lists, label_separator=";")  # as the run had it for other data
    assert prepare_evaluation(given, "text", target=target).labels.tolist() == [[0, 0, 0], [1, 0, 1]]
    unknown = write(tmp_path / "unknown.csv", "text,label\nx,a;z\n")
    with pytest.raises(DataError, match=r"unknown.csv:2: label 'z' .* not known to the run, which has c, a, b"):
        prepare_evaluation(config(unknown), "text", target=target)
    with pytest.raises(DataError, match=r"2 columns are named \(a, b\), and the run predicts c, a, b"):
        prepare_evaluation(config(columns, target_columns=["a", "b"]), "text", target=target)


def test_an_empty_cell_has_none_of_the_labels(tmp_path, config):
    lines = "".join(f"t{n},{('a;b', '', 'b;c')[n % 3]}\n" for n in range(60))
    data = prepare(config(write(tmp_path / "a.csv", "text,label\n" + lines), problem_type=MULTI_LABEL), "text",
                   problems=(SINGLE_LABEL, MULTI_LABEL), seed=0)
    sizes = np.bincount(np.concatenate([part.labels.sum(axis=1) for part in data.splits.values()]))
    assert sizes.tolist() == [20, 0, 40]


def test_a_test_split_without_any_label_is_left_out(tmp_path, config):
    def save(empty_in_training: bool) -> DataConfig:
        for split in ("train", "validation", "test"):
            flags = ["0,0" if split == "test" or (empty_in_training and n == 0) else f"{n % 2},{1 - n % 2}"
                     for n in range(20)]
            write(tmp_path / "d" / f"{split}.csv",
                  "text,a,b\n" + "".join(f"{split}{n},{flag}\n" for n, flag in enumerate(flags)))
        return config(tmp_path / "d", target_columns=["a", "b"])

    problems = (SINGLE_LABEL, MULTI_LABEL)
    data = prepare(save(empty_in_training=False), "text", problems=problems, seed=0)
    assert set(data.splits) == {"train", "validation"}
    assert any("split 'test' has none as the label of every row" in note for note in data.notes)
    assert "test" in prepare(save(empty_in_training=True), "text", problems=problems, seed=0).splits
