"""Which tensors move in a run, against what its strategy promises: every one is compared, bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from tlhub.config import RunConfig
from tlhub.models.adapters import is_adapted
from tlhub.models.assembly import head_parameters
from tlhub.models.blocks import blocks
from tlhub.models.freezing import BatchNorm
from tlhub.models.heads import PooledClassifier
from tlhub.proving.proof import Finding, judged, listed
from tlhub.proving.trials import Subject, Trial
from tlhub.proving.witness import digest, named_tensors


@dataclass
class Sorted:
    """Names of a model's tensors, by what was promised of them and what became of them."""

    moved: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


def prove_tensors(subject: Subject, trial: Trial) -> Finding:
    """Compare every parameter and buffer of the result with what it was before."""
    model = trial.witness.model
    assert model is not None
    origin = _in_checkpoint(model, subject.start)
    parameters = _sort(subject, trial, origin, list(model.named_parameters()),
                       may_move=_promise(subject.config, model, origin, trial.witness.declared))
    buffers = _sort(subject, trial, origin, list(model.named_buffers()),
                    may_move=_statistics(subject.config, model, parameters))
    holds = not (parameters.broken or parameters.stuck or buffers.broken) and bool(parameters.moved)
    told = [f"{len(parameters.moved)} parameters moved, {len(parameters.kept)} frozen ones and {len(buffers.kept)} "
            f"buffers kept their bits"]
    told += [f"{len(buffers.moved)} statistics moved"] if buffers.moved else []
    told += [f"{len(parameters.idle)} trained ones had next to no gradient"] if parameters.idle else []
    told += ["no parameter moved"] if not parameters.moved else []
    if parameters.broken or buffers.broken:
        told.insert(0, f"frozen by {subject.config.strategy.name}, and moved: "
                       + listed(parameters.broken + buffers.broken))
    if parameters.stuck:
        told.insert(0, f"trained by {subject.config.strategy.name}, and still: {listed(parameters.stuck)}")
    return judged(holds, "; ".join(told), parameters=vars(parameters), buffers=vars(buffers))


def _sort(subject: Subject, trial: Trial, origin: Mapping[str, str], tensors: list[tuple[str, torch.Tensor]],
          may_move: Callable[[str], bool]) -> Sorted:
    """Compare tensors of the loop with themselves before it, and those outside it with the checkpoint's."""
    witness, found = trial.witness, Sorted()
    for name, tensor in tensors:
        saved, key = digest(tensor), id(tensor)
        before = witness.before.get(key, subject.start.get(origin.get(name, "")))
        after = witness.after.get(key, saved)
        same = before is not None and before == after == saved
        if not may_move(name):
            (found.kept if same or before is None else found.broken).append(name)
        elif not same:
            found.moved.append(name)
        else:
            held = isinstance(tensor, nn.Parameter) and (key in witness.firm or key not in witness.declared)
            (found.stuck if held else found.idle).append(name)
    return found


def _in_checkpoint(model: nn.Module, start: Mapping[str, str]) -> dict[str, str]:
    """Return for each tensor of a result that the checkpoint's model has too, its name there.

    Adapters put the layers that they are on, and those that are trained as a whole, into wrappers.
    """
    adapted, inner = is_adapted(model), model
    if adapted:
        inner = model.get_submodule("base_model.model")
    own = {inner.own_name(name) if isinstance(inner, PooledClassifier) else name: name for name in start}
    found = {}
    for name, _ in named_tensors(model):
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".") if adapted else name
        if (short := plain.replace(".original_module.", ".")) in own:
            found[name] = own[short]
    return found


def _promise(config: RunConfig, model: nn.Module, origin: Mapping[str, str],
             declared: set[int]) -> Callable[[str], bool]:
    """Return which parameters a strategy says that it trains, whatever asks for a gradient."""
    strategy = config.strategy
    if strategy.name in ("head", "linear_probe"):
        return head_parameters(model)
    if strategy.name == "lora":
        # What adapters bring may hold parts that are drawn once and never trained (VeRA's projections).
        ids = {name: id(parameter) for name, parameter in model.named_parameters()}
        return lambda name: name not in origin and ids[name] in declared
    parts = blocks(model)
    if strategy.name == "last_k":
        last = [part.name for part in parts if part.name not in ("stem", "head")][-strategy.k:]
        trained = {name for part in parts if part.name in ("head", *last) for name in part.prefixes}
        return trained.__contains__
    stem = {name for part in parts if part.name == "stem" for name in part.prefixes} if strategy.freeze_stem else set()
    return lambda name: name not in stem


def _statistics(config: RunConfig, model: nn.Module, parameters: Sorted) -> Callable[[str], bool]:
    """Return which buffers may move: the statistics of a BatchNorm that is trained, unless they are to be kept."""
    frozen = {*parameters.kept, *parameters.broken}
    moving: set[str] = set()
    for path, module in model.named_modules():
        own = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, BatchNorm) and not config.strategy.freeze_batch_norm and not (own and own <= frozen):
            moving |= {f"{path}.{name}" for name, _ in module.named_buffers(recurse=False)}
    return moving.__contains__
