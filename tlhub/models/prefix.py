"""Entering a model at its first trained block, so that the frozen blocks before it need not be run.

The blocks before the entry are made to hand on what they are given, the rest of the model runs as it is, and the
entry's input is replaced by the activations that the whole model would bring it. That needs no knowledge of an
architecture but the names of its blocks; whether it holds is proved on examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from tlhub.data.activations import ActivationInputs, Layout, cached_activations
from tlhub.data.batches import Inputs
from tlhub.data.cache import ArrayCache
from tlhub.models.blocks import stage_modules, unit_modules
from tlhub.models.pooling import evaluating

ACTIVATIONS = "entry_activations"
"""The keyword argument by which an entered model is given the entry's input."""
EXACT = 1e-5
"""How far the logits of the entered model may be from those of the whole, as a share of the largest."""


ALIKE = 1e-2
"""The same for cached activations: they come from batches of other shapes, whose sums are rounded otherwise."""
EXAMPLES = 8
"""Examples on which entering is proved."""


class CannotEnterError(Exception):
    """The frozen blocks of a model cannot be left out; says why."""


@dataclass(frozen=True)
class Entry:
    """Where a model is entered.

    Attributes:
        name: Path of the module whose input is given.
        passed: The modules before it that are left out, and for each how many values it returns in a tuple; 0 for a
            tensor by itself.
    """

    name: str
    passed: Mapping[str, int]


class _ReachedError(Exception):
    """Ends a forward pass at the entry."""


def cache_prefix(model: nn.Module, inputs: Mapping[str, Inputs], *, cache: ArrayCache, key: str, limit: float,
                 device: torch.device, batch_size: int) -> tuple[Entry, dict[str, Inputs]]:
    """Run the frozen blocks once over the data; return where the model is entered and what it then reads.

    Args:
        model: On `device`; `requires_grad` says what is trained.
        inputs: The splits, in the view for evaluation.
        cache: Where activations are kept.
        key: What they depend on, but for the split and the entry.
        limit: The most bytes that they may take.
        device: Where the model computes.
        batch_size: Examples of one forward pass.

    Raises:
        CannotEnterError: The frozen blocks have to be run in every epoch; says why.
    """
    some = next(iter(inputs.values()))
    indices = _spread(some)
    batch = some.batch(indices, None, device)
    entry = find_entry(model, batch)
    activations = fixed_activations(model, entry, batch)
    layout = Layout.of(activations, batch, some.lengths)
    if layout is None:
        raise CannotEnterError(f"what {entry.name} reads does not belong to single examples or tokens")
    size = sum(layout.size(split) for split in inputs.values())
    if size > limit:
        raise CannotEnterError(f"what {entry.name} reads takes {size / 2**30:.2f} GiB, more than "
                               f"data.cache_limit_gib {limit / 2**30:g}")
    prove(model, entry, batch, layout.arguments(activations, batch, ACTIVATIONS), tolerance=EXACT)
    found: dict[str, Inputs] = {}
    with evaluating(model):
        for split, whole in inputs.items():
            rows = cached_activations(whole, partial(entry_activations, model, entry), layout, cache=cache,
                                      key=f"activations 1 {key}-{split}-{entry.name}", device=device,
                                      batch_size=batch_size)
            found[split] = ActivationInputs(whole, rows, layout, ACTIVATIONS)
    cached = found[next(iter(inputs))].batch(indices, None, device)
    _check_rows(entry, *(layout.packed(states, batch) for states in (activations, cached[ACTIVATIONS])))
    prove(model, entry, batch, cached, tolerance=ALIKE)
    return entry, found


def _check_rows(entry: Entry, read: torch.Tensor, kept: torch.Tensor) -> None:
    """Compare what is kept with what the entry reads: the logits of a fresh head hardly tell two models apart."""
    difference = float((read - kept).abs().max())
    if not difference <= ALIKE * float(read.abs().max()):
        raise CannotEnterError(f"what is kept for {entry.name} differs by {difference:.1e} from what it reads")


def _spread(inputs: Inputs) -> np.ndarray:
    """Return a few examples, of all lengths."""
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    return np.unique(order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).astype(np.int64)])


