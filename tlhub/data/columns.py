"""Which columns hold the input, the label or values, and the group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import datasets

from tlhub.config import MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL, DataConfig
from tlhub.data.kinds import class_names, is_blank, is_list, number
from tlhub.data.sources import FILE_COLUMNS, Source
from tlhub.data.tables import Table
from tlhub.data.targets import Target
from tlhub.errors import DataError, UsageError, nearest

_LABELS = ("label", "labels", "class", "target", "category", "sentiment", "intent", "class_label", "label_text")
_VALUES = ("target", "value", "label", "score", "labels", "rating", "similarity", "similarity_score", "y")
_INPUTS = {
    "text": ("text", "sentence", "content", "review", "question", "comment", "message", "tweet", "document", "body"),
    "image": ("image", "img", *FILE_COLUMNS),
    "audio": ("audio", "sound", "clip", "speech", *FILE_COLUMNS),
}
_PAIRS = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question", "sentence"), ("question", "passage"), ("query", "passage"),
    ("text_a", "text_b"), ("text1", "text2"), ("text_1", "text_2"),
)
_PROMPTS = (
    ("prompt", "completion"), ("prompt", "response"), ("instruction", "output"), ("instruction", "response"),
    ("instruction", "completion"), ("question", "answer"), ("query", "response"), ("input", "output"),
)
_PROMPT_ENDS = {"instruction": ("input", "context")}
"""What a prompt goes on with, where there is such a column."""
_CONVERSATIONS = ("messages", "conversations", "conversation")
_NUMBERING = {"id", "idx", "index", "guid", "unnamed: 0", ""}
_OPTIONS = {"text": "text_column", "image": "file_column", "audio": "file_column"}
_LOOKED_AT = 1000
"""Rows that tell whether a column holds numbers."""


@dataclass(frozen=True)
class Columns:
    """The columns that are used.

    Attributes:
        input: Holds the text, the prompt, the conversation, or the image or sound or its file name.
        pair: Holds the second text of a pair, or the completion of a prompt; None without pairs.
        labels: Hold the class, the labels or the values; one column, unless each label or value has its own.
        group: Holds what is never divided between splits; None without groups.
        extra: Holds what a prompt ends with, where it has one more column; None without.
        conversations: Whether `input` holds lists of messages.
    """

    input: str
    pair: str | None
    labels: tuple[str, ...]
    group: str | None
    extra: str | None = None
    conversations: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is used."""
        return tuple(name for name in (self.input, self.pair, self.extra, *self.labels, self.group) if name is not None)


def infer_columns(source: Source, data: DataConfig, modality: str, *, problems: tuple[str, ...] = (SINGLE_LABEL,),
                  target: Target | None = None, pairs: bool | None = None,
                  group_column: str | None = None) -> Columns:
    """Return the columns to use: those named in `data`, otherwise those with a usual name or the only ones possible.

    Args:
        source: The data set; columns are looked for in its training split, and have to be in the others too.
        data: Its `..._column` options win.
        modality: `image`, `text`, `audio` or `corpus`.
        problems: The kinds of target that the task allows.
        target: Of a finished run: values, and labels that have a column each, are found by their names.
        pairs: Whether inputs are pairs of texts; None to tell by the columns.
        group_column: A name that the column of groups has, beside the usual one, if it is there.

    Raises:
        UsageError: Options contradict each other.
        DataError: A column cannot be told, or is not there.
    """
    table = source.training
    features = table.rows.features
    unread = [name for name in (data.label_column, *data.target_columns) if name is not None and name not in features]
    if source.class_folders and unread:
        raise DataError(f"column {unread[0]!r} is not read: '{data.source}' holds class folders, whose names are the "
                        "labels; name the table that holds the column with --data.metadata")
    usual = ("group",) if group_column is None else (group_column, "group")
    group = _find(features, data.group_column, "group_column", usual, None)
    if problems == (NEXT_TOKEN,):
        columns = _record_columns(table, data, group)
        _check_everywhere(source, columns)
        return columns
    labels = _labels(table, data, problems, target, {group, data.split_column or "split"})
    taken = {*labels, group, data.split_column or "split"}
    free = datasets.Features({name: feature for name, feature in features.items() if name not in taken})
    found, pair = _inputs(free, data, modality, pairs)
    if not labels and target is None:
        rest = [name for name in free if name not in (found, pair)]
        labels = tuple(rest) if found and len(rest) == 1 else ()
    if found is None or not labels:
        missing, name = (modality, _OPTIONS[modality]) if found is None else (_noun(problems), "label_column")
        raise DataError(f"no column is known to hold the {missing}; columns: {', '.join(features)}; "
                        f"name it with --data.{name}")
    columns = Columns(found, pair, labels, group)
    _check_everywhere(source, columns)
    return columns


