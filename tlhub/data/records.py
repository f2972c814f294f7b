"""What a text generator is trained on, from rows: texts, prompts with completions, or conversations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tlhub.data.audit import Checked, check_pairs, check_texts
from tlhub.data.columns import Columns
from tlhub.data.kinds import is_blank
from tlhub.data.rows import read_texts
from tlhub.data.tables import Table, decode_utf8
from tlhub.errors import DataError, nearest

_ROLES = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant", "tool": "tool",
          "function": "function", "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
          "model": "assistant"}
"""Roles of messages, as they are spelt and as chat templates know them."""
_FORMS = (("role", "content"), ("from", "value"))


def read_records(table: Table, columns: Columns) -> tuple[list[Any], Checked]:
    """Return what each row gives, and what is wrong with it.

    Returns:
        Texts; or prompts with completions as tuples; or conversations as lists of messages with `role` and `content`.

    Raises:
        DataError: A column holds something else, or a message has a role that is not known.
    """
    if columns.conversations:
        cells = list(table.rows[columns.input])
        talks = [_messages(cell, name, columns.input) for name, cell in zip(table.ids, cells, strict=True)]
        digests = check_texts([json.dumps(talk) for talk in talks]).digests
        return talks, Checked(digests, list(map(_wrong_with, talks)))
    if columns.pair is not None:
        return _prompts(table, columns, columns.pair)
    return _texts(table, columns.input)


def records_told(columns: Columns) -> str:
    """Return which columns hold the records, for a message."""
    if columns.conversations:
        return f"conversations from column {columns.input!r}, of which the assistant's messages are learned"
    if columns.pair is None:
        return f"texts from column {columns.input!r}"
    more = f", with {columns.extra!r} after them," if columns.extra is not None else ""
    return (f"prompts from column {columns.input!r}{more} and completions from {columns.pair!r}, which alone are "
            "learned")


def describe_records(records: Mapping[str, Sequence[Any]]) -> list[tuple[str, str]]:
    """Return what to tell of the records of each split, as name and value."""
    first = next(record for split in records.values() for record in split)
    form = "documents" if isinstance(first, str) else "prompts with completions" if isinstance(first, tuple) \
        else "conversations"
    facts = [("records", form)]
    for split, found in records.items():
        texts = [" ".join(_parts(record)) for record in found]
        size = sum(len(part.encode()) for record in found for part in _parts(record))
        words = sum(len(text.split()) for text in texts)
        facts.append((split, f"{form} {len(found):,}, bytes {size:,}, words {words:,}"))
    return facts


def _parts(record: Any) -> list[str]:
    if isinstance(record, str):
        return [record]
    return list(record) if isinstance(record, tuple) else [message["content"] for message in record]


def _texts(table: Table, column: str) -> tuple[list[str], Checked]:
    if getattr(table.rows.features[column], "dtype", "") not in {"binary", "large_binary"}:
        texts = read_texts(table, column)
        return texts, check_texts(texts)
    texts, wrong = [], []
    for content in table.rows[column]:
        try:
            text, reason = decode_utf8(content or b"", ""), None
            if "\0" in text:
                text, reason = "", f"is no text: it holds a zero byte, at position {(content or b'').index(0)}"
        except DataError as error:
            text, reason = "", str(error).strip().partition(";")[0]
        texts.append(text)
        wrong.append(reason)
    checked = check_texts(texts)
    return texts, Checked(checked.digests, [reason or empty for reason, empty in zip(wrong, checked.reasons,
                                                                                   strict=True)])


def _prompts(table: Table, columns: Columns, completion: str) -> tuple[list[tuple[str, str]], Checked]:
    prompts = read_texts(table, columns.input, "prompt_column")
    if columns.extra is not None:
        prompts = [prompt if is_blank(more) else f"{prompt}\n\n{more}"
                   for prompt, more in zip(prompts, read_texts(table, columns.extra), strict=True)]
    pairs = list(zip(prompts, read_texts(table, completion, "completion_column"), strict=True))
    words = {"no text": "no prompt", "no second text": "no completion"}
    checked = check_pairs(pairs)
    return pairs, Checked(checked.digests, [words.get(reason or "", reason) for reason in checked.reasons])


def _messages(cell: Any, name: str, column: str) -> list[dict[str, Any]]:
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except ValueError:
            raise DataError(f"{name}: column {column!r} holds {cell[:40]!r}, which is no list of messages; name the "
                            "column of the conversations with --data.messages_column") from None
    if cell is None or cell == "":
        return []
    if not isinstance(cell, list) or not all(isinstance(message, dict) for message in cell):
        raise DataError(f"{name}: column {column!r} holds a {type(cell).__name__}, not a list of messages; name "
                        "the column of the conversations with --data.messages_column")
    return [_message(message, f"{name}: message {number}") for number, message in enumerate(cell, 1)]


def _message(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    form = next((form for form in _FORMS if form[0] in message), None)
    if form is None:
        raise DataError(f"{name} has the fields {', '.join(message) or 'none'}; it needs role and content, or from and "
                        "value")
    role, content = (message.get(field) for field in form)
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        raise DataError(f"{name} has the role {role!r}; {nearest(str(role), _ROLES)}")
    if content is not None and not isinstance(content, str):
        raise DataError(f"{name} holds a {type(content).__name__} as its {form[1]}, not text; give text")
    rest = {field: value for field, value in message.items() if field not in form and value is not None}
    return {"role": _ROLES[role.strip().lower()], "content": content or "", **rest}


def _wrong_with(talk: Sequence[Mapping[str, Any]]) -> str | None:
    if not talk:
        return "no messages"
    answers = [message for message in talk if message["role"] == "assistant"]
    if not answers:
        return "no message of the assistant"
    empty = next((number for number, message in enumerate(talk, 1)
                  if not message["content"].strip() and set(message) == {"role", "content"}), None)
    return None if empty is None else f"message {empty} has no content"
