"""From what a user gives to examples that can be trained on: read, checked, divided and labelled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlhub.config import SINGLE_LABEL, DataConfig
from tlhub.data.audit import BadExample, keep_apart
from tlhub.data.columns import Columns, infer_columns
from tlhub.data.cutting import FEW, cut_texts
from tlhub.data.drafts import Draft, fill
from tlhub.data.kinds import Kind
from tlhub.data.problem_types import find_kind, known_kind
from tlhub.data.rows import Rows, group_name
from tlhub.data.sources import Source, read_source
from tlhub.data.splits import draw, make_splits
from tlhub.data.targets import Target
from tlhub.errors import DataError

_LOGGER = logging.getLogger(__name__)
_ORDER = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """One split, ready to be encoded.

    Attributes:
        inputs: Texts, pairs of texts as tuples, conversations as lists of messages, or images and sounds as paths or
            contents of files.
        labels: Target of each, of the type and shape that `tlhub.data.targets.Target` gives for its kind.
        ids: What each is called in messages and predictions: `train.csv:17`, or a file's path in the data folder.
        groups: Group of each, or None.
        most: How many blocks of texts that are cut into blocks are used; None for all.
        spare: How many of them training may lose while it goes on; None for examples that were not checked.
    """

    inputs: Sequence[Any]
    labels: np.ndarray
    ids: Sequence[str]
    groups: np.ndarray | None = None
    most: int | None = None
    spare: int | None = None

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
        parts: SHA-256 over the inputs and over the targets of each split, `train.inputs`, `train.targets` and so on.
    """

    splits: Mapping[str, Examples]
    target: Target
    columns: Columns
    quarantined: tuple[BadExample, ...]
    notes: tuple[str, ...]
    fingerprint: str
    pairs: bool = False
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes, labels or values, in the order of the model's outputs."""
        return self.target.names


def prepare(data: DataConfig, modality: str, *, problems: tuple[str, ...] = (SINGLE_LABEL,), seed: int,
            keywords: tuple[str, ...] = (), lost: Mapping[str, BadExample] | None = None) -> PreparedData:
    """Read a data set and make it ready for a run.

    Args:
        data: The data section of the configuration.
        modality: `image`, `text`, `audio` or `corpus`.
        problems: The kinds of target that the task allows, its usual one first.
        seed: The run's seed; it decides on splits and subsets.
        keywords: Classes that are told apart from all others taken together; none where every class is its own.
        lost: Files that turned out to be unusable after they were checked, by path.

    Returns:
        Its splits, `train` and `validation` at least.

    Raises:
        UsageError: No data is given.
        DataError: The data cannot be used as it is; the message says what to change.
    """
    draft = begin(read_source(data, modality), data, modality, problems=problems, keywords=keywords)
    draft.lost = lost or {}
    return finish(draft, data, modality, seed=seed)


def begin(source: Source, data: DataConfig, modality: str, *, problems: tuple[str, ...],
          keywords: tuple[str, ...] = (), collect: bool = False) -> Draft:
    """Find the columns of a data set and its kind of target; inputs are not looked at yet.

    Args:
        source: The data set.
        data: The data section of the configuration.
        modality: `image`, `text`, `audio` or `corpus`.
        problems: The kinds of target that the task allows.
        keywords: As in `prepare`.
        collect: Collect what is wrong, rather than stop at the first.

    Raises:
        UsageError: Options contradict each other.
        DataError: Columns or the kind of target cannot be told.
    """
    columns = infer_columns(source, data, modality, problems=problems)
    kind, notes = find_kind(source, columns, data, problems, keywords)
    return Draft(source, columns, kind, [*source.notes, *notes], problems=[] if collect else None)


