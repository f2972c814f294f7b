"""What a data set looks like to a run, and what in it would stop one."""

from __future__ import annotations

import numpy as np

from tlhub.config import SINGLE_LABEL, DataConfig
from tlhub.data.prepare import PreparedData, begin, finish
from tlhub.data.records import describe_records
from tlhub.data.sources import read_source
from tlhub.errors import DataError

_SHOWN_BAD = 20


def check_report(data: DataConfig, modality: str, *, problems: tuple[str, ...] = (SINGLE_LABEL,), seed: int,
                 keywords: tuple[str, ...] = ()) -> tuple[list[tuple[str, str]], list[str]]:
    """Describe a data set as a run would see it, and what would stop the run.

    Args:
        data: The data section of the configuration.
        modality: `image`, `text`, `audio` or `corpus`.
        problems: The kinds of target that the task allows, its usual one first.
        seed: The run's seed; it decides on splits and subsets.
        keywords: Classes that are told apart from all others taken together; none where every class is its own.

    Returns:
        Facts as name and value, and problems; without problems a run can start.

    Raises:
        UsageError: No data is given, or options contradict each other.
    """
    facts = [("data", data.source)]
    draft = None
    try:
        source = read_source(data, modality)
        facts.append(("found", ", ".join(f"{split} {len(table.ids)}" for split, table in source.splits.items())))
        facts.append(("columns", ", ".join(next(iter(source.splits.values())).rows.column_names)))
        draft = begin(source, data, modality, problems=problems, keywords=keywords, collect=True)
        facts.append(("problem type", draft.kind.problem_type))
        prepared = finish(draft, data, modality, seed=seed)
    except DataError as error:
        found = draft.problems if draft is not None else None
        return facts, found or [str(error)]
    facts.append(("splits", ", ".join(f"{split} {len(part)}" for split, part in prepared.splits.items())))
    facts += draft.kind.facts(prepared.splits["train"].labels, prepared.target.names)
    if modality == "text":
        facts.append(("words", _words(prepared)))
    if modality == "corpus":
        facts += describe_records({split: part.inputs for split, part in prepared.splits.items()})
    facts += [("left out", f"{bad.split}: {bad.id}: {bad.reason}") for bad in prepared.quarantined[:_SHOWN_BAD]]
    facts += [("note", note) for note in prepared.notes]
    facts.append(("fingerprint", prepared.fingerprint[:16]))
    return facts, []


def _words(data: PreparedData) -> str:
    """Return how long training texts are, both texts of a pair together."""
    texts = data.splits["train"].inputs
    counts = [len((" ".join(text) if data.pairs else text).split()) for text in texts]
    return f"median {np.median(counts):.0f}, longest {max(counts)}" + (" (of both texts)" if data.pairs else "")
