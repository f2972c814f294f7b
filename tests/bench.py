"""A workbench for strategies whose features are known and whose training only notes what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests import tiny
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, ModelConfig, RunConfig, replace
from tlhub.data.batches import ArrayInputs, Inputs
from tlhub.data.targets import Target
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.outputs import IDENTITY, OutputMap
from tlhub.registry import STRATEGIES

CLASSES = np.arange(30) % 3
NAMES = ("a", "b", "c")


def problem_type(labels: np.ndarray) -> str:
    """Return the kind of target that labels are of."""
    return {"i": SINGLE_LABEL, "b": MULTI_LABEL, "f": REGRESSION}[labels.dtype.kind]


@dataclass
class Bench:
    """A run's workbench without the run.

    Attributes:
        labels: Of both splits, with three classes, labels or values.
        trained: What training was given: the model, the names of its trained parameters, and the inputs.
        told: What the user was told.
    """

    config: RunConfig
    checkpoint: Checkpoint
    labels: np.ndarray = field(default_factory=lambda: CLASSES)
    outputs: OutputMap = IDENTITY
    groups: np.ndarray | None = None
    trained: list[tuple[nn.Module, set[str], Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs: Mapping[str, Inputs] = {
            split: ArrayInputs(np.zeros((len(self.labels), 1), np.float32), self.labels)
            for split in ("train", "validation")}
        self.target = Target(problem_type(self.labels), NAMES)
        self.classes = len(NAMES)

    def sample(self) -> dict[str, torch.Tensor]:
        """Return one example of what the checkpoint reads."""
        return tiny.inputs(self.checkpoint.model.config.model_type, 1)

    def features(self, kinds: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Make `mean` tell the labels and the other kinds not."""
        random = np.random.default_rng(0)
        columns = np.eye(3)[self.labels] if self.labels.ndim == 1 else self.labels.astype(np.float64)
        found = {}
        for kind in kinds:
            values = random.standard_normal((len(self.labels), tiny.HIDDEN)).astype(np.float32)
            if kind == "mean":
                values[:, :3] += (8 * (columns - columns.mean(0)) / columns.std(0)).astype(np.float32)
            found[kind] = {"train": values, "validation": values}
        return found

    @contextmanager
    def entered(self, model: nn.Module) -> Iterator[Mapping[str, Inputs]]:
        """Leave the model whole."""
        yield self.inputs

    def train(self, model: nn.Module, inputs: Mapping[str, Inputs], *, whole: nn.Module | None = None,
              schedule: Any = None, from_start: bool = False) -> None:
        """Note what is to be trained."""
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.trained.append((model, names, inputs))

    def tell(self, line: str) -> None:
        """Note what is told."""
        self.told.append(line)


def make_bench(folder: Path, strategy: str, kind: str = "bert", *, labels: np.ndarray = CLASSES,
               outputs: OutputMap = IDENTITY, **values: Any) -> Bench:
    """Return a bench with a tiny checkpoint.

    Args:
        folder: Where the checkpoint is laid out.
        strategy: Name of the strategy.
        kind: Kind of the checkpoint.
        labels: Of both splits.
        outputs: The space that models are trained in.
        values: Fields of the configuration, `__` for the dot.
    """
    auto_model, auto_processor = tiny.auto_names(kind)
    checkpoint = load_checkpoint(ModelConfig(name=str(tiny.checkpoint(folder / kind, kind))), auto_model=auto_model,
                                 auto_processor=auto_processor, label_names=NAMES, problem_type=problem_type(labels),
                                 pretrained=STRATEGIES.get(strategy).pretrained, seed=0)
    config = replace(RunConfig(task="x"), {"strategy.name": strategy,
                                           **{name.replace("__", "."): value for name, value in values.items()}})
    return Bench(config, checkpoint, labels, outputs)


def fit(bench: Bench) -> Any:
    """Run the bench's strategy."""
    return STRATEGIES.get(bench.config.strategy.name)().fit(bench)
