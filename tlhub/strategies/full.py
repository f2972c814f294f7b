"""Full fine-tuning: every parameter is trained, from the checkpoint's weights."""

from __future__ import annotations

from tlhub.models.assembly import with_head
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench


@STRATEGIES.register("full")
class Full(Strategy):
    """Trains everything; `strategy.layer_decay` lowers the learning rate towards the input."""

    def fit(self, bench: Workbench) -> Fitted:
        """Train the whole model."""
        model = with_head(bench.checkpoint, bench.config.model, seed=bench.config.seed, sample=bench.sample())
        bench.train(model, bench.inputs)
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
