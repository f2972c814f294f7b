"""Tables a data set can come as: csv, tsv, jsonl, json and parquet, each row with a name for messages."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tlhub.errors import DataError, is_disk_full

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
_MOST_DELIMITED = 2**31 - 2
"""Bytes that the parser of csv files takes as one block."""
_LONGEST_HEADER = 2**20
_LINE = re.compile(r"[^\r\n]+")
_DEEPEST = 50
"""Levels of lists and objects in a record."""
_ROWS_A_BYTE = 8
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
        DataError: It cannot be read, is no file, or is larger than the memory that is free.
    """
    try:
        facts, free = path.stat(), psutil.virtual_memory().available
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"'{path}' is no file; give one")
        if facts.st_size > free:
            raise DataError(f"'{path}' is {facts.st_size / 2**30:.1f} GiB large, and {free / 2**30:.1f} GiB of memory "
                            "are free; divide it, or write it as parquet")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}); check the file") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_utf8(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not JSON ({first_line(error)}); write it again") from None


def _read_parquet(paths: Sequence[Path], cache_dir: Path) -> datasets.Dataset:
    try:
        for path in paths:
            _check_parquet(path)
        with quiet():
            rows = datasets.Dataset.from_parquet([str(path) for path in paths], cache_dir=str(cache_dir))
    except Exception as error:  # of Arrow, of `datasets`, and of what either makes of a description in the file
        if isinstance(error, DataError) or is_disk_full(error):
            raise
        cause = error.__cause__ or error
        raise DataError(f"'{paths[0]}' cannot be read as parquet ({first_line(cause)}); write it again") from None
    if not isinstance(rows, datasets.Dataset) or rows.num_rows == 0:
        raise DataError(f"'{paths[0]}' holds no rows; remove it or fill it")
    return rows


def _check_parquet(path: Path) -> None:
    """Refuse a file that unfolds to far more than it holds: rows that differ take a part of a byte each at least."""
    announced = pyarrow.parquet.read_metadata(path).num_rows
    if announced > _ROWS_A_BYTE * path.stat().st_size:
        raise DataError(f"'{path}' announces {announced} rows in {path.stat().st_size} bytes; write it again")


def _read_text_table(path: Path) -> datasets.Dataset:
    if path.suffix.lower() in {".jsonl", ".json"}:
        return _from_records(_read_records(path), path)
    return _read_delimited(path)


def _first_line(path: Path) -> int:
    return 1 if path.suffix.lower() in {".jsonl", ".json"} else 2


def _read_delimited(path: Path) -> datasets.Dataset:
    text = read_utf8(path)
    header = next((line for line in _LINE.findall(text[:_LONGEST_HEADER]) if line.strip()), "")
    if len(header) == _LONGEST_HEADER:
        raise DataError(f"'{path}' has a first line of {_LONGEST_HEADER} characters or more; give it a line with the "
                        "names of the columns")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    names = _names_in(header, delimiter, path)
    start = text.index(header) + len(header)
    body = text[start:].lstrip("\r\n").encode()
    if not body.strip():
        raise DataError(f"'{path}' has a header and no rows; fill it or remove it")
    if len(body) > _MOST_DELIMITED:
        raise DataError(f"'{path}' is {len(body) / 2**30:.1f} GiB large, the limit is {_MOST_DELIMITED / 2**30:.0f}; "
                        "divide it, or write it as parquet")
    return _dataset(_parse(path, body, names, delimiter), path)


def _names_in(header: str, delimiter: str, path: Path) -> list[str]:
    try:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as error:
        raise DataError(f"'{path}' has a first line that cannot be read ({error}); it needs the names of the "
                        "columns") from None
    if not names:
        raise DataError(f"'{path}' is empty; it needs a line with the names of the columns, and rows")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"'{path}' has more than one column named {doubled[0]!r}; rename or remove one")
    return names


def _dataset(table: pa.Table, path: Path) -> datasets.Dataset:
    """Return a table as a data set, whose features cannot describe every name and type that Arrow has."""
    if wrong := [name for name in table.column_names if "\0" in name]:
        raise DataError(f"'{path}' has a column named {wrong[0]!r}, with a zero byte in it; rename it")
    try:
        return datasets.Dataset(datasets.table.InMemoryTable(table))
    except (pa.ArrowException, ValueError, TypeError, RecursionError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"'{path}' cannot be read as a table ({first_line(error)}); simplify its columns") from None


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
    records: list[dict[str, Any]] = []
    for number, piece in enumerate(lines, 1):
        if not piece.strip():
            continue
        try:
            value = json.loads(piece, object_pairs_hook=_without_doubles)
        except (ValueError, RecursionError) as error:
            raise DataError(f"'{path}' is not JSON in line {number} ({first_line(error)}); one object a line") from None
        if _HALF.search(piece) and not _is_unicode(value):
            raise DataError(f"'{path}' holds one half of a surrogate pair in line {number}, which is no character; "
                            "remove it, or write both halves")
        found = value if whole else [value]
        if not all(isinstance(record, dict) for record in found):
            raise DataError(f"'{path}' holds {piece.strip()[:40]!r} in line {number}; each row is an object with names")
        if piece.count("[") + piece.count("{") > _DEEPEST and _depth(found) > _DEEPEST:
            raise DataError(f"'{path}' holds lists or objects more than {_DEEPEST} deep in line {number}; flatten them")
        records += found
    return records


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, of which no name is given twice: one of the values would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {max(names, key=names.count)!r} is given twice in one object")
    return found


def _depth(value: Any) -> int:
    """Return how many lists and objects lie within each other."""
    depth, layer = 0, [value]
    while layer := [inner for outer in layer if isinstance(outer, (list, dict))
                    for inner in (outer.values() if isinstance(outer, dict) else outer)]:
        depth += 1
    return depth


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
    return _dataset(pa.table({name: _column([record.get(name) for record in records]) for name in names}), path)


def _column(values: list[Any]) -> pa.Array:
    """Return a column; one that mixes kinds of values (`1` and `"one"`), or has numbers too large, becomes text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])
