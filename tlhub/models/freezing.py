"""Freezing parts of a model so that they stay frozen, and proving that training moves what it should."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tlhub.errors import TlhubError
from tlhub.models.blocks import blocks, known_blocks

BatchNorm = nn.modules.batchnorm._BatchNorm
NAMED = 5
"""Tensors named in a message before the rest is counted."""
FIRM = 1e-4
"""Share of the model's largest gradient above which a tensor must move; a smaller step can vanish in rounding."""
_KEEPS_STATISTICS = "tlhub_keeps_statistics"
"""Marks a BatchNorm that evaluates although it may be trained."""


@dataclass(frozen=True)
class BlockShare:
    """How much of a block is trained: numbers of its parameters' elements."""

    name: str
    trainable: int
    total: int


class StayInEvaluation:
    """Stands in for a frozen module's `train`: whatever mode is asked for, the module evaluates.

    `Module.train` of the modules above, of DDP and of accelerate all call the `train` of their children, so it holds
    through every wrapper. It carries the module, so that a copy of the model refers to its own modules.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        """Put the module and everything in it in evaluation mode, and return it."""
        for module in self.module.modules():
            module.training = False
        return self.module


def freeze_all_but(model: nn.Module, trainable: Callable[[str], bool]) -> None:
    """Train the parameters that `trainable` chooses by name, and freeze the rest.

    Every module that stands before the first trained tensor stays in evaluation mode (no dropout, BatchNorm with its
    stored statistics), and so does every BatchNorm whose own parameters are frozen. Other modules after the first
    trained tensor keep their dropout. A second call replaces the first.

    Args:
        model: The model, not yet wrapped for several processes.
        trainable: From a parameter's name to whether it is trained.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable(name))
    for module in model.modules():
        vars(module).pop("train", None)
    model.train(model.training)
    for module in frozen_modules(model):
        vars(module)["train"] = StayInEvaluation(module)
        module.training = False


