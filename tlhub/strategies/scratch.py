"""Structure transfer: the checkpoint's architecture with fresh weights, every comparison's control."""

from __future__ import annotations

from typing import ClassVar

from tlhub.registry import STRATEGIES
from tlhub.strategies.full import Full


@STRATEGIES.register("scratch")
class Scratch(Full):
    """Trains everything from fresh weights."""

    pretrained: ClassVar[bool] = False
