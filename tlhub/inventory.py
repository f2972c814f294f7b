"""What `tlhub models` tells: the checkpoints that are at hand, embedded or in the Hub's cache, and their terms."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CachedRevisionInfo, CacheNotFound, constants, scan_cache_dir

from tlhub import builtin, environment
from tlhub.config import AUDIO_TASKS, GENERATION_TASKS, IMAGE_TASKS, TEXT_TASKS
from tlhub.yaml_files import parse

SERVES = {"IMAGE_CLASSIFICATION": IMAGE_TASKS, "SEQUENCE_CLASSIFICATION": TEXT_TASKS,
          "AUDIO_CLASSIFICATION": AUDIO_TASKS, "CAUSAL_LM": GENERATION_TASKS}
"""The tasks of each of transformers' tables of models."""
_OWN_LAST_LAYER = "CAUSAL_LM"
"""The table whose models keep their last layer, so that one trained for something else does not serve."""
_TABLE = "MODEL_FOR_{}_MAPPING_NAMES"
_TIMM = "timm_wrapper"
_ORDER = ("scratch", "linear_probe", "lora", "full")
_DIGITS = 12
"""Characters of a commit that tell two apart."""
_MEGABYTE = 10**6
_UNKNOWN = "not stated in its cached files"


@dataclass(frozen=True)
class Entry:
    """One checkpoint that is at hand.

    Attributes:
        name: `builtin/…`, or the Hub id.
        revision: The commit of a cached one; None for an embedded one.
        tasks: What it serves, by tlhub's names of tasks.
        parameters: How many numbers its weights hold; None where that cannot be read.
        size: Bytes on disk.
        terms: What it was trained on and the terms of that, or its licence.
        note: Why it serves no task; else empty.
        scores: Test scores by data set, then by strategy, of an embedded one.
    """

    name: str
    revision: str | None
    tasks: tuple[str, ...]
    parameters: int | None
    size: int
    terms: str
    note: str = ""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def checkpoints() -> list[Entry]:
    """Return every embedded checkpoint, then every revision of one that the Hub's cache holds, in order of names."""
    cards = [builtin.read_card(name) for name in builtin.CHECKPOINTS]
    own = [Entry(card.name, None, card.tasks, card.parameters, card.size, card.terms, scores=card.scores)
           for card in cards]
    return own + sorted(_cached(), key=lambda entry: (entry.name, entry.revision or ""))


def table(entries: Sequence[Entry]) -> list[str]:
    """Return the lines of a table of checkpoints, then those of the scores of the embedded ones."""
    rows: list[tuple[str, ...]] = [("name", "tasks", "parameters", "size", "revision", "terms")]
    rows += [(entry.name, ", ".join(entry.tasks) or entry.note,
              "-" if entry.parameters is None else f"{entry.parameters:,}", f"{entry.size / _MEGABYTE:,.1f} MB",
              (entry.revision or "-")[:_DIGITS], entry.terms) for entry in entries]
    lines = _aligned(rows, right=(2, 3))
    scored = [(entry.name, data, scores) for entry in entries for data, scores in entry.scores.items()]
    found = {strategy for *_, scores in scored for strategy in scores}
    strategies = [*(name for name in _ORDER if name in found), *sorted(found - set(_ORDER))]
    if scored:
        rows = [("test scores", "", *strategies)]
        rows += [(name, data, *(f"{scores[strategy]:.3f}" if strategy in scores else "-" for strategy in strategies))
                 for name, data, scores in scored]
        lines += ["", *_aligned(rows, right=range(2, 2 + len(strategies)))]
    return [*lines, "", f"terms of what comes with tlhub: {builtin.LICENSES}"]


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) if number in right else cell.ljust(width)
                      for number, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]


def _cached() -> Iterator[Entry]:
    """Yield the checkpoints of the Hub's cache, as far as tlhub can tell: files there may be missing or damaged."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError, ValueError):  # none, or none that can be read
        return
    for repository in repositories:
        if repository.repo_type == "model":
            for revision in repository.revisions:
                yield _entry(repository.repo_id, revision)


def _entry(name: str, revision: CachedRevisionInfo) -> Entry:
    folder = revision.snapshot_path
    weights = sorted(folder.glob("*.safetensors"))
    tasks, note = _tasks(_settings(folder / "config.json"))
    if (folder / "adapter_config.json").exists() and not tasks:
        note = "an adapter"
    elif not weights:
        tasks, note = (), "no safetensors"
    return Entry(name, revision.commit_hash, tasks, _parameters(weights), revision.size_on_disk,
                 _licence(folder / "README.md") or _UNKNOWN, note)


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _tasks(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return what a model with these settings serves, and why it serves nothing, where it does not."""
    kind = settings.get("model_type") or (_TIMM if "architecture" in settings else None)
    trained = settings.get("architectures")
    if not isinstance(kind, str):
        return (), "no usable config.json"
    served: list[str] = []
    for table_name, tasks in SERVES.items():
        made = _tables()[table_name].get(kind)
        if made is not None and (table_name != _OWN_LAST_LAYER or made in (trained or ())):
            served += tasks
    return tuple(served), "" if served else f"type {kind} serves no task"


@functools.cache
def _tables() -> dict[str, dict[str, str]]:
    """Return transformers' tables from types of models to classes, read as text: importing them takes seconds."""
    folder = environment.package_folder("transformers")
    tables: dict[str, dict[str, str]] = {name: {} for name in SERVES}
    if folder is None:
        return tables
    text = (folder / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    names = {_TABLE.format(name): name for name in SERVES}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node.targets[0]) in names:
            tables[names[ast.unparse(node.targets[0])]] = dict(ast.literal_eval(node.value.args[0]))
    return tables


def _parameters(weights: Sequence[Path]) -> int | None:
    try:
        return sum(map(builtin.count_numbers, weights)) if weights else None
    except (OSError, ValueError, RecursionError):
        return None


def _licence(card: Path) -> str | None:
    """Return the licence that the front matter of a model card names."""
    try:
        _, start, rest = card.read_text(encoding="utf-8").partition("---\n")
        facts = parse(rest.partition("\n---")[0]) if start else None
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict):
        return None
    named = facts.get("license_name") if facts.get("license") == "other" else facts.get("license")
    return ", ".join(map(str, named)) if isinstance(named, list) else str(named) if named else None
