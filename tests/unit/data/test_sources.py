from __future__ import annotations

import json
import os
from types import SimpleNamespace

import datasets
import pytest

from tests.data_files import csv_rows, png, write, write_images
from tlhub.data import tables
from tlhub.data.prepare import prepare
from tlhub.data.sources import list_files, read_lines, read_source
from tlhub.errors import DataError, UsageError


def found(source):
    return {split: len(table.ids) for split, table in source.splits.items()}


def test_folder_of_tables_with_usual_split_names(tmp_path, config):
    for name, count in (("train.csv", 8), ("dev.csv", 4), ("testing.csv", 6)):
        write(tmp_path / "d" / name, csv_rows(count))
    write(tmp_path / "d" / "classes.csv", "a,b\n1,2\n")
    source = read_source(config(tmp_path / "d"), "text")
    assert found(source) == {"train": 8, "validation": 4, "test": 6}
    assert source.splits["train"].ids[1] == "train.csv:3"
    assert any("classes.csv" in note for note in source.notes)


@pytest.mark.parametrize(("name", "content"), [
    ("a.tsv", "text\tlabel\na, b\tx\nc\ty\n"),
    ("a.csv", "text;label\na;x\nc;y\n"),
    ("a.CSV", '\ufefftext,label\n"two\nlines",x\nc,y\n'),
    ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "c", "label": "y"}\n'),
    ("a.json", '[{"text": "a", "label": 1}, {"text": "c"}]'),
])
def test_single_tables(tmp_path, config, name, content):
    source = read_source(config(write(tmp_path / name, content)), "text")
    assert found(source) == {"all": 2}
    assert source.splits["all"].rows.column_names == ["text", "label"]
    assert source.splits["all"].rows["text"][1] == "c"


def test_labels_of_a_csv_stay_text(tmp_path, config):
    source = read_source(config(write(tmp_path / "a.csv", "text,label\n12,01\n13,NA\n")), "text")
    assert list(source.splits["all"].rows["label"]) == ["01", "NA"]


@pytest.mark.parametrize(("content", "words"), [
    (b"text,label\ngood,x\nb\xffd,y\n", r"byte 0xff at position 19 \(line 3\)"),
    (b"text,label\na,b,c\n", "3 values"),
    (b"text,text\na,b\n", "more than one column named 'text'"),
    (b"text,label\n", "no rows"),
    (b"", "empty"),
])
def test_damaged_csv_is_named(tmp_path, config, content, words):
    with pytest.raises(DataError, match=words) as raised:
        read_source(config(write(tmp_path / "a.csv", content)), "text")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ['{"text": 1}\nnot json\n', '{"text": 1}\n[1]\n'])
def test_damaged_jsonl_names_the_line(tmp_path, config, content):
    with pytest.raises(DataError, match="line 2"):
        read_source(config(write(tmp_path / "a.jsonl", content)), "text")


def test_split_column_is_honoured(tmp_path, config):
    rows = "text,label,split\n" + "".join(f"t{n},{n % 2},{'train' if n < 6 else 'val' if n < 8 else 'test'}\n"
                                          for n in range(10))
    path = write(tmp_path / "a.csv", rows)
    source = read_source(config(path), "text")
    assert found(source) == {"train": 6, "validation": 2, "test": 2}
    assert source.splits["test"].ids == ["a.csv:10", "a.csv:11"]
    renamed = write(tmp_path / "b.csv", rows.replace("split", "fold"))
    assert found(read_source(config(renamed), "text")) == {"all": 10}
    assert len(read_source(config(renamed, split_column="fold"), "text").splits) == 3
    with pytest.raises(DataError, match="'label'"):
        read_source(config(renamed, split_column="label"), "text")
    with pytest.raises(DataError, match="'folds' is not in the data; did you mean 'fold'"):
        read_source(config(renamed, split_column="folds"), "text")


def make_parquet(folder, parts=2):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    for part in range(parts):
        cells = [{"bytes": png(part * 10 + n), "path": None} for n in range(4)]
        rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 0, 1]}, features=features)
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(str(folder / f"train-{part:05d}-of-00002.parquet"))


