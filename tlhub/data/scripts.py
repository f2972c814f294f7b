"""Prompts with completions, and conversations, as texts of which only parts are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from tlhub.errors import DataError


@dataclass(frozen=True)
class Script:
    """A text of which parts are learned.

    Attributes:
        text: The whole of it.
        spans: The parts that are learned, as start and end in characters, ascending.
        whole: Whether it is all that the model sees; otherwise it is put between a text's beginning and end, and the
            end is learned.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    whole: bool

    @property
    def segments(self) -> list[tuple[int, int, bool]]:
        """Start and end of the parts that are learned and those that are not, in order."""
        found = []
        done = 0
        for start, end in self.spans:
            found += [(done, start, False), (start, end, True)]
            done = end
        return [part for part in [*found, (done, len(self.text), False)] if part[0] < part[1]]


def make_scripts(record: tuple[str, str] | Sequence[Mapping[str, Any]], name: str,
                 tokenizer: PreTrainedTokenizerBase) -> list[Script]:
    """Return what a model reads of a prompt with its completion, or of a conversation.

    Prompt and completion are joined by a line break where neither has white space there. It belongs to the
    completion, so that a model goes on from a bare prompt.

    A conversation is one script with all of the assistant's turns, unless the template writes earlier turns otherwise
    once later ones are there (as those that drop earlier thoughts do): then each answer has a script of its own, behind
    what the model would see when it is to give it.

    Args:
        record: Prompt and completion as a tuple, or messages with `role` and `content`.
        name: What it is called in messages.
        tokenizer: Its chat template writes conversations.

    Raises:
        DataError: There is no chat template, or it cannot write the conversation.
    """
    if not isinstance(record, tuple):
        return _conversation(list(record), name, tokenizer)
    prompt, completion = record
    apart = not prompt or prompt[-1].isspace() or completion[:1].isspace()
    text = prompt + ("" if apart else "\n") + completion
    return [Script(text, ((len(prompt), len(text)),), whole=False)]


def _conversation(messages: list[Mapping[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase) -> list[Script]:
    if not tokenizer.chat_template:
        raise DataError(f"the data are conversations, and tokenizer '{tokenizer.name_or_path}' has no chat template to "
                        "write them with; take an instruction-tuned checkpoint, or data with the columns prompt and "
                        "completion")
    spans, text = [], ""
    for number, message in enumerate(messages, 1):
        before, text = text, _rendered(messages[:number], name, tokenizer)
        if not text.startswith(before):
            return _answers(messages, name, tokenizer)
        if message["role"] != "assistant":
            continue
        prompted = _rendered(messages[:number - 1], name, tokenizer, prompt=True)
        start = len(prompted) if text.startswith(prompted) else len(before)
        spans.append((start, _end_of_turn(text, start, tokenizer)))
    return [Script(text, tuple(spans), whole=True)]


def _answers(messages: list[Mapping[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase) -> list[Script]:
    """Return a script for each of the assistant's messages, ending with it."""
    scripts = []
    for number, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        prompted = _rendered(messages[:number - 1], name, tokenizer, prompt=True)
        text = _rendered(messages[:number], name, tokenizer)
        if not text.startswith(prompted):
            raise DataError(f"{name}: the chat template of tokenizer '{tokenizer.name_or_path}' writes what comes "
                            f"before message {number} (assistant) otherwise once it is there, so it cannot be learned; "
                            "take another checkpoint")
        scripts.append(Script(text, ((len(prompted), _end_of_turn(text, len(prompted), tokenizer)),), whole=True))
    return scripts


def _rendered(messages: list[Mapping[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase, *,
              prompt: bool = False) -> str:
    if not messages:
        return ""
    try:
        return str(tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False,
                                                 add_generation_prompt=prompt))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"{name}: the chat template of tokenizer '{tokenizer.name_or_path}' cannot write the "
                        f"conversation ({str(error) or type(error).__name__}); correct it or leave it out") from None


def _end_of_turn(text: str, start: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return where the answer ends: behind the token that ends it, since what follows is never generated."""
    mark = tokenizer.eos_token
    found = text.rfind(mark, start) if mark else -1
    return len(text) if found < 0 else found + len(mark)
