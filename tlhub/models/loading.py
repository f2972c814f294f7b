"""What every loading path shares: configurations, their labels and dropout, seeds and silence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig

from tlhub.config import REGRESSION, SINGLE_LABEL
from tlhub.errors import CheckpointError, TlhubError, is_disk_full, is_out_of_memory, is_panic
from tlhub.models.origin import Origin
from tlhub.models.timm_models import TIMM, plain_settings, unknown_name


@contextmanager
def damage(what: str, advice: str) -> Iterator[None]:
    """Tell as damage of a checkpoint whatever a library raises, inside the block, on files that are not as it expects.

    Args:
        what: The beginning of the message: what cannot be had of which checkpoint.
        advice: Its end: what to do.

    Raises:
        CheckpointError: Something was raised.
    """
    try:
        yield
    except TlhubError:
        raise
    except BaseException as error:
        # Of every kind: attributes that are not there, numbers too large; and panics of libraries written in Rust,
        # which are no Exception.
        if is_disk_full(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        if is_out_of_memory(error):
            advice = "memory does not suffice for it: free some, or take a smaller checkpoint"
        raise CheckpointError(f"{what} ({first_line(error)}); {advice}") from error


def read_settings(origin: Origin, auto_model: str) -> PreTrainedConfig:
    """Read a checkpoint's configuration and check that `auto_model` has a class for it.

    Raises:
        CheckpointError: It cannot be read, or its architecture does not do this task.
    """
    with damage(f"the config.json of {origin.name!r} cannot be used", "fetch the checkpoint again"):
        try:
            settings: PreTrainedConfig = transformers.AutoConfig.from_pretrained(origin.folder, trust_remote_code=False)
            labels_of(settings)
        except ImportError as error:
            raise CheckpointError(f"model.name {origin.name!r} needs a library that is not installed "
                                  f"({first_line(error)}); for models of timm: pip install 'tlhub[timm]'") from error
    if type(settings) not in getattr(transformers, auto_model)._model_mapping:
        task = auto_model.removeprefix("AutoModelFor")
        raise CheckpointError(
            f"model.name {origin.name!r} is of type {settings.model_type!r}, which transformers has no {task} class "
            "for; take a checkpoint of another kind"
        )
    if settings.model_type == TIMM and (words := unknown_name(settings.architecture)):
        raise CheckpointError(f"the config.json of {origin.name!r} asks for a model that is not there: {words}")
    return settings


def set_labels(settings: PreTrainedConfig, label_names: Sequence[str], problem_type: str | None = None) -> None:
    """Write the labels, their number and the kind of target, None for what it is, into a model's configuration.

    A language model has no labels: without any, the configuration stays as it is.
    """
    if not label_names:
        return
    settings.id2label = dict(enumerate(label_names))
    settings.label2id = {name: index for index, name in enumerate(label_names)}
    if problem_type is not None:
        settings.problem_type = cast(Any, problem_type)
    if settings.model_type == TIMM:
        plain_settings(settings, label_names)


def labels_of(settings: PreTrainedConfig) -> list[str]:
    """Return the labels that a configuration names, by class index."""
    names = {int(index): str(name) for index, name in (settings.id2label or {}).items()}
    return [names[index] for index in sorted(names)]


def problem_type_of(settings: PreTrainedConfig) -> str:
    """Return a configuration's kind of target; where it names none, a single output is taken for a regression."""
    named: str | None = settings.problem_type
    return named or (REGRESSION if settings.num_labels == 1 else SINGLE_LABEL)


def override_dropout(settings: PreTrainedConfig, value: float) -> None:
    """Set every dropout and stochastic-depth probability of a configuration."""
    for key, old in settings.to_dict().items():
        if isinstance(old, (int, float)) and not isinstance(old, bool) and (
            "dropout" in key or "drop_path" in key or key.endswith("_pdrop")
        ):
            setattr(settings, key, value)


def override_dropout_modules(model: nn.Module, value: float) -> None:
    """Set every dropout module's probability; for libraries whose probabilities are no part of the configuration."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = value
        elif type(module).__name__.endswith("DropPath") and "drop_prob" in vars(module):
            vars(module)["drop_prob"] = value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the process's generators as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' load report: what a checkpoint lacks is in `Checkpoint.new_parameters`."""
    logs: Any = transformers.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of an error, with the next where it ends in a colon, or its type where it has no words."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
