from __future__ import annotations

import json

import datasets
import pytest

from tests.data_files import write
from tlhub.config import NEXT_TOKEN
from tlhub.data.check import check_report
from tlhub.data.prepare import prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.errors import DataError, UsageError

LINES = "".join(f"the cat {number} runs\n" for number in range(100))


def read(data):
    return prepare(data, "corpus", problems=(NEXT_TOKEN,), seed=0)


def rows(path, records):
    return write(path, "\n".join(json.dumps(record) for record in records))


def talk(number, role="assistant"):
    return [{"role": "user", "content": f"cat {number}?"}, {"role": role, "content": f"runs {number}"}]


def ids(prepared):
    return {split: list(part.ids) for split, part in prepared.splits.items()}


def test_files_named_like_splits(tmp_path, config):
    for name in ("train", "val", "test"):
        write(tmp_path / f"{name}.txt", name + LINES)
    write(tmp_path / "notes.txt", "something else")
    write(tmp_path / "README.md", "about")
    prepared = read(config(tmp_path))
    assert ids(prepared) == {"train": ["train.txt"], "validation": ["val.txt"], "test": ["test.txt"]}
    assert prepared.splits["train"].inputs == ["train" + LINES]
    assert prepared.target == Target(NEXT_TOKEN, ("token",))
    assert prepared.splits["train"].labels.shape == (1, 2)
    assert any("ignored: notes.txt" in note for note in prepared.notes)
    assert prepare_evaluation(config(tmp_path), "corpus", target=prepared.target).inputs == ["test" + LINES]


def test_folders_named_like_splits_with_a_table_beside(tmp_path, config):
    for name in ("train/a.txt", "train/deep/B.TXT", "train/LICENSE.txt", "validation/c.txt"):
        write(tmp_path / name, name + LINES)
    write(tmp_path / "books.csv", "title,year\nA,1900\n")
    prepared = read(config(tmp_path))
    assert ids(prepared) == {"train": ["train/a.txt", "train/deep/B.TXT"], "validation": ["validation/c.txt"]}
    assert any("ignored: books.csv" in note for note in prepared.notes)
    around = tmp_path.rename(tmp_path.with_name("inner"))
    (tmp_path / "outer").mkdir(parents=True)
    around.rename(tmp_path / "outer" / "inner")
    assert list(ids(read(config(tmp_path / "outer")))) == ["train", "validation"]


def test_many_files_are_divided_whole_and_bad_ones_left_out(tmp_path, config):
    for number in range(150):
        write(tmp_path / "data" / f"{number % 3}" / f"{number}.txt", f"{number} {LINES[:99]}")
    write(tmp_path / "data" / "bad.txt", b"\x89PNG\r\n\x00")
    prepared = read(config(tmp_path / "data"))
    assert {split: len(part) for split, part in prepared.splits.items()} == {"train": 120, "validation": 15, "test": 15}
    assert [(bad.id, bad.reason.split(":")[0]) for bad in prepared.quarantined] == [("bad.txt", "is not UTF-8")]


def test_few_texts_are_cut_at_line_breaks(tmp_path, config):
    path = write(tmp_path / "one.txt", "\ufeff" + LINES)
    prepared = read(config(path))
    parts = {split: part.inputs[0] for split, part in prepared.splits.items()}
    assert parts["train"] + parts["validation"] + parts["test"] == LINES
    assert all(part.endswith("\n") for part in parts.values())
    assert [round(len(parts[split]) / len(LINES), 1) for split in ("train", "validation", "test")] == [0.8, 0.1, 0.1]
    assert ids(prepared)["train"] == ["one.txt from line 1"]
    assert ids(prepared)["validation"] == [f"one.txt from line {1 + parts['train'].count(chr(10))}"]
    assert any("each cut at line breaks" in note for note in prepared.notes)
    write(tmp_path / "d" / "train.txt", LINES)
    write(tmp_path / "d" / "test.txt", "night\n")
    prepared = read(config(tmp_path / "d"))
    assert prepared.splits["train"].inputs[0] + prepared.splits["validation"].inputs[0] == LINES