def finish(draft: Draft, data: DataConfig, modality: str, *, seed: int) -> PreparedData:
    """Read, check, divide and label what was begun.

    Raises:
        DataError: The data cannot be used as it is; where `draft` collects problems, it holds them all.
    """
    fill(draft, data, modality)
    _stop_if_wrong(draft)
    if not {"train", "all"} & draft.splits.keys():
        raise DataError(f"'{data.source}' has no training split, only {', '.join(sorted(draft.splits)) or 'no rows'}; "
                        "name one of them train")
    draft.kind.check(next(draft.splits[split].labels for split in ("train", "all") if split in draft.splits))
    _divide(draft, data, seed)
    _separate(draft)
    train = draft.splits["train"]
    names = draft.kind.names(train.labels)
    _check_names(draft, names, data)
    _stop_if_wrong(draft)
    if not draft.kind.divisible and data.max_train_examples is not None and data.max_train_examples < len(train):
        draft.splits["train"] = _subset(draft.kind, train, data.max_train_examples, seed)
        draft.notes.append(f"training uses {data.max_train_examples} of {len(train)} examples, drawn "
                           f"{draft.kind.evenly}")
    draft.kind.check_training(draft.splits["train"].labels)
    if data.max_evaluation_examples is not None and not draft.kind.divisible:
        _score_fewer(draft, data.max_evaluation_examples, seed)
    if draft.columns.group is not None:
        draft.notes.append(_groups_told(draft))
    splits = {split: _examples(draft.kind, rows, names) for split, rows in draft.splits.items()}
    if draft.kind.divisible:
        splits = {split: dataclasses.replace(examples, most=data.max_train_examples if split == "train"
                                             else data.max_evaluation_examples) for split, examples in splits.items()}
    spare = max(0, math.floor(data.max_bad_fraction * draft.seen) - len(draft.quarantined))
    splits = {split: dataclasses.replace(examples, spare=spare if split == "train" else 0)
              for split, examples in splits.items()}
    parts = _digests(draft.splits)
    return PreparedData(splits, Target(draft.kind.problem_type, names), draft.columns, tuple(draft.quarantined),
                        tuple(draft.notes), hashlib.sha256(json.dumps([names, parts]).encode()).hexdigest(),
                        draft.columns.pair is not None, parts)


def prepare_evaluation(data: DataConfig, modality: str, *, target: Target, pairs: bool = False,
                       keywords: tuple[str, ...] = (), group_column: str | None = None) -> Examples:
    """Read data that a finished run is scored on: the test split where there is one, otherwise every row.

    What was noticed on the way is logged.

    Args:
        data: The data section of the configuration.
        modality: `image`, `text`, `audio` or `corpus`.
        target: The run's target; labels are matched to it by name.
        pairs: Whether the run reads pairs of texts.
        keywords: The run's, as in `prepare`.
        group_column: The run's column of groups, which is used where the data have it.

    Raises:
        UsageError: No data is given.
        DataError: The data cannot be used, or has a class that the run does not know.
    """
    source = read_source(data, modality)
    columns = infer_columns(source, data, modality, problems=(target.problem_type,), target=target, pairs=pairs,
                            group_column=group_column)
    draft = Draft(source, columns, known_kind(source, columns, data, target, keywords), [])
    fill(draft, data, modality, only=("test",))
    if not draft.splits:
        raise DataError(f"split 'test' of '{data.source}' has no labels to score by; fill them in, or name a file that "
                        "has them")
    if "test" not in draft.splits:
        draft.notes.append(f"'{data.source}' has no test split: all its rows are scored, and scores of rows that the "
                           "run was trained on are too good")
    for note in draft.notes:
        _LOGGER.info(note)
    parts = [_examples(draft.kind, rows, target.names, split) for split, rows in draft.splits.items()]
    if len(parts) == 1:
        return parts[0]
    groups = [part.groups for part in parts if part.groups is not None]
    return Examples([value for part in parts for value in part.inputs], np.concatenate([part.labels for part in parts]),
                    [name for part in parts for name in part.ids], np.concatenate(groups) if groups else None)


def _stop_if_wrong(draft: Draft) -> None:
    if draft.problems:
        raise DataError("; ".join(draft.problems))


