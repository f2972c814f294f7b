"""A data set on its way to examples: read and checked, with whatever is wrong told at once or collected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlhub.config import DataConfig
from tlhub.data.audit import DECODERS, BadExample, Checked, FileAuditor, check_pairs, check_texts
from tlhub.data.cache import cache_root
from tlhub.data.columns import Columns
from tlhub.data.kinds import Kind, Reading
from tlhub.data.records import read_records, records_told
from tlhub.data.rows import Rows, make_rows, read_files, read_pairs, read_texts
from tlhub.data.sound import describe_sounds
from tlhub.data.sources import Source
from tlhub.data.tables import Table
from tlhub.errors import DataError


@dataclass
class Draft:
    """What is known so far of a data set.

    Attributes:
        source: As found.
        columns: The columns that are used.
        kind: The kind of target.
        notes: What a user should be told, in order.
        splits: Rows by split, without those that cannot be used.
        quarantined: Examples left out since they cannot be decoded.
        problems: What would stop a run, where that is collected; None where the first is raised.
        lost: Files that turned out to be unusable after they were checked.
        seen: Examples looked at, with those that are left out.
    """

    source: Source
    columns: Columns
    kind: Kind
    notes: list[str]
    splits: dict[str, Rows] = field(default_factory=dict)
    quarantined: list[BadExample] = field(default_factory=list)
    problems: list[str] | None = None
    lost: Mapping[str, BadExample] = field(default_factory=dict)
    seen: int = 0

    def complain(self, words: str) -> None:
        """Tell what stops a run.

        Raises:
            DataError: Problems are not collected.
        """
        if self.problems is None:
            raise DataError(words)
        self.problems.append(words)


def fill(draft: Draft, data: DataConfig, modality: str, only: tuple[str, ...] = ()) -> None:
    """Read every split (or only some, where they are there), and leave out what cannot be decoded.

    Raises:
        DataError: Something cannot be used.
    """
    source = draft.source
    draft.notes.insert(len(source.notes), _columns_told(draft, modality))
    wanted = {split: table for split, table in source.splits.items() if split in only} or dict(source.splits)
    auditor = FileAuditor(_memory(data, source, modality), DECODERS[modality]) if modality in DECODERS else None
    sounds: dict[str, dict[str, Any]] = {}
    listed: set[str] = set()
    for split, table in wanted.items():
        try:
            reading = _labels(draft, split, table)
            if reading is None:
                continue
            inputs, checked = _inputs(draft, table, modality, auditor)
        except DataError as error:
            draft.complain(str(error))
            continue
        listed.update(path for path in draft.lost if path in inputs)
        bad = [index for index, reason in enumerate(checked.reasons) if reason is not None]
        draft.quarantined += [BadExample(split, table.ids[index], str(checked.reasons[index])) for index in bad]
        draft.seen += len(table.ids)
        sounds |= {name: facts for name, facts in zip(table.ids, checked.facts, strict=False) if "seconds" in facts}
        if reading.problems:
            continue
        rows = make_rows(table, draft.columns, inputs, reading.labels, checked)
        draft.splits[split] = rows.take(np.delete(np.arange(len(rows)), bad)) if bad else rows
    vanished = [bad for path, bad in draft.lost.items() if path not in listed]
    draft.quarantined += vanished
    draft.seen += len(vanished)
    draft.notes += describe_sounds(sounds)
    _check_quarantine(draft, data, draft.seen)


def _columns_told(draft: Draft, modality: str) -> str:
    columns = draft.columns
    group = f", group from {columns.group!r}" if columns.group else ""
    what = f"{modality} from column {columns.input!r}"
    if modality == "corpus":
        what = records_told(columns)
    elif columns.pair is not None:
        what = f"pairs of texts from columns {columns.input!r} and {columns.pair!r}"
    labels = f", {draft.kind.noun} from {', '.join(map(repr, columns.labels))}" if columns.labels else ""
    return f"{what}{labels}{group}"


def _inputs(draft: Draft, table: Table, modality: str,
            auditor: FileAuditor | None) -> tuple[Sequence[Any], Checked]:
    columns = draft.columns
    if modality == "corpus":
        return read_records(table, columns)
    if auditor is not None:
        files = read_files(table, columns.input, draft.source.root)
        return files, auditor.check(files, {path: bad.reason for path, bad in draft.lost.items()})
    if columns.pair is not None:
        pairs = read_pairs(table, (columns.input, columns.pair))
        return pairs, check_pairs(pairs)
    texts = read_texts(table, columns.input)
    return texts, check_texts(texts)


def _memory(data: DataConfig, source: Source, modality: str) -> Path:
    place = hashlib.sha256(str(source.root or data.source).encode()).hexdigest()[:32]
    return cache_root(data) / "audit" / f"{modality}-{place}.json"


def _labels(draft: Draft, split: str, table: Table) -> Reading | None:
    """Return the labels of a split; None for a test split that comes without any."""
    reading = draft.kind.read(table, split)
    if split == "test" and len(draft.source.splits) > 1:
        shown = "no labels" if reading.missing.all() else _placeholder(draft, table, reading)
        if shown is not None:
            draft.notes.append(f"split 'test' has {shown} and is left out ({len(table.ids)} rows)")
            return None
    for problem in reading.problems:
        draft.complain(problem)
    return reading


def _placeholder(draft: Draft, table: Table, reading: Reading) -> str | None:
    """Tell what stands in every row of the test split in place of a label; None where the rows have labels."""
    labels, training = reading.labels, draft.source.training
    alike = len(labels) > 1 and all(np.array_equal(label, labels[0]) for label in labels)
    if not alike or reading.problems or training is table:
        return None
    known = draft.kind.read(training, "train")
    if known.problems or not draft.kind.is_placeholder(labels[0], known.labels):
        return None
    words = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in np.ravel(labels[0]))
    return f"{words or 'none'} as the label of every row, which training never has,"


def _check_quarantine(draft: Draft, data: DataConfig, total: int) -> None:
    bad = draft.quarantined
    if not bad:
        return
    words = f"{len(bad)} of {total} examples cannot be used, the first is '{bad[0].id}': {bad[0].reason}"
    if len(bad) == total:
        draft.complain(f"{words}; none is left: replace them")
    elif len(bad) > data.max_bad_fraction * total:
        draft.complain(f"{words}; that is more than {data.max_bad_fraction:.1%}: replace them, or raise "
                       "--data.max_bad_fraction")
    draft.notes.append(f"{words}; they are left out")
