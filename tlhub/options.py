"""From command lines, YAML files and keyword arguments to a checked `RunConfig`, without importing torch."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tlhub import config as fields
from tlhub.config import IDENTITY_EXCLUDES, METHODS_WITHOUT, SECTIONS, SHORT_OPTIONS, RunConfig
from tlhub.errors import UsageError, nearest
from tlhub.limits import check_values
from tlhub.parsers import FINETUNE, option_names, suggestion, typed
from tlhub.registry import STRATEGIES, TASKS
from tlhub.yaml_files import read_mapping

logger = logging.getLogger(__name__)

_DECIDING = ("model.name", "data.source", "data.max_train_examples", "strategy.name", "train.optimizer")
"""What the values depend on that a run fills in by itself (`tlhub/training/defaults.py`)."""


def parse(argv: Sequence[str]) -> RunConfig:
    """Return the run that a command line asks for.

    Args:
        argv: What follows `tlhub finetune`.

    Raises:
        UsageError: An option is unknown, has a wrong type or value, or would have no effect.
        SystemExit: After `--help`.
    """
    choices = FINETUNE.arguments(argv)
    return from_kwargs(**{name: value for name, value in choices.items() if name not in ("overwrite", "debug")})


def from_kwargs(task: str | None = None, *, config: str | None = None, **choices: Any) -> RunConfig:
    """Return the run that keyword arguments ask for.

    Args:
        task: What is predicted; may come from the file.
        config: A YAML file to start from; `choices` win over it.
        choices: Sections as dictionaries, plain strings for sections, or short options.

    Raises:
        UsageError: An option is unknown, has a wrong type or value, or would have no effect.
    """
    named = typed(flatten({**choices, **({"task": task} if task else {})}))
    values = _over(_from_file(str(config), named), named) if config else named
    if cut := [name for name, value in values.items() if isinstance(value, str) and "\0" in value]:
        raise UsageError(f"option {cut[0]!r} is {values[cut[0]]!r}, with a zero byte in it; leave that out")
    result = fields.replace(RunConfig(), values)
    check(result)
    _refuse_without_effect(result, values)
    return result


def flatten(choices: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return nested options by dotted name: `{"strategy": "lora"}` is `{"strategy.name": "lora"}`.

    Args:
        choices: As in a YAML file.
        where: Appended to messages, such as ` in run.yaml`.

    Raises:
        UsageError: There is no such option.
    """
    values: dict[str, Any] = {}
    for name, value in choices.items():
        if name in SECTIONS and isinstance(value, Mapping):
            values.update({f"{name}.{key}": inner for key, inner in value.items()})
        elif name == "task_options" and isinstance(value, Mapping):
            values.update({f"task_options.{key}": inner for key, inner in value.items()})
        elif name in SECTIONS and name not in SHORT_OPTIONS:
            raise UsageError(f"option {name!r}{where} is {value!r}, but holds options of its own, such as "
                             f"{dataclasses.fields(SECTIONS[name])[0].name!r}")
        else:
            values[SHORT_OPTIONS.get(name, name)] = value
    known = (*option_names(), *SECTIONS, *SHORT_OPTIONS)
    for name in values:
        if name not in option_names():
            raise UsageError(f"option {name!r}{where} is not known; {suggestion(name, known)}")
    return values


def dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's nested values by dotted name, without those that are None."""
    flat = {f"{section}.{key}": inner for section, value in values.items() if isinstance(value, Mapping)
            for key, inner in value.items()}
    flat |= {name: value for name, value in values.items() if not isinstance(value, Mapping)}
    return {name: value for name, value in flat.items() if value is not None}


def check(config: RunConfig) -> None:
    """Check names and ranges.

    Raises:
        UsageError: A name is unknown, a value is out of its range, or the model or the data is missing.
    """
    if not config.task:
        raise UsageError(f"no task is given; {nearest('', TASKS.names())}")
    TASKS.check(config.task)
    _check_task_options(config)
    STRATEGIES.check(config.strategy.name)
    if config.task in fields.GENERATION_TASKS and config.strategy.name in fields.FEATURE_STRATEGIES:
        others = ", ".join(name for name in STRATEGIES.names() if name not in fields.FEATURE_STRATEGIES)
        raise UsageError(f"--strategy {config.strategy.name!r} begins with a new head on frozen features, and "
                         f"{config.task} keeps the checkpoint's own last layer; take one of: {others}")
    if config.task == "wake-word" and not fields.task_options(config).keyword:
        raise UsageError("no keyword is given; name the class to be spotted: --keyword NAME (several: --keyword A,B)")
    if not config.model.name:
        raise UsageError("no model is given; name a Hub id, a folder or a run: --model NAME")
    if not config.data.source:
        raise UsageError("no data is given; name a folder, a file or a Hub id: --data SOURCE")
    check_values(config)