def test_identical_documents_are_dropped_from_training(tmp_path, config):
    for name, text in {"train/a": "day", "train/b": "night", "validation/c": " day \n"}.items():
        write(tmp_path / f"{name}.txt", text)
    assert ids(read(config(tmp_path))) == {"train": ["train/b.txt"], "validation": ["validation/c.txt"]}


@pytest.mark.parametrize(("record", "first", "told"), [
    ({"text": "day {}", "id": 1}, "day {}", "texts from column 'text'"),
    ({"Prompt": "day {}", "completion": "sun"}, ("day {}", "sun"), "prompts from column 'Prompt'"),
    ({"instruction": "do {}", "input": "this", "output": "sun", "text": "all"}, ("do {}\n\nthis", "sun"),
     "prompts from column 'instruction', with 'input' after them, and completions from 'output'"),
    ({"instruction": "do {}", "input": "", "response": "sun"}, ("do {}", "sun"), "completions from 'response'"),
    ({"question": "day {}", "answer": "sun"}, ("day {}", "sun"), "completions from 'answer'"),
    ({"messages": [{"role": "User", "content": "{}"}, {"role": "assistant", "content": "sun"}]},
     [{"role": "user", "content": "{}"}, {"role": "assistant", "content": "sun"}], "conversations from"),
    ({"conversations": [{"from": "human", "value": "{}"}, {"from": "gpt", "value": "sun"}]},
     [{"role": "user", "content": "{}"}, {"role": "assistant", "content": "sun"}], "conversations from"),
])
def test_columns_of_records(tmp_path, config, record, first, told):
    def numbered(value, number):
        return json.loads(json.dumps(value).replace("{}", str(number)))

    path = rows(tmp_path / "a.jsonl", [numbered(record, number) for number in range(40)])
    prepared = read(config(path))
    number = int(prepared.splits["train"].ids[0].removeprefix("a.jsonl:")) - 1
    expected = numbered(list(first) if isinstance(first, tuple) else first, number)
    found = prepared.splits["train"].inputs[0]
    assert (list(found) if isinstance(found, tuple) else found) == expected
    assert isinstance(found, type(first))
    assert any(told in note for note in prepared.notes)


def test_columns_by_option_and_other_sources(tmp_path, config):
    path = rows(tmp_path / "a.jsonl", [{"prompt": f"a{n}", "completion": f"b{n}", "answer": f"c{n}", "talk": talk(n)}
                                       for n in range(40)])
    assert read(config(path, text_column="answer")).splits["train"].inputs[0][0] == "c"
    assert read(config(path, completion_column="answer")).splits["train"].inputs[0][1][0] == "c"
    assert read(config(path, messages_column="talk")).splits["train"].inputs[0][1]["role"] == "assistant"
    saved = datasets.Dataset.from_list([{"messages": talk(number)} for number in range(40)])
    saved.save_to_disk(str(tmp_path / "saved"))
    assert read(config(tmp_path / "saved")).splits["train"].inputs[0][0]["role"] == "user"
    cells = "".join('"' + json.dumps(talk(number)).replace('"', '""') + '"\n' for number in range(40))
    assert read(config(write(tmp_path / "b.csv", "messages\n" + cells))).splits["train"].inputs[0][0]["role"] == "user"
    write(tmp_path / "t" / "train.csv", "text\n" + LINES)
    write(tmp_path / "t" / "notes.txt", "something else")
    assert len(read(config(tmp_path / "t")).splits["train"]) == 80


@pytest.mark.parametrize(("content", "words"), [
    ("", "is 'a.txt': no text; none is left"), (" \n\n", "no text"), (b"\x89PNG", "not UTF-8: byte 0x89"),
    (b"abc\0def", "a zero byte, at position 3"), ("one line", "have 8 characters all together, too few"),
])
def test_files_that_are_no_corpus(tmp_path, config, content, words):
    with pytest.raises(DataError, match=words):
        read(config(write(tmp_path / "a.txt", content)))