def _divide(draft: Draft, data: DataConfig, seed: int) -> None:
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
    if draft.kind.divisible and rows.groups is None and len(rows) < FEW:
        made = cut_texts(rows, fractions)
        sizes = ", ".join(f"{split} {sum(map(len, part.inputs)):,} characters" for split, part in made.items())
        how = f"{len(rows)} texts, each cut at line breaks"
    else:
        parts = make_splits(draft.kind.strata(rows.labels), rows.groups, fractions, seed=seed,
                            needs_every_class=draft.kind.needs_every_stratum)
        made = {split: rows.take(indices) for split, indices in parts.items()}
        sizes = ", ".join(f"{split} {len(part)}" for split, part in made.items())
        how = f"{len(rows)} rows, {draft.kind.evenly}{', groups kept whole' if rows.groups is not None else ''}"
    found = {**made, **draft.splits}
    draft.splits = {split: found[split] for split in _ORDER if split in found}
    draft.notes.append(f"{' and '.join(name for name, _ in reversed(fractions))} made from {how}: {sizes}")


def _separate(draft: Draft) -> None:
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


def _groups_told(draft: Draft) -> str:
    """Tell how many groups each split has; what was in two of them has been taken out of all but one."""
    names = {split: [group_name(group) for group in rows.groups.tolist()] for split, rows in draft.splits.items()
             if rows.groups is not None}
    sizes = ", ".join(f"{split} {len(set(found) - {None})}" for split, found in names.items())
    alone = sum(found.count(None) for found in names.values())
    return (f"groups of column {draft.columns.group!r}: {sizes}; none is in two splits"
            + (f" ({alone} rows have no group)" if alone else ""))


def _check_names(draft: Draft, names: tuple[str, ...], data: DataConfig) -> None:
    member, _ = draft.kind.members
    for split, rows in draft.splits.items():
        if not len(rows):
            draft.complain(f"split {split!r} of '{data.source}' is empty after identical and undecodable examples "
                           "were taken out; add examples")
        unknown = sorted(draft.kind.used(rows.labels) - set(names))
        if unknown:
            draft.complain(f"{member} {unknown[0]!r} is in split {split!r} and not in train, which has "
                           f"{', '.join(names[:10])}; add training examples or correct the label")
        if split != "train":
            draft.notes += draft.kind.remarks(rows.labels, names, split)


def _subset(kind: Kind, train: Rows, total: int, seed: int) -> Rows:
    strata = kind.strata(train.labels, total)
    count = len(np.unique(strata))
    if total < count:
        raise DataError(f"data.max_train_examples {total} is less than the {count} {kind.strata_noun}; each needs one "
                        "example")
    return train.take(draw(strata, total, seed=seed, purpose="training subset"))


def _score_fewer(draft: Draft, most: int, seed: int) -> None:
    """Keep so many examples of validation and test: of each class where that is possible, otherwise any."""
    for split, rows in draft.splits.items():
        if split != "train" and len(rows) > most:
            strata = draft.kind.strata(rows.labels, most)
            if len(np.unique(strata)) > most:
                strata = np.zeros(len(rows), np.int64)
            draft.splits[split] = rows.take(draw(strata, most, seed=seed, purpose=f"subset of {split}"))
            draft.notes.append(f"{split} is scored on {most} of {len(rows)} examples")


def _examples(kind: Kind, rows: Rows, names: tuple[str, ...], split: str = "") -> Examples:
    ids = rows.ids.tolist()
    return Examples(rows.inputs, kind.encode(rows.labels, ids, names, split), ids, rows.groups)


def _digests(splits: Mapping[str, Rows]) -> dict[str, str]:
    content = {f"{split}.{part}": values.tolist() for split, rows in sorted(splits.items())
               for part, values in (("inputs", rows.digests), ("targets", rows.labels))}
    return {name: hashlib.sha256(json.dumps(values).encode()).hexdigest() for name, values in content.items()}
