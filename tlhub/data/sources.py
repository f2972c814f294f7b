"""Every form a data set can come in, read to tables of rows, one a split."""

from __future__ import annotations

import difflib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import datasets
import numpy as np

from tlhub.builtin import data_folder, is_builtin
from tlhub.config import DataConfig
from tlhub.data.cache import cache_root
from tlhub.data.corpus import find_corpus, read_files_whole
from tlhub.data.files import (
    FILE_ENDINGS,
    FILE_MODALITIES,
    FILE_NOUNS,
    check_inside,
    files_below,
    holds_files,
    scan_classes,
    split_folders,
    split_name,
    split_tables,
    tables_in,
    visible_folders,
)
from tlhub.data.saved import is_saved, read_saved
from tlhub.data.tables import TABLE_ENDINGS, Table, first_line, quiet, read_table, read_utf8
from tlhub.errors import DataError, UsageError, nearest

FILE_COLUMNS = ("file_name", "file", "path", "filename", "image_path", "image", "audio_path", "audio")
_SPLIT_COLUMN = "split"
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class Source:
    """A data set as found.

    Attributes:
        splits: Tables by split (`train`, `validation`, `test`); a data set that is not divided is `{"all": table}`.
        root: The folder that file names are relative to; None where rows carry their content.
        notes: What a user should be told.
        class_folders: Whether labels are the names of the folders that files lie in.
    """

    splits: Mapping[str, Table]
    root: Path | None
    notes: tuple[str, ...] = ()
    class_folders: bool = False

    @property
    def training(self) -> Table:
        """The table that training examples are taken from; in data without one, the first."""
        return self.splits.get("train") or self.splits.get("all") or next(iter(self.splits.values()))


def read_source(data: DataConfig, modality: str) -> Source:
    """Read a data set from a file, a folder, the Hub, or tlhub itself.

    Args:
        data: `source`, and `metadata` and the column names where they are given.
        modality: `image`, `text`, `audio` or `corpus`.

    Raises:
        UsageError: No source is given.
        DataError: There is nothing there that can be read.
    """
    if not data.source:
        raise UsageError("no data given; name a folder, a file or a Hub id with --data")
    path = place_of(data)
    if path.is_file():
        source = _from_file(path, data, modality)
    elif path.is_dir():
        source = _from_folder(path.resolve(), data, modality)
    else:
        source = _from_hub(data.source)
    source = replace(source, splits={name: _undecoded(table) for name, table in source.splits.items()})
    if set(source.splits) == {"all"}:
        return _divide(source, data)
    if data.split_column:
        raise DataError(f"data.split_column {data.split_column!r} has no effect: '{data.source}' already comes in the "
                        f"splits {', '.join(source.splits)}; leave the option out")
    return source


def place_of(data: DataConfig) -> Path:
    """Return where a data set lies, or would lie if its source is no Hub id.

    Raises:
        DataError: The source has a name of tlhub's own, and there is no such data set.
    """
    return data_folder(data.source, cache_root(data)) if is_builtin(data.source) else Path(data.source).expanduser()


def _from_file(path: Path, data: DataConfig, modality: str) -> Source:
    if modality == "corpus" and path.suffix.lower() in FILE_ENDINGS["text"]:
        return Source({"all": read_files_whole([path.resolve()], path.resolve().parent)}, path.resolve().parent)
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise DataError(f"'{path}' is not a table; give a folder, or a file ending in {', '.join(TABLE_ENDINGS)}")
    table = read_table([path], path.name, cache_root(data) / "tables")
    return Source({"all": table}, path.resolve().parent)


