"""What pages take from the code: the options, and the help of each command, in the place of a comment that asks for it.

`<!-- options: data -->` is a table of the fields of a section, `<!-- commands -->` the help of every command.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from tlhub import cli
from tlhub.config import SECTIONS, SHORT_OPTIONS, TASK_OPTIONS, RunConfig, SamplingConfig


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put in what the page's comments ask for (an event of mkdocs)."""
    markdown = re.sub(r"<!-- options: ([\w-]+) -->", lambda match: _options(match[1]), markdown)
    return markdown.replace("<!-- commands -->", _commands())


def _options(name: str) -> str:
    classes = {**SECTIONS, **TASK_OPTIONS, "run": RunConfig, "predict": SamplingConfig}
    prefix = f"{name}." if name in SECTIONS else "task_options." if name in TASK_OPTIONS else ""
    short = {full: f"`--{word}`<br>" for word, full in SHORT_OPTIONS.items()}
    rows = ["| option | default | what it is for |", "|---|---|---|"]
    for field in dataclasses.fields(classes[name]):
        if not field.metadata.get("help") or field.name in ("task", "task_options"):
            continue
        words, full = field.metadata, f"{prefix}{field.name}"
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        what = words["help"] + (f"; one of {', '.join(words['choices'])}" if words["choices"] else "")
        cells = (f"{short.get(full, '')}`--{full}`", _value(default), _cell(what) + _scope(words))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _value(default: Any) -> str:
    shown = {None: "", "": "", True: "true", False: "false"}
    return "" if isinstance(default, (list, dict)) else str(shown.get(default, default)) if isinstance(
        default, (str, bool, type(None))) else f"{default:g}"


def _scope(words: Any) -> str:
    """Return words on where an option has an effect, from its metadata (`tlhub.config.option`); none where always."""
    parts = [", ".join(words[kind]) for kind in ("tasks", "strategies", "problems") if words[kind]]
    for kind, negation in (("requires", ""), ("unless", "not ")):
        name, values = words[kind]
        if name:
            parts.append(f"{negation}{name} {' or '.join(map(str, values))}")
    return f"<br><small>With: {'; '.join(parts)}</small>" if parts else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _commands() -> str:
    parts = []
    for command, _ in cli._COMMANDS:
        parts.append(f"## tlhub {command.name}\n\n{command.words}\n\n```text\n{command.parser.format_usage()}```\n")
        named = [(f"`{name.rstrip('?+')}`", words) for name, words in command.positionals.items()]
        named += [(f"`--{name.rstrip('=')}`", words) for name, words in command.actions.items()]
        if named:
            parts.append("| argument | what it is |\n|---|---|\n"
                         + "".join(f"| {name} | {_cell(words)} |\n" for name, words in named))
        if command.sections:
            parts.append("And the [options](options.md) of the sections: "
                         + ", ".join(f"`{name}`" for name in command.sections) + ".\n")
    return "\n".join(parts)
