"""Head training: the backbone is frozen and a head, linear or an MLP, is trained by gradient."""

from __future__ import annotations

from torch import nn

from tlhub.config import head_widths
from tlhub.models.assembly import head_module, head_parameters, with_pooled_head
from tlhub.models.freezing import freeze_all_but
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import FeatureHead, Fitted, Strategy, Workbench, feature_inputs, probe_features


@STRATEGIES.register("head")
class Head(Strategy):
    """Trains the head on the probe's features: cached ones, unless augmentation changes the inputs every epoch."""

    def fit(self, bench: Workbench) -> Fitted:
        """Choose the features, then train the head on them or behind the frozen backbone."""
        config = bench.config
        kind, features = probe_features(bench)
        model: nn.Module = bench.checkpoint.model
        if kind != "native" or head_widths(config.model.head):
            model = with_pooled_head(bench.checkpoint, kind, config.model, seed=config.seed, sample=bench.sample())
        freeze_all_but(model, head_parameters(model))
        if config.data.flip or config.data.crop:
            bench.tell("augmentation changes the inputs every epoch, so the frozen backbone is run every epoch")
            bench.train(model, bench.inputs)
            return Fitted(model, model, bench.inputs, outputs=bench.outputs)
        head = FeatureHead(head_module(model))
        inputs = feature_inputs(bench, features)
        bench.train(head, inputs, whole=model)
        return Fitted(model, head, inputs, outputs=bench.outputs)