def _from_folder(root: Path, data: DataConfig, modality: str) -> Source:
    if is_saved(root):
        splits, notes = _by_split(read_saved(root))
        return Source(splits, root, notes)
    if data.metadata:
        return _from_metadata(root, data)
    if modality == "corpus":
        return _from_corpus(root, data)
    if modality in FILE_MODALITIES:
        if any((root / name).is_file() for name in _METADATA):
            return _from_metadata(root, data)
        parts = _split_metadata(root)
        if parts:
            return _from_split_metadata(root, parts, data)
        return _from_classes(root, modality) or _from_tables(root, data) or _from_inner(root, data, modality)
    return _from_tables(root, data) or _from_classes(root, modality) or _from_inner(root, data, modality)


def _from_corpus(root: Path, data: DataConfig) -> Source:
    """Read text files, or tables where there are none or one of their columns is named."""
    named = (data.text_column, data.prompt_column, data.completion_column, data.messages_column)
    found = find_corpus(root) if named == (None,) * len(named) or not tables_in(root, root) else None
    if found is not None:
        return Source(found[0], root, found[1])
    return _from_tables(root, data) or _from_inner(root, data, "corpus")


def _from_hub(name: str) -> Source:
    path, _, config = name.partition(":")
    parent = Path(name).expanduser().parent
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    no_id = not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or Path(path).suffix.lower() in TABLE_ENDINGS
    if no_id or difflib.get_close_matches(Path(name).name, beside, cutoff=0.8) or (beside and "/" in name):
        hint = f" in '{parent}'; {nearest(Path(name).name, beside)}" if beside else "; check the path"
        raise DataError(f"data '{name}' does not exist{hint}")
    if not _hub_has_address():
        raise DataError(f"data '{name}' is no file or folder here, and the Hub cannot be reached; check the path or "
                        "the connection (HF_HUB_OFFLINE=1 reads what is cached)")
    try:
        with quiet():
            loaded = datasets.load_dataset(path, config or None)
    except Exception as error:  # the Hub's client, its network and its readers raise unrelated kinds of errors
        raise DataError(f"data '{name}' is no file or folder here, and as a Hub data set it cannot be loaded "
                        f"({type(error).__name__}: {first_line(error)}); check the name or the connection") from None
    splits, notes = _by_split(loaded)
    return Source(splits, Path(datasets.config.HF_CACHE_HOME).expanduser().resolve(), notes)


