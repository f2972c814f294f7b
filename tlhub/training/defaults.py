"""Defaults for the run at hand: from the task, the strategy and the size of the data, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlhub.config import RunConfig, replace


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on.

    Attributes:
        examples: Number of training examples.
        text: Whether the inputs are texts (otherwise pictures).
        convolutional: Whether the backbone is a convolutional network.
        hidden: Width of the backbone's output.
        metrics: Metrics of the task.
        best: The task's metric that chooses the best epoch.
    """

    examples: int
    text: bool
    convolutional: bool
    hidden: int
    metrics: tuple[str, ...]
    best: str


@dataclass(frozen=True)
class Default:
    """A field that was filled in."""

    name: str
    value: Any
    reason: str


def resolve(config: RunConfig, facts: Facts) -> tuple[RunConfig, list[Default]]:
    """Fill in the fields that the user left open and that have an effect in this run.

    Args:
        config: As given.
        facts: What the defaults depend on.

    Returns:
        The resolved configuration, and what was filled in with its reason.
    """
    chosen: list[Default] = []

    def choose(name: str, value: Any, reason: str) -> None:
        nonlocal config
        section, _, key = name.partition(".")
        if getattr(getattr(config, section), key) in (None, []):
            config = replace(config, {name: value})
            chosen.append(Default(name, value, reason))

    choose("evaluate.metrics", list(facts.metrics), "the task's metrics")
    choose("evaluate.best", facts.best, "the task's metric for choosing")
    if config.strategy.name != "linear_probe":
        _resolve_training(config, facts, choose)
    return config, chosen


def _resolve_training(config: RunConfig, facts: Facts, choose: Callable[[str, Any, str], None]) -> None:
    strategy = config.strategy.name
    if not facts.text:
        trains_backbone = strategy != "head"
        reason = "the backbone is trained" if trains_backbone else "off, so that features can be cached"
        choose("data.flip", trains_backbone, reason)
        choose("data.crop", trains_backbone, reason)
    batch_size = config.train.batch_size or _batch_size(facts, strategy)
    choose("train.batch_size", batch_size, f"{facts.examples} training examples")
    if config.train.max_steps is None:
        epochs = _epochs(facts, strategy, batch_size)
        choose("train.epochs", epochs, f"{facts.examples} training examples, strategy {strategy}")
    rate, reason = _learning_rate(facts, strategy)
    choose("train.learning_rate", rate, reason)
    choose("train.weight_decay", 0.05 if strategy == "scratch" or not facts.text else 0.01,
           "images or fresh weights" if strategy == "scratch" or not facts.text else "texts")


def _batch_size(facts: Facts, strategy: str) -> int:
    """Return the usual size for the modality, smaller where an epoch would have few steps.

    Encoders of text fail on small data for want of steps (Mosbach et al. 2021), so they get 200 of them; networks with
    BatchNorm bear small batches badly, so pictures get 8.
    """
    usual = 256 if strategy == "head" else 32 if facts.text else 64
    steps = 200 if facts.text and strategy != "head" else 8
    while usual > 8 and facts.examples < steps * usual:
        usual //= 2
    return usual


def _epochs(facts: Facts, strategy: str, batch_size: int) -> float:
    """Return passes for about a target number of steps, within bounds."""
    steps = {"scratch": 6000, "head": 2000, "lora": 1500}.get(strategy, 1000)
    lowest, highest = {"scratch": (10, 100), "head": (10, 100)}.get(strategy, (3, 30))
    per_epoch = -(-facts.examples // batch_size)
    return float(min(highest, max(lowest, round(steps / per_epoch))))


def _learning_rate(facts: Facts, strategy: str) -> tuple[float, str]:
    """Return the peak learning rate.

    Transformers: within the 2e-5 to 5e-5 of the GLUE recipes at width 768, scaled by 768/width since narrower networks
    bear more; LoRA ten to fifteen times that ("LoRA Without Regret", 2025). Convolutional networks: 3e-4 with AdamW,
    the best of 1e-4, 3e-4 and 1e-3 by validation loss on two small sets of photographs.
    """
    if strategy == "head":
        return 1e-3, "a head on frozen features"
    scale = 768 / max(facts.hidden, 1)
    if strategy == "scratch":
        return (1e-3, "fresh weights") if facts.convolutional else (3e-4 * min(scale, 3.0), "fresh transformer weights")
    full = 3e-4 if facts.convolutional else min((4e-5 if facts.text else 5e-5) * scale, 5e-4)
    if strategy == "lora":
        return (min(full * 12, 5e-3), f"adapters, backbone width {facts.hidden}")
    return full, f"{'convolutional' if facts.convolutional else 'transformer'} backbone of width {facts.hidden}"
