"""Corpora of text files: which files there are, and of which split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa

from tlhub.data.files import FILE_ENDINGS, files_below, split_folders, split_tables, tables_in, visible_folders
from tlhub.data.tables import Table, read_bytes
from tlhub.errors import DataError

_ABOUT = re.compile(r"(readme|licen[cs]e|copying|notice|authors|changelog)([-_.].*)?", re.IGNORECASE)
_ENDINGS = FILE_ENDINGS["text"]


def find_corpus(root: Path) -> tuple[dict[str, Table], tuple[str, ...]] | None:
    """Return the text files of a folder by split, each as a row, and what a user should be told.

    Files named like splits come first (`train.txt`, or parts such as `train-00001.txt`), and folders named like splits
    with text files at any depth; then tables named like splits, which are not read here; then every text file, at any
    depth. Files about the data (`README.txt`) are left out.

    Args:
        root: The folder, resolved.

    Raises:
        DataError: A split is given twice, or a link leads out of the folder.
    """
    direct = [path for path in files_below(root, root, _ENDINGS) if path.parent == root and not _is_about(path)]
    parts: dict[str, list[Path]] = {name: sorted(paths) for name, paths in split_tables(direct).items()}
    for split, folder in split_folders(root).items():
        found = [path for path in files_below(folder, root, _ENDINGS) if not _is_about(path)]
        if found and split in parts:
            raise DataError(f"split {split!r} is given twice, by '{parts[split][0]}' and '{folder.name}'; keep one")
        if found:
            parts[split] = found
    tables = tables_in(root, root)
    around = not direct and len(visible_folders(root)) == 1  # a folder around everything, splits perhaps
    if not parts and not split_tables(tables) and not around:
        found = [path for path in files_below(root, root, _ENDINGS) if not _is_about(path)]
        parts = {"all": found} if found else {}
    if not parts:
        return None
    notes = []
    others = [path.name for path in direct if not any(path in paths for paths in parts.values())]
    if others:
        notes.append(f"text files not named like a split are ignored: {_listed(others)}")
    if tables:
        notes.append(f"the texts come from text files; ignored: {_listed([path.name for path in tables])}")
    return {split: read_files_whole(paths, root) for split, paths in parts.items()}, tuple(notes)


def read_files_whole(paths: Sequence[Path], root: Path) -> Table:
    """Return text files as rows, with their content, yet to be decoded, in the column `text`.

    Args:
        paths: The files.
        root: What they are named relative to.

    Raises:
        DataError: One cannot be read.
    """
    content = pa.array([read_bytes(path) for path in paths], pa.large_binary())
    rows = datasets.Dataset(datasets.table.InMemoryTable(pa.table({"text": content})))
    return Table(rows, [path.relative_to(root).as_posix() for path in paths])


def _is_about(path: Path) -> bool:
    return _ABOUT.fullmatch(path.stem) is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
