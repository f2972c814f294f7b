"""From a backbone's hidden states to one feature vector for each example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from tlhub.models.audio_models import frame_mask
from tlhub.models.timm_models import SEQUENCE_DIMENSIONS, inner, is_timm, states

OF_SEVERAL_SIZES = ("hidden_sizes", "depths", "embed_dims", "squeeze_factor")
"""Settings of architectures whose layers differ in width, or in length from what they return."""
_HEEDED = 1e-3
"""Difference of hidden states, as a share of the largest, that is more than rounding."""
PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "dist_token", "register_tokens", "reg_token")


def pooled_kinds(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the kinds of features that can be made of the architecture's hidden states.

    `first` is the first token where it sums up the example, `mean` the average over tokens, frames or places,
    `layer_mean` the average of `mean` over the layers (what the first of them reads included) where all have one size,
    `flatten` all tokens or places of a picture in a row.
    """
    backbone = backbone_of(model)
    if not is_timm(model) and (backbone is model or not isinstance(backbone, PreTrainedModel)):
        return ()
    kinds = ["first"] if reads_first_token(model) else []
    kinds.append("mean")
    if not is_timm(model) and model.config.to_dict().keys().isdisjoint(OF_SEVERAL_SIZES):
        kinds.append("layer_mean")
    if model.main_input_name == "pixel_values":
        kinds.append("flatten")
    return tuple(kinds)


def backbone_of(model: PreTrainedModel) -> nn.Module:
    """Return the part of a model that makes hidden states, for `run` and `pool`; for timm's, the wrapper itself."""
    return model.get_submodule(backbone_name(model)) if not is_timm(model) else model


def backbone_name(model: PreTrainedModel) -> str:
    """Return the name of the model's child that is its backbone; none where it has no head around one.

    It is the one that its class names, or else a first child that is a model of transformers by itself: Whisper's
    classifiers of sound keep its encoder alone, and their class names the whole.
    """
    children = dict(model.named_children())
    if model.base_model_prefix in children:
        return model.base_model_prefix
    first = next(iter(children), "")
    return first if isinstance(children.get(first), PreTrainedModel) else ""


def run(backbone: nn.Module, inputs: Mapping[str, torch.Tensor], *, layers: bool) -> Any:
    """Return a backbone's outputs for the model's keyword arguments.

    Args:
        backbone: From `backbone_of`.
        inputs: The keyword arguments.
        layers: Whether the hidden states of all layers are wanted.
    """
    if is_timm(backbone):
        return BaseModelOutput(last_hidden_state=states(backbone, inputs["pixel_values"]))
    return backbone(**inputs, output_hidden_states=layers)


def pool(backbone: nn.Module, outputs: Any, kind: str, mask: torch.Tensor | None) -> torch.Tensor:
    """Return one vector an example from the backbone's outputs.

    Args:
        backbone: The model without its head.
        outputs: What it returned: `last_hidden_state` (B, T, D) or (B, C, H, W), for `layer_mean` also `hidden_states`.
        kind: One of `pooled_kinds`.
        mask: Attention mask of tokens or samples (B, T); None where nothing is padded.

    Returns:
        Features (B, D).
    """
    if kind == "first":
        first: torch.Tensor = outputs.last_hidden_state[:, 0]
        return first
    skip = prefix_tokens(backbone)
    if mask is not None:
        mask = frame_mask(backbone, outputs.last_hidden_state.shape[1], mask)
    if kind == "mean":
        return mean_over_positions(outputs.last_hidden_state, mask, skip)
    if kind == "flatten":
        last: torch.Tensor = outputs.last_hidden_state
        return (last[:, skip:] if last.dim() == SEQUENCE_DIMENSIONS else last).flatten(1)
    return torch.stack([mean_over_positions(state, mask, skip) for state in outputs.hidden_states]).mean(0)


def heeds_padding(model: PreTrainedModel, alone: Mapping[str, torch.Tensor],
                  padded: Mapping[str, torch.Tensor]) -> bool:
    """Return whether what a model makes of an example depends on how far it is padded, though it is told of that.

    Norms over time, and convolutions that reach from the padding into the example, take no notice of a mask.

    Args:
        model: The model with its head.
        alone: Keyword arguments for one example without padding, `attention_mask` among them.
        padded: The same, with padding on the right.
    """
    backbone = backbone_of(model)
    if backbone is model:
        return True  # nothing shows it
    with torch.no_grad(), evaluating(model):
        states, others = (run(backbone, {name: value.to(model.device) for name, value in batch.items()},
                              layers=False).last_hidden_state for batch in (alone, padded))
    kept = frame_mask(backbone, states.shape[1], alone["attention_mask"].to(model.device))[0].bool()
    difference = (others[:, :states.shape[1]] - states)[:, kept].abs().max()
    return bool(difference > _HEEDED * states.abs().max())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode inside the block, and each back as it was behind it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def mean_over_positions(states: torch.Tensor, mask: torch.Tensor | None, skip: int = 0) -> torch.Tensor:
    """Average over the unpadded tokens of (B, T, D), the first `skip` left out, or over the places of (B, C, H, W)."""
    if states.dim() != SEQUENCE_DIMENSIONS:
        return states.flatten(2).mean(2)
    if mask is None:
        return states[:, skip:].mean(1)
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def prefix_tokens(backbone: nn.Module) -> int:
    """Return how many tokens of an image transformer stand before the patches (class, distillation, registers)."""
    if is_timm(backbone):
        return int(getattr(inner(backbone), "num_prefix_tokens", 0))
    tokens = 0
    for name, parameter in backbone.named_parameters():
        if name.rsplit(".", 1)[-1] in PREFIX_TOKENS:
            tokens += parameter.shape[-2] if parameter.dim() > 1 else 1
    return tokens


def reads_first_token(model: PreTrainedModel) -> bool:
    """Return whether the first position sums up the example: a class token, or the start of a two-way text encoder."""
    if is_timm(model) or prefix_tokens(model) > 0:
        return prefix_tokens(model) > 0
    kind = model.config.model_type
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model.config.to_dict().get("is_decoder", False)
    )


def reads_last_token(model: PreTrainedModel) -> bool:
    """Return whether the model's own classifier reads the last token: where each sees only those before it."""
    return (model.main_input_name == "input_ids" and model.config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
            and not reads_first_token(model))


def drop_pooler(backbone: nn.Module) -> nn.Module:
    """Take a trained pooler off, so that no parameter of the backbone stands idle when hidden states are pooled."""
    pooler = dict(backbone.named_children()).get("pooler")
    if pooler is not None and any(True for _ in pooler.parameters()):
        backbone.register_module("pooler", None)
    return backbone


def keep_backbone(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Take everything off a model but its child `name`, where only the model itself can be saved and loaded again."""
    for other in [other for other, _ in model.named_children() if other != name]:
        model.register_module(other, None)
    for other in [other for other, _ in model.named_parameters(recurse=False)]:
        model.register_parameter(other, None)
    return model
