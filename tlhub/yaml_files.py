"""YAML files that others wrote: plain values only, and no more of them than the file itself shows."""

from __future__ import annotations

import os
from typing import Any

import yaml

_MOST_BYTES = 2**24
_MOST_VALUES = 10**6
"""Values that a file may stand for once what its anchors repeat is written out."""
_DEEPEST = 50
"""Levels of lists and mappings. The loader in C calls itself for each, until the process's stack ends."""

# That of libyaml, where it is there, takes a tenth of the time.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _RefusedError(Exception):
    """A text asks for more than a configuration needs."""


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the values of a YAML file by name; nothing where the file is empty.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no YAML, or asks for objects, or for more values than a configuration has; the message goes
            on after the file's name.
    """
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"is larger than {_MOST_BYTES / 2**20:.0f} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    value = parse(text)
    if value is not None and (not isinstance(value, dict) or not all(isinstance(key, str) for key in value)):
        raise ValueError("holds no options by name")
    return value or {}


def parse(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: As for `read_mapping`.
    """
    try:
        _check_depth(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {_words(error)}") from None
    except Exception as error:  # impossible dates, numbers of a thousand digits, tags that do not fit their values
        raise ValueError(f"holds a value that is none ({_words(error)})") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise _RefusedError(f"has lists or mappings more than {_DEEPEST} deep")


def _check_size(node: Any) -> None:
    if _size(node, {}) > _MOST_VALUES:
        raise _RefusedError(f"holds anchors that stand for more than {_MOST_VALUES} values")


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for, everything that an anchor repeats counted each time."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise _RefusedError("has an anchor that holds itself")
        return known[id(node)]
    known[id(node)] = 0
    inner = [] if isinstance(node.value, str) else node.value
    parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
    known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]
