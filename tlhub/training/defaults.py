"""Defaults for the run at hand: from the task, the strategy and the size of the data, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tlhub.config import LABELLED_TASKS, MULTI_LABEL, REGRESSION, SINGLE_LABEL, RunConfig, replace, value_of

_TOKENS_A_STEP, _TOKENS_AT_ONCE = 16384, 8192
"""Tokens of an optimizer step of a language model, and of one forward pass."""
CACHING = ("head", "last_k")
"""Strategies that compute what is frozen once, where no augmentation changes the inputs."""


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on.

    Attributes:
        examples: Number of training examples.
        modality: What the inputs are: `image`, `text`, `audio`, or `corpus` for texts that are generated.
        convolutional: Whether the backbone is a convolutional network.
        hidden: Width of the backbone's output.
        metrics: Metrics of the kind of target.
        best: Its metric that chooses the best epoch.
        problem_type: The kind of target.
        loss: The loss for it.
    """

    examples: int
    modality: str
    convolutional: bool
    hidden: int
    metrics: tuple[str, ...]
    best: str
    problem_type: str
    loss: str


    @property
    def language(self) -> bool:
        """Whether the inputs are texts."""
        return self.modality in ("text", "corpus")


@dataclass(frozen=True)
class Default:
    """A field that was filled in."""

    name: str
    value: Any
    reason: str


def fill(config: RunConfig, found: Sequence[Default]) -> tuple[RunConfig, list[Default]]:
    """Return the configuration with those of the values whose fields were left open, and these values."""
    taken = [default for default in found if value_of(config, default.name) in (None, [])]
    return replace(config, {default.name: default.value for default in taken}), taken


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
        config, taken = fill(config, [Default(name, value, reason)])
        chosen.extend(taken)

    if config.task in LABELLED_TASKS:
        choose("data.problem_type", facts.problem_type, "the labels")
    choose("evaluate.metrics", list(facts.metrics), "the metrics of this kind of target")
    choose("evaluate.best", facts.best, "its metric for choosing")
    if facts.problem_type in (SINGLE_LABEL, MULTI_LABEL):
        wake_word = config.task == "wake-word"
        choose("train.class_weights", "balanced" if wake_word else "none",
               "a keyword is rarer than everything else" if wake_word else "every example counts alike")
    if config.strategy.name != "linear_probe":
        _resolve_training(config, facts, choose)
    return config, chosen


