"""Names of tasks and strategies, read from the file names of their packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from tlhub.errors import UsageError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind, one file each, found by name and imported on demand.

    The valid names are the stems of the package's files (`base.py` excepted), so that names can be checked and listed
    without importing torch. Each file registers its class with the `register` decorator.

    Args:
        kind: What the things are, for messages: `task`, `strategy`.
        package: The package whose files hold them.
        separator: What stands for `_` of a file name in a public name.
    """

    def __init__(self, kind: str, package: str, separator: str = "_") -> None:
        self.kind = kind
        self.package = package
        self.separator = separator
        self._classes: dict[str, type[T]] = {}

    def names(self) -> tuple[str, ...]:
        """Return every valid name, in alphabetical order, without importing anything."""
        folder = Path(__file__).parent.joinpath(*self.package.split(".")[1:])
        stems = (module.name for module in pkgutil.iter_modules([str(folder)]) if module.name != "base")
        return tuple(sorted(stem.replace("_", self.separator) for stem in stems))

    def check(self, name: str) -> str:
        """Return `name` if it is valid.

        Raises:
            UsageError: There is no such name.
        """
        if name not in self.names():
            raise UsageError(f"{self.kind} {name!r} is not known; {nearest(name, self.names())}")
        return name

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that registers the class under `name`.

        Raises:
            KeyError: The name is taken, or is not the name of the file.
        """
        if name in self._classes or name not in self.names():
            raise KeyError(f"{self.kind} {name!r} is registered twice or does not name its file")

        def decorate(cls: type[T]) -> type[T]:
            self._classes[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> type[T]:
        """Return the class registered under `name`, importing its file.

        Raises:
            UsageError: There is no such name.
        """
        importlib.import_module(f"{self.package}.{self.check(name).replace(self.separator, '_')}")
        return self._classes[name]


TASKS: Registry[Any] = Registry("task", "tlhub.tasks", separator="-")
STRATEGIES: Registry[Any] = Registry("strategy", "tlhub.strategies")
