"""Optimizers, their parameter groups, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tlhub.config import TrainConfig


def parameter_groups(model: nn.Module, train: TrainConfig, *, layer_decay: float | None,
                     blocks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the trained parameters in groups of equal learning rate and weight decay.

    With `layer_decay` d, block i of 0..L has learning rate lr * d**(L - i), as in ELECTRA (Clark et al. 2020). Biases,
    norms and other vectors get no weight decay.

    Args:
        model: The model; parameters that need no gradient are left out.
        train: Learning rate and weight decay.
        layer_decay: The factor d, or None for one learning rate.
        blocks: Block index of every parameter name.

    Returns:
        Groups with `params`, `lr`, `peak_lr` (what the schedule scales), `weight_decay` and `names`.
    """
    assert train.learning_rate is not None
    assert train.weight_decay is not None
    top = max(blocks.values(), default=0)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = train.learning_rate * (layer_decay ** (top - blocks[name]) if layer_decay is not None else 1.0)
        decay = train.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "names": [], "lr": rate, "peak_lr": rate,
                                                  "weight_decay": decay})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build(groups: list[dict[str, Any]], train: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer; fused where torch has it, whose step can be skipped on the device without asking the host.

    RMSprop averages squared gradients over ten steps (decay 0.9), as Hinton proposed it and Keras has it.
    """
    rate = train.learning_rate or 0.0
    if train.optimizer == "sgd":
        return _with_momentum(torch.optim.SGD(groups, lr=rate, momentum=train.momentum, fused=True))
    if train.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, alpha=0.9, eps=1e-7)
    kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(0.9, 0.999), fused=True)


def _with_momentum(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """Begin every momentum with zeros.

    Left to itself the fused step takes the first gradient for it: of a first step that is skipped there remains what
    was in memory, and parameters whose first gradient comes later than that of others are refused.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def learning_rate_factor(step: int, total_steps: int, train: TrainConfig) -> float:
    """Return what the peak learning rate is multiplied by in a step: linear warm-up, then the schedule.

    Args:
        step: Steps done before this one, from 0.
        total_steps: Steps of the whole run.
        train: `warmup_fraction` and `schedule`.
    """
    warmup = max(1, round(train.warmup_fraction * total_steps)) if train.warmup_fraction > 0 else 0
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    if train.schedule == "linear":
        return 1.0 - progress
    if train.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as named tensors, for a safetensors file."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entries in state.items() for key, value in entries.items()
            if isinstance(value, torch.Tensor)}


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` returned; the groups stay as they are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        # Fused steps walk through memory, so a moment has to lie there as its parameter does.
        laid_out = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.ndim else value
        state.setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
