"""The linear probe: frozen backbone, features extracted once, a linear head fitted to its optimum."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tlhub.config import TrainConfig
from tlhub.errors import UsageError
from tlhub.models.assembly import head_module, with_linear_head
from tlhub.models.heads import output_layer
from tlhub.models.probes import fit_probe
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import FeatureHead, Fitted, Strategy, Workbench, feature_inputs, probe_features
from tlhub.training.objectives import balanced_weights, log_prior, positive_weights


@STRATEGIES.register("linear_probe")
class LinearProbe(Strategy):
    """Fits logistic regression, or ridge regression of values, to cached features."""

    def fit(self, bench: Workbench) -> Fitted:
        """Extract, choose the features, fit, and write the head into the model."""
        kind, features = probe_features(bench)
        model = with_fitted_head(bench, kind, features["train"], bench.inputs["train"].labels)
        return Fitted(model, FeatureHead(head_module(model)), feature_inputs(bench, features))


def with_fitted_head(bench: Workbench, kind: str, features: np.ndarray, labels: np.ndarray) -> nn.Module:
    """Return the checkpoint's model with a linear head fitted to its features.

    Logit adjustment is post hoc: the log frequencies of the classes are taken from the bias (Menon et al. 2021,
    "Long-tail learning via logit adjustment", equation 9), which is where training with adjusted logits leads too.

    Args:
        bench: The run.
        kind: What the features are: one of `tlhub.models.features.FEATURES`.
        features: Of the training split, float32, shape (n, d).
        labels: Of the training split; values in the units that the head should give.

    Raises:
        UsageError: Logit adjustment is asked for, and the layer has no bias.
    """
    train, checkpoint = bench.config.train, bench.checkpoint
    has_bias = kind != "native" or output_layer(checkpoint.model)[1].bias is not None
    if train.logit_adjustment and not has_bias:
        raise UsageError(f"--train.logit_adjustment {train.logit_adjustment:g} changes a fitted head's bias, and the "
                         f"last layer of {checkpoint.origin.name!r} has none; take --strategy.features mean, "
                         "or --train.class_weights balanced instead")
    probe = fit_probe(features, labels, bench.classes, bias=has_bias, seed=bench.config.seed,
                      class_weights=_class_weights(labels, bench.classes, train),
                      label_smoothing=train.label_smoothing, groups=bench.groups)
    bench.tell(f"probe on {kind} features, penalty {probe.penalty:.3g}, {probe.measure} {probe.score:.4f}")
    bias = probe.bias
    if bias is not None and train.logit_adjustment:
        bias = bias - train.logit_adjustment * log_prior(labels, bench.classes)
    return with_linear_head(checkpoint, kind, torch.from_numpy(probe.weight).float(),
                            None if bias is None else torch.from_numpy(bias).float())


def _class_weights(labels: np.ndarray, classes: int, train: TrainConfig) -> np.ndarray | None:
    """Return the weights that `train.class_weights` asks for, those that training by gradient has."""
    if train.class_weights != "balanced":
        return None
    return positive_weights(labels) if labels.dtype == np.bool_ else balanced_weights(labels, classes)
