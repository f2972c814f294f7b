"""What a text generator goes on from: the tokens of a prompt, and the beginnings of texts as prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from tlhub.data.encoding import encode
from tlhub.errors import DataError

_WORDS = 8
"""Words of a text that make its beginning."""

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or a conversation up to where the assistant answers: messages with `role` and `content`."""


def prompt_tokens(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return what a model reads before it goes on, as it has read it in training (`tlhub.data.tokens`).

    Args:
        prompt: A text begins as training texts do; a conversation is written by the tokenizer's chat template.
        tokenizer: The checkpoint's.

    Raises:
        DataError: There is no chat template, it cannot write the conversation, or there is nothing to go on from.
    """
    if isinstance(prompt, str):
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        begin = [] if first is None else [int(first)]
        text = prompt
    else:
        begin, text = [], _written(prompt, tokenizer)
    tokens = [*begin, *encode(tokenizer, text, add_special_tokens=False)["input_ids"]]
    if not tokens:
        raise DataError(f"the prompt {text[:40]!r} has no tokens, and the tokenizer has none for the beginning of a "
                        "text; give some text")
    return tokens


def beginning(record: Any) -> Prompt:
    """Return what a record begins with: a few words, the prompt of a completion, or messages up to the first answer.

    Args:
        record: A text, a prompt with its completion as a tuple, or a list of messages.
    """
    if isinstance(record, tuple):
        prompt: str = record[0]
        return prompt
    if isinstance(record, str):
        words = record.split(maxsplit=_WORDS)
        end = len(record) - len(words[_WORDS]) if len(words) > _WORDS else len(record)
        return record[:end].strip()
    answers = [place for place, message in enumerate(record) if message["role"] == "assistant"]
    return list(record[:answers[0]] if answers else record)


def spoken(text: str) -> Prompt:
    """Return a text as what a user says to a model that has learned from conversations."""
    return [{"role": "user", "content": text}]


def shown(prompt: Prompt) -> str:
    """Return a prompt for a reader: the text, or the last message."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"]) if prompt else ""


def _written(messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise DataError(f"tokenizer '{tokenizer.name_or_path}' has no chat template to write a conversation with; give "
                        "a text")
    try:
        return str(tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False,
                                                 add_generation_prompt=True))
    except Exception as error:  # a template is a program, if one without the means to do harm
        raise DataError(f"the chat template of tokenizer '{tokenizer.name_or_path}' cannot write the prompt "
                        f"({str(error) or type(error).__name__})") from None
