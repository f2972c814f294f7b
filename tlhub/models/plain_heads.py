"""Heads of tlhub's own that transformers' own classes can express, so that plain transformers loads them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tlhub.models.heads import PooledClassifier
from tlhub.models.pooling import backbone_name

WIDTH, WEIGHTED = "classifier_proj_size", "use_weighted_layer_sum"
"""Settings of the architectures that pool the frames of a projection: those of the wav2vec2 family, and Whisper."""


def plain_classifier(model: PooledClassifier) -> PreTrainedModel | None:
    """Return a model of transformers that computes the same, made of the same tensors; None where there is none.

    A linear layer on `mean` or `layer_mean` is one of the classifiers of sound that project each layer's or the last
    layer's frames, average and classify them: with the identity for the projection, and equal weights for the layers.
    """
    old: Any = model.config
    layers = [layer for layer in model.head if isinstance(layer, nn.Linear)]
    if (model.kind not in ("mean", "layer_mean") or len(layers) > 1 or layers[0].bias is None
            or not {WIDTH, WEIGHTED} <= old.to_dict().keys()):
        return None
    width, weighted = layers[0].in_features, model.kind == "layer_mean"
    settings: Any = copy.deepcopy(old)
    setattr(settings, WIDTH, width)
    setattr(settings, WEIGHTED, weighted)
    with torch.device("meta"):
        plain: PreTrainedModel = model.headed(settings)
    plain.train(mode=False)
    plain.set_submodule(backbone_name(plain), model.inside())
    projector = nn.Linear(width, width)
    with torch.no_grad():
        projector.weight.copy_(torch.eye(width))
        projector.bias.zero_()
    plain.set_submodule("projector", projector)
    plain.set_submodule("classifier", layers[0])
    if weighted:
        count = int(settings.num_hidden_layers) + 1
        plain.register_parameter("layer_weights", nn.Parameter(torch.full((count,), 1 / count)))
    projector.to(layers[0].weight.device)
    return plain
