"""From what a user gives to examples that can be trained on: read, checked, divided and labelled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlhub.config import SINGLE_LABEL, DataConfig
from tlhub.data.audit import BadExample, ImageAuditor, check_texts, keep_apart
from tlhub.data.cache import cache_root
from tlhub.data.columns import Columns, infer_columns
from tlhub.data.rows import Rows, make_rows, order_labels, read_images, read_labels, read_texts
from tlhub.data.sources import Source, read_source
from tlhub.data.splits import draw, make_splits
from tlhub.data.tables import Table
from tlhub.data.targets import Target
from tlhub.errors import DataError

_ORDER = ("train", "validation", "test")
_MANY_CLASSES = 20
_SHOWN_CLASSES = 20
_SHOWN_BAD = 20


@dataclass(frozen=True)
class Examples:
    """One split, ready to be encoded.

    Attributes:
        inputs: Texts, pairs of texts as tuples, or images as paths or contents of files.
        labels: Target of each, of the type and shape that `tlhub.data.targets.Target` gives for its kind.
        ids: What each is called in messages and predictions: `train.csv:17`, or a file's path in the data folder.
        groups: Group of each, or None.
    """

    inputs: Sequence[Any]
    labels: np.ndarray
    ids: Sequence[str]
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.ids)


@dataclass(frozen=True)
class PreparedData:
    """A data set, ready for a run.

    Attributes:
        splits: `train`, `validation`, and `test` where there is one.
        target: The kind of target, and its names in the order of the labels' numbers.
        columns: The columns that were used.
        quarantined: Examples left out since they cannot be decoded.
        notes: What a user should be told, in order.
        fingerprint: SHA-256 over the content of every split, its targets and their names.
        pairs: Whether inputs are pairs of texts.
    """

    splits: Mapping[str, Examples]
    target: Target
    columns: Columns
    quarantined: tuple[BadExample, ...]
    notes: tuple[str, ...]
    fingerprint: str
    pairs: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, labels or values, in the order of the model's outputs."""
        return self.target.names


@dataclass
class _Draft:
    """A data set on its way: what is known so far."""

    source: Source
    columns: Columns
    notes: list[str]
    splits: dict[str, Rows] = field(default_factory=dict)
    quarantined: list[BadExample] = field(default_factory=list)


def prepare(data: DataConfig, modality: str, *, problems: tuple[str, ...] = (SINGLE_LABEL,), seed: int) -> PreparedData:
    """Read a data set and make it ready for a run.

    Args:
        data: The data section of the configuration.
        modality: `image` or `text`.
        problems: The kinds of target that the task allows, its usual one first.
        seed: The run's seed; it decides on splits and subsets.

    Returns:
        Its splits, `train` and `validation` at least.

    Raises:
        UsageError: No data is given.
        DataError: The data cannot be used as it is; the message says what to change.
    """
    draft = _read(data, modality)
    if not {"train", "all"} & draft.splits.keys():
        raise DataError(f"'{data.source}' has no training split, only {', '.join(sorted(draft.splits)) or 'no rows'}; "
                        "name one of them train")
    _check_labels(draft)
    _divide(draft, data, seed)
    _separate(draft)
    train = draft.splits["train"]
    names = order_labels(set(train.labels), _training_table(draft.source), draft.columns.label)
    _check_classes(draft, names, data)
    if data.max_train_examples is not None and data.max_train_examples < len(train):
        draft.splits["train"] = _subset(train, data.max_train_examples, len(names), seed)
        draft.notes.append(f"training uses {data.max_train_examples} of {len(train)} examples, drawn by class")
    splits = {split: _examples(rows, names) for split, rows in draft.splits.items()}
    return PreparedData(splits, Target(SINGLE_LABEL, names), draft.columns, tuple(draft.quarantined),
                        tuple(draft.notes), _fingerprint(draft.splits, names))


def prepare_evaluation(data: DataConfig, modality: str, *, target: Target, pairs: bool = False) -> Examples:
    """Read data that a finished run is scored on: the test split where there is one, otherwise every row.

    Args:
        data: The data section of the configuration.
        modality: `image` or `text`.
        target: The run's target; labels are matched to it by name.
        pairs: Whether the run reads pairs of texts.

    Raises:
        UsageError: No data is given.
        DataError: The data cannot be used, or has a class that the run does not know.
    """
    draft = _read(data, modality, only=("test",))
    parts = [_examples(rows, target.names, split) for split, rows in draft.splits.items()]
    if len(parts) == 1:
        return parts[0]
    groups = [part.groups for part in parts if part.groups is not None]
    return Examples([value for part in parts for value in part.inputs], np.concatenate([part.labels for part in parts]),
                    [name for part in parts for name in part.ids], np.concatenate(groups) if groups else None)


