"""Texts to go on with as the blocks of tokens that a causal language model is trained on, several to a row."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from tlhub.config import DataConfig
from tlhub.data.prepare import Examples
from tlhub.data.tensors import to_device
from tlhub.data.tokens import Tokens, tokenise
from tlhub.errors import DataError
from tlhub.seeding import generator

IGNORED = -100
"""What `targets` hold where nothing is to be predicted, as transformers has it."""
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """Stretches of tokens that a model reads at a time; each place predicts the token after it.

    Attributes:
        starts: Where each begins, int64, shape (n,).
        lengths: Tokens of each, without the last that is predicted, int64, shape (n,).
        firsts: The first token that each is to predict; what is learned before it, another window does. Shape (n,).
        cut: How many records have lost a part of what only leads up to what is learned.
    """

    starts: np.ndarray
    lengths: np.ndarray
    firsts: np.ndarray
    cut: int = 0

    def take(self, indices: np.ndarray) -> Windows:
        """Return some of them, in the order of `indices`, shape (m,)."""
        return Windows(self.starts[indices], self.lengths[indices], self.firsts[indices], self.cut)


def text_windows(tokens: Tokens, block_size: int) -> Windows:
    """Return texts cut into blocks, each beginning with the last token that the one before it predicts."""
    begins, places = tokens.starts[:-1], np.maximum(np.diff(tokens.starts) - 1, 0)
    blocks = -(-places // block_size)
    text = np.repeat(np.arange(len(tokens)), blocks)
    number = np.arange(len(text)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    starts = begins[text] + number * block_size
    return Windows(starts, np.minimum(block_size, places[text] - number * block_size), starts + 1)


def script_windows(tokens: Tokens, block_size: int) -> Windows:
    """Return records of which parts are learned, each as one window where that is long enough.

    What leads up to the learned parts is cut on its left until they fit. Where they do not fit by themselves, several
    windows follow each other, each with half a block of what comes before.
    """
    found: list[tuple[int, int, int]] = []
    cut = 0
    for begin, end in zip(tokens.starts[:-1].tolist(), tokens.starts[1:].tolist(), strict=True):
        learned = begin + np.flatnonzero(tokens.learned[begin:end])
        if not len(learned):
            continue
        last = int(learned[-1])
        cut += last - begin > block_size
        parts = last - int(learned[0]) >= block_size
        while len(learned):
            first = int(learned[0])
            start = max(begin, last - block_size)
            if parts:
                start = max(begin, min(start, first - 1 - block_size // 2))
            length = min(block_size, last - start)
            found.append((start, length, first))
            learned = learned[learned > start + length]
    rows = np.array(found, np.int64).reshape(-1, 3)
    return Windows(rows[:, 0], rows[:, 1], rows[:, 2], cut)


class GenerationInputs:
    """Texts for a causal language model, as `tlhub.data.batches.Inputs`; an example is a block of at most `block_size`.

    Plain texts are cut into blocks, so that every token is predicted exactly once. Of a prompt with its completion, and
    of a conversation, only the completion and its end, or the assistant's turns, are predicted.

    Args:
        examples: Texts, prompts with completions as tuples, or conversations as lists of messages.
        tokenizer: The checkpoint's tokenizer.
        data: `block_size` (tokens that a model reads at a time, set), `packing`, and where and how much is cached.
        seed: The run's seed, for drawing where `examples.most` asks for fewer.

    Attributes:
        labels: Tokens that each example predicts, and the UTF-8 bytes of text that they stand for, int64, shape (n, 2).
        lengths: Tokens that each example reads, shape (n,).
        packing: Whether several examples may lie in one row; may be set.
        truncated: How many prompts or conversations are longer than a block and lose their beginning.

    Raises:
        DataError: A conversation cannot be written with the tokenizer's chat template.
    """

    def __init__(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, *, data: DataConfig,
                 seed: int = 0) -> None:
        assert data.block_size is not None
        self.packing = data.packing
        self._block_size = data.block_size
        self._tokens = tokenise(examples.inputs, examples.ids, tokenizer, data)
        self._plain = not len(examples) or isinstance(examples.inputs[0], str)
        windows = (text_windows if self._plain else script_windows)(self._tokens, data.block_size)
        if examples.most is not None and examples.most < len(windows.starts):
            drawn = generator(seed, "training blocks").permutation(len(windows.starts))[:examples.most]
            windows = windows.take(np.sort(drawn))
        if len(self._tokens) > len(examples):
            _LOGGER.info("the chat template writes earlier turns otherwise once later ones are there: each of the %d "
                         "answers is learned by itself, behind what the model would see", len(self._tokens))
        self.truncated = windows.cut
        if windows.cut:
            _LOGGER.info("%d of %d records are longer than data.block_size %d, and lose the beginning of what is not "
                         "learned", windows.cut, len(self._tokens), data.block_size)
        self._windows = windows
        self.lengths: np.ndarray | None = windows.lengths
        self.labels = self._counts()
        fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._fill = fill or 0

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self._windows.starts)

    @property
    def records(self) -> np.ndarray:
        """The record that each block is a part of, as the tokenizer has them, int64, shape (n,)."""
        return np.asarray(np.searchsorted(self._tokens.starts, self._windows.starts, side="right") - 1)

    def spread(self, groups: np.ndarray) -> np.ndarray | None:
        """Return the group of each block, shape (n,); None where one example has become several records.

        Args:
            groups: The group of each example.
        """
        return groups[self.records] if len(self._tokens) == len(groups) else None

    def check_length(self) -> None:
        """Refuse what is too little to train on: no example at all, or texts that are shorter than a block together.

        Raises:
            DataError: It is so.
        """
        if not len(self):
            raise DataError("the training data give no token to learn; check the texts, and the chat template of the "
                            "tokenizer where they are conversations")
        if len(self._tokens.ids) < self._block_size and self._plain:
            raise DataError(f"the training texts have {len(self._tokens.ids)} tokens all together, less than one block "
                            f"of data.block_size {self._block_size}; add text, or lower --data.block_size")

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return some blocks laid out in rows.

        Args:
            indices: Which blocks, shape (b,), modulo n.
            epoch: Has no effect: texts are not augmented.
            device: Where the tensors go.

        Returns:
            `input_ids`, int64, shape (r, w); `targets`, int64, shape (r, w), the token that each place predicts, -100
            where there is none; `owners`, int64, shape (r, w), the position in `indices` of the block that each place
            belongs to (0 in padding); `slots`, zeros, float32, shape (b,); `places`, int64, shape (m,), where in the
            flattened rows there are targets. Where blocks share a row, `position_ids`,
            int64, shape (r, w), begins anew with each of them and with the padding; otherwise `attention_mask`, int64,
            shape (r, w), where something is padded, which it is on the right.
        """
        chosen = self._windows.take(indices % len(self))
        rows, columns = first_fit(chosen.lengths, self._block_size if self.packing else 0)
        filled = np.zeros(int(rows.max(initial=-1)) + 1, np.int64)
        np.maximum.at(filled, rows, columns + chosen.lengths)
        owner = np.repeat(np.arange(len(indices)), chosen.lengths)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(chosen.lengths) - chosen.lengths, chosen.lengths)
        places = rows[owner], columns[owner] + within
        sources = chosen.starts[owner] + within
        targets = np.where(self._tokens.learned[sources + 1] & (sources + 1 >= chosen.firsts[owner]),
                           self._tokens.ids[sources + 1], IGNORED)
        shape = len(filled), int(filled.max(initial=1))
        tables = {"input_ids": _table(shape, places, self._tokens.ids[sources], self._fill),
                  "targets": _table(shape, places, targets, IGNORED), "owners": _table(shape, places, owner, 0)}
        across = np.arange(shape[1])[None, :]
        if len(filled) < len(indices):
            tables["position_ids"] = np.maximum(across - filled[:, None], 0)
            tables["position_ids"][places] = within
        elif (filled < shape[1]).any():
            tables["attention_mask"] = (across < filled[:, None]).astype(np.int64)
        tables["slots"] = np.zeros(len(indices), np.float32)
        tables["places"] = np.flatnonzero(tables["targets"] != IGNORED)
        return {name: to_device(table, device) for name, table in tables.items()}

    def _counts(self) -> np.ndarray:
        learned = self._tokens.learned
        windows = self._windows
        counts = []
        for values in (learned, np.where(learned, self._tokens.sizes, 0)):
            before = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
            counts.append(before[windows.starts + windows.lengths + 1] - before[windows.firsts])
        return np.stack(counts, axis=1)


def first_fit(lengths: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay examples out in rows, the longest first, each in the first row that has room for it.

    Args:
        lengths: Of the examples, shape (b,).
        width: Of a row; 0 for a row for each example.

    Returns:
        Row and first column of each example, int64, shape (b,).
    """
    if not width:
        return np.arange(len(lengths)), np.zeros(len(lengths), np.int64)
    rows, columns = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    filled: list[int] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        row = next((row for row, used in enumerate(filled) if used + length <= width), len(filled))
        if row == len(filled):
            filled.append(0)
        rows[index], columns[index] = row, filled[row]
        filled[row] += length
    return rows, columns


def _table(shape: tuple[int, int], places: tuple[np.ndarray, np.ndarray], values: np.ndarray, fill: int) -> np.ndarray:
    table = np.full(shape, fill, np.int64)
    table[places] = values
    return table
