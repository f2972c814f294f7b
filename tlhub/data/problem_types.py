"""Which kind of target a data set has: as given, as the task has it, or as the column tells."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from tlhub.config import MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL, DataConfig
from tlhub.data.classes import Classes
from tlhub.data.columns import Columns
from tlhub.data.continuations import NextTokens
from tlhub.data.keywords import Keywords
from tlhub.data.kinds import Kind, class_names, is_blank, is_list, number
from tlhub.data.label_sets import SEPARATORS, LabelSets, is_flag, split_labels
from tlhub.data.sources import Source
from tlhub.data.targets import Target
from tlhub.data.values import Values
from tlhub.errors import DataError, UsageError

_NUMERIC_SHARE = 0.9
"""Share of numbers from which a column is one of numbers, and what is not a number in it a mistake."""
_WORDS = {SINGLE_LABEL: "one class for each example", MULTI_LABEL: "several labels for each example",
          REGRESSION: "a regression"}


def find_kind(source: Source, columns: Columns, data: DataConfig, problems: tuple[str, ...],
              keywords: tuple[str, ...] = ()) -> tuple[Kind, tuple[str, ...]]:
    """Return the kind of target, and what a user should be told of it.

    Args:
        source: The data set.
        columns: Its columns.
        data: `problem_type`, `label_separator` and `target_columns` win.
        problems: The kinds that the task allows, the usual one first.
        keywords: Classes that are told apart from all others taken together; none where every class is its own.

    Raises:
        UsageError: Options contradict each other or the task.
        DataError: The column holds what the task cannot predict, or not what was said.
    """
    problem, reason = _problem_type(source, columns, data, problems)
    if problem == SINGLE_LABEL and data.target_columns:
        raise UsageError(f"data.target_columns {', '.join(data.target_columns)!r} has no effect with {problem}; name "
                         "the column of the classes with --data.label_column")
    notes = [reason] if reason else []
    if problem == REGRESSION and source.class_folders:
        notes.append(_folders_as_numbers(source, columns))
    return _make(problem, source, columns, data, keywords=keywords), tuple(notes)


def known_kind(source: Source, columns: Columns, data: DataConfig, target: Target,
               keywords: tuple[str, ...] = ()) -> Kind:
    """Return the kind of target of a finished run, in other data.

    Args:
        source: The data set.
        columns: Its columns.
        data: The data section of the configuration.
        target: The run's.
        keywords: The run's, as in `find_kind`.

    Raises:
        DataError: The columns do not hold such targets.
    """
    if target.problem_type == REGRESSION and source.class_folders:
        _folders_as_numbers(source, columns)
    return _make(target.problem_type, source, columns, data, target, keywords)


def _problem_type(source: Source, columns: Columns, data: DataConfig,
                  problems: tuple[str, ...]) -> tuple[str, str]:
    if data.problem_type is not None:
        if data.problem_type not in problems:
            other = "; pictures have the task image-regression" if data.problem_type == REGRESSION else ""
            raise UsageError(f"--data.problem_type {data.problem_type!r} is not for this task, which has "
                             f"{', '.join(problems)}{other}")
        return data.problem_type, ""
    if len(problems) == 1:
        return problems[0], ""
    found, reason, otherwise = _from_content(source, columns, data)
    if found is None:
        joined = _joined(source, columns) if MULTI_LABEL in problems and not source.class_folders else None
        return problems[0], "" if joined is None else (
            f"labels such as {joined!r} look like several in one, and are taken as classes of their own "
            f"(--data.problem_type {MULTI_LABEL} divides them)")
    if found not in problems:
        raise DataError(f"{reason}, which are no classes; take them as such with --data.problem_type {SINGLE_LABEL} "
                        "(the task image-regression predicts numbers of pictures)")
    told = f" (--data.problem_type {otherwise} takes them otherwise)" if otherwise in problems else ""
    return found, f"{reason}: {_WORDS[found]}{told}"


def _from_content(source: Source, columns: Columns, data: DataConfig) -> tuple[str | None, str, str]:
    """Return the kind that the content of the columns tells, the reason, and the kind that it could be as well.

    Where it tells nothing, the first is None.
    """
    table = source.training
    words = f"column{'s' if len(columns.labels) > 1 else ''} {', '.join(map(repr, columns.labels))}"
    if data.target_columns:
        cells = [cell for column in columns.labels for cell in table.rows[column]]
        if not all(is_blank(cell) or is_flag(cell) for cell in cells):
            return REGRESSION, f"{words} {'hold' if len(columns.labels) > 1 else 'holds'} numbers", ""
        if len(columns.labels) == 1:
            raise DataError(f"data.target_columns names one column of 0 and 1, {columns.labels[0]!r}; name two classes "
                            f"with --data.label_column, or say --data.problem_type {REGRESSION}")
        return MULTI_LABEL, f"{words} hold 0 and 1", REGRESSION
    feature = table.rows.features[columns.labels[0]]
    if is_list(feature):
        return MULTI_LABEL, f"{words} holds lists", ""
    if data.label_separator is not None:
        return MULTI_LABEL, f"labels in {words} are divided at {data.label_separator!r}", ""
    if class_names(feature) is None and not source.class_folders and _has_fractions(table.rows[columns.labels[0]]):
        return REGRESSION, f"{words} holds numbers with fractions", SINGLE_LABEL
    return None, "", ""


def _joined(source: Source, columns: Columns) -> str | None:
    """Return a label that is made of others with a separator between them; None without any.

    Others are labels that occur by themselves, or in another such label.
    """
    cells = {str(cell).strip() for cell in source.training.rows[columns.labels[0]] if isinstance(cell, str)}
    for mark in SEPARATORS:
        divided = {cell: split_labels(cell, mark) for cell in sorted(cells)}
        counts = collections.Counter(part for parts in divided.values() for part in set(parts))
        found = next((cell for cell, parts in divided.items()
                      if len(parts) > 1 and all(counts[part] > 1 for part in parts)), None)
        if found is not None:
            return found
    return None


def _has_fractions(cells: Sequence[Any]) -> bool:
    values = [number(cell) for cell in cells if not is_blank(cell) and not isinstance(cell, (list, dict, bytes))]
    found = [value for value in values if value is not None]
    return len(found) >= _NUMERIC_SHARE * len(values) and any(not value.is_integer() for value in found)


def _folders_as_numbers(source: Source, columns: Columns) -> str:
    names = sorted({str(name) for table in source.splits.values() for name in table.rows[columns.labels[0]]})
    wrong = [name for name in names if number(name) is None]
    if wrong:
        raise DataError(f"the pictures lie in class folders, and the name {wrong[0]!r} is no number; give the values "
                        "in a metadata.csv beside the folders, with the columns file_name and value (another name of "
                        "the file with --data.metadata)")
    return f"the names of the {len(names)} folders are taken as values"


def _make(problem: str, source: Source, columns: Columns, data: DataConfig, target: Target | None = None,
          keywords: tuple[str, ...] = ()) -> Kind:
    if problem == NEXT_TOKEN:
        return NextTokens(divisible=columns.pair is None and not columns.conversations)
    if problem == REGRESSION:
        return Values(columns.labels)
    feature = source.training.rows.features[columns.labels[0]]
    if keywords:
        return Keywords(columns.labels[0], class_names(feature), keywords)
    if problem == SINGLE_LABEL:
        return Classes(columns.labels[0], class_names(feature))
    if len(columns.labels) > 1 or is_list(feature):
        if data.label_separator is not None and target is None:
            held = "0 and 1" if len(columns.labels) > 1 else "lists"
            raise UsageError(f"data.label_separator {data.label_separator!r} has no effect: column "
                             f"{columns.labels[0]!r} holds {held}; leave the option out")
        return LabelSets(columns.labels, None, class_names(feature))
    if data.target_columns:
        raise UsageError(f"data.target_columns names one column, {columns.labels[0]!r}; several labels need a column "
                         "of 0 and 1 for each, or --data.label_column for one that names them")
    return LabelSets(columns.labels, _separator(source, columns.labels[0], data, target), None)


def _separator(source: Source, column: str, data: DataConfig, target: Target | None) -> str | None:
    """Return what stands between labels.

    Data that a finished run is scored on may have one label in every row; a wrong separator shows there by labels that
    the run does not know.
    """
    cells = [(name, str(cell)) for table in source.splits.values()
             for name, cell in zip(table.ids, table.rows[column], strict=True) if not is_blank(cell)]
    listed = next(((name, cell) for name, cell in cells if cell.strip().startswith(("[", "{"))), None)
    if listed is not None:
        raise DataError(f"{listed[0]}: column {column!r} holds {listed[1][:60]!r}, a list written as text; write the "
                        "labels with a separator, such as 'a;b'")
    given = data.label_separator
    if given == "":
        raise UsageError("data.label_separator is empty; name what stands between labels, such as ';'")
    candidates = SEPARATORS if given is None else (given,)
    found = [mark for mark in candidates if any(mark in cell for _, cell in cells)]
    if len(found) > 1:
        shown = next(cell for _, cell in cells if found[0] in cell)[:60]
        raise DataError(f"column {column!r} holds {' and '.join(map(repr, found))}, such as {shown!r}; say which "
                        "stands between labels with --data.label_separator")
    if not found and target is None:
        marks = " or ".join(map(repr, candidates))
        raise DataError(f"column {column!r} holds no {marks} between labels, its first value is "
                        f"{cells[0][1][:60] if cells else ''!r}; name the separator with --data.label_separator")
    return found[0] if found else None
