"""What the steps since the last log point showed, kept on the device until somebody asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class Sums:
    """What the passes of a step add up to.

    Attributes:
        loss: Of the whole global batch, on the device, shape ().
        right: Right answers in it, on the device, shape ().
        parts: The examples of each of this process's passes.
        losses: The loss of each of these, on the device, shape (passes,).
    """

    loss: torch.Tensor
    right: torch.Tensor
    parts: Sequence[np.ndarray]
    losses: torch.Tensor


@dataclass
class Window:
    """The steps since the last log point.

    Attributes:
        values: For each step loss, gradient's norm and right answers, shape (3,), on the device.
        amounts: For each step what its objective counts.
        passes: For the steps of this sitting, the last ones, what this process ran.
    """

    values: list[torch.Tensor] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    passes: list[Sums] = field(default_factory=list)

    def add(self, sums: Sums, norm: torch.Tensor, amount: int) -> None:
        """Add a step."""
        self.values.append(torch.stack([value.float() for value in (sums.loss, norm, sums.right)]))
        self.amounts.append(amount)
        self.passes.append(sums)

    def table(self) -> torch.Tensor:
        """Return the steps' values on the host, float64, shape (steps, 3)."""
        device = self.values[-1].device
        return torch.stack([row.to(device) for row in self.values]).cpu().double()

    def rows(self) -> list[list[float | None]]:
        """Return all of it as plain values, None for what is not finite, so that a file can keep it."""
        table = self.table().tolist() if self.values else []
        return [[*(value if math.isfinite(value) else None for value in row), amount]
                for row, amount in zip(table, self.amounts, strict=True)]

    @classmethod
    def of(cls, rows: Sequence[Sequence[float | None]]) -> Window:
        """Return the window that `rows` was asked for, without what was run."""
        values = [torch.tensor([math.nan if value is None else value for value in row[:3]]) for row in rows]
        return cls(values, [int(row[3] or 0) for row in rows])

    def culprits(self, place: int) -> np.ndarray:
        """Return the examples of this process's passes whose loss was not finite in a step, shape (m,)."""
        known = place - (len(self.values) - len(self.passes))
        if known < 0:
            return np.zeros(0, np.int64)
        sums = self.passes[known]
        bad = (~torch.isfinite(sums.losses)).tolist()
        return np.concatenate([np.zeros(0, np.int64),
                               *(part for part, wrong in zip(sums.parts, bad, strict=True) if wrong)])
