"""An architecture's ordered blocks: stem, block after block, head; each parameter is in exactly one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from tlhub.errors import CheckpointError
from tlhub.models.heads import output_layer
from tlhub.models.pooling import backbone_name

UNITS = re.compile(
    r"(?:^|(?:(?!pos_conv_embed\.).)*?\.)(?:"  # data2vec's position embedding is made of layers too
    r"stages\.\d+\.(?:layers|blocks)\.\d+"  # ResNet, ConvNeXt, RegNet; timm's ConvNeXt
    r"|layers\.\d+\.blocks\.\d+"  # Swin, also timm's
    r"|layer\d+\.\d+|s\d+\.b\d+"  # timm's ResNet and RegNet
    r"|albert_layer_groups\.\d+"
    r"|(?:blocks|block)\.\d+\.\d+"  # timm's EfficientNet and MobileNet; SegFormer
    r"|(?:layers|layer|blocks|block|h)\.\d+"  # transformers
    r"|features\.(?:\d+|denseblock\d+|transition\d+)"  # timm's VGG and DenseNet
    r"|(?:Conv2d_|Mixed_)\w+"  # timm's Inception
    r")(?=\.)"
)
WITHOUT_BLOCKS = ("full", "scratch", "head", "linear_probe", "lp_ft", "lora")
"""Strategies that need no blocks."""
STAGES = re.compile(r"(?:^|.*?\.)(?:stages|layers)\.\d+(?=\.)")


@dataclass(frozen=True)
class Block:
    """A block of a model.

    Attributes:
        name: `"stem"`, the path of the block's module, or `"head"`.
        prefixes: Paths whose parameters belong to it: a module's path, or a parameter's name.
    """

    name: str
    prefixes: tuple[str, ...]


def blocks(model: nn.Module) -> list[Block]:
    """Return the model's blocks in the order of computation: the stem, the layers, the head.

    A layer is a transformer's layer, a residual block, or a convolution with its norm where there are none of these.
    What stands between two layers of different stages joins its own stage's nearest layer; a last norm and a pooler
    join the last layer. Everything after the backbone is the head. A language model whose last layer shares its weights
    with the embedding has no head: these weights are in the stem.

    Args:
        model: Any model with an output layer; adapters may be on it.
    """
    members: dict[str, list[str]] = {}
    for name, block in _assign(model).items():
        members.setdefault(block, []).append(name)
    names = [name for name in members if name not in ("stem", "head")]
    ordered = [name for name in ("stem", *names, "head") if name in members]
    return [Block(name, tuple(members[name])) for name in ordered]


def block_index(model: nn.Module) -> dict[str, int]:
    """Return for each parameter's name the position of its block in `blocks(model)`."""
    return {name: index for index, block in enumerate(blocks(model)) for name in block.prefixes}


def known_blocks(model: nn.Module, strategy: str) -> list[Block]:
    """Return `blocks(model)` for a strategy that cannot do without layers between stem and head.

    Raises:
        CheckpointError: None are known in this architecture.
    """
    found = blocks(model)
    if all(block.name in ("stem", "head") for block in found):
        kind = next((type(part.base_model).__name__ for part in model.modules() if isinstance(part, PreTrainedModel)),
                    type(model).__name__)
        raise CheckpointError(f"--strategy {strategy} needs the blocks of the backbone in their order, and in {kind} "
                              f"none are known; take one of: {', '.join(WITHOUT_BLOCKS)}")
    return found


def unit_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the modules that compute the layers, in the order of their definition.

    A layer is one module, but for a convolution whose norm stands beside it.
    """
    return tuple(dict.fromkeys(_units([name for name, _ in model.named_parameters()]).values()))


def stage_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the modules that hold the layers of one stage and what leads into or out of it."""
    return tuple(stage for stage in dict.fromkeys(map(_stage, unit_modules(model))) if stage)


def _units(names: list[str]) -> dict[str, str]:
    """Return the module of its layer for each parameter that stands in one."""
    units = {name: match.group() for name in names if (match := UNITS.match(name))}
    groups = set(units.values())
    return {name: unit for name, unit in units.items() if not any(other.startswith(unit + ".") for other in groups)}


def _joined(model: nn.Module, units: dict[str, str]) -> dict[str, str]:
    """Put each norm that is a unit by itself, as VGG's are, into the unit before it."""
    matrices = {units[name] for name, parameter in model.named_parameters() if name in units and parameter.dim() > 1}
    joined, latest = dict[str, str](), ""
    for name, unit in units.items():
        latest = unit if unit in matrices or not latest else latest
        joined[name] = latest
    return joined


def _assign(model: nn.Module) -> dict[str, str]:
    """Return for each parameter the block it is in."""
    names = [name for name, _ in model.named_parameters()]
    units = _joined(model, _units(names))
    head = _head_names(model, names)
    first_of: dict[str, str] = {}
    for name, unit in units.items():
        first_of.setdefault(_stage(name), unit)
    last = list(units.values())[-1] if units else "stem"
    assigned: dict[str, str] = {}
    latest, latest_of = "stem", dict[str, str]()
    for name in names:
        if name in head:
            assigned[name] = "head"
        elif name in units:
            assigned[name] = latest = latest_of[_stage(name)] = units[name]
        elif _stage(name) and _stage(name) in first_of:
            assigned[name] = latest_of.get(_stage(name), first_of[_stage(name)])
        else:
            assigned[name] = "stem" if latest == "stem" else last
    return assigned


def _stage(name: str) -> str:
    match = STAGES.match(name)
    return match.group() if match else ""


def _head_names(model: nn.Module, names: list[str]) -> set[str]:
    layer, _ = output_layer(model)
    backbone = backbone_prefix(model)
    return {name for name in names if name.startswith(layer + ".") or not name.startswith(backbone)}


def backbone_prefix(model: nn.Module) -> str:
    """Return what the names of the backbone's parameters start with, such as `"bert."`.

    Where transformers wraps another library's whole model, that model counts as the backbone.
    """
    for path, module in model.named_modules():
        if isinstance(module, PreTrainedModel):
            outer, inner = f"{path}." if path else "", backbone_name(module)
            return f"{outer}{inner}." if inner else outer
    return ""
