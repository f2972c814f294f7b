"""Tables a data set can come as: csv, tsv, jsonl, json and parquet, each row with a name for messages."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.csv

from tlhub.errors import DataError

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""What halves of surrogate pairs look like in JSON, those that belong together included."""


@dataclass(frozen=True)
class Table:
    """Rows, and what each is called in messages (`train.csv:17`)."""

    rows: datasets.Dataset
    ids: Sequence[str]

    def select(self, indices: np.ndarray) -> Table:
        """Return some rows, in the order of `indices`, shape (m,)."""
        return Table(self.rows.select(indices), [self.ids[index] for index in indices.tolist()])

    def with_column(self, name: str, values: list[str | None]) -> Table:
        """Return the table with one column of text replaced."""
        return Table(self.rows.remove_columns(name).add_column(name, values), self.ids)


def read_table(paths: Sequence[Path], name: str, cache_dir: Path) -> Table:
    """Read one split from one file, or from several that follow each other.

    Args:
        paths: Files of one kind.
        name: What the rows are called in messages, before their number.
        cache_dir: Where parquet files are laid out to be memory-mapped.

    Raises:
        DataError: A file cannot be read as what its ending says, or the files do not fit each other.
    """
    if all(path.suffix.lower() == ".parquet" for path in paths):
        rows = _read_parquet(paths, cache_dir)
        return Table(rows, [f"{name}:{number}" for number in range(1, rows.num_rows + 1)])
    parts = [_read_text_table(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.num_rows == 0:
            raise DataError(f"'{path}' holds no rows; remove it or fill it")
        if part.column_names != parts[0].column_names:
            raise DataError(f"'{path}' has the columns {part.column_names} and '{paths[0].name}' has "
                            f"{parts[0].column_names}; parts of one split need the same columns")
    rows = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
    names = [name] if len(parts) == 1 else [path.name for path in paths]
    ids = [f"{file}:{line}" for file, path, part in zip(names, paths, parts, strict=True)
           for line in range(_first_line(path), _first_line(path) + part.num_rows)]
    return Table(rows, ids)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` from drawing progress bars within the block."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def first_line(error: BaseException) -> str:
    """Return an error's message cut to one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def read_utf8(path: Path) -> str:
    """Return the content of a text file; a byte-order mark is dropped.

    Raises:
        DataError: It cannot be read, or is not UTF-8; the position of the first wrong byte is named.
    """
    return decode_utf8(read_bytes(path), f"'{path}'")


def decode_utf8(content: bytes, name: str) -> str:
    """Return the text of a file's content; a byte-order mark is dropped.

    Args:
        content: Of the file.
        name: What it is called in the message.

    Raises:
        DataError: It is not UTF-8; the position of the first wrong byte is named.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start} "
                        f"(line {line}); save the file as UTF-8") from None


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}); check the file") from None


def _read_parquet(paths: Sequence[Path], cache_dir: Path) -> datasets.Dataset:
    try:
        with quiet():
            rows = datasets.Dataset.from_parquet([str(path) for path in paths], cache_dir=str(cache_dir))
    except (OSError, ValueError, TypeError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"'{paths[0]}' cannot be read as parquet ({first_line(cause)}); write it again") from None
    if not isinstance(rows, datasets.Dataset) or rows.num_rows == 0:
        raise DataError(f"'{paths[0]}' holds no rows; remove it or fill it")
    return rows


def _read_text_table(path: Path) -> datasets.Dataset:
    if path.suffix.lower() in {".jsonl", ".json"}:
        return _from_records(_read_records(path), path)
    return _read_delimited(path)


def _first_line(path: Path) -> int:
    return 1 if path.suffix.lower() in {".jsonl", ".json"} else 2


def _read_delimited(path: Path) -> datasets.Dataset:
    text = read_utf8(path)
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if not names:
        raise DataError(f"'{path}' is empty; it needs a line with the names of the columns, and rows")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"'{path}' has more than one column named {doubled[0]!r}; rename or remove one")
    content = text.encode()
    start = content.index(header.encode()) + len(header.encode())
    body = content[start:].lstrip(b"\r\n")
    if not body.strip():
        raise DataError(f"'{path}' has a header and no rows; fill it or remove it")
    return datasets.Dataset(datasets.table.InMemoryTable(_parse(path, body, names, delimiter)))


def _parse(path: Path, body: bytes, names: list[str], delimiter: str) -> pa.Table:
    """Parse rows of text; every column stays text, since a label `01` is not the number 1."""
    wrong: list[pyarrow.csv.InvalidRow] = []

    def note_row(row: pyarrow.csv.InvalidRow) -> str:
        wrong.append(row)
        return "skip"

    parsing = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note_row)
    reading = pyarrow.csv.ReadOptions(use_threads=False, block_size=len(body) + 1, column_names=names)
    converting = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    try:
        table = pyarrow.csv.read_csv(pa.BufferReader(body), reading, parsing, converting)
    except pa.ArrowException as error:
        raise DataError(f"'{path}' cannot be read as a table ({first_line(error)}); check its quotes") from None
    if wrong:
        row = wrong[0]
        place = "" if row.number is None else f" in row {row.number}"
        raise DataError(f"'{path}' has {row.actual_columns} values{place} where its header has {row.expected_columns} "
                        f"columns ({row.text[:60]!r}); quote values that hold {delimiter!r}")
    return table


def _read_records(path: Path) -> list[dict[str, Any]]:
    text = read_utf8(path)
    whole = text.lstrip().startswith("[")
    lines = [text] if whole else text.split("\n")
    pieces = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    records: list[dict[str, Any]] = []
    for number, piece in pieces:
        try:
            value = json.loads(piece)
        except ValueError as error:
            raise DataError(f"'{path}' is not JSON in line {number} ({first_line(error)}); one object a line") from None
        if _HALF.search(piece) and not _is_unicode(value):
            raise DataError(f"'{path}' holds one half of a surrogate pair in line {number}, which is no character; "
                            "remove it, or write both halves")
        found = value if whole else [value]
        if not all(isinstance(record, dict) for record in found):
            raise DataError(f"'{path}' holds {piece.strip()[:40]!r} in line {number}; each row is an object with names")
        records += found
    return records


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_records(records: list[dict[str, Any]], path: Path) -> datasets.Dataset:
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        raise DataError(f"'{path}' holds no rows; fill it or remove it")
    columns = {name: _column([record.get(name) for record in records]) for name in names}
    return datasets.Dataset(datasets.table.InMemoryTable(pa.table(columns)))


def _column(values: list[Any]) -> pa.Array:
    """Return a column; one that mixes kinds of values (`1` and `"one"`) becomes text."""
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])