def _read(data: DataConfig, modality: str, only: tuple[str, ...] = ()) -> _Draft:
    """Read every split (or only some, where they are there), and leave out what cannot be decoded."""
    source = read_source(data, modality)
    columns = infer_columns(source, data, modality)
    group = f", group from {columns.group!r}" if columns.group else ""
    draft = _Draft(source, columns, [*source.notes, f"{modality} from column {columns.input!r}, "
                                                    f"label from {columns.label!r}{group}"])
    wanted = {split: table for split, table in source.splits.items() if split in only} or dict(source.splits)
    auditor = ImageAuditor(_memory(data, source)) if modality == "image" else None
    for split, table in wanted.items():
        labels = _complete_labels(draft, split, table)
        if labels is None:
            continue
        if auditor is not None:
            inputs: Sequence[Any] = read_images(table, columns.input, source.root)
            checked = auditor.check(inputs)
        else:
            inputs = read_texts(table, columns.input)
            checked = check_texts(inputs)
        bad = [index for index, reason in enumerate(checked.reasons) if reason is not None]
        draft.quarantined += [BadExample(split, table.ids[index], str(checked.reasons[index])) for index in bad]
        rows = make_rows(table, columns, inputs, labels, checked)
        draft.splits[split] = rows.take(np.delete(np.arange(len(rows)), bad)) if bad else rows
    _check_quarantine(draft, data)
    return draft


def _memory(data: DataConfig, source: Source) -> Path:
    place = hashlib.sha256(str(source.root or data.source).encode()).hexdigest()[:32]
    return cache_root(data) / "audit" / f"{place}.json"


def _complete_labels(draft: _Draft, split: str, table: Table) -> list[str] | None:
    """Return the labels of a split; None for a test split that comes without any."""
    labels = read_labels(table, draft.columns.label)
    missing = [index for index, label in enumerate(labels) if label is None]
    if missing and len(missing) == len(labels) and split == "test" and len(draft.source.splits) > 1:
        draft.notes.append(f"split 'test' has no labels and is left out ({len(labels)} rows)")
        return None
    if missing:
        raise DataError(f"{table.ids[missing[0]]}: no label in column {draft.columns.label!r} ({len(missing)} of "
                        f"{len(labels)} rows of split {split!r}); fill them in or remove the rows")
    return [str(label) for label in labels]


def _check_quarantine(draft: _Draft, data: DataConfig) -> None:
    bad = draft.quarantined
    if not bad:
        return
    total = len(bad) + sum(len(rows) for rows in draft.splits.values())
    words = f"{len(bad)} of {total} examples cannot be used, the first is '{bad[0].id}': {bad[0].reason}"
    if len(bad) > data.max_bad_fraction * total:
        raise DataError(f"{words}; that is more than {data.max_bad_fraction:.1%}: replace them, or raise "
                        "--data.max_bad_fraction")
    draft.notes.append(f"{words}; they are left out")


def _training_table(source: Source) -> Table:
    return source.splits["train"] if "train" in source.splits else source.splits["all"]


def _check_labels(draft: _Draft) -> None:
    """Refuse a column that cannot be one of classes."""
    column = draft.columns.label
    rows = next(draft.splits[split] for split in ("train", "all") if split in draft.splits)
    names = sorted(set(rows.labels))
    if len(names) < 2:
        raise DataError(f"column {column!r} has only the class {names[0] if names else 'none'!r} in {len(rows)} rows; "
                        "a classifier needs two or more")
    if len(names) > _MANY_CLASSES and len(names) > len(rows) // 2:
        raise DataError(f"column {column!r} has {len(names)} different labels in {len(rows)} rows (such as "
                        f"{names[0]!r}); name the column of the classes with --data.label_column")


def _divide(draft: _Draft, data: DataConfig, seed: int) -> None:
    """Make the splits that are missing: validation and test of a single split, otherwise validation of train."""
    single = len(draft.splits) == 1
    base = next(split for split in ("train", "all") if split in draft.splits)
    if not single and "validation" in draft.splits:
        draft.splits = {split: draft.splits[split] for split in _ORDER if split in draft.splits}
        return
    fractions = [("validation", data.validation_fraction)]
    if single:
        fractions.insert(0, ("test", data.test_fraction))
    rows = draft.splits.pop(base)
    parts = make_splits(rows.labels.astype(str), rows.groups, fractions, seed=seed)
    made = {split: rows.take(indices) for split, indices in parts.items()}
    found = {**made, **draft.splits}
    draft.splits = {split: found[split] for split in _ORDER if split in found}
    sizes = ", ".join(f"{split} {len(part)}" for split, part in made.items())
    kept = ", groups kept whole" if rows.groups is not None else ""
    draft.notes.append(f"{' and '.join(name for name, _ in reversed(fractions))} made from {len(rows)} rows, "
                       f"by class{kept}: {sizes}")