def _hub_has_address() -> bool:
    """Return whether the Hub's name can be resolved; without it, its client would retry for half a minute."""
    if datasets.config.HF_HUB_OFFLINE or urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urllib.parse.urlparse(datasets.config.HF_ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def _by_split(loaded: datasets.Dataset | datasets.DatasetDict) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Name the splits of a loaded data set; a single one counts as not divided."""
    if isinstance(loaded, datasets.Dataset):
        return {"all": _numbered(loaded, "row")}, ()
    if len(loaded) == 1:
        name, rows = next(iter(loaded.items()))
        return {split_name(name) or "all": _numbered(rows, name)}, ()
    splits: dict[str, Table] = {}
    others = []
    for name, rows in loaded.items():
        split = split_name(name)
        if split is None:
            others.append(name)
        elif split in splits:
            raise DataError(f"split {split!r} is given twice, the second time as {name!r}; keep one")
        else:
            splits[split] = _numbered(rows, name)
    if not splits:
        raise DataError(f"the splits are named {', '.join(others)}; name them train, validation and test")
    return splits, (f"splits left out: {', '.join(others)}",) if others else ()


def _numbered(rows: datasets.Dataset, name: str) -> Table:
    return Table(rows, [f"{name}:{number}" for number in range(1, rows.num_rows + 1)])


def _from_metadata(root: Path, data: DataConfig) -> Source:
    """Read the one table that describes the files of a folder."""
    names = [data.metadata] if data.metadata else [name for name in _METADATA if (root / name).is_file()]
    path = next((path for name in names for path in (root / name, Path(name).expanduser()) if path.is_file()), None)
    if path is not None and path.parent == root:
        check_inside(root, path)
    if path is None:
        tables = ", ".join(table.name for table in tables_in(root, root)) or "none"
        raise DataError(f"data.metadata '{data.metadata}' is not in '{root}'; tables there: {tables}")
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise DataError(f"data.metadata '{path}' is not a table; its ending has to be {', '.join(TABLE_ENDINGS)}")
    source = Source({"all": read_table([path], path.name, cache_root(data) / "tables")}, root)
    return replace(source, notes=(f"rows and labels come from {path.name}",))


def _split_metadata(root: Path) -> dict[str, Path]:
    return {split: folder / name for split, folder in split_folders(root).items()
            for name in reversed(_METADATA) if (folder / name).is_file()}


def _from_split_metadata(root: Path, parts: Mapping[str, Path], data: DataConfig) -> Source:
    """Read a metadata table in each split's folder; its file names are relative to that folder."""
    lacking = [str(folder) for split, folder in split_folders(root).items() if split not in parts]
    if lacking:
        raise DataError(f"'{next(iter(parts.values()))}' describes one split, and '{lacking[0]}' has no such table; "
                        "put a metadata table beside the files of each split, or one above them")
    splits = {}
    for split, path in parts.items():
        check_inside(root, path)
        folder = path.parent.name
        table = read_table([path], f"{folder}/{path.name}", cache_root(data) / "tables")
        column = data.file_column or next((name for name in FILE_COLUMNS if name in table.rows.column_names), None)
        if column in table.rows.column_names:
            values = [f"{folder}/{value}" if value else None for value in table.rows[column]]
            table = table.with_column(str(column), values)
        splits[split] = table
    return Source(splits, root, ("rows and labels come from the metadata table of each split",))


def _from_classes(root: Path, modality: str) -> Source | None:
    """Read class folders, within folders of splits or directly."""
    endings = FILE_ENDINGS[modality]
    parts = split_folders(root)
    if not any(holds_files(folder, root, endings) for folder in parts.values() or [root]):
        return None
    folders = visible_folders(root)
    if not parts and len(folders) == 1 and holds_files(folders[0], root, endings):
        return None  # not a class, but a folder around everything
    others = [folder.name for folder in folders if folder not in parts.values()] if parts else []
    notes = [f"folders beside the splits are ignored: {', '.join(others)}"] if others else []
    tables = [table.name for table in tables_in(root, root)]
    if tables:
        ignored = ", ".join(tables)
        notes.append(f"classes come from the folders; ignored: {ignored} (--data.metadata {tables[0]} uses it)")
    splits = {}
    for split, folder in (parts or {"all": root}).items():
        found = scan_classes(folder, root, endings)
        if not found.files:
            raise DataError(f"'{folder}' holds no class folders; lay files out as {folder.name}/<class>/<file>")
        if found.ignored:
            notes.append(f"{split}: {found.ignored} files with other endings ignored")
        columns = {modality: found.files, "label": found.labels}
        if modality == "text":
            columns["text"] = [read_utf8(root / name) for name in found.files]
        splits[split] = Table(datasets.Dataset.from_dict(columns), found.files)
    return Source(splits, root, tuple(notes), class_folders=True)


def _from_tables(root: Path, data: DataConfig) -> Source | None:
    """Read a folder of tables named like splits, or with a single table."""
    folder = root if tables_in(root, root) or not (root / "data").is_dir() else root / "data"
    tables = tables_in(folder, root)
    if not tables:
        return None
    cache_dir = cache_root(data) / "tables"
    parts = split_tables(tables)
    if not parts and len(tables) > 1:
        raise DataError(f"'{folder}' holds the tables {', '.join(table.name for table in tables[:8])}, none named "
                        "train, validation or test; rename them or give one of them as --data")
    chosen: Mapping[str, Sequence[Path]] = parts or {"all": tables}
    splits = {}
    for split, paths in chosen.items():
        splits[split] = read_table(paths, paths[0].name if len(paths) == 1 else split, cache_dir)
    others = [table.name for table in tables if not any(table in paths for paths in chosen.values())]
    notes = (f"tables not named like a split are ignored: {', '.join(others)}",) if others else ()
    return Source(splits, folder, notes)


def _from_inner(root: Path, data: DataConfig, modality: str) -> Source:
    """Go down into the only folder there is, as unpacked archives have it."""
    folders = visible_folders(root)
    if len(folders) == 1 and split_name(folders[0].name) is None and folders[0].resolve().is_relative_to(root):
        source = _from_folder(folders[0].resolve(), data, modality)
        return replace(source, notes=(f"the data lies in the folder '{folders[0].name}'", *source.notes))
    found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    beside = ", metadata.csv beside them" if modality in FILE_MODALITIES else ""
    wanted = "text files (.txt)" if modality == "corpus" else f"train/<class>/<file>, <class>/<file>{beside}"
    raise DataError(f"'{root}' holds no {modality} data that is understood (found: {found}); expected {wanted}, tables "
                    "named train, validation and test, or a saved data set")


def _undecoded(table: Table) -> Table:
    """Keep media columns as bytes and paths: what decodes them, and what fails, is decided here."""
    rows = table.rows
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.Audio):
            rows = rows.cast_column(name, datasets.Audio(decode=False))
    return Table(rows, table.ids)


