"""Prompts with completions, and conversations, as texts of which only parts are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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

    A conversation is one script with all of the assistant's turns, unless the template writes what comes before an
    answer otherwise once it is there (as those that drop earlier thoughts do): then each answer has a script of its
    own, behind what the model would see when it is to give it.

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
        if not text.startswith(prompted):
            return _answers(messages, name, tokenizer)
        spans.append((len(prompted), _end_of_turn(text, len(prompted), tokenizer)))
    return [Script(text, tuple(spans), whole=True)]


def _answers(messages: list[Mapping[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase) -> list[Script]:
    """Return a script for each of the assistant's messages, ending with it, behind what asks for it.

    Where the template writes that otherwise once the answer is there, the answer is taken out of the whole and put
    behind what the model will be asked with.
    """
    scripts = []
    for number, message in enumerate(messages, 1):
        if message["role"] != "assistant":
            continue
        prompted = _rendered(messages[:number - 1], name, tokenizer, prompt=True)
        text = _rendered(messages[:number], name, tokenizer)
        if not text.startswith(prompted):
            answer = str(message["content"]).strip()
            place = text.rfind(answer)
            if place < 0:
                raise DataError(f"{name}: the chat template of tokenizer '{tokenizer.name_or_path}' writes message "
                                f"{number} (assistant) otherwise than it is, so it cannot be learned; take another "
                                "checkpoint")
            text = prompted + text[place:]
        scripts.append(Script(text, ((len(prompted), _end_of_turn(text, len(prompted), tokenizer)),), whole=True))
    return scripts


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the special token that ends an answer in the tokenizer's chat template; None where it has none.

    It need not be the end of a text: base models come with templates of conversations too.
    """
    asked, answer = [{"role": "user", "content": "a"}], "an answer"
    try:
        text = str(tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": answer}], tokenize=False))
    except Exception:  # a template is a program, if one without the means to do harm
        return None
    return _first_mark(text, text.rfind(answer) + len(answer), tokenizer) if answer in text else None


def _first_mark(text: str, start: int, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the special token that comes first in a text from `start` on."""
    marks = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = [(text.find(mark, start), -len(mark), mark) for mark in marks if mark in text[start:]]
    return min(found)[2] if found else None


def _rendered(messages: list[Mapping[str, Any]], name: str, tokenizer: PreTrainedTokenizerBase, *,
              prompt: bool = False) -> str:
    if not messages:
        return ""
    try:
        return str(tokenizer.apply_chat_template([dict(message) for message in messages], tokenize=False,
                                                 add_generation_prompt=prompt))
    except Exception as error:  # a template is a program, if one without the means to do harm
        raise DataError(f"{name}: the chat template of tokenizer '{tokenizer.name_or_path}' cannot write the "
                        f"conversation ({str(error) or type(error).__name__}); correct it or leave it out") from None


def _end_of_turn(text: str, start: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return where the answer ends: behind the token that ends it, since what follows is never generated."""
    mark = tokenizer.eos_token
    if not mark or mark not in text[start:]:
        mark = turn_end(tokenizer)
    found = text.rfind(mark, start) if mark else -1
    return len(text) if found < 0 else found + len(str(mark))
