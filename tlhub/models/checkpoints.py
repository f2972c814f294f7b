"""Loading a checkpoint with a head for the task at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tlhub.config import ModelConfig
from tlhub.errors import CheckpointError
from tlhub.models.heads import output_layer, output_parameters
from tlhub.models.origin import Origin, resolve_origin
from tlhub.models.processors import load_processor, match_padding
from tlhub.seeding import derive

LEAST_BROUGHT = 0.5
"""Share of the backbone's numbers below which the weights are taken to belong to something else."""
LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, SafetensorError)


@dataclass
class Checkpoint:
    """A model with its processor.

    Attributes:
        model: The model with its head, in float32, in evaluation mode.
        processor: What turns raw inputs into the model's arguments.
        origin: Where it comes from.
        new_parameters: Names of the parameters that the checkpoint did not bring.
    """

    model: PreTrainedModel
    processor: Any
    origin: Origin
    new_parameters: frozenset[str]


def load_checkpoint(
    config: ModelConfig, *, auto_model: str, auto_processor: str, label_names: tuple[str, ...], pretrained: bool,
    seed: int,
) -> Checkpoint:
    """Load a checkpoint, with an output for each label.

    A head whose own labels are the same set is kept, its rows in the order of `label_names`; otherwise the output
    layer is fresh. What is fresh is drawn from `seed` alone.

    Args:
        config: Which checkpoint, and its dropout.
        auto_model: transformers' class, such as `"AutoModelForImageClassification"`.
        auto_processor: transformers' class, such as `"AutoImageProcessor"`.
        label_names: The labels; their position is the class index.
        pretrained: False gives the same architecture with fresh weights throughout.
        seed: The run's seed.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, pickled, or of a kind that does not fit the task.
    """
    origin = resolve_origin(config.name, config.revision)
    settings = read_settings(origin, auto_model)
    processor = load_processor(origin, auto_processor)
    own_labels = _labels_of(settings)
    keeps_head = pretrained and set(own_labels) == set(label_names) and len(own_labels) == len(label_names)
    set_labels(settings, own_labels if keeps_head else label_names)
    if config.dropout is not None:
        override_dropout(settings, config.dropout)
    match_padding(settings, processor, origin.name)
    with seeded(derive(seed, "weights")):
        if pretrained:
            model, new = _read_weights(origin, settings, auto_model)
        else:
            model = getattr(transformers, auto_model).from_config(settings, dtype=torch.float32)
            new = frozenset(name for name, _ in model.named_parameters())
    if not (keeps_head and new.isdisjoint(output_parameters(model))):
        renew_output_layer(model, seed)
        new |= output_parameters(model)
    else:
        permute_output_layer(model, [own_labels.index(name) for name in label_names])
    set_labels(model.config, label_names)
    if config.dropout is not None:
        override_dropout_modules(model, config.dropout)
    return Checkpoint(model.eval(), processor, origin, new)


def read_settings(origin: Origin, auto_model: str) -> PreTrainedConfig:
    """Read a checkpoint's configuration and check that `auto_model` has a class for it.

    Raises:
        CheckpointError: It cannot be read, or its architecture does not do this task.
    """
    try:
        settings: PreTrainedConfig = transformers.AutoConfig.from_pretrained(origin.folder, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise CheckpointError(f"the config.json of {origin.name!r} cannot be used: {first_line(error)}") from error
    if type(settings) not in getattr(transformers, auto_model)._model_mapping:
        task = auto_model.removeprefix("AutoModelFor")
        raise CheckpointError(
            f"{origin.name!r} is of type {settings.model_type!r}, which transformers has no {task} class for; "
            "take a checkpoint of another kind"
        )
    return settings


def _read_weights(origin: Origin, settings: PreTrainedConfig, auto_model: str) -> tuple[PreTrainedModel, frozenset[str]]:
    with quiet():
        try:
            model, info = getattr(transformers, auto_model).from_pretrained(
                origin.folder, config=settings, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                ignore_mismatched_sizes=True, trust_remote_code=False, output_loading_info=True,
            )
        except LOADING_ERRORS as error:
            raise CheckpointError(f"the weights of {origin.name!r} cannot be read: {first_line(error)}") from error
    mismatched = frozenset(item[0] if isinstance(item, tuple) else item for item in info["mismatched_keys"])
    head = output_parameters(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name not in head}
    if wrong := sorted((mismatched - head) & sizes.keys()):
        raise CheckpointError(
            f"the weights of {origin.name!r} do not fit its config.json: {wrong[0]!r} has another shape; "
            "the checkpoint is damaged"
        )
    new = (frozenset(info["missing_keys"]) | mismatched) & (head | sizes.keys())
    brought = 1 - sum(sizes[name] for name in new if name in sizes) / max(sum(sizes.values()), 1)
    if brought < LEAST_BROUGHT:
        raise CheckpointError(
            f"the weights of {origin.name!r} hold {brought:.0%} of what its config.json describes; "
            "the checkpoint is damaged or of another architecture"
        )
    return model, new


def _labels_of(settings: PreTrainedConfig) -> list[str]:
    names: dict[int, str] = settings.id2label or {}
    return [str(names[index]) for index in sorted(names)]


def set_labels(settings: PreTrainedConfig, label_names: tuple[str, ...] | list[str]) -> None:
    """Write the labels and their number into a model's configuration."""
    settings.id2label = dict(enumerate(label_names))
    settings.label2id = {name: index for index, name in enumerate(label_names)}
    settings.problem_type = "single_label_classification"


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


def renew_output_layer(model: PreTrainedModel, seed: int) -> None:
    """Draw the output layer again from `seed`: weights as the architecture draws them, or normal, and a zero bias."""
    _, layer = output_layer(model)
    deviation = float(model.config.to_dict().get("initializer_range") or 1.0 / layer.in_features**0.5)
    generator = torch.Generator().manual_seed(derive(seed, "head"))
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * deviation)
        if layer.bias is not None:
            layer.bias.zero_()


def permute_output_layer(model: nn.Module, order: list[int]) -> None:
    """Put the rows of the output layer in the given order of their old positions."""
    _, layer = output_layer(model)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order].clone())
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order].clone())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block, and leave the process's generators as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' load report: what a checkpoint lacks is in `Checkpoint.new_parameters`."""
    level = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its type where it has no words."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
