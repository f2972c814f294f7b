"""Python's language reference, which every Python carries for `help()`, as a corpus of text files."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from tlhub.errors import DataError

_SPLITS = ("test", "validation")
"""The splits of the topics whose hash ends in 0 and 1 of 10; the others are for training."""
_SALT = "1302"
"""Taken among many: validation and test are about a twelfth of the text each, and no topic is a third of either."""
_SHORT = 60
"""Characters below which a paragraph ("For example:") may stand in many places without being a copy of one."""


def split_of(topic: str) -> str:
    """Return the split of a topic, which follows from its name: `train`, `validation` or `test`."""
    place = hashlib.sha256(f"{_SALT} {topic}".encode()).digest()[0] % 10
    return _SPLITS[place] if place < len(_SPLITS) else "train"


def documents(topics: Mapping[str, str]) -> dict[str, str]:
    """Return topics without what stands in a shorter one too, so that no paragraph is both learned and tested.

    Some topics of the reference are chapters ("compound") that hold others ("with") whole.

    Args:
        topics: Texts by topic.
    """
    seen: set[str] = set()
    kept = {}
    for topic in sorted(topics, key=lambda topic: (len(topics[topic]), topic)):
        paragraphs = []
        copied = False
        for lines in topics[topic].strip("\n").split("\n\n"):
            words = " ".join(lines.split())
            copied = copied if len(words) < _SHORT else words in seen
            if words and not copied:
                paragraphs.append(lines.strip("\n"))
                seen.add(words)
        if any(len(paragraph) >= _SHORT for paragraph in paragraphs):  # otherwise its title alone is left
            kept[topic] = "\n\n".join(paragraphs) + "\n"
    return dict(sorted(kept.items()))


def reference_folder(root: Path) -> Path:
    """Return the folder of the reference: `train/<topic>.txt`, and `validation/` and `test/` alike, written if need be.

    It is complete when it appears, and named by its content, which differs between versions of Python.

    Args:
        root: The folder to keep it in.

    Raises:
        DataError: This Python comes without its reference, or the folder cannot be written.
    """
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise DataError("builtin/python_reference is read from pydoc_data.topics, which this Python comes without; "
                        "install the full standard library, or give text files of your own as --data") from None
    texts = {f"{split_of(topic)}/{topic}.txt": text.encode() for topic, text in documents(topics).items()}
    content = hashlib.sha256(b"".join(name.encode() + b"\0" + text for name, text in texts.items())).hexdigest()
    folder = root / f"python_reference-{content[:16]}"
    if folder.is_dir():
        return folder
    temporary = root / f".{uuid.uuid4().hex}"
    try:
        for name, text in texts.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(text)
        _publish(temporary, folder)
    except OSError as error:
        raise DataError(f"builtin/python_reference cannot be written to '{root}' ({error.strerror}); name another "
                        "folder with --data.cache_dir or TLHUB_CACHE") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _publish(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was quicker, with the same content
            raise
