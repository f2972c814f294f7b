"""The checkpoints and data sets that tlhub brings with it, by names such as `builtin/vision`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tlhub.builtin.reference import reference_folder
from tlhub.errors import CheckpointError, DataError

PREFIX = "builtin/"
"""What the names begin with; no folder and no Hub id is looked for under such a name."""
CARD = "card.json"
WEIGHTS = "model.safetensors"
PYTHON_REFERENCE = "builtin/python_reference"
"""The one data set that is made on the machine, from what Python brings."""
_HERE = Path(__file__).parent
LICENSES = _HERE / "LICENSES.md"
"""The terms of everything that lies here."""
_MODELS = _HERE / "models"
_DATA = _HERE / "data"
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its description, a whole number of so many bytes."""
_LONGEST_DESCRIPTION = 10**8
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What BatchNorm keeps beside its parameters."""


def _named(parent: Path, file: str) -> tuple[str, ...]:
    return tuple(f"{PREFIX}{path.parent.name}" for path in sorted(parent.glob(f"*/{file}")))


CHECKPOINTS = _named(_MODELS, CARD)
"""The names of the embedded checkpoints."""
DATASETS = _named(_DATA, "README.md")
"""The names of the embedded data sets."""


@dataclass(frozen=True)
class Terms:
    """Something that an embedded checkpoint was trained on.

    Attributes:
        name: What it is called.
        terms: Its licence or terms, as whoever publishes it states them.
    """

    name: str
    terms: str


@dataclass(frozen=True)
class Card:
    """What is known of an embedded checkpoint.

    Attributes:
        name: `builtin/…`.
        tasks: What it serves, by tlhub's names of tasks.
        architecture: transformers' class of the model that was trained.
        parameters: Their number.
        size: Bytes of its weights.
        data: What it was trained on.
        command: The command that makes it.
        seed: Its seed.
        seconds: How long the command took.
        device: Where that was.
        scores: Test scores by data set, then by strategy.
    """

    name: str
    tasks: tuple[str, ...]
    architecture: str
    parameters: int
    size: int
    data: tuple[Terms, ...]
    command: str
    seed: int
    seconds: float
    device: str
    scores: Mapping[str, Mapping[str, float]]

    @property
    def terms(self) -> str:
        """One line: what the checkpoint was trained on, and the terms of that."""
        return "; ".join(f"{part.name} ({part.terms})" for part in self.data)


def is_builtin(name: str) -> bool:
    """Return whether a name is one of tlhub's own, known or misspelt."""
    return name.startswith(PREFIX)


def checkpoint_folder(name: str) -> Path:
    """Return the folder of an embedded checkpoint.

    Args:
        name: Such as `builtin/vision`.

    Raises:
        CheckpointError: There is none of this name.
    """
    if name not in CHECKPOINTS:
        words = "a data set, no checkpoint" if name in DATASETS else "no checkpoint that tlhub brings"
        raise CheckpointError(f"model.name {name!r} is {words}; valid: {', '.join(CHECKPOINTS)}")
    return _MODELS / name.removeprefix(PREFIX)


def data_folder(name: str, cache: Path) -> Path:
    """Return the folder of an embedded data set.

    Args:
        name: Such as `builtin/digits`.
        cache: Where a data set is kept that is made on the machine.

    Raises:
        DataError: There is none of this name.
    """
    if name not in DATASETS:
        words = "a checkpoint, no data set" if name in CHECKPOINTS else "no data set that tlhub brings"
        raise DataError(f"data {name!r} is {words}; valid: {', '.join(DATASETS)}")
    return reference_folder(cache) if name == PYTHON_REFERENCE else _DATA / name.removeprefix(PREFIX)


def read_card(name: str) -> Card:
    """Read what is known of an embedded checkpoint.

    Args:
        name: Such as `builtin/vision`.

    Raises:
        CheckpointError: There is none of this name.
    """
    folder = checkpoint_folder(name)
    facts = json.loads((folder / CARD).read_text(encoding="utf-8"))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Card(
        name=name, tasks=tuple(facts["tasks"]), architecture=settings["architectures"][0],
        parameters=count_numbers(folder / WEIGHTS), size=(folder / WEIGHTS).stat().st_size,
        data=tuple(Terms(part["name"], part["terms"]) for part in facts["data"]), command=facts["command"],
        seed=facts["seed"], seconds=facts["seconds"], device=facts["device"], scores=facts["scores"],
    )


def count_numbers(path: Path) -> int:
    """Return how many parameters a safetensors file holds, by the description at its beginning, which needs no torch.

    Raises:
        ValueError: It is no safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        description = file.read(length) if length <= _LONGEST_DESCRIPTION else b""
    try:
        tensors = json.loads(description)
        return sum(math.prod(map(int, tensor["shape"])) for name, tensor in tensors.items()
                   if name != "__metadata__" and not name.endswith(_STATISTICS))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path.name!r} is no safetensors file") from None
