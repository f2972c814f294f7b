"""Texts to go on with as tokens: encoded once, with the bytes that each token stands for and whether it is learned."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from tlhub.config import DataConfig
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.encoding import encode
from tlhub.data.scripts import Script, make_scripts
from tlhub.data.tables import quiet

_CHUNK = 256
_PIECE = 200_000
"""Characters of a text that are encoded by themselves, since what a tokenizer returns is far larger than the text, and
since it works on several at the same time."""
_PIECES = 8
"""Pieces of a text that are encoded in one call."""
_AROUND = 200
_TRIES = 20
_GIB = 2**30


@dataclass(frozen=True)
class Tokens:
    """Records of tokens, laid end to end.

    Attributes:
        ids: The tokens, int32, shape (t,).
        sizes: UTF-8 bytes of the record's text that each stands for, int32, shape (t,). They add up to the bytes of
            the text: of a character that is divided between tokens the first has all the bytes, characters that a
            tokenizer drops count with the token that follows, and special tokens that are not the text's own have none.
        learned: Whether each is to be predicted, bool, shape (t,); never the first of a record.
        starts: Where each record starts, and the end of the last, int64, shape (n + 1,).
    """

    ids: np.ndarray
    sizes: np.ndarray
    learned: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.starts) - 1


def tokenise(records: Sequence[Any], ids: Sequence[str], tokenizer: PreTrainedTokenizerBase,
             data: DataConfig) -> Tokens:
    """Return records as tokens, from the cache where an earlier run has left them there.

    A text, and a prompt with its completion, begin with the tokenizer's token for the beginning of a text (where it has
    none, that for the end, as between two texts), and end with that for the end. Conversations have what the
    tokenizer's chat template writes, and may become several records (`scripts.make_scripts`). Only the completion and
    its end, and the assistant's turns, are learned.

    Args:
        records: Texts, or prompts with completions as tuples, or conversations as lists of messages.
        ids: What each is called in messages.
        tokenizer: The checkpoint's.
        data: Where and how much is cached.

    Raises:
        DataError: A conversation does not fit the tokenizer's chat template, or there is none.
    """
    cache = ArrayCache(cache_root(data) / "tokens")
    key = f"tokens 4 {_content_key(records)} {tokenizer_key(tokenizer)}"
    arrays = cache.get(key)
    if arrays is None:
        arrays = _arrays(_Encoder(tokenizer).encode(records, ids))
        if sum(array.nbytes for array in arrays.values()) <= data.cache_limit_gib * _GIB:
            arrays = cache.put(key, arrays)
    return Tokens(**arrays)


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a text that changes with what the tokenizer does: the hash of its files."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        content = b"\0".join(path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()[:32]


def _content_key(records: Sequence[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        content = (record if isinstance(record, str) else json.dumps(record)).encode()
        digest.update(f"{type(record).__name__} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _arrays(rows: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    ids, sizes, learned = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    starts = [0]
    for tokens, widths, targets in rows:
        ids.append(tokens.astype(np.int32))
        sizes.append(widths.astype(np.int32))
        learned.append(targets)
        starts.append(starts[-1] + len(tokens))
    return {"ids": np.concatenate(ids), "sizes": np.concatenate(sizes), "learned": np.concatenate(learned),
            "starts": np.array(starts, np.int64)}


class _Encoder:
    """From records to rows: tokens, their bytes, and which of them are learned."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._begin = [] if begin is None else [int(begin)]
        self._end = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        # Tokens that end turns, such as Gemma's, are special beside those that the tokenizer has names for.
        added = tokenizer.added_tokens_decoder
        self._special = [*tokenizer.all_special_ids, *(number for number, token in added.items() if token.special)]

    def encode(self, records: Sequence[Any], ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the row of each record; of a conversation there may be several."""
        for start in range(0, len(records), _CHUNK):
            chunk = records[start:start + _CHUNK]
            if isinstance(chunk[0], str):
                yield from self._documents(chunk)
            else:
                scripts = [script for record, name in zip(chunk, ids[start:start + _CHUNK], strict=True)
                           for script in make_scripts(record, name, self._tokenizer)]
                yield from map(self._script, scripts, self._pieces([script.text for script in scripts]))

    def _documents(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for text in texts:
            cuts = self._cuts(text)
            parts = [text[start:end] for start, end in itertools.pairwise(cuts)]
            encoded = [piece for first in range(0, len(parts), _PIECES)
                       for piece in self._pieces(parts[first:first + _PIECES])]
            tokens = np.concatenate([np.array(self._begin, np.int64), *(ids for ids, _ in encoded),
                                     np.array(self._end, np.int64)])
            ends = np.concatenate([np.zeros(len(self._begin), np.int64),
                                   *(start + ends for start, (_, ends) in zip(cuts, encoded, strict=False)),
                                   np.full(len(self._end), len(text), np.int64)])
            learned = np.arange(len(tokens)) > 0
            yield tokens, _widths(text, ends), learned

    def _cuts(self, text: str) -> list[int]:
        """Return where a long text is divided for encoding: after line breaks over which no token reaches."""
        cuts, place = [0], _PIECE
        while len(text) - place > _AROUND:
            breaks = itertools.islice(re.finditer("\n", text[place:place + _PIECE]), _TRIES)
            seam = next((end for end in (place + found.end() for found in breaks) if self._parts_at(text, end)), None)
            cuts += [] if seam is None else [seam]
            place = (seam or place) + _PIECE
        return [*cuts, len(text)]

    def _parts_at(self, text: str, place: int) -> bool:
        """Return whether a text has the same tokens when it is divided at a place, as far as its surroundings tell."""
        start, end = place - _AROUND, place + _AROUND
        whole, left, right = self._pieces([text[start:end], text[start:place], text[place:end]])
        return np.array_equal(whole[0], np.concatenate([left[0], right[0]]))

    def _script(self, script: Script, encoded: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray,
                                                                                       np.ndarray]:
        tokens, ends = encoded
        segments = script.segments
        if not self._tokenizer.is_fast or not set(np.cumsum([end - start for start, end, _ in segments])) <= set(ends):
            pieces = self._pieces([script.text[start:end] for start, end, _ in segments])
            tokens = np.concatenate([ids for ids, _ in pieces])
            ends = np.concatenate([start + ends for (start, _, _), (_, ends) in zip(segments, pieces, strict=True)])
        learned = np.zeros(len(tokens), bool)
        for start, end in script.spans:
            learned |= (ends > start) & (ends <= end)
        if not script.whole:
            tokens = np.concatenate([self._begin, tokens, self._end]).astype(np.int64)
            ends = np.concatenate([[0] * len(self._begin), ends, [len(script.text)] * len(self._end)]).astype(np.int64)
            learned = np.concatenate([[False] * len(self._begin), learned, [True] * len(self._end)]).astype(bool)
        learned[:1] = False
        widths = _widths(script.text, ends)
        if script.whole:  # what stands for turns and their ends is the template's, not text
            widths[np.isin(tokens, self._special)] = 0
        return tokens, widths, learned

    def _pieces(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the tokens of each text, and the character that each of them ends before, ascending."""
        fast = self._tokenizer.is_fast
        encoded = encode(self._tokenizer, list(texts), add_special_tokens=False, return_attention_mask=False,
                         return_token_type_ids=False, return_offsets_mapping=fast, verbose=False)
        pieces = []
        for number, (text, row) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            if fast:
                offsets = np.array(encoded["offset_mapping"][number], np.int64).reshape(-1, 2)
                ends = np.maximum.accumulate(offsets[:, 1])
            else:  # no word of where a token comes from: all are given the same share
                ends = np.arange(1, len(row) + 1) * len(text) // max(len(row), 1)
            ends[-1:] = len(text)
            pieces.append((np.array(row, np.int64), ends))
        return pieces


def _widths(text: str, ends: np.ndarray) -> np.ndarray:
    """Return the bytes that lie between one end and the next, from characters to UTF-8, shape (t,)."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    places = np.concatenate([[0], np.cumsum(1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF))])
    return np.diff(places[ends], prepend=0)
