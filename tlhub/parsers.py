"""The command line's options, made of the fields of the configuration by jsonargparse."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from tlhub.config import SECTIONS, SHORT_OPTIONS, TASK_OPTIONS, RunConfig, SamplingConfig
from tlhub.errors import UsageError, printable

_KIND_WORDS = {"str": "text (in YAML, quote it)", "int": "a whole number", "float": "a number",
               "bool": "true or false", "list[str]": "a list of names"}
_LONGEST_LINE = 2000
_RUN_OPTIONS = ("task_options", "out", "seed")
_OF_SAMPLING = {f.name for f in dataclasses.fields(SamplingConfig)} - {"seed"}
_PER_TASK = {f.name: cls for cls in TASK_OPTIONS.values() for f in dataclasses.fields(cls)}
"""Names of the options that only one task has, with the class that holds each."""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of `tlhub`: what it is for, and which arguments and options it takes.

    Args:
        name: The words that call it, such as `finetune`.
        words: What it does.
        positionals: Names of the arguments with their help; a name that ends in `?` may be missing, one that ends in
            `+` takes several.
        sections: Sections of the configuration whose fields are options.
        run_options: Fields of the run itself that are options.
        actions: Further options with their help; a name that ends in `=` takes a text, the others are switches.
        fields: A class of `tlhub.config` whose fields are options by their bare names.
    """

    name: str
    words: str
    positionals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sections: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    actions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: type | None = None

    @property
    def short_options(self) -> dict[str, str]:
        """Those short options whose fields are options of this command, with their full names."""
        valid = (*self.sections, *self.run_options)
        return {short: full for short, full in SHORT_OPTIONS.items() if full.partition(".")[0] in valid}

    def option_names(self) -> tuple[str, ...]:
        """Return the names of the options."""
        actions = (name.rstrip("=") for name in (*self.actions, *_COMMON))
        tasks = _of_tasks() if "task_options" in self.run_options else ()
        return (*self.short_options, *_dotted(self.sections), *self.run_options, *tasks, *self.field_names(), *actions)

    def field_names(self) -> tuple[str, ...]:
        """Return the names of the options that are fields of `fields`."""
        return () if self.fields is None else tuple(field.name for field in dataclasses.fields(self.fields))

    @functools.cached_property
    def parser(self) -> ArgumentParser:
        """The parser, with one option for each field; made once, which takes longer than reading with it."""
        parser = ArgumentParser(prog=f"tlhub {self.name}", exit_on_error=False, allow_abbrev=False, default_env=False,
                                description=self.words + _short_words(self.short_options))
        for name, words in self.positionals.items():
            many: dict[str, Any] = {"nargs": name[-1]} if name[-1] in "?+" else {}
            parser.add_argument(name.rstrip("?+"), type=str, help=words, **many)
        for name, words in {**self.actions, **_COMMON}.items():
            kind: dict[str, Any] = {"type": str} if name.endswith("=") else {"action": "store_true"}
            parser.add_argument(f"--{name.rstrip('=')}", help=words, **kind)
        for section in self.sections:
            cls = SECTIONS[section]
            group = parser.add_argument_group(f"{section}: {(cls.__doc__ or '').splitlines()[0]}")
            _add_fields(group, cls, f"{section}.", tuple(field.name for field in dataclasses.fields(cls)))
        if self.fields is not None:
            group = parser.add_argument_group((self.fields.__doc__ or "").splitlines()[0])
            _add_fields(group, self.fields, "", self.field_names())
        if self.run_options:
            plain = tuple(name for name in self.run_options if name != "task_options")
            _add_fields(parser.add_argument_group("run"), RunConfig, "", plain)
        for task, cls in TASK_OPTIONS.items() if "task_options" in self.run_options else ():
            names = tuple(field.name for field in dataclasses.fields(cls))
            _add_fields(parser.add_argument_group(f"task_options of {task}"), cls, "task_options.", names)
        return parser

    def arguments(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return what a command line names: arguments, options by section, and switches; no defaults.

        Args:
            argv: What follows the command's name.

        Raises:
            UsageError: An option is unknown, lacks its value or has a value of the wrong type.
            SystemExit: After `--help`.
        """
        tokens = self._switched(_listed([self._rewritten(token) for token in argv]))
        try:
            given = self.parser.parse_args(tokens, defaults=False)
        except ArgumentError as error:
            found = re.search(r'key "([^"]+)".*(?:Given|Got) value: (.*)', str(error), re.DOTALL)
            raise UsageError(_wrong_type(*found.groups()) if found
                             else f"{one_line(str(error))}; 'tlhub {self.name} --help' lists what it takes") from error
        positionals = [name.rstrip("?+") for name in self.positionals]
        return {name: value for name, value in given.as_dict().items() if value is not None or name not in positionals}

    def _rewritten(self, token: str) -> str:
        """Return a token with a short option in full, after checking that the option exists."""
        if not token.startswith("--") or token == "--":
            return token
        name, equals, value = token[2:].partition("=")
        full = self.short_options.get(name, name)
        if full not in (*self.option_names(), "help"):
            known = [f"--{option}" for option in self.option_names()]
            raise UsageError(f"option '--{name}' is not known to 'tlhub {self.name}'; {suggestion(f'--{name}', known)}")
        return f"--{full}{equals}{value}"


    def _switched(self, tokens: Sequence[str]) -> list[str]:
        """Return the tokens with `--do_sample` by itself, as transformers' users write it, as `--do_sample=true`."""
        kinds = {} if self.fields is None else self.fields.__annotations__
        switches = {f"--{name}" for name, kind in kinds.items() if str(kind).startswith("bool")}
        return [f"{token}=true" if token in switches and after.lower() not in ("true", "false") else token
                for token, after in zip_longest(tokens, tokens[1:], fillvalue="")]


_COMMON = {"debug": "show tracebacks"}

FINETUNE = Command(
    "finetune", "Adapt a checkpoint to a data set.",
    {"task?": "what is predicted, such as image-classification"}, tuple(SECTIONS), _RUN_OPTIONS,
    {"config=": "YAML file to start from; options on the command line win",
     "overwrite": "replace a finished or different run in --out"})

PROVE = dataclasses.replace(
    FINETUNE, name="prove", words="Show on a little of the data that what a run promises holds for this configuration.",
    actions={**FINETUNE.actions, "overwrite": "replace the proofs in --out"})

PLAN = dataclasses.replace(
    FINETUNE, name="plan", words="Compare checkpoints for a data set, and tell how to transfer and what that takes.",
    sections=("model", "data", "train"),
    actions={**FINETUNE.actions, "overwrite": "replace the plan in --out"})


def option_names() -> tuple[str, ...]:
    """Return the full names of all options of a run."""
    return ("task", *_RUN_OPTIONS, *_of_tasks(), *_dotted(tuple(SECTIONS)))


def typed(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return options by full name with values of the fields' types.

    Args:
        values: Options by full name, those of single tasks as `task_options.<name>`; these come back as one
            dictionary, `task_options`.
        where: Appended to messages, such as ` in run.yaml`.

    Raises:
        UsageError: A value has the wrong type.
    """
    for name, value in values.items():
        owner, leaf = _owner(name)
        if value is None and "None" not in str(owner.__annotations__.get(leaf, "None")):
            raise UsageError(_wrong_type(name, value, where))
    read = _read(values, where)
    result: dict[str, Any] = {}
    task_options: dict[str, Any] = {}
    for name in values:
        section, _, key = name.partition(".")
        (task_options if section == "task_options" else result)[key if section == "task_options" else name] = read[name]
    return {**result, "task_options": task_options} if task_options else result


def _read(values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return what the parser makes of options by full name."""
    listed = {name: _as_list(name, value) for name, value in values.items()}
    try:
        found: Mapping[str, Any] = FINETUNE.parser.parse_object(listed, defaults=False)
    except ArgumentError:
        for name, value in listed.items():  # one by one, which takes longer, to find the one that is wrong
            try:
                FINETUNE.parser.parse_object({name: value}, defaults=False)
            except ArgumentError as error:
                raise UsageError(_wrong_type(name, values[name], where)) from error
        raise
    return found


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return words that name the closest of the known options.

    Args:
        name: What was written, with its leading dashes if the known names have them.
        known: Full and short names; the last part of a name (`rank` of `strategy.rank`) counts as well.
    """
    names = list(dict.fromkeys(known))
    dashes = "--" if name.startswith("--") else ""
    wanted = name.replace("-", "_") if not dashes else dashes + name[2:].replace("-", "_")
    by_leaf = {dashes + option.lstrip("-").rpartition(".")[2]: option for option in reversed(names)}
    by_leaf.update({option: option for option in names})
    for written in (wanted, dashes + wanted.lstrip("-").rpartition(".")[2]):
        close = difflib.get_close_matches(written, by_leaf, n=1, cutoff=0.7)
        if close:
            return f"did you mean {by_leaf[close[0]]!r}?"
    return "--help lists the options"


def one_line(text: str) -> str:
    """Return the text as one line that can be printed: escaped, single-spaced, and cut where it would fill a screen."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _dotted(sections: Sequence[str]) -> list[str]:
    return [f"{section}.{field.name}" for section in sections for field in dataclasses.fields(SECTIONS[section])]


def _of_tasks() -> tuple[str, ...]:
    return tuple(f"task_options.{name}" for name in _PER_TASK)


def _owner(name: str) -> tuple[type, str]:
    """Return the class that holds an option, and the name it has there."""
    section, _, key = name.removeprefix("--").partition(".")
    if section in _OF_SAMPLING:
        return SamplingConfig, section
    if section == "task_options" and key:
        return _PER_TASK.get(key, RunConfig), key
    return (SECTIONS[section], key) if key and section in SECTIONS else (RunConfig, section)


def _short_words(short: Mapping[str, str]) -> str:
    words = ", ".join(f"--{name} for --{full}" for name, full in short.items())
    return f" Short options: {words}." if short else ""


def _add_fields(group: Any, cls: type, prefix: str, names: Sequence[str]) -> None:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in names:
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            group.add_argument(f"--{prefix}{field.name}", type=hints[field.name], default=default,
                               help=_help(field.metadata))


def _help(metadata: Mapping[str, Any]) -> str:
    words = str(metadata["help"])
    if metadata["choices"]:
        words += "; one of " + ", ".join(metadata["choices"])
    only = [*metadata["tasks"], *metadata["strategies"]]
    return words + (f" [only: {', '.join(only)}]" if only else "")


def _listed(tokens: Sequence[str]) -> list[str]:
    """Return the tokens with the comma-separated values of list options in brackets, as the parser reads lists."""
    result: list[str] = []
    for token in tokens:
        name, equals, value = token.partition("=")
        if equals and _holds_list(name):
            result.append(f"{name}={_bracketed(value)}")
        elif result and _holds_list(result[-1]):
            result.append(_bracketed(token))
        else:
            result.append(token)
    return result


def _bracketed(value: str) -> str:
    """Return a list as YAML has it; names that look like numbers or truth values stay names."""
    if value.startswith("[") or '"' in value or "'" in value:
        return value if value.startswith("[") else f"[{value}]"
    return json.dumps([part.strip() for part in value.split(",") if part.strip()], ensure_ascii=False)


def _holds_list(name: str) -> bool:
    owner, key = _owner(name)
    return owner.__annotations__.get(key) == "list[str]"


def _as_list(name: str, value: Any) -> Any:
    """Return a comma-separated text, or a tuple, as a list for the fields that hold lists."""
    if _holds_list(name) and isinstance(value, str) and not value.startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if _holds_list(name) and isinstance(value, tuple) else value


def _wrong_type(name: str, value: Any, where: str = "") -> str:
    owner, leaf = _owner(name)
    kinds = [kind.strip() for kind in str(owner.__annotations__[leaf]).split("|")]
    words = " or ".join(_KIND_WORDS.get(kind, "null" if kind == "None" else kind) for kind in kinds)
    return f"option {name!r}{where} is {value!r}, but needs {words}"