def test_parquet_shards_keep_class_order_and_bytes(tmp_path, config):
    make_parquet(tmp_path / "d" / "data")
    data = prepare(config(tmp_path / "d", validation_fraction=0.25, test_fraction=0.25), "image", seed=0)
    assert data.label_names == ("zebra", "ant")
    train = data.splits["train"]
    number = int(str(train.ids[0]).partition(":")[2]) - 1
    assert train.inputs[0] == png(number // 4 * 10 + number % 4)
    assert train.labels[0] == number % 2


def test_missing_shard_is_refused(tmp_path, config):
    make_parquet(tmp_path / "d", parts=1)
    with pytest.raises(DataError, match="1 of the 2 parts"):
        read_source(config(tmp_path / "d"), "image")


def test_damaged_parquet(tmp_path, config):
    write(tmp_path / "d" / "train.parquet", b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_source(config(tmp_path / "d"), "image")


def test_saved_datasets(tmp_path, config):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    datasets.DatasetDict({"train": rows, "valid": rows, "unlabelled": rows}).save_to_disk(str(tmp_path / "d"))
    source = read_source(config(tmp_path / "d"), "text")
    assert found(source) == {"train": 2, "validation": 2}
    assert source.notes == ("splits left out: unlabelled",)
    rows.save_to_disk(str(tmp_path / "one"))
    assert found(read_source(config(tmp_path / "one"), "text")) == {"all": 2}


def test_class_folders_with_and_without_splits(tmp_path, config):
    write_images(tmp_path / "a", {"cat": 3, "dog": 2}, ending=".JPG")
    write(tmp_path / "a" / "cat" / "notes.md", "x")
    write(tmp_path / "a" / "clips.csv", "file,label\n")
    write(tmp_path / "a" / "cat" / "Thumbs.db", "x")
    source = read_source(config(tmp_path / "a"), "image")
    assert source.splits["all"].ids == ["cat/000.JPG", "cat/001.JPG", "cat/002.JPG", "dog/000.JPG", "dog/001.JPG"]
    assert any("clips.csv" in note for note in source.notes)
    assert any("1 files with other endings" in note for note in source.notes)
    write_images(tmp_path / "b" / "train", {"cat": 3, "dog": 2})
    write_images(tmp_path / "b" / "val", {"cat": 1, "dog": 1})
    (tmp_path / "b" / "extra").mkdir()
    source = read_source(config(tmp_path / "b"), "image")
    assert found(source) == {"train": 5, "validation": 2}
    assert any("extra" in note for note in source.notes)
    (tmp_path / "c").mkdir()
    os.rename(tmp_path / "b", tmp_path / "c" / "archive")
    assert found(read_source(config(tmp_path / "c"), "image")) == {"train": 5, "validation": 2}


def test_text_files_in_class_folders(tmp_path, config):
    for name in ("pos", "neg"):
        write(tmp_path / "d" / "train" / name / "a.txt", f"a {name} text")
    source = read_source(config(tmp_path / "d"), "text")
    assert list(source.splits["train"].rows["text"]) == ["a neg text", "a pos text"]
    write(tmp_path / "d" / "train" / "pos" / "b.txt", b"ok \xe9")
    with pytest.raises(DataError, match=r"b.txt' is not UTF-8: byte 0xe9 at position 3"):
        read_source(config(tmp_path / "d"), "text")


def test_empty_class_folder_is_refused(tmp_path, config):
    write_images(tmp_path / "d", {"cat": 1})
    (tmp_path / "d" / "dog").mkdir()
    with pytest.raises(DataError, match="dog' holds no file"):
        read_source(config(tmp_path / "d"), "image")


def test_metadata_beside_files(tmp_path, config):
    write_images(tmp_path / "d" / "train", {"x": 3})
    write_images(tmp_path / "d" / "test", {"x": 2}, first=50)
    lines = [f"{part}/x/{n:03d}.png,{'a' if n else 'b'},p{n}" for part, n in
             [("train", 0), ("train", 1), ("train", 2), ("test", 0), ("test", 1)]]
    write(tmp_path / "d" / "clips.csv", "file,label,person\n" + "\n".join(lines) + "\n")
    assert found(read_source(config(tmp_path / "d"), "image")) == {"train": 3, "test": 2}
    source = read_source(config(tmp_path / "d", metadata="clips.csv"), "image")
    assert found(source) == {"train": 3, "test": 2}
    assert list(source.splits["test"].rows["person"]) == ["p0", "p1"]
    with pytest.raises(DataError, match=r"clip.csv' is not in .*clips.csv"):
        read_source(config(tmp_path / "d", metadata="clip.csv"), "image")


def test_metadata_in_each_split_is_relative_to_it(tmp_path, config):
    for part in ("train", "test"):
        write_images(tmp_path / "d", {part: 4}, first=0 if part == "train" else 9)
        rows = [json.dumps({"file_name": f"{n:03d}.png", "label": "ab"[n % 2]}) for n in range(4)]
        write(tmp_path / "d" / part / "metadata.jsonl", "\n".join(rows))
    data = prepare(config(tmp_path / "d", validation_fraction=0.5), "image", seed=0)
    assert str(data.splits["test"].inputs[0]) == str(tmp_path / "d" / "test" / "000.png")
    os.remove(tmp_path / "d" / "test" / "metadata.jsonl")
    with pytest.raises(DataError, match="has no such table"):
        read_source(config(tmp_path / "d"), "image")


@pytest.mark.parametrize(("name", "words"), [
    ("../secret.png", "leads out"), ("/etc/passwd", "leads out"), ("http://a.b/c.png", "is an address"),
    ("link.png", "leads out"),
])
def test_paths_that_leave_the_folder(tmp_path, config, name, words):
    write(tmp_path / "secret.png", png(0))
    write_images(tmp_path / "d", {"x": 1})
    (tmp_path / "d" / "link.png").symlink_to(tmp_path / "secret.png")
    write(tmp_path / "d" / "metadata.csv", f"file_name,label\nx/000.png,a\n{name},b\n")
    with pytest.raises(DataError, match=words):
        prepare(config(tmp_path / "d"), "image", seed=0)


def test_links_out_of_class_folders(tmp_path, config):
    write_images(tmp_path / "d", {"x": 1, "y": 1})
    write(tmp_path / "secret.png", png(0))
    (tmp_path / "d" / "x" / "loop").symlink_to(tmp_path / "d" / "x")
    assert found(read_source(config(tmp_path / "d"), "image")) == {"all": 2}
    (tmp_path / "d" / "x" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"leads out .* \(cp -rL copies that\)"):
        read_source(config(tmp_path / "d"), "image")


def test_a_link_to_the_one_folder_that_holds_everything(tmp_path, config):
    write_images(tmp_path / "d" / ".version-1" / "train", {"x": 1, "y": 1})
    (tmp_path / "d" / "current").symlink_to(".version-1")
    assert found(read_source(config(tmp_path / "d"), "image")) == {"train": 2}


def test_a_table_is_read_where_memory_can_be_freed_for_it(tmp_path, config, monkeypatch):
    write(tmp_path / "t.csv", csv_rows(20))
    memory = SimpleNamespace(total=10**6, available=10**5, free=0)
    monkeypatch.setattr(tables.psutil, "virtual_memory", lambda: memory)
    assert found(read_source(config(tmp_path / "t.csv"), "text")) == {"all": 20}
    memory.available = 10
    with pytest.raises(DataError, match="GiB of memory are free; divide it"):
        read_source(config(tmp_path / "t.csv"), "text")


def test_source_that_does_not_exist(tmp_path, config):
    write(tmp_path / "flowers.csv", csv_rows(2))
    with pytest.raises(DataError, match=r"does not exist in .*did you mean 'flowers.csv'"):
        read_source(config(tmp_path / "flower.csv"), "text")
    with pytest.raises(UsageError, match="--data"):
        read_source(config(""), "text")


@pytest.mark.parametrize(("name", "words"), [
    ("flwers", "did you mean 'flowers'"), ("sets/b", "does not exist in 'sets'"),
    ("other", "the Hub cannot be reached"), ("a/b", "cannot be reached"),
])
def test_names_that_may_be_mistyped_paths(tmp_path, config, monkeypatch, name, words):
    write(tmp_path / "flowers" / "x", "")
    write(tmp_path / "sets" / "flowers" / "x", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlhub.data.sources._hub_has_address", lambda: False)
    with pytest.raises(DataError, match=words):
        read_source(config(name), "text")


def test_hub_data_offline_is_one_line(config):
    with pytest.raises(DataError, match="as a Hub data set it cannot be loaded") as raised:
        read_source(config("someone/some_data"), "text")
    assert "\n" not in str(raised.value)


def test_inputs_of_predictions(tmp_path):
    write_images(tmp_path / "d", {"x": 2}, ending=".PNG")
    assert list_files(str(tmp_path / "d"), "image") == [str(tmp_path / "d" / "x" / f"00{n}.PNG") for n in range(2)]
    assert list_files(str(tmp_path / "d" / "x" / "000.PNG"), "image") == [str(tmp_path / "d" / "x" / "000.PNG")]
    with pytest.raises(DataError, match="no file and no folder"):
        list_files(str(tmp_path / "none"), "image")
    assert read_lines(write(tmp_path / "a.txt", "one\r\n\n two \n")) == ["one", "two"]


@pytest.mark.parametrize(("name", "modality", "least"), [
    ("digits", "image", 1797), ("messages", "text", 420), ("wake_word", "audio", 500),
    ("python_reference", "corpus", 60),
])
def test_data_sets_of_our_own_win_over_folders(tmp_path, config, monkeypatch, name, modality, least):
    write(tmp_path / "builtin" / name / "train.csv", csv_rows(8))
    monkeypatch.chdir(tmp_path)
    counts = found(read_source(config(f"builtin/{name}"), modality))
    assert set(counts) == {"train", "validation", "test"}
    assert sum(counts.values()) >= least


def test_a_misspelt_data_set_of_our_own(config):
    with pytest.raises(DataError, match=r"'builtin/digit' is no data set that tlhub brings; valid: builtin/digits, "):
        read_source(config("builtin/digit"), "image")
