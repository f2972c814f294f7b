"""Texts cut in two or three, where they are too few for whole ones to be set aside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tlhub.data.audit import check_texts
from tlhub.data.rows import Rows
from tlhub.errors import DataError

FEW = 10
"""Texts below which each is cut into the splits that are missing, instead of whole ones being drawn for them."""


def cut_texts(rows: Rows, fractions: Sequence[tuple[str, float]]) -> dict[str, Rows]:
    """Cut each text at line breaks into a beginning to train on and an end for every other split.

    Args:
        rows: The texts.
        fractions: Name and share of each split other than `train`, the one that gets the end of a text first.

    Returns:
        Rows by split, `train` first.

    Raises:
        DataError: Nothing is left for a split.
    """
    order = ["train", *(name for name, _ in reversed(fractions))]
    shares = np.cumsum([1 - sum(share for _, share in fractions), *(share for _, share in reversed(fractions))])
    pieces: dict[str, list[tuple[int, str, str]]] = {name: [] for name in order}
    for index, (text, name) in enumerate(zip(rows.inputs, rows.ids, strict=True)):
        start, line = 0, 1
        for split, share in zip(order, shares.tolist(), strict=True):
            end = max(start, _line_end(text, round(share * len(text))) if split != order[-1] else len(text))
            piece = text[start:end]
            lines = piece.count("\n")
            if piece.strip():
                pieces[split].append((index, piece, f"{name} from line {line}"))
            start, line = end, line + lines
    for split, found in pieces.items():
        if not found:
            raise DataError(f"the texts have {sum(map(len, rows.inputs))} characters all together, too few to set a "
                            f"{split} split aside; add text, or give the split")
    return {split: _rows(rows, found) for split, found in pieces.items()}


def _rows(rows: Rows, pieces: Iterable[tuple[int, str, str]]) -> Rows:
    indices, texts, names = zip(*pieces, strict=True)
    whole = rows.take(np.array(indices))
    return Rows(list(texts), whole.labels, np.array(names, dtype=object), whole.groups,
                np.array(check_texts(texts).digests, dtype=object))


def _line_end(text: str, place: int) -> int:
    """Return where the line of a place ends, or the one before it; in a text of one line, the next or last word."""
    for mark in ("\n", " "):
        found = text.find(mark, place)
        found = found if found >= 0 else text.rfind(mark, 0, place)
        if found >= 0:
            return found + 1
    return place
