"""Keywords as a target: against all other classes, which splits and subsets still see one by one."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from tests.data_files import write
from tlhub.config import SINGLE_LABEL
from tlhub.data.check import check_report
from tlhub.data.keywords import Keywords
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.errors import DataError

WORDS = ("alexa", "computer", "mirror", "glass")


def rows(counts, *, first=0, group=None):
    """Return a csv of different texts with so many of each class."""
    lines = [f"{name} said {first + number},{name}" + ("" if group is None else f",{group(name, number)}")
             for name, count in counts.items() for number in range(count)]
    return "text,label" + ("" if group is None else ",group") + "\n" + "\n".join(lines) + "\n"


def originals(examples):
    return collections.Counter(text.split()[0] for text in examples.inputs)


def test_everything_else_is_one_class(tmp_path, config):
    path = write(tmp_path / "a.csv", rows(dict.fromkeys(WORDS, 50)))
    data = prepare(config(path), "text", seed=0, keywords=("computer",))
    assert data.target == Target(SINGLE_LABEL, ("other", "computer"))
    for split, count in (("train", 40), ("validation", 5), ("test", 5)):
        examples = data.splits[split]
        assert originals(examples) == dict.fromkeys(WORDS, count)
        assert examples.labels.dtype == np.int64
        assert [bool(label) for label in examples.labels] == [text.startswith("computer") for text in examples.inputs]


def test_several_keywords_keep_their_order(tmp_path, config):
    path = write(tmp_path / "a.csv", rows(dict.fromkeys(WORDS, 20)))
    data = prepare(config(path), "text", seed=0, keywords=("mirror", "alexa"))
    assert data.label_names == ("other", "mirror", "alexa")
    expected = {"mirror": 1, "alexa": 2, "computer": 0, "glass": 0}
    assert all(expected[text.split()[0]] == label for examples in data.splits.values()
               for text, label in zip(examples.inputs, examples.labels, strict=True))
    assert data.fingerprint != prepare(config(path), "text", seed=0, keywords=("alexa", "mirror")).fingerprint
    facts, problems = check_report(config(path), "text", seed=0, keywords=("mirror",))
    assert not problems
    assert dict(facts)["classes"] == "2 (training examples: other 48, mirror 16)"


def test_subsets_have_as_many_of_every_class(tmp_path, config):
    path = write(tmp_path / "a.csv", rows(dict.fromkeys(WORDS, 50)))
    data = prepare(config(path, max_train_examples=32), "text", seed=0, keywords=("computer",))
    assert originals(data.splits["train"]) == dict.fromkeys(WORDS, 8)


def test_more_other_classes_than_examples_are_drawn_together(tmp_path, config):
    counts = {f"word{number}": 10 for number in range(30)} | {"rare": 1, "unique": 1}
    path = write(tmp_path / "a.csv", rows(counts))
    data = prepare(config(path, max_train_examples=8), "text", seed=0, keywords=("word3", "word4"))
    assert len(data.splits["train"]) == 8
    assert set(data.splits["train"].labels) == {0, 1, 2}
    assert len(originals(data.splits["test"])) > 20
    with pytest.raises(DataError, match="max_train_examples 2 is less than the 3 classes"):
        prepare(config(path, max_train_examples=2), "text", seed=0, keywords=("word3", "word4"))


def test_classes_of_one_example_can_be_in_every_split(tmp_path, config):
    """As many texts of a background set, each its own class: the split that chooses the threshold has some of them."""
    path = write(tmp_path / "a.csv", rows({"computer": 30, **{f"phrase{number}": 1 for number in range(60)}}))
    data = prepare(config(path), "text", seed=0, keywords=("computer",))
    assert {split: (examples.labels == 0).sum() for split, examples in data.splits.items()} == {
        "train": 48, "validation": 6, "test": 6}


def test_strata_are_at_most_as_many_as_asked():
    labels = np.array(["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"] * 2 + ["e"] + ["f"], dtype=object)
    kind = Keywords("label", None, ("d",))
    found = {most: sorted(set(kind.strata(labels, most))) for most in (None, 5, 4, 3, 2, 1)}
    assert found == {None: ["", "a", "b", "c", "d"], 5: ["", "a", "b", "c", "d"], 4: ["", "a", "b", "d"],
                     3: ["", "a", "d"], 2: ["", "d"], 1: ["", "d"]}


@pytest.mark.parametrize(("keywords", "message"), [
    (("computter",), "keyword 'computter' is no class in column 'label', which has alexa, computer, glass, mirror; did "
                     "you mean 'computer'"),
    (("xyz",), "keyword 'xyz' is no class in column 'label', which has alexa, computer, glass, mirror$"),
    (WORDS, "keywords 'alexa', 'computer', 'glass', 'mirror': column 'label' has no other class to tell them from")])
def test_a_keyword_has_to_be_a_class_and_not_every_one(tmp_path, config, keywords, message):
    path = write(tmp_path / "a.csv", rows(dict.fromkeys(WORDS, 10)))
    with pytest.raises(DataError, match=message):
        prepare(config(path), "text", seed=0, keywords=keywords)
    assert check_report(config(path), "text", seed=0, keywords=keywords)[1][0].startswith("keyword")


def test_a_single_class_is_no_data_for_it(tmp_path, config):
    path = write(tmp_path / "a.csv", rows({"computer": 10}))
    with pytest.raises(DataError, match="keyword 'computer': column 'label' has no other class to tell it from"):
        prepare(config(path), "text", seed=0, keywords=("computer",))


def test_a_class_called_other_may_be_either_side(tmp_path, config):
    path = write(tmp_path / "a.csv", rows({"other": 20, "computer": 20}))
    assert prepare(config(path), "text", seed=0, keywords=("computer",)).label_names == ("other", "computer")
    assert prepare(config(path), "text", seed=0, keywords=("other",)).label_names == ("any other", "other")


def test_classes_that_training_never_has_are_something_else(tmp_path, config):
    write(tmp_path / "d" / "train.csv", rows({"computer": 20, "alexa": 20}))
    write(tmp_path / "d" / "validation.csv", rows({"alexa": 4, "glass": 2}, first=100))
    write(tmp_path / "d" / "test.csv", rows({"computer": 3, "mirror": 3}, first=200))
    data = prepare(config(tmp_path / "d"), "text", seed=0, keywords=("computer",))
    assert data.splits["test"].labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert "1 classes have no example in validation: computer" in data.notes


def test_other_data_of_a_run(tmp_path, config):
    path = write(tmp_path / "noise.csv", rows({"rain": 3, "wind": 2}))
    found = prepare_evaluation(config(path), "text", target=Target(SINGLE_LABEL, ("other", "computer")),
                               keywords=("computer",))
    assert found.labels.tolist() == [0] * 5


@pytest.mark.parametrize("split", [False, True])
def test_groups_are_counted_in_each_split(tmp_path, config, split):
    def speaker(name, number):
        return "" if number == 0 else f"s{number % 10}"

    content = rows(dict.fromkeys(WORDS, 40), group=speaker)
    if split:
        write(tmp_path / "d" / "train.csv", content)
        write(tmp_path / "d" / "test.csv", rows({"alexa": 5, "glass": 5}, first=99, group=lambda *_: "s4"))
    else:
        write(tmp_path / "d" / "all.csv", content)
    data = prepare(config(tmp_path / "d"), "text", seed=0, keywords=("computer",))
    sides = [set(examples.groups) for examples in data.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))
    (note,) = [note for note in data.notes if note.startswith("groups of column 'group'")]
    assert note.endswith("none is in two splits (4 rows have no group)")
    counts = [len([name for name in names if name.startswith("group")]) for names in sides]
    assert ", ".join(f"{name} {count}" for name, count in zip(data.splits, counts, strict=True)) in note
    assert ("note", note) in check_report(config(tmp_path / "d"), "text", seed=0, keywords=("computer",))[0]
