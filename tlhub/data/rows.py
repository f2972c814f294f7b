"""Rows of a table as inputs, labels, ids and groups."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from tlhub.data.audit import Checked
from tlhub.data.columns import Columns
from tlhub.data.files import file_in
from tlhub.data.tables import Table
from tlhub.errors import DataError

_GROUP = "group "


class StoredBytes(Sequence[bytes]):
    """Binary values of an Arrow column, read one at a time, so that a memory-mapped table stays on disk.

    Args:
        column: Binary values without nulls.
        indices: Which of them, in order, shape (n,).
    """

    def __init__(self, column: pa.ChunkedArray, indices: np.ndarray) -> None:
        self._column = column
        self._indices = indices
        self._ends = np.cumsum([len(chunk) for chunk in column.chunks]).tolist()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> StoredBytes: ...
    def __getitem__(self, index: int | slice) -> bytes | StoredBytes:
        """Return one value, or a view of several."""
        if isinstance(index, slice):
            return StoredBytes(self._column, self._indices[index])
        position = int(self._indices[index])
        chunk = bisect.bisect_right(self._ends, position)
        value: bytes = self._column.chunk(chunk)[position - (self._ends[chunk - 1] if chunk else 0)].as_py()
        return value

    def take(self, indices: np.ndarray) -> StoredBytes:
        """Return a view of some values, in the order of `indices`, shape (m,)."""
        return StoredBytes(self._column, self._indices[indices])


@dataclass(frozen=True)
class Rows:
    """One split on its way to examples.

    Attributes:
        inputs: Texts, pairs of texts, or paths or contents of files.
        labels: As the kind of target reads them (`tlhub.data.kinds.Reading`), shape (n, ...).
        ids: What each row is called.
        groups: What is never divided, or None.
        digests: Hash of each row's content.
    """

    inputs: Sequence[Any]
    labels: np.ndarray
    ids: np.ndarray
    groups: np.ndarray | None
    digests: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def take(self, indices: np.ndarray) -> Rows:
        """Return some rows, in the order of `indices`, shape (m,)."""
        if isinstance(self.inputs, StoredBytes):
            inputs: Sequence[Any] = self.inputs.take(indices)
        else:
            inputs = [self.inputs[index] for index in indices.tolist()]
        groups = None if self.groups is None else self.groups[indices]
        return Rows(inputs, self.labels[indices], self.ids[indices], groups, self.digests[indices])


def make_rows(table: Table, columns: Columns, inputs: Sequence[Any], labels: np.ndarray, checked: Checked) -> Rows:
    """Put the parts of one split together."""
    groups = None
    if columns.group is not None:
        values = table.rows[columns.group]
        groups = np.array([f"row {name}" if value is None or str(value).strip() == "" else f"{_GROUP}{value}"
                           for name, value in zip(table.ids, values, strict=True)], dtype=object)
    return Rows(inputs, labels, np.array(table.ids, dtype=object), groups,
                np.array(checked.digests, dtype=object))


def group_name(group: str) -> str | None:
    """Return what the data call one of `Rows.groups`; None where a row has no group and stands for itself."""
    return group.removeprefix(_GROUP) if group.startswith(_GROUP) else None


def read_pairs(table: Table, columns: tuple[str, str]) -> list[tuple[str, str]]:
    """Return two columns of text, row by row, missing values as the empty text.

    Raises:
        DataError: One holds lists or structures.
    """
    first, second = columns
    return list(zip(read_texts(table, first), read_texts(table, second, "text_pair_column"), strict=True))


def read_texts(table: Table, column: str, option: str = "text_column") -> list[str]:
    """Return a column as text, missing values as the empty text.

    Args:
        table: Holds the column.
        column: Its name.
        option: The option that names another one, for the message.

    Raises:
        DataError: It holds lists or structures.
    """
    values = list(table.rows[column])
    for name, value in zip(table.ids, values, strict=True):
        if isinstance(value, (list, dict, bytes)):
            raise DataError(f"{name}: column {column!r} holds a {type(value).__name__}, not text; name the column of "
                            f"the text with --data.{option}")
    return ["" if value is None else str(value) for value in values]


def read_files(table: Table, column: str, root: Path | None) -> Sequence[str | bytes]:
    """Return a column of images or sounds, each as a path within `root` or as the content of a file.

    Raises:
        DataError: The column holds neither, or a path leads out of the folder.
    """
    values = table.rows.with_format("arrow")[:].column(column)
    stored = values
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        kind = values.type.field("bytes").type
        stored = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks], type=kind)
    if _is_binary(stored.type) and stored.null_count == 0:
        return StoredBytes(stored, np.arange(len(stored)))
    cells = values.to_pylist()
    if not (pa.types.is_struct(values.type) or _is_binary(values.type) or pa.types.is_string(values.type)
            or pa.types.is_large_string(values.type)):
        raise DataError(f"column {column!r} holds {values.type}, not files or their names; name another with "
                        "--data.file_column")
    return [_one_file(cell, root) for cell in cells]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _one_file(cell: Any, root: Path | None) -> str | bytes:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not cell or root is None:
        return b""
    return str(file_in(root, str(cell).strip()))
