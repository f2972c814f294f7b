"""Models of sound: what transformers' own do at random in training, the order of their parts, and their frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig


def without_random_parts(settings: PreTrainedConfig) -> None:
    """Switch off what an architecture does at random in training beside dropout: its own masks, layers left out.

    The masks are drawn from numpy's global generator, which no checkpoint of a run holds, and fail on clips shorter
    than one of them; tlhub's own augmentation has them as a function of seed, epoch and example.
    """
    values: Any = settings
    keys = settings.to_dict().keys()
    for key in keys:
        if key.endswith("layerdrop"):
            setattr(values, key, 0.0)
    if "mask_time_prob" in keys:
        # data2vec's configuration does not have this one, and its model takes it for true then.
        values.apply_spec_augment = False


def in_order_of_computation(model: nn.Module) -> None:
    """Put the last norm of an encoder behind the layers, where transformers defines it before them.

    Blocks and freezing take the order of definition for that of computation.
    """
    for module in model.modules():
        if type(module).__name__.endswith(("EncoderStableLayerNorm", "ConformerEncoder")):
            parts = module._modules
            parts["layer_norm"] = parts.pop("layer_norm")


def keep_constants(model: nn.Module) -> None:
    """Make buffers of parameters that are not trained, so that they are saved and nothing more.

    They are Whisper's positions, sines that its class declares constant and `from_pretrained` trainable, and what the
    models of the wav2vec2 family put in the place of what they mask.
    """
    for module in list(model.modules()):
        if type(module).__name__ == "WhisperEncoder":
            _make_buffer(module.get_submodule("embed_positions"), "weight")
        if "masked_spec_embed" in module._parameters:
            _make_buffer(module, "masked_spec_embed")


def _make_buffer(module: nn.Module, name: str) -> None:
    values = getattr(module, name).detach()
    delattr(module, name)
    module.register_buffer(name, values)


def frame_mask(backbone: nn.Module, frames: int, mask: torch.Tensor) -> torch.Tensor:
    """Return which positions of the hidden states are an example's own, bool or as the mask, shape (B, frames).

    Args:
        backbone: The model without its head.
        frames: Number of positions of the hidden states.
        mask: What the model was given: of these positions, or of the samples (B, T) that convolutions make frames of.
    """
    reduce: Any = getattr(backbone, "_get_feature_vector_attention_mask", None)
    if reduce is None or mask.shape[1] == frames:
        return mask
    found: torch.Tensor = reduce(frames, mask)
    return found