def freeze_stem(model: nn.Module, strategy: str) -> None:
    """Train all of the model but what stands before its first block.

    Args:
        model: The model, not yet wrapped for several processes.
        strategy: Who asks for it, for the message.

    Raises:
        CheckpointError: The architecture's blocks are not known.
    """
    stem = {name for block in known_blocks(model, f"{strategy} with --strategy.freeze_stem") if block.name == "stem"
            for name in block.prefixes}
    freeze_all_but(model, lambda name: name not in stem)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that must evaluate while the model trains, from `requires_grad` and `freeze_batch_norm`."""
    modules = list(model.modules())
    trained = [any(parameter.requires_grad for parameter in module.parameters()) for module in modules]
    own = [any(parameter.requires_grad for parameter in module.parameters(recurse=False)) for module in modules]
    first = own.index(True) if True in own else len(modules)
    return [
        module
        for position, module in enumerate(modules)
        if (not trained[position] and (position < first or isinstance(module, BatchNorm)))
        or _KEEPS_STATISTICS in vars(module)
    ]


def freeze_batch_norm(model: nn.Module) -> None:
    """Leave the statistics of every BatchNorm as they are, whatever else of the model is frozen or not, now or later.

    Args:
        model: The model, not yet wrapped for several processes.
    """
    for module in model.modules():
        if isinstance(module, BatchNorm):
            vars(module)[_KEEPS_STATISTICS] = True
            vars(module)["train"] = StayInEvaluation(module)
            module.training = False


def trainable_report(model: nn.Module) -> list[BlockShare]:
    """Return for each block of the model how many of its numbers are trained."""
    parameters = dict(model.named_parameters())
    report = []
    for block in blocks(model):
        members = [parameters[name] for name in block.prefixes]
        trainable = sum(parameter.numel() for parameter in members if parameter.requires_grad)
        report.append(BlockShare(block.name, trainable, sum(parameter.numel() for parameter in members)))
    return report


class TrainabilityAudit:
    """Proves over the first steps that exactly what was declared trainable moves.

    Take it before the first step, with the model in training mode; call `observe` after each backward pass and
    `check` after a few steps whose learning rate was not zero.

    Args:
        model: The model that is trained, not wrapped.
        needed: Parameters by name that have to be among those that are trained.

    Raises:
        TlhubError: A needed one is not.
    """

    def __init__(self, model: nn.Module, needed: Mapping[str, nn.Parameter] | None = None) -> None:
        self.trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        if left := sorted(name for name, parameter in (needed or {}).items() if id(parameter) not in trained):
            raise TlhubError(f"training leaves out {_listed(left)}, which would stay as it was drawn; this is a fault "
                             "of the strategy")
        # Those without parameters show by their mode alone whether they are meant to move.
        held = {id(module) for module in frozen_modules(model) if any(True for _ in module.parameters())}
        moving = {
            f"{path}.{name}" if path else name
            for path, module in model.named_modules()
            if isinstance(module, BatchNorm) and module.training and id(module) not in held
            for name, _ in module.named_buffers(recurse=False)
        }
        self.free = self.trainable | moving
        self.before = _sums(model)
        self._reached: dict[str, torch.Tensor] = {}
        self._firmly: dict[str, torch.Tensor] = {}

    def observe(self, model: nn.Module) -> None:
        """Note which trainable tensors got a gradient, and how it compares; no host synchronisation."""
        peaks = {
            name: torch.linalg.vector_norm(parameter.grad.detach(), float("inf"), dtype=torch.float32)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and parameter.grad is not None
        }
        if not peaks:
            return
        device = next(iter(peaks.values())).device
        largest = torch.stack([peak.to(device) for peak in peaks.values()]).amax()
        for name, peak in peaks.items():
            reached, firmly = peak > 0, peak > FIRM * largest.to(peak.device)
            self._reached[name] = self._reached[name] | reached if name in self._reached else reached
            self._firmly[name] = self._firmly[name] | firmly if name in self._firmly else firmly

    def check(self, model: nn.Module, steps: Mapping[str, float] | None = None) -> tuple[str, ...]:
        """Compare the model with what it was.

        Args:
            model: The model.
            steps: By how much a step may have moved the tensors that the optimizer holds; one in which that vanishes
                in rounding, as norms' weights in a long warm-up, need not have moved.

        Returns:
            Names of trainable tensors that never got a gradient other than zero.

        Raises:
            TlhubError: A frozen tensor or buffer moved, or a trainable one did not in spite of a gradient of some size.
        """
        after = _sums(model)
        moved = {name for name, value in after.items() if value != self.before[name]}
        if wrong := sorted(moved - self.free):
            raise TlhubError(f"training moved {_listed(wrong)}, declared frozen; this is a fault of the strategy")
        firmly = {name for name, flag in self._firmly.items() if bool(flag)}
        excused = {name for name in firmly - moved if _vanishes(model.get_parameter(name), (steps or {}).get(name))}
        if still := sorted((firmly & self.trainable) - moved - excused):
            raise TlhubError(
                f"training did not move {_listed(still)}, declared trainable, in spite of a gradient; "
                "the optimizer does not hold it, or the learning rate is too small"
            )
        reached = {name for name, flag in self._reached.items() if bool(flag)}
        return tuple(sorted(self.trainable - reached))


def _vanishes(parameter: torch.Tensor, step: float | None) -> bool:
    """Return whether a step of this size may leave the tensor as it is; None for a size that is not known."""
    largest = float(parameter.detach().abs().max())
    return step is not None and step <= torch.finfo(parameter.dtype).eps * largest


def _sums(model: nn.Module) -> dict[str, int]:
    """Return for each parameter and buffer a sum over its bytes' words: exact, and the same in any order.

    Each place counts by a factor of its own, since what moves one element up often moves another down by as much, as
    the two biases of a classifier of two classes.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    with torch.no_grad():
        sums = [_weighted(_words(tensor.detach())) for _, tensor in tensors]
    return {name: int(value) for (name, _), value in zip(tensors, sums, strict=True)}


def _weighted(words: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of words modulo 2**64, shape (), in parts that take little memory."""
    factors = _factors(words.device)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for number, part in enumerate(torch.split(words, len(factors))):
        total += (part * factors[:len(part)]).sum() * (2 * number + 1)
    return total


@functools.lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-2**63, 2**63 - 1, (2**18,), generator=generator).to(device)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.contiguous().view(words[real.element_size()]).reshape(-1)


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more tensors"