def _separate(draft: _Draft) -> None:
    """Take out of the training side what also lies in a split that scores."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("identical to one in another split", {split: rows.digests for split, rows in draft.splits.items()})]
    if draft.columns.group is not None:
        kinds.append(("of a group that is also in another split",
                      {split: rows.groups for split, rows in draft.splits.items()}))
    for words, values in kinds:
        kept = keep_apart(values)
        fewer = {split: indices for split, indices in kept.items() if len(indices) < len(values[split])}
        for split, indices in fewer.items():
            count = len(values[split]) - len(indices)
            first = draft.splits[split].ids[np.setdiff1d(np.arange(len(values[split])), indices)[0]]
            draft.notes.append(f"{count} examples {words} are dropped from {split}, the first is {first}")
        draft.splits = {split: rows.take(kept[split]) if split in fewer else rows
                        for split, rows in draft.splits.items()}


def _check_classes(draft: _Draft, names: tuple[str, ...], data: DataConfig) -> None:
    for split, rows in draft.splits.items():
        if not len(rows):
            raise DataError(f"split {split!r} of '{data.source}' is empty after identical and undecodable examples "
                            "were taken out; add examples")
        unknown = sorted(set(rows.labels) - set(names))
        if unknown:
            raise DataError(f"class {unknown[0]!r} is in split {split!r} and not in train, which has "
                            f"{', '.join(names[:10])}; add training examples or correct the label")
    for split in _ORDER[1:]:
        if split in draft.splits:
            lacking = [name for name in names if name not in set(draft.splits[split].labels)]
            if lacking:
                draft.notes.append(f"{len(lacking)} classes have no example in {split}: {', '.join(lacking[:10])}")


def _subset(train: Rows, total: int, classes: int, seed: int) -> Rows:
    if total < classes:
        raise DataError(f"data.max_train_examples {total} is less than the {classes} classes; each needs one example")
    return train.take(draw(train.labels.astype(str), total, seed=seed, purpose="training subset"))


def _examples(rows: Rows, names: tuple[str, ...], split: str = "") -> Examples:
    numbers = {name: number for number, name in enumerate(names)}
    for name, label in zip(rows.ids, rows.labels, strict=True):
        if label not in numbers:
            raise DataError(f"{name}: class {label!r} of split {split!r} is not known to the run, which has "
                            f"{', '.join(names[:10])}; rename the label or leave the row out")
    labels = np.array([numbers[label] for label in rows.labels], dtype=np.int64)
    return Examples(rows.inputs, labels, rows.ids.tolist(), rows.groups)


def _fingerprint(splits: Mapping[str, Rows], names: tuple[str, ...]) -> str:
    content = {split: [rows.digests.tolist(), rows.labels.tolist()] for split, rows in sorted(splits.items())}
    return hashlib.sha256(json.dumps([names, content]).encode()).hexdigest()


def check_report(data: DataConfig, modality: str, *, seed: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Describe a data set as a run would see it, and what would stop the run.

    Args:
        data: The data section of the configuration.
        modality: `image` or `text`.
        seed: The run's seed; it decides on splits and subsets.

    Returns:
        Facts as name and value, and problems; without problems a run can start.

    Raises:
        UsageError: No data is given.
    """
    facts = [("data", data.source)]
    try:
        source = read_source(data, modality)
        facts.append(("found", ", ".join(f"{split} {len(table.ids)}" for split, table in source.splits.items())))
        facts.append(("columns", ", ".join(next(iter(source.splits.values())).rows.column_names)))
        prepared = prepare(data, modality, seed=seed)
    except DataError as error:
        return facts, [str(error)]
    facts.append(("splits", ", ".join(f"{split} {len(part)}" for split, part in prepared.splits.items())))
    counts = np.bincount(prepared.splits["train"].labels, minlength=len(prepared.label_names))
    shown = [f"{name} {count}" for name, count in zip(prepared.label_names, counts.tolist(), strict=True)]
    more = f", ... ({len(shown) - _SHOWN_CLASSES} more)" if len(shown) > _SHOWN_CLASSES else ""
    facts.append(("classes", f"{len(shown)} (training examples: {', '.join(shown[:_SHOWN_CLASSES])}{more})"))
    if modality == "text":
        words = [len(text.split()) for text in prepared.splits["train"].inputs]
        facts.append(("words", f"median {np.median(words):.0f}, longest {max(words)}"))
    facts += [("left out", f"{bad.split}: {bad.id}: {bad.reason}") for bad in prepared.quarantined[:_SHOWN_BAD]]
    facts += [("note", note) for note in prepared.notes]
    facts.append(("fingerprint", prepared.fingerprint[:16]))
    return facts, []
