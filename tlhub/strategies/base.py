"""What a strategy is, and what it works with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from tlhub.config import RunConfig
from tlhub.data.batches import ArrayInputs, Inputs
from tlhub.data.targets import Target
from tlhub.errors import CheckpointError
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.features import available_features
from tlhub.models.outputs import IDENTITY, OutputMap
from tlhub.models.pooling import reads_last_token
from tlhub.models.probes import choose_features, ridge_loo
from tlhub.training.unfreezing import Schedule


class Workbench(Protocol):
    """What a run puts at a strategy's disposal.

    Attributes:
        config: The resolved configuration.
        checkpoint: The checkpoint, loaded.
        inputs: The splits: `train`, `validation` and, where the data has one, `test`.
        target: What is predicted: the kind of target, and the names of its outputs.
        outputs: From what a model is trained to give to its final outputs.
        groups: What of the training split is never divided (speaker, patient), shape (n,); None without groups.
    """

    config: RunConfig
    checkpoint: Checkpoint
    inputs: Mapping[str, Inputs]
    target: Target
    groups: np.ndarray | None

    @property
    def classes(self) -> int:
        """Number of final outputs."""

    @property
    def outputs(self) -> OutputMap:
        """From what a model is trained to give to its final outputs."""

    def sample(self) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for one training example, on the CPU."""

    def features(self, kinds: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Return the frozen checkpoint's features, kind -> split -> (n, d), computed once and cached."""

    def entered(self, model: nn.Module) -> AbstractContextManager[Mapping[str, Inputs]]:
        """Let a partly frozen model begin at its first trained block, where that can be done; give what it reads then.

        What cannot be entered stays whole and reads `inputs`, and the user is told why.
        """

    def train(self, model: nn.Module, inputs: Mapping[str, Inputs], *, whole: nn.Module | None = None,
              schedule: Schedule | None = None, from_start: bool = False) -> None:
        """Train what needs a gradient, and leave the weights that were best on validation.

        Args:
            model: What is trained.
            inputs: What it reads, by split.
            whole: The model that `model` is the head of, where it is trained by itself.
            schedule: When each part of what is trained is unfrozen; None for all of it from the start.
            from_start: Whether the weights that training begins with may be the best ones.
        """

    def tell(self, line: str) -> None:
        """Tell the user."""


@dataclass(frozen=True)
class Fitted:
    """The result of a strategy.

    Attributes:
        model: The whole model, from the task's inputs to logits.
        scorer: What computes the outputs to be scored: the model, or its head alone where features are cached.
        inputs: What the scorer reads, by split.
        outputs: From what these give to the final outputs.
    """

    model: nn.Module
    scorer: nn.Module
    inputs: Mapping[str, Inputs]
    outputs: OutputMap = IDENTITY


class Strategy(ABC):
    """What is trained.

    Attributes:
        pretrained: Whether the checkpoint's weights are used, or its architecture alone.
    """

    pretrained: ClassVar[bool] = True

    @abstractmethod
    def fit(self, bench: Workbench) -> Fitted:
        """Adapt the bench's checkpoint to its data."""


class FeatureHead(nn.Module):
    """A head over cached features, with the output of a whole model.

    Args:
        head: Maps (b, d) to (b, classes).
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> SequenceClassifierOutput:
        """Return the logits (b, classes) of `features` (b, d)."""
        return SequenceClassifierOutput(logits=self.head(features))


def probe_features(bench: Workbench) -> tuple[str, dict[str, np.ndarray]]:
    """Return the kind of features a probe should read and their values by split.

    `strategy.features` names the kind; `auto` takes the best by exact ridge leave-one-out on the training split, where
    groups are left out whole, and within one standard error of it the checkpoint's own (`native`); of a decoder `mean`,
    since its own are those of the last token, which was trained to tell what follows and not what was said.

    Raises:
        CheckpointError: The checkpoint does not offer the kind that was asked for.
    """
    checkpoint, asked = bench.checkpoint, bench.config.strategy.features
    offered = available_features(checkpoint.model, checkpoint.new_parameters)
    if asked != "auto" and asked not in offered:
        raise CheckpointError(f"--strategy.features {asked!r} is not offered by checkpoint {checkpoint.origin.name!r}, "
                              f"whose features are: {', '.join(offered)}")
    features = bench.features(offered if asked == "auto" else (asked,))
    if asked != "auto" or len(features) == 1:
        kind = next(iter(features))
        return kind, features[kind]
    labels = bench.inputs["train"].labels
    results = {kind: ridge_loo(values["train"], labels, bench.classes, groups=bench.groups)
               for kind, values in features.items()}
    kind = choose_features(results, prefer="mean" if reads_last_token(checkpoint.model) else "native")
    bench.tell(f"features by leave-one-out {results[kind].measure}: " + ", ".join(
        f"{name} {result.score:.4f}" for name, result in results.items()) + f"; {kind} is used")
    return kind, bench.features((kind,))[kind]


def is_augmented(inputs: Inputs) -> bool:
    """Return whether a split is another one in every epoch, by augmentation or because its examples are mixed."""
    return bool(getattr(inputs, "augmented", False))


def feature_inputs(bench: Workbench, features: Mapping[str, np.ndarray]) -> dict[str, Inputs]:
    """Return the splits as inputs of a `FeatureHead`."""
    return {split: ArrayInputs(values, bench.inputs[split].labels) for split, values in features.items()}
