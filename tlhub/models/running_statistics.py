"""BatchNorm's running statistics: what a forward pass changes, and how it is taken back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tlhub.models.freezing import BatchNorm


class RunningStatistics:
    """The running statistics of a model's BatchNorm layers, where they move.

    Args:
        model: The bare model; which of its layers are in training mode is looked at anew each time.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
        self._kept: dict[torch.dtype, torch.Tensor] = {}
        self._places: dict[torch.dtype, list[torch.Tensor]] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them as they are."""
        self._places = {}
        for layer in self._layers:
            for buffer in layer.buffers(recurse=False) if layer.training else ():
                self._places.setdefault(buffer.dtype, []).append(buffer)
        self._kept = _joined(self._places)

    @torch.no_grad()
    def put_back(self, where: torch.Tensor | None = None) -> None:
        """Make them what they were.

        Args:
            where: Bool, shape (): whether to; it is not brought to the host. None for yes.
        """
        now = {} if where is None else _joined(self._places)
        for dtype, places in self._places.items():
            kept = self._kept[dtype]
            chosen = kept if where is None else torch.where(where, kept, now[dtype])
            parts = torch.split(chosen, [place.numel() for place in places])
            torch._foreach_copy_(places, [part.view_as(place) for part, place in zip(parts, places, strict=True)])


def _joined(places: Mapping[torch.dtype, list[torch.Tensor]]) -> dict[torch.dtype, torch.Tensor]:
    return {dtype: torch.cat([place.reshape(-1) for place in buffers]) for dtype, buffers in places.items()}
