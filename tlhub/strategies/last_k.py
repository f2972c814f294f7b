"""The last blocks: the backbone's last k blocks and the head are trained, what comes before them is frozen."""

from __future__ import annotations

from tlhub.errors import UsageError
from tlhub.models.assembly import with_head
from tlhub.models.blocks import known_blocks
from tlhub.models.freezing import freeze_all_but
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench


@STRATEGIES.register("last_k")
class LastK(Strategy):
    """Trains the last `strategy.k` blocks; the frozen ones are run once, unless augmentation changes what they read."""

    def fit(self, bench: Workbench) -> Fitted:
        """Freeze all but the last blocks and the head, and train from the input of the first of them.

        Raises:
            CheckpointError: The architecture's blocks are not known.
            UsageError: The backbone has fewer blocks than are to be trained.
        """
        config, checkpoint = bench.config, bench.checkpoint
        model = with_head(checkpoint, config.model, seed=config.seed, sample=bench.sample())
        parts = known_blocks(model, "last_k")
        count = sum(part.name not in ("stem", "head") for part in parts)
        if config.strategy.k > count:
            raise UsageError(f"--strategy.k {config.strategy.k} asks for more blocks than the {count} of checkpoint "
                             f"{checkpoint.origin.name!r}; take at most {count}, or --strategy full")
        layers = [part for part in parts if part.name not in ("stem", "head")][-config.strategy.k:]
        heads = [part for part in parts if part.name == "head"]
        if not heads:
            bench.tell("the last layer shares its weights with the embedding, which is frozen with the blocks above it")
        trained = frozenset(name for part in (*layers, *heads) for name in part.prefixes)
        freeze_all_but(model, trained.__contains__)
        with bench.entered(model) as inputs:
            bench.train(model, inputs)
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