def find_entry(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Entry:
    """Return the latest block or stage whose input does not depend on a trained parameter.

    Args:
        model: `requires_grad` says what is trained.
        batch: The model's keyword arguments for a few examples.

    Raises:
        CannotEnterError: Nothing is saved by entering there, or a block returns what is not known how to hand on.
    """
    calls: list[tuple[str, bool]] = []
    returned: dict[str, Any] = {}

    def before(name: str, _module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((name, _states(args, kwargs)[1].requires_grad))

    def after(name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        returned[name] = output

    units = unit_modules(model)
    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(before, name), with_kwargs=True)
             for name in (*units, *stage_modules(model))]
    hooks += [model.get_submodule(name).register_forward_hook(partial(after, name)) for name in units]
    try:
        with evaluating(model), torch.enable_grad():
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return _latest(calls, returned)


def _latest(calls: list[tuple[str, bool]], returned: Mapping[str, Any]) -> Entry:
    names = [name for name, _ in calls]
    frozen = [position for position, (_, needs_gradient) in enumerate(calls) if not needs_gradient]
    if not frozen:
        raise CannotEnterError("the trained part begins before the first block")
    entry = names[frozen[-1]]
    passed = {name: _arity(name, returned[name]) for name in names[:frozen[-1]] if name in returned}
    if repeated := [name for name in (entry, *passed) if names.count(name) > 1]:
        raise CannotEnterError(f"{repeated[0]} is run more than once in a pass")
    if not passed:
        raise CannotEnterError("no block lies before the trained ones")
    return Entry(entry, passed)


def _arity(name: str, output: Any) -> int:
    if isinstance(output, torch.Tensor):
        return 0
    if isinstance(output, tuple) and output and isinstance(output[0], torch.Tensor):
        return len(output)
    raise CannotEnterError(f"{name} returns a {type(output).__name__}, and how to hand it on is not known")


def entry_activations(model: nn.Module, entry: Entry, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the entry's input for a batch of the model's keyword arguments; the model is run no further.

    Raises:
        CannotEnterError: The entry is not reached.
    """
    found: list[torch.Tensor] = []
    hook = model.get_submodule(entry.name).register_forward_pre_hook(partial(_stop, found), with_kwargs=True)
    try:
        with torch.no_grad():
            model(**batch)
    except _ReachedError:
        return found[0]
    finally:
        hook.remove()
    raise CannotEnterError(f"{entry.name} is not reached")


def _stop(found: list[torch.Tensor], _module: nn.Module, args: Any, kwargs: Any) -> None:
    found.append(_states(args, kwargs)[1])
    raise _ReachedError


@contextmanager
def entering(model: nn.Module, entry: Entry) -> Iterator[None]:
    """Let the model begin at the entry, on the argument named `ACTIVATIONS`; after the block it is as it was.

    Its other arguments may be of one example where only their shape matters.
    """
    given: list[torch.Tensor] = []

    def take(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given[:] = [kwargs[ACTIVATIONS]]
        return args, {name: value for name, value in kwargs.items() if name != ACTIVATIONS}

    def put(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        place, _ = _states(args, kwargs)
        if isinstance(place, int):
            return (*args[:place], given[0], *args[place + 1:]), kwargs
        return args, {**kwargs, place: given[0]}

    hooks = [model.register_forward_pre_hook(take, with_kwargs=True),
             model.get_submodule(entry.name).register_forward_pre_hook(put, with_kwargs=True)]
    passed = {model.get_submodule(name): arity for name, arity in entry.passed.items()}
    for module, arity in passed.items():
        vars(module)["forward"] = _handing_on(arity)
    try:
        yield
    finally:
        for module in passed:
            del vars(module)["forward"]
        for hook in hooks:
            hook.remove()


def _handing_on(arity: int) -> Callable[..., Any]:
    """Return a forward pass that hands on its states, in the form in which the real one returns them."""
    def forward(*args: Any, **kwargs: Any) -> Any:
        _, states = _states(args, kwargs)
        return (states, *[None] * (arity - 1)) if arity else states

    return forward


def prove(model: nn.Module, entry: Entry, batch: Mapping[str, torch.Tensor], entered: Mapping[str, torch.Tensor], *,
          tolerance: float) -> None:
    """Compare the logits of the entered model with those of the whole.

    Args:
        model: The model, whole.
        entry: Where it is entered.
        batch: The whole model's keyword arguments.
        entered: Those of the entered model for the same examples.
        tolerance: Largest difference, as a share of the largest logit.

    Raises:
        CannotEnterError: They differ.
    """
    with torch.no_grad(), evaluating(model):
        whole = model(**batch).logits
        try:
            with entering(model, entry):
                logits = model(**entered).logits
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            raise CannotEnterError(f"the model cannot be entered at {entry.name} ({reason})") from error
    if logits.shape != whole.shape:
        raise CannotEnterError(f"entered at {entry.name}, the model returns another number of outputs")
    difference = float((logits - whole).abs().max())
    if not difference <= tolerance * max(1.0, float(whole.abs().max())):
        raise CannotEnterError(f"entered at {entry.name}, the model's outputs differ by {difference:.1e}")


def fixed_activations(model: nn.Module, entry: Entry, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the entry's input for a batch, proved to be the same in training as in evaluation.

    Raises:
        CannotEnterError: Something before the entry is random, or depends on the batch, in training.
    """
    with evaluating(model):
        fixed = entry_activations(model, entry, batch)
    was_training = model.training
    model.train()
    try:
        again = entry_activations(model, entry, batch)
    finally:
        model.train(was_training)
    if not torch.equal(fixed, again):
        raise CannotEnterError(f"what comes before {entry.name} is not the same in training as in evaluation")
    return fixed


def _states(args: Any, kwargs: Mapping[str, Any]) -> tuple[int | str, torch.Tensor]:
    """Return the hidden states among a block's arguments, and their place: they come first."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for place, value in places:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return place, value
    raise CannotEnterError("a block is given no hidden states")
