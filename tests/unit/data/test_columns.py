from __future__ import annotations

import datasets
import pytest

from tlhub.config import DataConfig
from tlhub.data.columns import Columns, infer_columns
from tlhub.data.sources import Source
from tlhub.data.tables import Table
from tlhub.errors import DataError


def source(columns, **features):
    rows = datasets.Dataset.from_dict({name: ["a"] for name in columns})
    for name, feature in features.items():
        rows = rows.add_column(name, [0]).cast_column(name, feature)
    return Source({"train": Table(rows, ["1"])}, None)


@pytest.mark.parametrize(("columns", "expected"), [
    (["text", "label"], Columns("text", None, ("label",), None)),
    (["id", "Sentence", "Label", "group"], Columns("Sentence", None, ("Label",), "group")),
    (["words", "label"], Columns("words", None, ("label",), None)),
    (["text", "answer"], Columns("text", None, ("answer",), None)),
    (["text", "label_text", "label", "split"], Columns("text", None, ("label",), None)),
])
def test_usual_names(columns, expected):
    assert infer_columns(source(columns), DataConfig(), "text") == expected


def test_only_class_column_is_the_label():
    kinds = datasets.ClassLabel(names=["x", "y"])
    assert infer_columns(source(["text", "title"], kind=kinds), DataConfig(), "text").labels == ("kind",)
    with pytest.raises(DataError, match=r"hold the label; columns: text, title, coarse, fine; .*--data.label_column"):
        infer_columns(source(["text", "title"], coarse=kinds, fine=kinds), DataConfig(), "text")


def test_named_columns_win_and_must_exist():
    data = DataConfig(text_column="title", label_column="b", group_column="a")
    found = infer_columns(source(["text", "title", "label", "a", "b"]), data, "text")
    assert found == Columns("title", None, ("b",), "a")
    with pytest.raises(DataError, match=r"data.label_column 'lable' is not among the columns; did you mean 'label'"):
        infer_columns(source(["text", "label"]), DataConfig(label_column="lable"), "text")
    with pytest.raises(DataError, match=r"hold the text; .*--data.text_column"):
        infer_columns(source(["a", "b", "label"]), DataConfig(), "text")


def test_every_split_needs_the_columns():
    one, other = source(["text", "label"]), source(["text", "kind"])
    both = Source({"train": one.splits["train"], "test": other.splits["train"]}, None)
    with pytest.raises(DataError, match="column 'label' is not in split 'test'"):
        infer_columns(both, DataConfig(), "text")
