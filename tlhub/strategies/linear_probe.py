"""The linear probe: frozen backbone, features extracted once, a linear head fitted to its optimum."""

from __future__ import annotations

import torch

from tlhub.models.assembly import head_module, with_linear_head
from tlhub.models.heads import output_layer
from tlhub.models.probes import fit_logistic
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import FeatureHead, Fitted, Strategy, Workbench, feature_inputs, probe_features


@STRATEGIES.register("linear_probe")
class LinearProbe(Strategy):
    """Fits multinomial logistic regression to cached features; its weight decay is chosen by 5 folds."""

    def fit(self, bench: Workbench) -> Fitted:
        """Extract, choose the features, fit, and write the head into the model."""
        kind, features = probe_features(bench)
        checkpoint = bench.checkpoint
        has_bias = kind != "native" or output_layer(checkpoint.model)[1].bias is not None
        result = fit_logistic(features["train"], bench.inputs["train"].labels, bench.classes, bias=has_bias,
                              seed=bench.config.seed)
        bench.tell(f"probe on {kind} features, weight decay {result.penalty:.3g}, "
                   f"cross-validated accuracy {result.cv_score:.4f}")
        weight = torch.from_numpy(result.weight).float()
        bias = None if result.bias is None else torch.from_numpy(result.bias).float()
        model = with_linear_head(checkpoint, kind, weight, bias)
        return Fitted(model, FeatureHead(head_module(model)), feature_inputs(bench, features))
