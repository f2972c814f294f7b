"""Texts and pairs of texts as tokens: tokenised once, padded to the longest of each batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from tlhub.data.encoding import encode
from tlhub.data.prepare import Examples
from tlhub.data.sources import read_lines
from tlhub.data.tensors import to_device
from tlhub.errors import CheckpointError, DataError

_CHUNK = 1000
_UNLIMITED = 100_000
"""Tokenizers without a limit of their own announce an astronomical one."""


@dataclass(frozen=True)
class _Ragged:
    """Rows of different lengths, laid end to end.

    Attributes:
        values: All rows, shape (sum of lengths,).
        starts: Where each row starts, and the end of the last, shape (n + 1,).
    """

    values: np.ndarray
    starts: np.ndarray

    def padded(self, indices: np.ndarray, width: int, fill: int, *, left: bool) -> np.ndarray:
        """Return rows as a table of int64, shape (len(indices), width), filled up with `fill`."""
        lengths = self.starts[indices + 1] - self.starts[indices]
        columns = np.arange(width)[None, :] - (width - lengths if left else np.zeros_like(lengths))[:, None]
        inside = (columns >= 0) & (columns < lengths[:, None])
        table = np.full((len(indices), width), fill, dtype=np.int64)
        table[inside] = self.values[(self.starts[indices][:, None] + columns)[inside]]
        return table


def read_pair(line: str) -> tuple[str, str]:
    """Return the two texts of a line, which stand on either side of a tab.

    Raises:
        DataError: There is no tab or more than one, or a side is empty.
    """
    parts = [part.strip() for part in line.split("\t")]
    if len(parts) != 2 or not all(parts):
        raise DataError(f"{line[:80]!r} is no pair; give two texts with one tab between them")
    return parts[0], parts[1]


def given_texts(value: str) -> list[str]:
    """Return what a user gave to be read: a text, or the lines of a file that it names.

    Raises:
        DataError: It names a folder, or looks like a file that is not there.
    """
    if os.sep in value and os.path.isdir(value):  # unlike pathlib, os.path takes what is too long for a name
        raise DataError(f"'{value}' is a folder; give texts, or files with a text in each line")
    if value.endswith(".txt") and not os.path.exists(value) and len(value.split()) == 1:
        raise DataError(f"'{value}' is no file; check the path")
    return read_lines(Path(value)) if os.path.isfile(value) else [value]


class TextInputs:
    """Texts, or pairs of texts, for a model, as `tlhub.data.batches.Inputs`.

    Args:
        examples: Texts, or pairs of them as tuples, and labels.
        tokenizer: The checkpoint's tokenizer; it decides on special tokens, padding side and type ids.
        max_length: Tokens kept of a text; None for what the tokenizer says the model can read. Of a pair, tokens are
            taken from the end of the longer text first.

    Attributes:
        labels: As in `examples`.
        lengths: Tokens of each text or pair, shape (n,).
        truncated: How many texts reach the limit, so are probably cut.

    Raises:
        CheckpointError: Texts differ in length and the tokenizer has no token to pad with.
    """

    def __init__(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> None:
        self.labels = examples.labels
        limit = max_length or tokenizer.model_max_length
        self._limit = limit if limit <= _UNLIMITED else None
        self._left = tokenizer.padding_side == "left"
        self._columns = _tokenise(examples.inputs, tokenizer, self._limit)
        starts = self._columns["input_ids"].starts
        self.lengths: np.ndarray | None = np.diff(starts)
        self.truncated = 0 if self._limit is None else int((np.diff(starts) >= self._limit).sum())
        self._fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        if tokenizer.pad_token_id is None and len(np.unique(np.diff(starts))) > 1:
            raise CheckpointError(f"tokenizer '{tokenizer.name_or_path}' has no padding token, and texts differ in "
                                  "length; set its pad_token")

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for some texts, padded to the longest of them.

        Args:
            indices: Which texts, shape (b,), modulo n.
            epoch: Has no effect: texts are not augmented.
            device: Where the tensors go.

        Returns:
            `input_ids`, and `token_type_ids` where the tokenizer makes them, int64, shape (b, longest);
            `attention_mask` of the same shape where something is padded.
        """
        indices = indices % len(self)
        starts = self._columns["input_ids"].starts
        lengths = starts[indices + 1] - starts[indices]
        width = int(lengths.max(initial=1))
        tables = {name: column.padded(indices, width, self._fill[name] or 0, left=self._left)
                  for name, column in self._columns.items()}
        if (lengths < width).any():
            places = np.arange(width)[None, :]
            mask = places >= (width - lengths)[:, None] if self._left else places < lengths[:, None]
            tables["attention_mask"] = mask.astype(np.int64)
        return {name: to_device(table, device) for name, table in tables.items()}


def _tokenise(texts: Sequence[str] | Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase,
              limit: int | None) -> dict[str, _Ragged]:
    """Return the tokenizer's columns, except for the mask, which padding decides."""
    pieces: dict[str, list[np.ndarray]] = {"input_ids": []}
    lengths: list[int] = []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start:start + _CHUNK]
        columns = zip(*chunk, strict=True) if isinstance(chunk[0], tuple) else (chunk,)
        encoded = encode(tokenizer, *map(list, columns), truncation=limit is not None, max_length=limit, padding=False,
                         return_attention_mask=False)
        lengths += [len(row) for row in encoded["input_ids"]]
        for name in ("input_ids", "token_type_ids"):
            if name in encoded:
                flat = np.fromiter((token for row in encoded[name] for token in row), dtype=np.int32)
                pieces.setdefault(name, []).append(flat)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return {name: _Ragged(np.concatenate(parts) if parts else np.zeros(0, np.int32), starts)
            for name, parts in pieces.items()}
