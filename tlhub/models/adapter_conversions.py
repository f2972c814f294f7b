"""Adapters rewritten as the plain LoRA that they equal, so that every loader understands them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

START = "pissa_start"
"""Name of the buffers that keep what PiSSA took out of the base weights."""


def pissa_as_lora(state: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a LoRA of twice the rank that equals PiSSA's change of the untouched base.

    `W_residual + B A = W + (B A - B0 A0) = W + [B, -B0] [A; A0]`, after Meng, Wang and Zhang (2024), "PiSSA: Principal
    Singular Values and Singular Vectors Adaptation of Large Language Models".

    Args:
        state: The adapter's tensors: A of shape (r, inputs), B of shape (outputs, r), and others, which are kept.
        buffers: The model's buffers, with A0 and B0 beside each adapted layer.
    """
    whole = {}
    for name, tensor in state.items():
        path, _, rest = name.rpartition(".lora_")
        if rest.startswith("A"):
            whole[name] = torch.cat([tensor, buffers[f"{path}.{START}_A"]], dim=0)
        elif rest.startswith("B"):
            whole[name] = torch.cat([tensor, -buffers[f"{path}.{START}_B"]], dim=1)
        else:
            whole[name] = tensor
    return whole


def vera_as_lora(
    state: Mapping[str, torch.Tensor], layers: Mapping[str, tuple[torch.Tensor, ...]]
) -> dict[str, torch.Tensor]:
    """Return the LoRA that VeRA's scaled shared projections are: (diag(b) B) (diag(d) A).

    Kopiczko, Blankevoort and Asano (2024), "VeRA: Vector-based Random Matrix Adaptation".

    Args:
        state: The adapter's tensors, those of the head among them.
        layers: For each adapted layer the shared A (r, inputs) and B (outputs, r), its d (r,) and b
            (outputs,).
    """
    whole = {name: tensor for name, tensor in state.items() if "vera_" not in name}
    for path, (first, second, inner, outer) in layers.items():
        whole[f"{path}.lora_A.weight"] = inner[:, None] * first
        whole[f"{path}.lora_B.weight"] = outer[:, None] * second
    return whole


def name_magnitudes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with DoRA's magnitudes under names that transformers' own loading finds as well as peft's."""
    return {f"{name}.weight" if name.endswith("lora_magnitude_vector") else name: tensor
            for name, tensor in state.items()}
