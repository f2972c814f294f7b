"""Head training: the backbone is frozen and a head, linear or an MLP, is trained by gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from tlhub.errors import UsageError
from tlhub.limits import head_widths
from tlhub.models.assembly import head_module, head_parameters, with_pooled_head
from tlhub.models.features import check_kind
from tlhub.models.freezing import freeze_all_but
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import (
    FeatureHead,
    Fitted,
    Strategy,
    Workbench,
    feature_inputs,
    is_augmented,
    probe_features,
)


@STRATEGIES.register("head")
class Head(Strategy):
    """Trains the head on the probe's features: cached ones, unless augmentation changes the inputs every epoch."""

    def fit(self, bench: Workbench) -> Fitted:
        """Choose the features, then train the head on them or behind the frozen backbone."""
        config = bench.config
        augmented = is_augmented(bench.inputs["train"])
        kind, features = self._features(bench, needed=not augmented)
        model: nn.Module = bench.checkpoint.model
        if kind != "native" or head_widths(config.model.head):
            model = with_pooled_head(bench.checkpoint, kind, config.model, seed=config.seed, sample=bench.sample())
        freeze_all_but(model, head_parameters(model))
        if augmented:
            bench.tell("augmentation changes the inputs every epoch, so the frozen backbone is run every epoch")
            bench.train(model, bench.inputs)
            return Fitted(model, model, bench.inputs, outputs=bench.outputs)
        head = FeatureHead(head_module(model))
        inputs = feature_inputs(bench, features)
        bench.train(head, inputs, whole=model)
        return Fitted(model, head, inputs, outputs=bench.outputs)

    @staticmethod
    def _features(bench: Workbench, *, needed: bool) -> tuple[str, Mapping[str, np.ndarray]]:
        """Return the kind that `model.pool` names, with its values where they are needed, or the probe's choice."""
        kind, checkpoint = bench.config.model.pool, bench.checkpoint
        if kind == "auto":
            return probe_features(bench)
        asked = bench.config.strategy.features
        if asked not in ("auto", kind):
            raise UsageError(f"--model.pool {kind!r} and --strategy.features {asked!r} name different features for one "
                             "head; leave one of them out")
        check_kind(checkpoint.model, checkpoint.new_parameters, kind)
        return kind, bench.features((kind,))[kind] if needed else {}
