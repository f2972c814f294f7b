"""Which columns hold the input, the label and the group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import datasets

from tlhub.config import DataConfig
from tlhub.data.sources import FILE_COLUMNS, Source
from tlhub.errors import DataError, nearest

_LABELS = ("label", "labels", "class", "target", "category", "sentiment", "intent", "class_label", "label_text")
_INPUTS = {
    "text": ("text", "sentence", "content", "review", "question", "comment", "message", "tweet", "document", "body"),
    "image": ("image", "img", *FILE_COLUMNS),
}
_OPTIONS = {"text": "text_column", "image": "file_column"}


@dataclass(frozen=True)
class Columns:
    """The columns that are used.

    Attributes:
        input: Holds the text, or the image or its file name.
        label: Holds the class.
        group: Holds what is never divided between splits; None without groups.
    """

    input: str
    label: str
    group: str | None


def infer_columns(source: Source, data: DataConfig, modality: str) -> Columns:
    """Return the columns to use: those named in `data`, otherwise those with a usual name or the only ones possible.

    Args:
        source: The data set; columns are looked for in its training split, and have to be in the others too.
        data: Its `..._column` options win.
        modality: `image` or `text`.

    Raises:
        DataError: A column cannot be told, or is not there.
    """
    split = next((name for name in ("train", "all") if name in source.splits), next(iter(source.splits)))
    features = source.splits[split].rows.features
    option = _OPTIONS[modality]
    given = data.text_column if modality == "text" else data.file_column
    label = _find(features, data.label_column, "label_column", _LABELS, _is_class)
    group = _find(features, data.group_column, "group_column", ("group",), None)
    taken = {label, group, data.split_column or "split"}
    free = datasets.Features({name: feature for name, feature in features.items() if name not in taken})
    found = _find(free, given, option, _INPUTS[modality], _is_text if modality == "text" else _is_image)
    if label is None:
        rest = [name for name in free if name != found]
        label = rest[0] if found and len(rest) == 1 else None
    if found is None or label is None:
        missing, name = (modality, option) if found is None else ("label", "label_column")
        raise DataError(f"no column is known to hold the {missing}; columns: {', '.join(features)}; "
                        f"name it with --data.{name}")
    columns = Columns(found, label, group)
    _check_everywhere(source, columns)
    return columns


def _find(features: datasets.Features, given: str | None, option: str, usual: tuple[str, ...],
          fits: Callable[[object], bool] | None) -> str | None:
    if given is not None:
        if given not in features:
            raise DataError(f"data.{option} {given!r} is not among the columns; {nearest(given, features)}")
        return given
    by_lower = {name.lower(): name for name in reversed(list(features))}
    named = next((by_lower[name] for name in usual if name in by_lower), None)
    if named is not None or fits is None:
        return named
    fitting = [name for name, feature in features.items() if fits(feature)]
    return fitting[0] if len(fitting) == 1 else None


def _is_class(feature: object) -> bool:
    return isinstance(feature, datasets.ClassLabel)


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}


def _is_image(feature: object) -> bool:
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)


def _check_everywhere(source: Source, columns: Columns) -> None:
    for split, table in source.splits.items():
        for name in (columns.input, columns.label, columns.group):
            if name is not None and name not in table.rows.column_names:
                raise DataError(f"column {name!r} is not in split {split!r}, which has "
                                f"{', '.join(table.rows.column_names)}; give every split the same columns")
