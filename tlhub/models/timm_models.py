"""Models of timm behind transformers' wrapper: their names, their fresh weights, and the part that makes features."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

TIMM = "timm_wrapper"
"""transformers' type of the models of timm."""
SET_ELSEWHERE = ("num_classes", "aux_logits")
"""Arguments of timm's models that a checkpoint may fix: the wrapper gives the first itself, and the second adds a
classifier to Inception that is used in training only."""
NAMED = 3
SEQUENCE_DIMENSIONS = 3


def is_timm(model: nn.Module) -> bool:
    """Return whether a model is the wrapper of one of timm's."""
    return isinstance(model, PreTrainedModel) and model.config.model_type == TIMM


def inner(model: nn.Module) -> Any:
    """Return timm's own model inside the wrapper."""
    return model.timm_model


def unknown_name(name: str) -> str:
    """Return words on a name that timm does not know, with those nearest to it; none where it is known.

    Args:
        name: An architecture, with or without the tag of its weights, such as `"resnet18.a1_in1k"`.
    """
    if importlib.util.find_spec("timm") is None:
        return ""
    library = _timm()
    if library.is_model(name):
        return ""
    close = difflib.get_close_matches(name.partition(".")[0], library.list_models(), n=NAMED, cutoff=0.0)
    return f"timm {library.__version__} has no model {name!r}, its nearest are {', '.join(close)}"


def plain_settings(settings: Any, label_names: Sequence[str]) -> None:
    """Write labels where a wrapper's configuration keeps them, and take the arguments `SET_ELSEWHERE` out of it."""
    settings.label_names = list(label_names)
    if settings.model_args:
        settings.model_args = {key: value for key, value in settings.model_args.items() if key not in SET_ELSEWHERE}


def draw_weights(model: PreTrainedModel) -> None:
    """Give a wrapped model the fresh weights that timm draws, in place of transformers' which are alike everywhere."""
    settings: Any = model.config
    fresh = _timm().create_model(settings.architecture, pretrained=False, num_classes=settings.num_labels,
                                 **(settings.model_args or {}))
    inner(model).load_state_dict(fresh.state_dict())


def states(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return what timm calls features: tokens (B, T, D), or a map (B, C, H, W)."""
    return in_order(model, inner(model).forward_features(pixel_values))


def in_order(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Return timm's features with the channels of a map before its places."""
    if features.dim() > SEQUENCE_DIMENSIONS and getattr(inner(model), "output_fmt", "NCHW") == "NHWC":
        return features.permute(0, 3, 1, 2)
    return features


@contextmanager
def heard_features(model: nn.Module) -> Iterator[list[Any]]:
    """Note what `states` would give while the whole model runs inside the block, one output for each forward pass."""
    heard: list[Any] = []
    original = inner(model).forward_features

    def listen(*args: Any, **options: Any) -> Any:
        found = original(*args, **options)
        heard.append(BaseModelOutput(last_hidden_state=in_order(model, found)))
        return found

    vars(inner(model))["forward_features"] = listen
    try:
        yield heard
    finally:
        del vars(inner(model))["forward_features"]


def keep_features(model: PreTrainedModel) -> PreTrainedModel:
    """Take everything off that `states` does not read: the classifier, VGG's fully connected layers, last norms.

    What is read is seen from the graph of one empty picture.

    Returns:
        The model, changed.
    """
    needed = _read_by_features(model)
    idle = {
        path
        for path, module in model.named_modules()
        if path and any(True for _ in module.parameters()) and needed.isdisjoint(map(id, module.parameters()))
    }
    for path in idle:
        if path.rpartition(".")[0] not in idle:
            model.set_submodule(path, nn.Identity())
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in needed:
                module.register_parameter(name, None)
    return model


def _read_by_features(model: PreTrainedModel) -> set[int]:
    """Return the identities of the parameters behind `states`."""
    settings: Any = model.config
    arguments = settings.model_args or {}
    channels, height, width = settings.to_dict().get("pretrained_cfg", {}).get("input_size", (3, 224, 224))
    size = arguments.get("img_size") or (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    empty = torch.zeros(1, arguments.get("in_chans", channels), height, width, device=model.device)
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    training = model.training
    model.train(mode=False).requires_grad_(True)
    with torch.enable_grad():
        found, waiting = set[int](), [states(model, empty).grad_fn]
    model.train(training)
    for parameter in frozen:
        parameter.requires_grad_(False)
    seen = set(waiting)
    while waiting:
        node: Any = waiting.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return found


def _timm() -> Any:
    """Return timm, imported when it is first needed: only its own checkpoints need it, and it takes seconds."""
    return importlib.import_module("timm")
