"""Adapters: LoRA and PEFT's other methods, with the head trained and kept beside them."""

from __future__ import annotations

from tlhub.errors import UsageError
from tlhub.models.adapters import add_adapter, needs_base
from tlhub.models.assembly import with_head
from tlhub.models.freezing import freeze_all_but
from tlhub.models.heads import PooledClassifier
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted, Strategy, Workbench


@STRATEGIES.register("lora")
class Lora(Strategy):
    """Trains low-rank adapters (`strategy.method` names others) and the head; the rest is frozen."""

    def fit(self, bench: Workbench) -> Fitted:
        """Put adapters into the model and train them.

        Raises:
            UsageError: What was trained could not be saved without the base.
        """
        config, checkpoint = bench.config, bench.checkpoint
        headed = with_head(checkpoint, config.model, seed=config.seed, sample=bench.sample())
        if isinstance(headed, PooledClassifier) and not config.model.save_base:
            raise UsageError("--model.save_base False cannot be had with strategy lora under a head of tlhub's own "
                             f"(--model.head {config.model.head!r}, --model.pool {config.model.pool!r}): the adapters "
                             "are merged into the base, which is saved; leave one of them out")
        if not config.model.save_base and needs_base(checkpoint.model, checkpoint.origin):
            raise UsageError(f"--model.save_base False cannot be had with strategy lora over {config.model.name!r}: "
                             "adapters on a model of timm, or on a run with adapters, are kept with their base; leave "
                             "it out")
        model = add_adapter(headed, config.strategy, seed=config.seed, new_parameters=checkpoint.new_parameters)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        freeze_all_but(model, trained.__contains__)
        bench.train(model, bench.inputs)
        return Fitted(model, model, bench.inputs, outputs=bench.outputs)