@pytest.mark.parametrize(("record", "options", "error", "words"), [
    ({"text": "day"}, {"text_column": "txet"}, DataError, "did you mean 'text'"),
    ({"a": "day", "b": "sun"}, {}, DataError, "name it with --data.text_column, or those of prompts"),
    ({"a": "day", "b": "sun"}, {"prompt_column": "a"}, DataError, "name it with --data.completion_column"),
    ({"text": "day", "a": "b"}, {"text_column": "text", "prompt_column": "a"}, UsageError, "exclude each other"),
    ({"text": "day"}, {"messages_column": "text"}, DataError, "'day', which is no list of messages"),
    ({"messages": talk(1, "asistant")}, {}, DataError, "a.jsonl:1: message 2 has the role 'asistant'; did you mean "
                                                       "'assistant'"),
    ({"messages": [{"speaker": "me"}]}, {}, DataError, "message 1 has the fields speaker; it needs role and content"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, {}, DataError, "message 1 holds a list as its content"),
    ({"messages": talk(1)[:1]}, {}, DataError, "'a.jsonl:1': no message of the assistant"),
    ({"messages": []}, {"messages_column": "messages"}, DataError, "no messages"),
    ({"messages": [{"role": "assistant", "content": " "}]}, {}, DataError, "message 1 has no content"),
    ({"prompt": "day", "completion": " "}, {}, DataError, "no completion"),
    ({"prompt": "", "completion": "sun"}, {}, DataError, "no prompt"),
    ({"prompt": "day", "completion": ["sun"]}, {}, DataError, "holds a list, not text"),
    ({"text": "half \ud800 pair"}, {}, DataError, "one half of a surrogate pair in line 1"),
])
def test_records_that_cannot_be_used(tmp_path, config, record, options, error, words):
    with pytest.raises(error, match=words):
        read(config(rows(tmp_path / "a.jsonl", [record] * 3), **options))


def test_places_that_hold_no_corpus(tmp_path, config):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected text files \(.txt\), tables"):
        read(config(tmp_path / "empty"))
    write(tmp_path / "two" / "train.txt", "a")
    write(tmp_path / "two" / "training" / "a.txt", "b")
    with pytest.raises(DataError, match="split 'train' is given twice"):
        read(config(tmp_path / "two"))


def test_fewer_examples(tmp_path, config):
    path = rows(tmp_path / "a.jsonl", [{"prompt": f"a{n}", "completion": "b"} for n in range(40)])
    prepared = read(config(path, max_train_examples=5))
    assert (len(prepared.splits["train"]), prepared.splits["train"].most) == (5, None)
    path = write(tmp_path / "a.txt", LINES)
    prepared = read(config(path, max_train_examples=5))
    assert (len(prepared.splits["train"]), prepared.splits["train"].most) == (1, 5)
    assert prepared.splits["validation"].most is None
    scored = read(config(path, max_evaluation_examples=2)).splits
    assert [scored[split].most for split in ("train", "validation", "test")] == [None, 2, 2]


def test_report(tmp_path, config):
    write(tmp_path / "train.txt", "a é b\n")
    write(tmp_path / "validation.txt", "c d")
    facts, problems = check_report(config(tmp_path), "corpus", problems=(NEXT_TOKEN,), seed=0)
    assert not problems
    told = dict(facts)
    assert told["problem type"] == NEXT_TOKEN
    assert told["records"] == "documents"
    assert told["train"] == "documents 1, bytes 7, words 3"
    path = rows(tmp_path / "a.jsonl", [{"messages": talk(number)} for number in range(30)])
    facts, problems = check_report(config(path), "corpus", problems=(NEXT_TOKEN,), seed=0)
    assert not problems
    assert dict(facts)["test"].startswith("conversations 3, bytes 38, words 12")
