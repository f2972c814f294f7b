"""Less memory in training, for more time."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tlhub.errors import UsageError
from tlhub.models.loading import quiet


def recompute_blocks(model: nn.Module) -> None:
    """Keep only what goes into each block of the model, and compute its inside again for the gradient.

    Chen et al. (2016), "Training deep nets with sublinear memory cost". The gradients are the same, also under dropout,
    whose draws are repeated.

    Args:
        model: A model of transformers, with adapters or without, or one that holds one.

    Raises:
        UsageError: The architecture has no such blocks.
    """
    plain: Any = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if plain is None or not plain.supports_gradient_checkpointing:
        raise UsageError(f"--train.gradient_checkpointing True cannot be had with {type(plain or model).__name__}, "
                         "whose blocks transformers does not compute again; leave it out, or lower "
                         "--train.micro_batch_size")
    with quiet():
        plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if plain.main_input_name == "input_ids":
            # It has made the embedding's output need a gradient, which would then go through every frozen block.
            plain.disable_input_require_grads()