def _divide(source: Source, data: DataConfig) -> Source:
    """Honour a column that names splits, or file names that begin with a split's folder."""
    table = source.splits["all"]
    names = table.rows.column_names
    if data.split_column and data.split_column not in names:
        raise DataError(f"data.split_column {data.split_column!r} is not in the data; "
                        f"{nearest(data.split_column, names)}")
    column = data.split_column or (_SPLIT_COLUMN if _SPLIT_COLUMN in names else None)
    if column:
        return _divide_by(source, [str(value or "") for value in table.rows[column]], f"column {column!r}")
    files = data.file_column or next((name for name in FILE_COLUMNS if name in names), None)
    if source.root is None or files not in names or getattr(table.rows.features[files], "dtype", "") != "string":
        return source
    first = [PurePosixPath(value or "").parts[:1] for value in table.rows[files]]
    folders = [part[0] if part else "" for part in first]
    if len(set(folders)) > 1 and all(split_name(folder) for folder in folders):
        return _divide_by(source, folders, f"the folders named in column {files!r}")
    return source


def _divide_by(source: Source, values: Sequence[str], origin: str) -> Source:
    table = source.splits["all"]
    splits = np.array([split_name(value) or "" for value in values])
    wrong = np.flatnonzero(splits == "")
    if len(wrong):
        raise DataError(f"{table.ids[wrong[0]]}: {origin} says {values[wrong[0]]!r}; use train, validation or test, "
                        "or name another column with --data.split_column")
    found = [split for split in ("train", "validation", "test") if (splits == split).any()]
    divided = {split: table.select(np.flatnonzero(splits == split)) for split in found}
    return replace(source, splits=divided, notes=(*source.notes, f"splits come from {origin}"))


def list_files(value: str, modality: str) -> list[str]:
    """Return a file by itself, or the files of a folder that are of this kind of data, at any depth, by name.

    Args:
        value: The file or folder.
        modality: `image` or `audio`.

    Raises:
        DataError: There is no such file, the folder holds none of this kind, or a link leads out of it.
    """
    path = Path(value).expanduser()
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise DataError(f"'{value}' is no file and no folder; check the path")
    found = [str(file) for file in files_below(path, path.resolve(), FILE_ENDINGS[modality])]
    if not found:
        raise DataError(f"folder '{value}' holds no {FILE_NOUNS[modality]}, which end in "
                        f"{', '.join(FILE_ENDINGS[modality][:5])}; name one that does")
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file that are not empty.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    return [line.strip() for line in read_utf8(path).split("\n") if line.strip()]
