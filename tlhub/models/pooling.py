"""From a backbone's hidden states to one feature vector for each example."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

SEQUENCE_DIMENSIONS = 3
PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "dist_token", "register_tokens", "reg_token")


def pool(backbone: nn.Module, outputs: Any, kind: str, mask: torch.Tensor | None) -> torch.Tensor:
    """Return one vector an example from the backbone's outputs.

    Args:
        backbone: The model without its head.
        outputs: What it returned: `last_hidden_state` (B, T, D) or (B, C, H, W), for `layer_mean` also `hidden_states`.
        kind: `"first"`, `"mean"` or `"layer_mean"`.
        mask: Attention mask (B, T); None where nothing is padded.

    Returns:
        Features (B, D).
    """
    if kind == "first":
        first: torch.Tensor = outputs.last_hidden_state[:, 0]
        return first
    skip = prefix_tokens(backbone)
    if kind == "mean":
        return mean_over_positions(outputs.last_hidden_state, mask, skip)
    return torch.stack([mean_over_positions(state, mask, skip) for state in outputs.hidden_states]).mean(0)


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
    tokens = 0
    for name, parameter in backbone.named_parameters():
        if name.rsplit(".", 1)[-1] in PREFIX_TOKENS:
            tokens += parameter.shape[-2] if parameter.dim() > 1 else 1
    return tokens


def reads_first_token(model: PreTrainedModel) -> bool:
    """Return whether the first position sums up the example: a class token, or the start of a two-way text encoder."""
    if prefix_tokens(model) > 0:
        return True
    kind = model.config.model_type
    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model.config.to_dict().get("is_decoder", False)
    )


def drop_pooler(backbone: nn.Module) -> nn.Module:
    """Take a trained pooler off, so that no parameter of the backbone stands idle when hidden states are pooled."""
    pooler = dict(backbone.named_children()).get("pooler")
    if pooler is not None and any(True for _ in pooler.parameters()):
        backbone.register_module("pooler", None)
    return backbone
