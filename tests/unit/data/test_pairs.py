from __future__ import annotations

import pytest

from tests.data_files import write
from tlhub.config import SINGLE_LABEL
from tlhub.data.audit import check_pairs
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.errors import DataError, UsageError

LINES = "".join(f"one {n},two {n},{'ab'[n % 2]}\n" for n in range(100))
TARGET = Target(SINGLE_LABEL, ("a", "b"))


def pairs_of(path, config, **options):
    return prepare(config(path, **options), "text", seed=0)


@pytest.mark.parametrize("header", ["sentence1,sentence2,label", "Premise,Hypothesis,label", "question1,question2,x",
                                    "question,sentence,label", "text_a,text_b,label"])
def test_usual_names_of_pairs(tmp_path, config, header):
    data = pairs_of(write(tmp_path / "a.csv", f"{header}\n{LINES}"), config)
    assert data.pairs
    assert all(second == first.replace("one", "two") for part in data.splits.values() for first, second in part.inputs)
    first, second, label = header.split(",")
    assert data.notes[0] == f"pairs of texts from columns {first!r} and {second!r}, label from {label!r}"


def test_named_columns_of_pairs(tmp_path, config):
    path = write(tmp_path / "a.csv", "text,reply,label\n" + LINES)
    single = pairs_of(path, config)
    assert not single.pairs
    assert isinstance(single.splits["train"].inputs[0], str)
    assert pairs_of(path, config, text_pair_column="reply").splits["test"].inputs[0][1].startswith("two")
    turned = pairs_of(path, config, text_column="reply", text_pair_column="text")
    assert turned.splits["test"].inputs[0][0].startswith("two")
    path = write(tmp_path / "b.csv", "sentence1,sentence2,label\n" + LINES)
    assert pairs_of(path, config, text_pair_column="sentence2").columns.input == "sentence1"
    assert not pairs_of(path, config, text_column="sentence2").pairs
    with pytest.raises(DataError, match=r"data.text_pair_column 'sentence3' is not among the columns; did you mean"):
        pairs_of(path, config, text_pair_column="sentence3")


def test_both_texts_are_what_an_example_is(tmp_path, config):
    write(tmp_path / "d" / "train.csv", "text_a,text_b,label\n" + LINES)
    write(tmp_path / "d" / "test.csv", "text_a,text_b,label\none 1,two 1,b\none 2,other,a\nother,two 3,b\n")
    data = pairs_of(tmp_path / "d", config)
    assert any("1 examples identical to one in another split are dropped" in note for note in data.notes)
    first = pairs_of(write(tmp_path / "a.csv", "text_a,text_b,label\n" + LINES), config)
    other = pairs_of(write(tmp_path / "a.csv", "text_a,text_b,label\n" + LINES.replace("two 7,", "zwei,")), config)
    assert first.fingerprint != other.fingerprint
    assert len(set(check_pairs([("a", "b c"), ("a b", "c"), ("b c", "a")]).digests)) == 3


def test_a_missing_second_text(tmp_path, config):
    path = write(tmp_path / "a.csv", "text_a,text_b,label\n" + LINES + "one, ,a\n")
    assert [bad.reason for bad in pairs_of(path, config).quarantined] == ["no second text"]
    with pytest.raises(DataError, match=r"1 of 101 examples cannot be used, the first is 'a.csv:102': no second text"):
        pairs_of(path, config, max_bad_fraction=0.0)


def test_evaluation_reads_what_the_run_reads(tmp_path, config):
    path = config(write(tmp_path / "a.csv", "text_a,text_b,label\n" + LINES))
    assert prepare_evaluation(path, "text", target=TARGET, pairs=True).inputs[3] == ("one 3", "two 3")
    single = config(write(tmp_path / "b.csv", "text,label\nx,a\n"))
    with pytest.raises(DataError, match=r"reads pairs of texts, and .* second; columns: text; .*text_pair_column"):
        prepare_evaluation(single, "text", target=TARGET, pairs=True)
    with pytest.raises(DataError, match="no column is known to hold the text"):
        prepare_evaluation(path, "text", target=TARGET, pairs=False)
    with pytest.raises(UsageError, match="'text_b' has no effect: the run reads single texts"):
        prepare_evaluation(config(tmp_path / "a.csv", text_pair_column="text_b"), "text", target=TARGET)
