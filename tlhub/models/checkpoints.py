"""Loading a checkpoint with a head for the task at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from tlhub.config import NEXT_TOKEN, SINGLE_LABEL, ModelConfig
from tlhub.errors import CheckpointError
from tlhub.models.adapters import plain_folder
from tlhub.models.audio_models import in_order_of_computation, keep_constants, without_random_parts
from tlhub.models.blocks import blocks
from tlhub.models.bounds import bounded
from tlhub.models.heads import output_layer, output_parameters
from tlhub.models.inspection import brought_by
from tlhub.models.loading import (
    damage,
    labels_of,
    override_dropout,
    override_dropout_modules,
    problem_type_of,
    quiet,
    read_settings,
    seeded,
    set_labels,
)
from tlhub.models.next_token import check_language_model
from tlhub.models.origin import GENERATION_SETTINGS, Origin, resolve_origin
from tlhub.models.processors import load_processor, match_padding
from tlhub.models.timm_models import draw_weights, inner, is_timm
from tlhub.seeding import derive

LEAST_BROUGHT = 0.5
"""Share of the backbone's numbers below which the weights are taken to belong to something else."""


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
    config: ModelConfig, *, auto_model: str, auto_processor: str, label_names: tuple[str, ...],
    problem_type: str = SINGLE_LABEL, pretrained: bool, seed: int,
) -> Checkpoint:
    """Load a checkpoint, with an output for each label.

    A head whose own labels are the same set, of the same kind of target, is kept, its rows in the order of
    `label_names`; otherwise the output layer is fresh. What is fresh is drawn from `seed` alone.

    Args:
        config: Which checkpoint, and its dropout.
        auto_model: transformers' class, such as `"AutoModelForImageClassification"`.
        auto_processor: transformers' class, such as `"AutoImageProcessor"`.
        label_names: The labels, or the targets of a regression; their position is that of the output.
        problem_type: Kind of target, by transformers' name.
        pretrained: False gives the same architecture with fresh weights throughout.
        seed: The run's seed.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, pickled, or of a kind that does not fit the task.
    """
    return load_origin(
        resolve_origin(config.name, config.revision, weights=pretrained), auto_model=auto_model,
        auto_processor=auto_processor, label_names=label_names, problem_type=problem_type, pretrained=pretrained,
        seed=seed, dropout=config.dropout)


def load_origin(
    origin: Origin, *, auto_model: str, auto_processor: str, label_names: tuple[str, ...], problem_type: str,
    pretrained: bool = True, seed: int = 0, dropout: float | None = None,
) -> Checkpoint:
    """Load a checkpoint whose files have been found (see `load_checkpoint`).

    Raises:
        CheckpointError: It is damaged, or of a kind that does not fit the task.
    """
    if problem_type == NEXT_TOKEN:
        return _load_language_model(origin, auto_model, auto_processor, pretrained=pretrained, seed=seed,
                                    dropout=dropout)
    with plain_folder(origin, auto_model) as folder:
        plain = replace(origin, folder=folder)
        settings = read_settings(plain, auto_model)
        processor = load_processor(origin, auto_processor)
        own_labels = labels_of(settings)
        keeps_head = (pretrained and sorted(own_labels) == sorted(label_names)
                      and problem_type == problem_type_of(settings))
        set_labels(settings, own_labels if keeps_head else label_names, problem_type)
        without_random_parts(settings)
        if dropout is not None:
            override_dropout(settings, dropout)
        match_padding(settings, processor, origin.name)
        with seeded(derive(seed, "weights")):
            model, new = (_read_weights if pretrained else _fresh)(plain, settings, auto_model)
    in_order_of_computation(model)
    keep_constants(model)
    new &= {name for name, _ in model.named_parameters()}
    if keeps_head and new.isdisjoint(output_parameters(model)):
        permute_output_layer(model, [own_labels.index(name) for name in label_names])
    else:
        renew_output_layer(model, seed)
        new |= output_parameters(model)
    set_labels(model.config, label_names, problem_type)
    if dropout is not None:
        override_dropout_modules(model, dropout)
    _check_tokens(model, processor, origin.name)
    if is_timm(model) and inner(model).get_classifier() is not output_layer(model)[1]:
        raise CheckpointError(f"model.name {origin.name!r} ({model.config.architecture}) does not end in one linear "
                              "layer, which is what tlhub trains of a model of timm; take another one")
    model.train(mode=False)
    return Checkpoint(model, processor, origin, new)


def _check_tokens(model: PreTrainedModel, processor: Any, name: str) -> None:
    if isinstance(processor, PreTrainedTokenizerBase):
        embeddings: Any = model.get_input_embeddings()
        known, read = max(processor.get_vocab().values(), default=0), int(embeddings.num_embeddings)
        if known >= read:
            raise CheckpointError(f"the tokenizer of {name!r} has tokens up to number {known}, and the model reads "
                                  f"those up to {read - 1}; its files do not belong together")


def _load_language_model(origin: Origin, auto_model: str, auto_processor: str, *, pretrained: bool, seed: int,
                         dropout: float | None) -> Checkpoint:
    """Load a model with its own last layer, which gives the logits of the next token.

    Its padding token stays what it is: where that were the end of text, embeddings of many architectures would learn
    nothing of the end of text.
    """
    with plain_folder(origin, auto_model) as folder:
        plain = replace(origin, folder=folder)
        settings = read_settings(plain, auto_model)
        processor = load_processor(origin, auto_processor)
        if dropout is not None:
            override_dropout(settings, dropout)
        with seeded(derive(seed, "weights")):
            model, new = (_read_weights if pretrained else _fresh)(plain, settings, auto_model)
        if (folder / GENERATION_SETTINGS).exists():
            with damage(f"the {GENERATION_SETTINGS} of {origin.name!r} cannot be used", "fetch the checkpoint again"):
                model.generation_config = GenerationConfig.from_pretrained(folder)
    if dropout is not None:
        override_dropout_modules(model, dropout)
    model.train(mode=False)
    check_language_model(model, processor, origin.name)
    outside = {name for block in blocks(model) if block.name == "head" for name in block.prefixes}
    if pretrained and (lacking := sorted(new & outside)):
        raise CheckpointError(f"model.name {origin.name!r} brings no weights for the last layer of "
                              f"{type(model).__name__} ({lacking[0]!r}), so it was not trained to go on with a text; "
                              "take a checkpoint that was, or --strategy scratch")
    return Checkpoint(model, processor, origin, new)


def _fresh(origin: Origin, settings: PreTrainedConfig, auto_model: str) -> tuple[PreTrainedModel, frozenset[str]]:
    with bounded(origin.name, None), damage(f"no model can be made of the config.json of {origin.name!r}",
                                            "fetch the checkpoint again"):
        model = getattr(transformers, auto_model).from_config(settings, dtype=torch.float32)
    if is_timm(model):
        draw_weights(model)
    return model, frozenset(name for name, _ in model.named_parameters())


def _read_weights(
    origin: Origin, settings: PreTrainedConfig, auto_model: str
) -> tuple[PreTrainedModel, frozenset[str]]:
    with quiet(), bounded(origin.name, brought_by(origin.folder.glob("*.safetensors"), origin.name)), \
            damage(f"the weights of {origin.name!r} cannot be read", "damaged or incomplete, fetch them again"):
        model, info = getattr(transformers, auto_model).from_pretrained(
            origin.folder, config=settings, dtype=torch.float32, use_safetensors=True, local_files_only=True,
            ignore_mismatched_sizes=True, trust_remote_code=False, output_loading_info=True,
        )
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
