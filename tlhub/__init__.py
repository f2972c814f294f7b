"""tlhub: transfer learning over pretrained checkpoints, the same for every modality."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tlhub import environment
from tlhub.version import __version__

if TYPE_CHECKING:
    from tlhub import tasks
    from tlhub.api import evaluate, finetune, load

__all__ = ["__version__", "evaluate", "finetune", "load", "tasks"]

# The one side effect of this import; it has to precede any import of torchaudio or torchvision (see the module).
environment.install()


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import tlhub` imports no torch.

    Raises:
        AttributeError: There is no such name.
    """
    with environment.loading():
        if name == "tasks":
            return importlib.import_module("tlhub.tasks")
        if name in __all__:
            return vars(importlib.import_module("tlhub.api"))[name]
    raise AttributeError(f"module 'tlhub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
