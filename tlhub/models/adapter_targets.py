"""Which layers of an architecture get adapters, and what is trained beside them."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from transformers.pytorch_utils import Conv1D

from tlhub.errors import UsageError, nearest
from tlhub.models.blocks import backbone_prefix, block_index, blocks
from tlhub.models.heads import language_model

LINEAR_ONLY = (nn.Linear,)
LINEAR_AND_TRANSPOSED = (nn.Linear, Conv1D)
LINEAR_AND_CONVOLUTION = (nn.Linear, nn.Conv2d)
EVERY_LAYER = (nn.Linear, Conv1D, nn.Conv2d)
LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "lora": EVERY_LAYER,
    "dora": EVERY_LAYER,
    "rslora": EVERY_LAYER,
    "pissa": LINEAR_AND_TRANSPOSED,
    "loha": LINEAR_AND_CONVOLUTION,
    "lokr": LINEAR_AND_CONVOLUTION,
    "ia3": EVERY_LAYER,
    "vera": LINEAR_AND_TRANSPOSED,
    "oft": LINEAR_ONLY,
    "boft": LINEAR_AND_CONVOLUTION,
    "adalora": LINEAR_AND_TRANSPOSED,
    "randlora": LINEAR_AND_TRANSPOSED,
}
"""Kinds of layers that each PEFT method adapts. `Conv1D` is GPT-2's linear layer, its weight stored transposed."""

SEQUENCES_ONLY = ("oft",)
"""Methods whose PEFT code takes every input of four dimensions for that of a convolution."""


READ_ONLY = {"WavLMAttention": ("q_proj", "k_proj", "v_proj", "out_proj"), "MultiheadAttention": ("out_proj",)}
"""Layers, by the class they stand in, whose weights are read and which are never called: adapters would do nothing."""


def choose_targets(model: nn.Module, method: str, new_parameters: Collection[str]) -> list[str]:
    """Return the layers of the model's blocks that the method can adapt.

    Stem, head, newly initialised layers and those that are never called are left out, and so are grouped convolutions,
    since a low-rank change of a depthwise filter is no smaller than the filter, and dilated ones, whose dilation PEFT's
    own layers do not have.

    Args:
        model: The model without adapters.
        method: One of `config.AUTO_METHODS`.
        new_parameters: Names of the parameters that the checkpoint did not bring.

    Raises:
        UsageError: The method adapts none of the model's layers.
    """
    index = block_index(model)
    names = [block.name for block in blocks(model)]
    outside = {"head"} if set(names) <= {"stem", "head"} else {"stem", "head"}
    uncalled = _uncalled(model)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LAYERS[method])
        and not _is_special(module)
        and name not in uncalled
        and f"{name}.weight" not in new_parameters
        and f"{name}.weight" in index
        and names[index[f"{name}.weight"]] not in outside
    ]
    convolutional = any(
        isinstance(module, nn.Conv2d) and names[index[f"{name}.weight"]] not in outside
        for name, module in model.named_modules()
    )
    if not targets or (convolutional and method in SEQUENCES_ONLY):
        others = ", ".join(sorted(other for other, kinds in LAYERS.items() if kinds is EVERY_LAYER))
        raise UsageError(
            f"strategy.method {method!r} adapts no layer of {type(model).__name__}; these adapt every kind: {others}"
        )
    return targets


def match_targets(model: nn.Module, method: str, endings: Collection[str]) -> list[str]:
    """Return the layers whose names end in one of the user's endings.

    Raises:
        UsageError: An ending fits no layer, or one of a kind that the method does not adapt.
    """
    modules = dict(model.named_modules())
    uncalled = _uncalled(model)
    found: list[str] = []
    for ending in endings:
        fitting = [name for name in modules if name == ending or name.endswith("." + ending)]
        layers = [name for name in fitting if isinstance(modules[name], LAYERS[method])]
        layers = [name for name in layers if not _is_special(modules[name]) and name not in uncalled]
        if not layers:
            if uncalled.intersection(fitting):
                raise UsageError(f"strategy.targets {ending!r} is read by {type(model).__name__} and never called, so "
                                 "adapters on it would do nothing; leave it out")
            if fitting:
                module = modules[fitting[0]]
                kind = f"grouped or dilated {type(module).__name__}" if _is_special(module) else type(module).__name__
                raise UsageError(f"strategy.targets {ending!r} is a {kind}, which method {method!r} does not adapt")
            valid = {_ending(name) for name, module in modules.items()
                     if isinstance(module, LAYERS[method]) and not _is_special(module)}
            raise UsageError(f"strategy.targets {ending!r} is no layer of the model; {nearest(ending, valid)}")
        found += [name for name in layers if name not in found]
    return found


def modules_beside(model: nn.Module, new_parameters: Collection[str]) -> list[str]:
    """Return the modules trained and saved whole beside the adapters: the head, and what the checkpoint lacks.

    A language model's last layer comes from the checkpoint and stays as it is.

    Args:
        model: The model without adapters.
        new_parameters: Names of the parameters that the checkpoint did not bring.
    """
    index = block_index(model)
    head = -1 if language_model(model) is not None else len(blocks(model)) - 1
    prefix = backbone_prefix(model)
    owner = prefix.rstrip(".").rpartition(".")[0]
    found: list[str] = []
    for name, block in index.items():
        path = name.rpartition(".")[0]
        if block == head and not name.startswith(prefix):
            depth = 1 + (owner.count(".") + 1 if owner and name.startswith(owner + ".") else 0)
            path = ".".join(name.split(".")[:-1][:depth])
        elif block != head and name not in new_parameters:
            continue
        if path and path not in found:
            found.append(path)
    return found


def _is_special(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (module.groups > 1 or max(module.dilation) > 1)


def _uncalled(model: nn.Module) -> set[str]:
    return {f"{path}.{name}" for path, module in model.named_modules()
            for name in READ_ONLY.get(type(module).__name__, ())}


def _ending(name: str) -> str:
    """Return the end of a layer's name that tells something: a number alone does not."""
    parts = name.split(".")
    return parts[-1] if len(parts) == 1 or not parts[-1].isdigit() else f"{parts[-2]}.{parts[-1]}"
