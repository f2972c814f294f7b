"""Putting a checkpoint and a head together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from tlhub.config import POOLS, ModelConfig
from tlhub.errors import CheckpointError
from tlhub.limits import head_widths
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.heads import (
    HeadForm,
    PooledClassifier,
    output_layer,
    output_parameters,
    pooled_classifier,
    write_output_layer,
)
from tlhub.models.pooling import pooled_kinds


def with_head(checkpoint: Checkpoint, model: ModelConfig, *, seed: int,
              sample: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return the checkpoint's model with the head that `model` asks for.

    A linear head on `native` features is the one that transformers gives the architecture; everything else takes that
    one off and puts a head of tlhub's own in its place.

    Args:
        checkpoint: The checkpoint; its model is taken apart.
        model: Form of the head, and what it reads.
        seed: What the head is drawn from.
        sample: Keyword arguments of the model for one example.

    Raises:
        CheckpointError: The architecture has no such features.
        UsageError: `model.head` is neither `linear` nor widths.
    """
    kind = "native" if model.pool == "auto" else model.pool
    if kind == "native" and not head_widths(model.head):
        return checkpoint.model
    return with_pooled_head(checkpoint, kind, model, seed=seed, sample=sample)


def with_pooled_head(checkpoint: Checkpoint, kind: str, model: ModelConfig, *, seed: int,
                     sample: Mapping[str, torch.Tensor]) -> PooledClassifier:
    """Return the checkpoint's backbone with a fresh head, linear or an MLP, on one kind of features.

    Args:
        checkpoint: The checkpoint; its model is taken apart.
        kind: One of `tlhub.models.features.FEATURES`.
        model: Form of the head.
        seed: What the head is drawn from.
        sample: Keyword arguments of the model for one example: a dry run tells the width of the features.

    Raises:
        CheckpointError: The architecture has no such features; flattened ones are those of pictures only.
        UsageError: `model.head` is neither `linear` nor widths.
    """
    if kind != "native" and kind not in (kinds := pooled_kinds(checkpoint.model)):
        raise CheckpointError(f"--model.pool {kind!r} cannot be had from checkpoint {checkpoint.origin.name!r} of type "
                              f"{checkpoint.model.config.model_type!r}; take one of: "
                              f"{', '.join(name for name in ('native', *kinds) if name in POOLS)}")
    form = HeadForm(head_widths(model.head), model.activation, model.head_dropout)
    return pooled_classifier(checkpoint.model, kind, form, seed=seed, sample=sample)


def with_linear_head(checkpoint: Checkpoint, kind: str, weight: torch.Tensor,
                     bias: torch.Tensor | None) -> nn.Module:
    """Return the checkpoint's model with a fitted linear head on one kind of features.

    Args:
        checkpoint: The checkpoint; its model is changed.
        kind: One of `tlhub.models.features.FEATURES`; a `native` head goes into the model's own last layer.
        weight: Shape (classes, d).
        bias: Shape (classes,), or None.
    """
    if kind == "native":
        write_output_layer(checkpoint.model, weight, bias)
        return checkpoint.model
    model = pooled_classifier(checkpoint.model, kind, HeadForm(), seed=0)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    model.head = nn.Sequential(linear)
    return model


def head_parameters(model: nn.Module) -> Callable[[str], bool]:
    """Return a test that tells the head's parameters by name from the backbone's."""
    if isinstance(model, PooledClassifier):
        return lambda name: name.startswith("head.")
    own = output_parameters(model)
    return lambda name: name in own


def head_module(model: nn.Module) -> nn.Module:
    """Return the module that maps features (b, d) to logits (b, classes)."""
    return model.head if isinstance(model, PooledClassifier) else output_layer(model)[1]


def lay_out(model: nn.Module) -> nn.Module:
    """Return the model with its weights in the layout that is fastest: channels last where it has convolutions.

    Convolutions follow the layout of their weights; on CPUs their backward pass is many times faster so, and on GPUs
    tensor cores need it. Values are unchanged.
    """
    if any(isinstance(module, nn.Conv2d) for module in model.modules()):
        # torch types this argument as a device or dtype only.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
