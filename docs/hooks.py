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
    rows = ["| option | what it is for |", "|---|---|"]
    for field in dataclasses.fields(classes[name]):
        if not field.metadata.get("help") or field.name in ("task", "task_options"):
            continue
        words, full = field.metadata, f"{prefix}{field.name}"
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        what = words["help"] + (f"; one of {', '.join(words['choices'])}" if words["choices"] else "")
        small = "; ".join(part for part in (_value(default), _scope(words)) if part)
        small = f"<br><small>{small}</small>" if small else ""
        rows.append(f"| {short.get(full, '')}`--{full}` | {_cell(what)}{small} |")
    return "\n".join(rows)


def _value(default: Any) -> str:
    """Return words on a default; none where it is chosen for the run, or where there is none."""
    if default in (None, "") or isinstance(default, (list, dict)):
        return ""
    return f"default {str(default).lower() if isinstance(default, (str, bool)) else f'{default:g}'}"


def _scope(words: Any) -> str:
    """Return words on where an option has an effect, from its metadata (`tlhub.config.option`); none where always."""
    parts = [", ".join(words[kind]) for kind in ("tasks", "strategies", "problems") if words[kind]]
    for kind, negation in (("requires", ""), ("unless", "not ")):
        name, values = words[kind]
        if name:
            parts.append(f"{negation}{name} {' or '.join(map(str, values))}")
    return f"with {'; '.join(parts)}" if parts else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _commands() -> str:
    parts = []
    for command, _ in cli._COMMANDS:
        words = [f"[{name[:-1]}]" if name.endswith("?") else f"{name[:-1]} ..." if name.endswith("+") else name
                 for name in command.positionals]
        usage = " ".join(["tlhub", command.name, *map(str.upper, words), "[OPTIONS]"])
        parts.append(f"## tlhub {command.name}\n\n`{usage}`\n\n{command.words}\n")
        named = [(f"`{name.rstrip('?+').upper()}`", what) for name, what in command.positionals.items()]
        named += [(f"`--{name.rstrip('=')}`", what) for name, what in command.actions.items()]
        if named:
            parts.append("| argument | what it is |\n|---|---|\n"
                         + "".join(f"| {name} | {_cell(what)} |\n" for name, what in named))
        names = [f"`{name}`" for name in (*command.sections, *command.run_options)]
        if names:
            parts.append(f"And the [options](options.md) of {', '.join(names)}.\n")
    return "\n".join(parts)