def _resolve_training(config: RunConfig, facts: Facts, choose: Callable[[str, Any, str], None]) -> None:
    strategy = config.strategy.name
    varied = strategy not in CACHING
    reason = "the backbone is trained" if varied else "off, so that what is frozen can be computed once"
    if facts.modality == "audio":
        choose("data.shift", 0.1 if varied else 0.0, reason)
    if facts.modality == "image":
        choose("data.flip", varied, reason)
        if varied and facts.problem_type == REGRESSION:
            choose("data.crop", "none", "a part that is enlarged can have another value than the whole")
        choose("data.crop", "resized" if varied else "none", reason)
    if strategy == "gradual_unfreezing":
        choose("strategy.layer_decay", 0.8, "lower blocks hold what is more general, and move less")
    choose("train.loss", facts.loss, "the kind of target")
    corpus = facts.modality == "corpus"
    batch_size = config.train.batch_size or (_blocks(config, facts) if corpus else _batch_size(facts, strategy))
    what = "blocks" if corpus else "examples"
    choose("train.batch_size", batch_size, f"{facts.examples} training {what}")
    if corpus:
        at_once = max(1, _TOKENS_AT_ONCE // (config.data.block_size or 1))
        choose("train.micro_batch_size", at_once, f"about {_TOKENS_AT_ONCE} tokens in memory")
    if config.train.max_steps is None:
        epochs = _epochs(facts, strategy, batch_size)
        choose("train.epochs", epochs, f"{facts.examples} training {what}, strategy {strategy}")
    rate, reason = _corpus_rate(facts, strategy) if corpus else _learning_rate(facts, strategy)
    choose("train.learning_rate", rate, reason)
    choose("train.weight_decay", *_weight_decay(config, facts))


def _weight_decay(config: RunConfig, facts: Facts) -> tuple[float, str]:
    if config.train.optimizer != "adamw":
        return 0.0, f"{config.train.optimizer} would mix it with the gradient"
    if config.strategy.name == "scratch" and facts.modality == "corpus":
        return 0.1, "a language model with fresh weights"
    if config.strategy.name == "scratch" or facts.modality == "image":
        return 0.05, "images or fresh weights"
    return 0.01, "a transformer's usual one"


def _batch_size(facts: Facts, strategy: str) -> int:
    """Return the usual size for the modality, smaller where an epoch would have few steps.

    Encoders of text fail on small data for want of steps (Mosbach et al. 2021), so they get 200 of them; networks with
    BatchNorm bear small batches badly, so pictures get 8.
    """
    usual = 256 if strategy == "head" else 64 if facts.modality == "image" else 32
    steps = 200 if facts.language and strategy != "head" else 8
    while usual > 8 and facts.examples < steps * usual:
        usual //= 2
    return usual


def _blocks(config: RunConfig, facts: Facts) -> int:
    """Return blocks of together about 16,000 tokens, fewer where an epoch would have less than 50 steps, 4 at least.

    Small batches suit small corpora, and adapters above all ("LoRA Without Regret", 2025).
    """
    usual = 4
    while usual < 64 and 2 * usual * (config.data.block_size or 1) <= _TOKENS_A_STEP and facts.examples >= 100 * usual:
        usual *= 2
    return usual


def _corpus_rate(facts: Facts, strategy: str) -> tuple[float, str]:
    """Return the peak learning rate of a language model.

    5e-5 at width 768, as transformers' own scripts have it, less for wider ones; LoRA ten times a rate that falls more
    slowly with the width, 5e-4 * (2000 / width)**0.78 (fitted by "LoRA Without Regret", 2025); fresh weights GPT-2's
    and GPT-3's 6e-4 at width 768 (Brown et al. 2020, table 2.1).
    """
    width = max(facts.hidden, 1)
    if strategy == "scratch":
        return min(6e-4 * 768 / width, 2e-3), f"fresh weights of width {facts.hidden}"
    if strategy == "lora":
        return min(5e-4 * (2000 / width) ** 0.78, 5e-3), f"adapters on a language model of width {facts.hidden}"
    full = min(5e-5 * 768 / width, 5e-4)
    if strategy == "last_k":
        return 3 * full, f"the last blocks of a language model of width {facts.hidden}"
    return full, f"a language model of width {facts.hidden}"


def _epochs(facts: Facts, strategy: str, batch_size: int) -> float:
    """Return passes for about a target number of steps, within bounds."""
    if facts.modality == "corpus":
        # Every token of a text is a target, so that a few passes teach what is in it; the best of them is kept.
        return 10.0 if strategy == "scratch" else 3.0
    steps = {"scratch": 6000, "head": 2000, "lora": 1500}.get(strategy, 1000)
    lowest, highest = {"scratch": (10, 100), "head": (10, 100)}.get(strategy, (3, 30))
    per_epoch = -(-facts.examples // batch_size)
    return float(min(highest, max(lowest, round(steps / per_epoch))))


def _learning_rate(facts: Facts, strategy: str) -> tuple[float, str]:
    """Return the peak learning rate.

    Transformers: within the 2e-5 to 5e-5 of the GLUE recipes at width 768, scaled by 768/width since narrower networks
    bear more; LoRA ten to fifteen times that ("LoRA Without Regret", 2025). Convolutional networks: 3e-4 with AdamW,
    the best of 1e-4, 3e-4 and 1e-3 by validation loss on two small sets of photographs. The last blocks alone three
    times as much: better than once or ten times on 1,000 questions of TREC, by validation. The whole of a network of
    sound: with the square of 768/width, since at width 144 1e-3 was better than 2e-4 on 160 spoken digits, by
    validation. Texts below width 384, that of small distilled encoders: with the cube, since at width 192 6e-4 was
    better than 1.6e-4 on 96 questions of TREC, by validation.
    """
    if strategy == "head":
        return 1e-3, "a head on frozen features"
    scale = 768 / max(facts.hidden, 1)
    if strategy == "scratch":
        return (1e-3, "fresh weights") if facts.convolutional else (3e-4 * min(scale, 3.0), "fresh transformer weights")
    full = 3e-4 if facts.convolutional else min((5e-5 if facts.modality == "image" else 4e-5) * scale, 5e-4)
    if strategy == "lora":
        return (min(full * 12, 5e-3), f"adapters, backbone width {facts.hidden}")
    if facts.modality == "audio" and strategy != "last_k" and not facts.convolutional:
        return min(4e-5 * scale**2, 1e-3), f"network of sound of width {facts.hidden}"
    if facts.modality == "text" and strategy != "last_k":
        return min(full * max(scale / 2, 1.0) ** 2, 1e-3), f"transformer backbone of width {facts.hidden}"
    if strategy == "last_k":
        return 3 * full, f"the last blocks of a backbone of width {facts.hidden}"
    return full, f"{'convolutional' if facts.convolutional else 'transformer'} backbone of width {facts.hidden}"
