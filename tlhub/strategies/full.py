"""Full fine-tuning: every parameter is trained, from the checkpoint's weights."""

from __future__ import annotations

from tlhub.models.assembly import with_head
from tlhub.models.freezing import freeze_stem
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench


@STRATEGIES.register("full")
class Full(Strategy):
    """Trains everything; `strategy.layer_decay` lowers the learning rate towards the input.

    `strategy.freeze_stem` leaves what stands before the first block as it is.
    """

    def fit(self, bench: Workbench) -> Fitted:
        """Train the whole model.

        Raises:
            CheckpointError: The stem is to be frozen, and the architecture's blocks are not known.
        """
        model = with_head(bench.checkpoint, bench.config.model, seed=bench.config.seed, sample=bench.sample())
        if bench.config.strategy.freeze_stem:
            freeze_stem(model, "full")
        bench.train(model, bench.inputs)
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