def _record_columns(table: Table, data: DataConfig, group: str | None) -> Columns:
    """Return the columns of what a text generator is trained on, which has no labels."""
    given = {name: value for name in ("text_column", "messages_column", "prompt_column", "completion_column")
             if (value := getattr(data, name)) is not None}
    if len(given) > 1 and set(given) != {"prompt_column", "completion_column"}:
        words = " and ".join(f"data.{name} {value!r}" for name, value in given.items())
        raise UsageError(f"{words} exclude each other; name either texts, prompts with completions, or conversations")
    features = datasets.Features({name: feature for name, feature in table.rows.features.items()
                                  if name not in (group, data.split_column or "split")})
    talks = datasets.Features({name: feature for name, feature in features.items() if _may_be_talks(table, name)})
    found = _find(features if "messages_column" in given else talks, data.messages_column, "messages_column",
                  () if given else _CONVERSATIONS, None)
    if found is not None:
        return Columns(found, None, (), group, conversations=True)
    prompt, completion = _prompt_columns(features, data) if "text_column" not in given else (None, None)
    if prompt is not None:
        by_lower = {name.lower(): name for name in features}
        ends = [by_lower[name] for name in _PROMPT_ENDS.get(prompt.lower(), ()) if name in by_lower]
        return Columns(prompt, completion, (), group, extra=next((name for name in ends if name != completion), None))
    text = _find(features, data.text_column, "text_column", _INPUTS["text"], _is_text)
    if text is None:
        raise DataError(f"no column is known to hold the text; columns: {', '.join(features)}; name it with "
                        "--data.text_column, or those of prompts and completions, or of conversations, with "
                        "--data.prompt_column and --data.completion_column, or --data.messages_column")
    return Columns(text, None, (), group)


def _prompt_columns(features: datasets.Features, data: DataConfig) -> tuple[str, str] | tuple[None, None]:
    """Return the columns of prompt and completion: those named, and usual pairs of which they are one, if any."""
    names = {name.lower(): name for name in reversed(list(features))}
    prompt = _find(features, data.prompt_column, "prompt_column", (), None)
    completion = _find(features, data.completion_column, "completion_column", (), None)
    if prompt is not None and completion is not None:
        return prompt, completion
    for first, second in _PROMPTS:
        pair = prompt or names.get(first), completion or names.get(second)
        if pair[0] is not None and pair[1] is not None and pair[0] != pair[1]:
            return pair[0], pair[1]
    if prompt is None and completion is None:
        return None, None
    there, lacking = ("prompt", "completion") if completion is None else ("completion", "prompt")
    raise DataError(f"no column is known to hold the {lacking} that goes with data.{there}_column "
                    f"{prompt or completion!r}; columns: {', '.join(features)}; name it with --data.{lacking}_column")


def _may_be_talks(table: Table, column: str) -> bool:
    """Return whether a column holds lists, or such written as JSON."""
    if is_list(table.rows.features[column]):
        return True
    first = table.rows[0][column] if _is_text(table.rows.features[column]) else None
    return isinstance(first, str) and first.lstrip().startswith("[{")


def _noun(problems: tuple[str, ...]) -> str:
    return "value" if problems == (REGRESSION,) else "label"


def _labels(table: Table, data: DataConfig, problems: tuple[str, ...], target: Target | None,
            taken: set[str | None]) -> tuple[str, ...]:
    """Return the columns of the target; none where neither names nor kinds of columns tell."""
    features = table.rows.features
    if data.target_columns and data.label_column is not None:
        raise UsageError(f"data.label_column {data.label_column!r} and data.target_columns "
                         f"{', '.join(data.target_columns)!r} exclude each other; leave one out")
    if len(set(data.target_columns)) < len(data.target_columns):
        raise UsageError(f"data.target_columns {', '.join(data.target_columns)!r} names a column twice; name each once")
    named = [str(_find(features, name, "target_columns", (), None)) for name in data.target_columns]
    if data.label_column is not None:
        named = [str(_find(features, data.label_column, "label_column", (), None))]
    if target is not None and target.problem_type != SINGLE_LABEL:
        return _columns_of(features, target, tuple(named))
    if named:
        return tuple(named)
    problems = (data.problem_type,) if data.problem_type is not None else problems
    if problems == (REGRESSION,):
        found = _number_column(table, data, taken)
    else:
        found = _find(features, None, "label_column", _LABELS, _is_class)
        if found is None and REGRESSION in problems:
            found = _find(features, None, "label_column", _VALUES, None)
    return () if found is None else (found,)


