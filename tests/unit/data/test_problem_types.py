from __future__ import annotations

import json

import pytest

from tests.data_files import write, write_images
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from tlhub.data.prepare import prepare
from tlhub.data.targets import Target
from tlhub.errors import DataError

IMAGE, TEXT = (SINGLE_LABEL, MULTI_LABEL), (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
KINDS = {
    "names": lambda n: "ab"[n % 2], "whole": lambda n: n % 3, "whole with a gap": lambda n: float(n % 3),
    "fractions": lambda n: n / 8, "fractions as text": lambda n: f"{n / 8}", "lists": lambda n: ["ab"[n % 2], "c"],
    "some fractions": lambda n: "a" if n % 5 == 0 else f"{n % 3 / 2}", "one wrong": lambda n: f"{n / 8}" if n else "x",
}


@pytest.mark.parametrize(("kind", "problem"), [
    ("names", SINGLE_LABEL), ("whole", SINGLE_LABEL), ("whole with a gap", SINGLE_LABEL), ("fractions", REGRESSION),
    ("fractions as text", REGRESSION), ("lists", MULTI_LABEL), ("some fractions", SINGLE_LABEL)])
def test_the_column_tells_the_kind(tmp_path, config, kind, problem):
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": f"t{n}", "label": KINDS[kind](n)})
                                                 for n in range(60)))
    data = prepare(config(path), "text", problems=TEXT, seed=0)
    assert data.target.problem_type == problem
    assert any("--data.problem_type" in note for note in data.notes) == (problem == REGRESSION)


def test_labels_that_look_joined_are_told(tmp_path, config):
    lines = "".join(f"t{n},{('a', 'b', 'a;b', 'x; y')[n % 4]}\n" for n in range(60))
    data = prepare(config(write(tmp_path / "a.csv", "text,label\n" + lines)), "text", problems=TEXT, seed=0)
    assert data.target == Target(SINGLE_LABEL, ("a", "a;b", "b", "x; y"))
    assert any("labels such as 'a;b' look like several in one" in note for note in data.notes)
    lines = lines.replace("a;b", "c")
    data = prepare(config(write(tmp_path / "a.csv", "text,label\n" + lines)), "text", problems=TEXT, seed=0)
    assert not any("several" in note for note in data.notes)


def test_a_mistake_among_numbers_is_told(tmp_path, config):
    path = write(tmp_path / "a.jsonl", "\n".join(json.dumps({"text": f"t{n}", "label": KINDS["one wrong"](n)})
                                                 for n in range(60)))
    with pytest.raises(DataError, match=r"a.jsonl:1: column 'label' holds 'x', which is no finite number \(1 of 60"):
        prepare(config(path), "text", problems=TEXT, seed=0)


def test_the_option_wins(tmp_path, config):
    path = write(tmp_path / "a.csv", "text,label\n" + "".join(f"t{n},{n % 3 + 0.5}\n" for n in range(60)))
    assert prepare(config(path), "text", problems=TEXT, seed=0).target.problem_type == REGRESSION
    data = prepare(config(path, problem_type=SINGLE_LABEL), "text", problems=TEXT, seed=0)
    assert data.target == Target(SINGLE_LABEL, ("0.5", "1.5", "2.5"))
    path = write(tmp_path / "b.csv", "text,label\n" + "".join(f"t{n},{n % 5}\n" for n in range(60)))
    data = prepare(config(path, problem_type=REGRESSION), "text", problems=TEXT, seed=0)
    assert data.target == Target(REGRESSION, ("label",))


def test_pictures_with_values_have_a_task_of_their_own(tmp_path, config):
    write_images(tmp_path / "d", {"x": 20})
    lines = "".join(f"x/{n:03d}.png,{n / 4}\n" for n in range(20))
    write(tmp_path / "d" / "metadata.csv", "file_name,label\n" + lines)
    with pytest.raises(DataError, match=r"column 'label' holds numbers with fractions, which are no classes; .*"
                                        r"--data.problem_type single_label_classification \(the task image-regression"):
        prepare(config(tmp_path / "d"), "image", problems=IMAGE, seed=0)
    assert prepare(config(tmp_path / "d"), "image", problems=(REGRESSION,), seed=0).target == Target(REGRESSION,
                                                                                                     ("label",))


def test_a_target_says_what_it_is():
    assert len(Target(REGRESSION, ("a", "b"))) == 2
    for wrong in (("classes", ("a",)), (REGRESSION, ())):
        with pytest.raises(ValueError, match="a target is one of single_label_classification"):
            Target(*wrong)
