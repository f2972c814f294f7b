"""How large a model may become while it is being built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from tlhub.errors import CheckpointError
from tlhub.models.inspection import Brought

_MOST_MODULES = 10**5
_MODULES_A_TENSOR, _MODULES_BESIDE = 8, 10**4
_BESIDE = 2**27
"""Numbers that a new head and tables of positions may add to what the files hold."""
_TIMES = 4
"""How often the files' numbers may be there while a model is built: tied weights are apart for a while, and half of the
backbone may be missing in the files."""
_BYTES = 4


@contextmanager
def bounded(name: str, brought: Brought | None) -> Iterator[None]:
    """Stop the building of a model, inside the block, that outgrows its files or this machine.

    Args:
        name: What messages call the checkpoint.
        brought: What its files hold; None where they do not matter, since all weights are drawn afresh.

    Raises:
        CheckpointError: It does.
    """
    fits = psutil.virtual_memory().total // _BYTES
    most_modules = _MODULES_A_TENSOR * brought.tensors + _MODULES_BESIDE if brought else _MOST_MODULES
    sizes: dict[tuple[int, str], int] = {}  # by place, since weights take the place of empty ones there
    total = modules = 0

    def count(owner: Any, key: str, tensor: Any) -> None:
        nonlocal total
        size = 0 if tensor is None else tensor.numel()
        total += size - sizes.get((id(owner), key), 0)
        sizes[id(owner), key] = size
        if brought is not None and total > _TIMES * brought.numbers + _BESIDE:
            raise CheckpointError(f"the weights of {name!r} hold {brought.numbers} numbers, and its config.json "
                                  "describes many times as many; the checkpoint is damaged or of another architecture")
        if total > fits:
            raise CheckpointError(f"the model of {name!r} takes more than {_BYTES * fits / 2**30:.0f} GiB, which is "
                                  "what this machine has; take a smaller one")

    def count_modules(owner: Any, key: str, module: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > most_modules:
            raise CheckpointError(f"the config.json of {name!r} describes a model of more than {most_modules} layers "
                                  "and parts of them; the checkpoint is damaged or of another architecture")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count),
             register_module_module_registration_hook(count_modules)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
