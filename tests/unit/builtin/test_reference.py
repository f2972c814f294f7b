"""Python's language reference as a corpus: no paragraph on two sides, written whole, once, under its content's name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tlhub.builtin import reference
from tlhub.errors import DataError

CHAPTER = ("Blocks\n******\n\nFor example:\n\n   some code that is long enough to be told from any other code\n\n"
           "A sentence that is long enough to be told from any other sentence.\n\nFor example:\n\n"
           "   other code that is as long, and that stands in the chapter and nowhere else\n\n"
           "See also:\n\nThe last paragraph of the chapter, which is by itself, as the one before it.\n")
SECTION = ("Sentences\n*********\n\nA sentence that is long enough to be told from any other sentence.\n\n"
           "For example:\n\n   code of the section, which is long enough to be told from any other code\n")

NEWS = "Changed in version 9.9: A change that is long enough to be told from any other."


def test_what_a_section_holds_is_left_out_of_its_chapter() -> None:
    documents = reference.documents({"chapter": CHAPTER, "section": SECTION, "copy": SECTION})
    assert list(documents) == ["chapter", "copy"]
    assert documents["copy"] == SECTION
    # Short paragraphs, which may stand anywhere, go with the long one before them.
    assert documents["chapter"] == CHAPTER.replace(
        "A sentence that is long enough to be told from any other sentence.\n\nFor example:\n\n", "")


def test_no_long_paragraph_is_in_two_splits() -> None:
    places: dict[str, set[str]] = {}
    for topic, text in reference.documents(topics).items():
        for paragraph in text.split("\n\n"):
            words = " ".join(paragraph.split())
            if len(words) >= 60:
                places.setdefault(words, set()).add(reference.split_of(topic))
    assert len(places) > 1000
    assert [words for words, splits in places.items() if len(splits) > 1] == []


def test_splits_are_the_same_in_every_python() -> None:
    splits = {topic: reference.split_of(topic) for topic in topics}
    assert {topic for topic, split in splits.items() if split == "test"} == {
        "atom-literals", "bltin-null-object", "exprlists", "identifiers", "naming", "nonlocal", "numbers",
        "numeric-types", "power", "return", "try", "typesmodules",
    }
    assert {topic for topic, split in splits.items() if split == "validation"} == {
        "bitwise", "class", "comparisons", "context-managers", "conversions", "for", "global", "operator-summary",
        "pass", "sequence-types", "typesmethods",
    }
    sizes = {split: sum(len(text) for topic, text in reference.documents(topics).items() if splits[topic] == split)
             for split in ("train", "validation", "test")}
    assert 300_000 < sum(sizes.values()) < 500_000
    assert all(0.05 < sizes[split] / sum(sizes.values()) < 0.15 for split in ("validation", "test"))


def test_the_folder_is_written_once(tmp_path: Path) -> None:
    folder = reference.reference_folder(tmp_path / "new")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.txt")}
    assert len(files) == len(reference.documents(topics)) > 70
    assert files["train/with.txt"].read_text(encoding="utf-8").startswith('The "with" statement\n****')
    times = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert reference.reference_folder(tmp_path / "new") == folder
    assert {name: path.stat().st_mtime_ns for name, path in files.items()} == times
    assert list((tmp_path / "new").iterdir()) == [folder]


def test_another_python_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = reference.reference_folder(tmp_path)
    monkeypatch.setitem(topics, "with", f"{topics['with']}\n{NEWS}\n")
    second = reference.reference_folder(tmp_path)
    assert first != second
    assert (second / "train/with.txt").read_text(encoding="utf-8").endswith(f"\n{NEWS}\n")


def test_another_process_may_be_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def too_late(source: Path, target: Path) -> None:
        rename(source, target)
        Path(source).mkdir()
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(os, "rename", too_late)
    folder = reference.reference_folder(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]


def test_what_cannot_be_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to '.*file' \(Not a directory\); name another folder"):
        reference.reference_folder(tmp_path / "file")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(DataError, match=r"\(No space left on device\)"):
        reference.reference_folder(tmp_path / "full")
    assert list((tmp_path / "full").iterdir()) == []
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"this Python comes without; install the full standard library"):
        reference.reference_folder(tmp_path)
