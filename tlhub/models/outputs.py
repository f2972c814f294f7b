"""From the outputs that a model is trained on to those it is kept with, and the last layer changed accordingly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tlhub.models.heads import output_layer


@dataclass(frozen=True)
class OutputMap:
    """An affine map of each output, and a second output where one sigmoid tells two classes apart.

    Standardised targets are undone by the target's deviation and mean, a temperature T is the factor 1 / T, and the
    logit z of a sigmoid is the pair (0, z), whose softmax is the same.

    Attributes:
        scale: Factor of each output, float64, shape (c,), or (1,) for one factor for all of them.
        shift: Added to each output, float64, of the same shape.
        sigmoid: Whether an output of 0 is put before the only one.
    """

    scale: np.ndarray
    shift: np.ndarray
    sigmoid: bool = False

    def apply(self, outputs: np.ndarray) -> np.ndarray:
        """Return final outputs, float32, shape (n, c), from those of the model as it is trained, shape (n, k)."""
        values = outputs.astype(np.float64) * self.scale + self.shift
        if self.sigmoid:
            values = np.concatenate([np.zeros_like(values), values], axis=1)
        final: np.ndarray = values.astype(np.float32)
        return final

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """Return the outputs that a model is trained towards, float64, for final values, shape (n, c)."""
        standardised: np.ndarray = (values - self.shift) / self.scale
        return standardised

    def inverse(self) -> OutputMap:
        """Return the map from final outputs back to those that are trained.

        Raises:
            ValueError: It has a second output.
        """
        if self.sigmoid:
            raise ValueError("two outputs do not go back into one")
        return OutputMap(1 / self.scale, -self.shift / self.scale)

    def fold(self, model: nn.Module) -> None:
        """Change the model's last layer so that it gives what `apply` makes of its outputs.

        Raises:
            ValueError: It shifts, and the layer has no bias.
        """
        if self is IDENTITY:
            return
        name, layer = output_layer(model)
        if layer.bias is None and self.shift.any():
            raise ValueError(f"the layer {name!r} has no bias to take a shift of {self.shift}")
        weight, bias = layer.weight.detach().double(), layer.bias
        scale, shift = (torch.from_numpy(values).to(weight.device) for values in (self.scale, self.shift))
        weight = weight * scale[:, None]
        shifted = torch.zeros(len(weight), device=weight.device) if bias is None else bias.detach().double() * scale
        shifted = shifted + shift
        if self.sigmoid:
            weight = torch.cat([torch.zeros_like(weight), weight])
            shifted = torch.cat([torch.zeros_like(shifted), shifted])
            self._widen(model, name, layer)
            _, layer = output_layer(model)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(shifted)

    @staticmethod
    def _widen(model: nn.Module, name: str, layer: nn.Linear) -> None:
        """Put a layer of two outputs in the place of one with a single output."""
        wide = nn.Linear(layer.in_features, 2, bias=layer.bias is not None, device=layer.weight.device)
        wide.requires_grad_(layer.weight.requires_grad)
        model.set_submodule(name, wide)
        for module in model.modules():
            if "config" in vars(module):
                module.config.num_labels = 2  # type: ignore[union-attr]  # torch types attributes as tensors or modules


IDENTITY = OutputMap(np.ones(1), np.zeros(1))


def standardising(values: np.ndarray, *, centre: bool) -> OutputMap:
    """Return the map from standardised targets to the values themselves.

    Args:
        values: Targets of the training split, float64, shape (n, t).
        centre: Whether the model's last layer has a bias, so that a mean can be learned apart; without one the
            deviation is taken about 0.
    """
    mean = values.mean(axis=0) if centre else np.zeros(values.shape[1])
    deviation = np.sqrt(((values - mean) ** 2).mean(axis=0))
    return OutputMap(np.where(deviation > 0, deviation, 1.0), mean)


def one_sigmoid() -> OutputMap:
    """Return the map from one logit to a pair."""
    return OutputMap(np.ones(1), np.zeros(1), sigmoid=True)


def temperature(value: float) -> OutputMap:
    """Return the map that divides logits by a temperature."""
    return OutputMap(np.full(1, 1 / value), np.zeros(1))