def effective(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested plain values, with only the fields that have an effect in this run."""
    values = fields.as_dict(config)
    for section, cls in SECTIONS.items():
        names = [f"{section}.{field.name}" for field in dataclasses.fields(cls)]
        for name in without_effect(config, names):
            del values[section][name.partition(".")[2]]
    del values["task_options"]
    if config.task in fields.TASK_OPTIONS:
        values["task_options"] = dataclasses.asdict(fields.task_options(config))
    return values


def identity(config: RunConfig) -> dict[str, Any]:
    """Return what makes two configurations the same: the effective fields without `IDENTITY_EXCLUDES`."""
    values = effective(config)
    for name in IDENTITY_EXCLUDES:
        section, _, key = name.partition(".")
        (values[section] if key else values).pop(key or section, None)
    return values


def why_without_effect(metadata: Mapping[str, Any], config: RunConfig) -> str | None:
    """Return why a field with this metadata has no effect in the run; None where it has one."""
    problem = fields.problem_type(config)
    limits = (("task", config.task, metadata["tasks"]), ("strategy", config.strategy.name, metadata["strategies"]),
              ("kind of target", problem, metadata["problems"] if problem else ()))
    for kind, chosen, valid in limits:
        if valid and chosen not in valid:
            return f"{kind} {chosen!r} (it has with: {', '.join(valid)})"
    (other, values), (against, excluded) = metadata["requires"], metadata["unless"]
    if other and fields.value_of(config, other) not in values:
        return f"{other} {fields.value_of(config, other)!r} (it has with: {', '.join(map(str, values))})"
    if against and fields.value_of(config, against) in excluded:
        return f"{against} {fields.value_of(config, against)!r}"
    return None


def without_effect(config: RunConfig, names: Sequence[str]) -> dict[str, str]:
    """Return those of the named options that have no effect in the run, each with the reason."""
    reasons: dict[str, str] = {}
    for name in names:
        section, _, key = name.partition(".")
        if section not in SECTIONS or not key:
            continue
        metadata = {field.name: field.metadata for field in dataclasses.fields(SECTIONS[section])}[key]
        reason = why_without_effect(metadata, config)
        if reason is not None:
            reasons[name] = reason
        elif section == "strategy" and key in METHODS_WITHOUT.get(config.strategy.method, ()):
            reasons[name] = f"strategy.method {config.strategy.method!r}"
    return reasons


def check_problem(config: RunConfig) -> None:
    """Check the options once the data have told the kind of target (`data.problem_type`).

    Raises:
        UsageError: An option other than its default has no effect with this kind of target.
    """
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            name = f"{section}.{field.name}"
            value, default = fields.value_of(config, name), fields.value_of(RunConfig(), name)
            reason = without_effect(config, [name]).get(name) if field.metadata["problems"] else None
            if value != default and reason is not None:
                raise UsageError(f"option {name!r} (given: {value!r}) has no effect with {reason}; leave it out")


def _check_task_options(config: RunConfig) -> None:
    owner = fields.TASK_OPTIONS.get(config.task)
    valid = {field.name for field in dataclasses.fields(owner)} if owner is not None else set()
    for name in config.task_options:
        if name not in valid:
            raise UsageError(f"option 'task_options.{name}' has no effect in task {config.task!r}; leave it out")


def _refuse_without_effect(config: RunConfig, values: Mapping[str, Any]) -> None:
    given = [name for name, value in values.items() if value is not None]
    for name, reason in without_effect(config, given).items():
        raise UsageError(f"option {name!r} (given: {values[name]!r}) has no effect with {reason}; leave it out")


def _from_file(path: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a YAML file, less those which a strategy named elsewhere makes meaningless."""
    content = _read_yaml(path)
    where = f" in {path}"
    record = content.pop("record", None)
    if record is not None and content.pop("out", None) is not None and "out" not in named:
        logger.info("%s records a run: its folder is left alone, --out names another one", path)
    values = typed(flatten(content, where), where)
    if isinstance(record, dict) and isinstance(record.get("given"), dict):
        values = _still_given(values, flatten(record["given"], where), named, path)
    if "strategy.name" not in named:
        return values
    config = fields.replace(RunConfig(), {**values, **named})
    dropped = {name for name in values if name.startswith("strategy.")}
    dropped |= set(without_effect(config, [name for name in values if values[name] is not None]))
    told = sorted(dropped - {"strategy.name"} - set(named))
    if told:
        logger.info("strategy %r is named, so these options of %s are left out: %s", named["strategy.name"], path,
                    ", ".join(told))
    return {name: value for name, value in values.items() if name not in dropped}


def _over(values: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's options with those named elsewhere in their place, those of the task one by one."""
    own = {name: value for found in (values, named) for name, value in found.get("task_options", {}).items()}
    return {**values, **named, **({"task_options": own} if own else {})}


def _still_given(values: Mapping[str, Any], given: Mapping[str, Any], named: Mapping[str, Any],
                 path: str) -> dict[str, Any]:
    """Return a recorded run's options, less those which it filled in itself and which something named here decides.

    Args:
        values: The options as the run resolved them.
        given: The options as the run was given them.
        named: The options named elsewhere.
        path: Of the file, for the message.
    """
    changed = [name for name in _DECIDING if name in named and named[name] != values.get(name)]
    filled = [name for name, value in values.items() if value not in (None, []) and name in given
              and given[name] in (None, []) and name not in named] if changed else []
    if filled:
        logger.info("%s is not that of %s, so what the run filled in itself is chosen anew: %s", " and ".join(changed),
                    path, ", ".join(sorted(filled)))
    return {name: value for name, value in values.items() if name not in filled}


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = read_mapping(path)
    except OSError as error:
        raise UsageError(f"--config {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config {path!r} {error}; write lines such as 'strategy: lora'") from error
    if not content:
        raise UsageError(f"--config {path!r} holds no options; write lines such as 'strategy: lora'")
    return content
