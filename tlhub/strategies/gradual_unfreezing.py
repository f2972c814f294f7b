"""Gradual unfreezing (Howard and Ruder 2018, "Universal language model fine-tuning for text classification")."""

from __future__ import annotations

from tlhub.models.assembly import with_head
from tlhub.models.blocks import known_blocks
from tlhub.models.freezing import freeze_stem
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench
from tlhub.training.unfreezing import Schedule


@STRATEGIES.register("gradual_unfreezing")
class GradualUnfreezing(Strategy):
    """Trains the head first, then block after block from the top, the stem last, with learning rates of their own.

    `strategy.unfreeze_fraction` says by when all of it trains, `strategy.layer_decay` how much less lower blocks move;
    with `strategy.freeze_stem` the stem is never unfrozen.
    """

    def fit(self, bench: Workbench) -> Fitted:
        """Train the whole model on a schedule.

        Raises:
            CheckpointError: The architecture's blocks are not known.
        """
        config = bench.config
        model = with_head(bench.checkpoint, config.model, seed=config.seed, sample=bench.sample())
        parts = tuple(reversed(known_blocks(model, "gradual_unfreezing")))
        if config.strategy.freeze_stem:
            freeze_stem(model, "gradual_unfreezing")
            parts = tuple(part for part in parts if part.name != "stem")
        bench.train(model, bench.inputs, schedule=Schedule(parts, config.strategy.unfreeze_fraction))
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