def _columns_of(features: datasets.Features, target: Target, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that hold a finished run's labels or values: those named, or those of the same names."""
    if set(named) == set(target.names) or (not named and all(name in features for name in target.names)):
        return target.names
    if target.problem_type == MULTI_LABEL and len(named) < 2:
        found = _find(features, None, "label_column", _LABELS, _is_class)
        return named or (() if found is None else (found,))
    if target.problem_type == REGRESSION and len(named) == len(target.names):
        return named
    if named:
        raise DataError(f"{len(named)} columns are named ({', '.join(named)}), and the run predicts "
                        f"{', '.join(target.names)}; name one for each with --data.target_columns")
    option = "label_column" if len(target.names) == 1 else "target_columns"
    raise DataError(f"the run predicts {', '.join(target.names)}, and the data have the columns {', '.join(features)}; "
                    f"name those of the values with --data.{option}")


def _inputs(free: datasets.Features, data: DataConfig, modality: str,
            pairs: bool | None) -> tuple[str | None, str | None]:
    """Return the column of the input, and that of the second text where there are pairs."""
    if modality != "text":
        return _find(free, data.file_column, _OPTIONS[modality], _INPUTS[modality], _is_file), None
    second = _find(free, data.text_pair_column, "text_pair_column", (), None)
    if second is not None and pairs is False:
        raise UsageError(f"data.text_pair_column {second!r} has no effect: the run reads single texts; leave it out")
    if second is None and pairs is not False and data.text_column is None:
        found = _usual_pair(free, exclude_single=pairs is None)
        if found is not None:
            return found
    if second is None and pairs:
        raise DataError(f"the run reads pairs of texts, and no column is known to hold the second; columns: "
                        f"{', '.join(free)}; name it with --data.text_pair_column")
    first = next((one for one, other in _pairs_in(free) if other == second), None) if data.text_column is None else None
    rest = datasets.Features({name: feature for name, feature in free.items() if name != second})
    return first or _find(rest, data.text_column, "text_column", _INPUTS["text"], _is_text), second


def _usual_pair(features: datasets.Features, *, exclude_single: bool) -> tuple[str, str] | None:
    """Return the first usual pair of columns; none where a column `text` says that texts are single."""
    if exclude_single and "text" in {name.lower() for name in features}:
        return None
    return next(iter(_pairs_in(features)), None)


def _pairs_in(features: datasets.Features) -> list[tuple[str, str]]:
    """Return the usual pairs of columns that are there, in the data's own spelling."""
    names = {name.lower(): name for name in reversed(list(features))}
    return [(names[first], names[second]) for first, second in _PAIRS if first in names and second in names]


def _find(features: datasets.Features, given: str | None, option: str, usual: tuple[str, ...],
          fits: Callable[[object], bool] | None) -> str | None:
    if given is not None:
        if given not in features:
            raise DataError(f"data.{option} {given!r} is not among the columns; {nearest(given, features)}")
        return given
    by_lower = {name.lower(): name for name in reversed(list(features))}
    named = next((by_lower[name] for name in usual if name in by_lower), None)
    if named is not None or fits is None:
        return named
    fitting = [name for name, feature in features.items() if fits(feature)]
    return fitting[0] if len(fitting) == 1 else None


def _number_column(table: Table, data: DataConfig, taken: set[str | None]) -> str | None:
    """Return the column of the values: with a usual name and numbers in it, the only one of numbers, or just the name.

    A column that numbers the rows, or that may be the input, is not meant.
    """
    taken = {*taken, data.text_column, data.text_pair_column, data.file_column}
    by_lower: dict[str, str] = {name.lower(): name for name in reversed(table.rows.column_names) if name not in taken}
    named = [by_lower[name] for name in _VALUES if name in by_lower]
    numeric = [name for name in named if _is_numeric(table, name)]
    if not numeric:
        others = set(by_lower) - _NUMBERING - {name for names in _INPUTS.values() for name in names}
        numeric = [by_lower[name] for name in others if _is_numeric(table, by_lower[name])]
        numeric = numeric if len(numeric) == 1 else named
    return numeric[0] if numeric else None


def _is_numeric(table: Table, column: str) -> bool:
    """Return whether most cells are numbers: one that is not is then told as a mistake in the target."""
    feature = table.rows.features[column]
    if not isinstance(feature, datasets.Value) or feature.dtype == "binary":
        return False
    cells = [cell for cell in table.rows.select_columns([column])[:_LOOKED_AT][column] if not is_blank(cell)]
    return 2 * sum(number(cell) is not None for cell in cells) > len(cells)


def _is_class(feature: object) -> bool:
    return class_names(feature) is not None


def _is_text(feature: object) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in {"string", "large_string"}


def _is_file(feature: object) -> bool:
    return isinstance(feature, (datasets.Image, datasets.Audio)) or (isinstance(feature, dict) and "bytes" in feature)


def _check_everywhere(source: Source, columns: Columns) -> None:
    for split, table in source.splits.items():
        for name in columns.all:
            if name not in table.rows.column_names:
                raise DataError(f"column {name!r} is not in split {split!r}, which has "
                                f"{', '.join(table.rows.column_names)}; give every split the same columns")
