"""Texts as tokens, by a checkpoint's tokenizer, which may fail on them in ways of its own."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from tlhub.errors import CheckpointError, is_panic

_SHOWN = 160


def encode(tokenizer: PreTrainedTokenizerBase, *columns: Any, **choices: Any) -> Any:
    """Return what a tokenizer makes of texts.

    Args:
        tokenizer: The checkpoint's.
        columns: A text, or texts, or those of pairs.
        choices: As the tokenizer takes them.

    Raises:
        CheckpointError: It fails on them: its patterns never end, or its parts do not fit each other.
    """
    try:
        return tokenizer(*columns, **choices)
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]
        raise CheckpointError(f"the tokenizer {tokenizer.name_or_path!r} cannot encode the texts ({reason}); give a "
                              "checkpoint with all its files") from error
