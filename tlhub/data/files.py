"""Files of a data folder: found in class folders, or named by a table, and never outside the folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from tlhub.data.tables import TABLE_ENDINGS
from tlhub.errors import DataError

FILE_ENDINGS: dict[str, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    "text": (".txt",),
    "audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", ".rf64"),
}
FILE_MODALITIES = ("image", "audio")
"""Kinds of data that come as a file for each example."""
FILE_NOUNS = {"image": "pictures", "audio": "sounds"}
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation", "eval": "validation",
    "test": "test", "testing": "test",
}
_CLUTTER = {"thumbs.db", "desktop.ini"}
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|file:", re.IGNORECASE)
_DEEPEST = 100
"""Folders within folders that are looked into."""


def split_name(name: str) -> str | None:
    """Return `train`, `validation` or `test` for the usual spellings of a split's name, otherwise None."""
    return _SPLITS.get(name.strip().lower())


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` by name, without hidden and technical ones (`.git`, `__MACOSX`)."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))


def tables_in(folder: Path, root: Path) -> list[Path]:
    """Return the tables directly in `folder`, by name.

    Args:
        folder: Where to look.
        root: The data folder, resolved.

    Raises:
        DataError: A link leads out of the data folder.
    """
    found = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")
                   and entry.suffix.lower() in TABLE_ENDINGS)
    for path in found:
        check_inside(root, path)
    return found


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders named like splits, by the split's usual name.

    Raises:
        DataError: Two folders mean the same split.
    """
    return _by_split((split_name(entry.name), entry) for entry in visible_folders(folder))


def split_tables(tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Return tables named like splits: `train.csv`, or parts such as `train-00000-of-00003.parquet`.

    Raises:
        DataError: Two kinds of files mean the same split, or a numbered part is missing.
    """
    found: dict[str, list[Path]] = {}
    for table in tables:
        match = re.fullmatch(r"([A-Za-z]+)(?:[-_.]\d+(?:-of-(\d+))?)?", table.stem)
        split = split_name(match.group(1)) if match else None
        if split:
            found.setdefault(split, []).append(table)
    for split, paths in found.items():
        numbered = [path for path in paths if re.search(r"\d$", path.stem)]
        if len(paths) > 1 and (len(numbered) < len(paths) or len({path.suffix.lower() for path in paths}) > 1):
            raise DataError(f"split {split!r} is given twice, by '{paths[0]}' and '{paths[1].name}'; keep one")
        total = re.search(r"-of-(\d+)$", paths[0].stem)
        if total and int(total.group(1)) != len(paths):
            raise DataError(f"'{paths[0].parent}' holds {len(paths)} of the {int(total.group(1))} parts of split "
                            f"{split!r}; add the missing ones")
    return found


def _by_split(pairs: Iterator[tuple[str | None, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split, path in pairs:
        if split is None:
            continue
        if split in found:
            raise DataError(f"split {split!r} is given twice, by '{found[split]}' and '{path.name}'; keep one")
        found[split] = path
    return found


@dataclass
class ClassFiles:
    """Files found in class folders, and their classes.

    Attributes:
        files: Paths relative to the data folder, with `/`.
        labels: The class folder's name of each.
        ignored: How many files have an ending that is not of this kind of data.
    """

    files: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    ignored: int = 0


def scan_classes(folder: Path, root: Path, endings: tuple[str, ...]) -> ClassFiles:
    """Return every file of the class folders in `folder`, also those in folders within them.

    Args:
        folder: Holds one folder a class.
        root: The data folder, resolved; nothing outside it is taken.
        endings: Endings that count, in lower case; upper case counts as well.

    Raises:
        DataError: A class folder holds no such file, or a link leads out of the data folder.
    """
    found = ClassFiles()
    for class_folder in visible_folders(folder):
        before = len(found.files)
        for path in _walk(class_folder, root):
            if path.suffix.lower() in endings:
                found.files.append(path.relative_to(root).as_posix())
                found.labels.append(class_folder.name)
            else:
                found.ignored += 1
        if len(found.files) == before:
            raise DataError(f"class folder '{class_folder}' holds no file ending in {', '.join(endings[:4])}; "
                            "fill it or remove it")
    return found


def holds_files(folder: Path, root: Path, endings: tuple[str, ...]) -> bool:
    """Return whether some class folder in `folder` holds, at any depth, a file with one of the endings.

    Args:
        folder: Holds one folder a class.
        root: The data folder, resolved.
        endings: Endings that count, in lower case; upper case counts as well.

    Raises:
        DataError: A link leads out of the data folder.
    """
    return any(path.suffix.lower() in endings for class_folder in visible_folders(folder)
               for path in _walk(class_folder, root))


def files_below(folder: Path, root: Path, endings: tuple[str, ...]) -> list[Path]:
    """Return the files in a folder with one of the endings, at any depth, by name.

    Args:
        folder: Where to look.
        root: The data folder, resolved; nothing outside it is taken.
        endings: Endings that count, in lower case; upper case counts as well.

    Raises:
        DataError: A link leads out of the data folder.
    """
    return [path for path in _walk(folder, root) if path.suffix.lower() in endings]


def _walk(folder: Path, root: Path, seen: set[str] | None = None) -> Iterator[Path]:
    """Yield files below `folder` by name; links are followed only where they stay in `root`, to each folder once."""
    seen = set() if seen is None else seen
    check_inside(root, folder)
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    if len(folder.parts) - len(root.parts) > _DEEPEST:
        raise DataError(f"'{root}' holds folders within folders, {_DEEPEST} deep; name one further in")
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read ({error.strerror}); check it") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower() in _CLUTTER:
            continue
        try:
            folder_there, file_there = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself
            continue
        if not entry.name.isprintable() and _is_no_text(entry.name):
            raise DataError(f"{entry.path!r} has a name that is no UTF-8; rename it")
        if folder_there:
            yield from _walk(Path(entry.path), root, seen)
        elif file_there:
            if entry.is_symlink():
                check_inside(root, Path(entry.path))
            yield Path(entry.path)


def _is_no_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def file_in(root: Path, name: str) -> Path:
    """Return the path of a file that a table names, relative to the data folder.

    Args:
        root: The data folder, resolved.
        name: What the table says.

    Raises:
        DataError: The name is an address or leads out of the folder, on this or another system.
    """
    if _ADDRESS.match(name):
        raise DataError(f"file {name!r} is an address; bring it into '{root}' and name the local file")
    elsewhere = PureWindowsPath(name)
    if elsewhere.drive or name.startswith("\\") or ("\\" in name and ".." in elsewhere.parts):
        raise DataError(f"file {name!r} leads out of the data folder '{root}'; name files relative to it")
    path = root / name
    check_inside(root, path, name)
    return path


def check_inside(root: Path, path: Path, given: str | None = None) -> None:
    """Check that a path, links followed, stays in the data folder.

    Args:
        root: The data folder, resolved.
        path: What is to be read.
        given: What the data call it, for the message.

    Raises:
        DataError: It leads out.
    """
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(root)
    except ValueError:
        inside = False
    if not inside:
        linked = given is None and path.is_symlink()
        advice = "bring in what the link leads to (cp -rL copies that)" if linked else "keep every file inside it"
        raise DataError(f"file {given or str(path)!r} leads out of the data folder '{root}'; {advice}")
