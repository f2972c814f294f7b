"""Which strategy for this amount of data: a table of rules, the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tlhub.config import RunConfig
from tlhub.planning.estimates import Cost

FEW, SOME, MANY = 2, 16, 20_000
"""Examples of the rarest class below which nothing is trained by gradient, and below which texts are probed; training
examples above which the whole network is trained."""
_HIGH, _TOP = 0.95, 0.99
"""A score that leaves little to gain where more examples add nothing, and one that does in any case."""
_RARE = 10
"""How much more frequent the most frequent class is than the rarest, where that is told to the loss."""
_SMALL = 300_000_000
"""Parameters of a model that may as well be trained whole."""


@dataclass(frozen=True)
class Situation:
    """What the advice depends on, all of it measured.

    Attributes:
        modality: `image`, `text`, `audio` or `corpus`.
        examples: Of training; blocks of a corpus.
        rarest: Training examples of the rarest class; None where there are no classes.
        imbalance: How much more frequent the most frequent class is; None likewise.
        score: Of the probe by leave-one-out; of a language model bits per byte.
        standard_error: Of the score.
        kinds: The score of each kind of features; empty for a language model.
        half: The score with half of the examples; None for a language model.
        masked: Whether the checkpoint was trained to fill in what is hidden.
        parameters: Of the checkpoint.
        tokens: Of training; 0 where none are predicted.
        adapter: Numbers that LoRA trains; None where it cannot be had.
    """

    modality: str
    examples: int
    rarest: int | None
    imbalance: float | None
    score: float
    standard_error: float
    kinds: Mapping[str, float]
    half: float | None
    masked: bool
    parameters: int
    tokens: int
    adapter: int | None

    @property
    def slope(self) -> float:
        """What the score has gained from the second half of the examples."""
        return 0.0 if self.half is None else self.score - self.half

    @property
    def deeper(self) -> float:
        """By how much the mean over all layers is better than the last one alone."""
        last = [score for kind, score in self.kinds.items() if kind != "layer_mean"]
        return self.kinds["layer_mean"] - max(last) if last and "layer_mean" in self.kinds else 0.0


@dataclass(frozen=True)
class Advice:
    """How to transfer.

    Attributes:
        strategy: What to run first.
        also: What to compare it with; empty for nothing.
        reason: Why.
        options: Further options of the command, by their full names.
    """

    strategy: str
    also: str
    reason: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class _Rule:
    applies: Callable[[Situation], bool]
    strategies: tuple[str, str]
    reason: Callable[[Situation], str]


_LABELLED = (
    _Rule(lambda s: s.rarest is not None and s.rarest <= FEW, ("linear_probe", ""),
          lambda s: f"with {s.rarest} of the rarest class nothing more than a linear head can be fitted, or judged"),
    _Rule(lambda s: s.score >= _TOP or (s.score >= _HIGH and s.slope <= s.standard_error), ("linear_probe", "lp_ft"),
          lambda s: f"the frozen features already give {s.score:.3f}, and the second half of the examples added "
                    f"{s.slope:+.3f} (standard error {s.standard_error:.3f})"),
    _Rule(lambda s: s.masked and s.modality == "image", ("full", "lora"),
          lambda s: "the checkpoint learned to fill in hidden parts of pictures, so its last layer says little before "
                    "it is trained"),
    _Rule(lambda s: s.deeper > 2 * s.standard_error, ("lora", "full"),
          lambda s: f"the mean over all layers is {s.deeper:+.3f} better than the last one, more than two standard "
                    f"errors ({s.standard_error:.3f}): what the task needs lies deeper than a head can reach"),
    _Rule(lambda s: s.modality == "text" and s.rarest is not None and s.rarest <= SOME, ("linear_probe", "lora"),
          lambda s: f"with {s.rarest} texts of the rarest class fine-tuning often fails to converge, and a head on "
                    "frozen features does not"),
    _Rule(lambda s: s.examples >= MANY, ("full", "lora"),
          lambda s: f"{s.examples:,} examples are enough to train the whole network"),
    _Rule(lambda s: True, ("lora", "full"),
          lambda s: f"{s.examples:,} examples can teach more than a probe does ({s.score:.3f}), and adapters keep what "
                    "the checkpoint knows; full fine-tuning is worth comparing"),
)
_GENERATING = (
    _Rule(lambda s: s.adapter is not None and s.adapter >= s.tokens, ("lora", "full"),
          lambda s: f"{s.tokens:,} tokens are fewer than the {s.adapter:,} numbers of the adapters, where LoRA is "
                    "as good as training everything and forgets less"),
    _Rule(lambda s: s.parameters <= _SMALL, ("full", "lora"),
          lambda s: f"{s.tokens:,} tokens are more than adapters can hold, and a model of {s.parameters / 1e6:,.1f} "
                    "million parameters is trained whole at little cost"),
    _Rule(lambda s: True, ("lora", "full"),
          lambda s: f"a model of {s.parameters / 1e6:,.0f} million parameters: adapters take the least memory; for as "
                    "many tokens as these raise --strategy.rank"),
)


def advise(situation: Situation, costs: Sequence[Cost], config: RunConfig) -> Advice:
    """Return which strategy to take, the first of a rule's that memory suffices for.

    The rules are those of Kumar et al. (2022), Mosbach et al. (2021), Tunstall et al. (2022), "LoRA Without Regret"
    (2025) and BiT (2020), ordered from what rules others out to what is usual.

    Args:
        situation: What was measured.
        costs: Of the strategies.
        config: As a run would have it, with what it fills in by itself.
    """
    rule = next(rule for rule in (_GENERATING if situation.tokens else _LABELLED) if rule.applies(situation))
    reason = rule.reason(situation)
    known = {cost.strategy: cost for cost in costs}
    wanted = [name for name in rule.strategies if name]
    usable = [name for name in wanted if name not in known or known[name].seconds is not None]
    for name in wanted:
        if name not in usable:
            reason += f"; {name} cannot be had here ({known[name].reason})"
    if not usable:
        usable = [cost.strategy for cost in costs if cost.seconds is not None][:1] or wanted[:1]
    first, *others = usable
    options: dict[str, str] = {}
    cost = known.get(first)
    if cost is not None and cost.micro_batch is not None:
        options["train.micro_batch_size"] = str(cost.micro_batch)
    if situation.imbalance is not None and situation.imbalance >= _RARE and not _is_balanced(config):
        reason += (f"; the most frequent class has {situation.imbalance:.0f} times as many examples as the rarest: "
                   "where all classes count alike, add --train.logit_adjustment 1 --evaluate.best f1_macro")
    return Advice(first, others[0] if others else "", reason, options)


def _is_balanced(config: RunConfig) -> bool:
    """Return whether rare classes count for more than their share already: two corrections together go too far."""
    train = config.train
    return bool(train.logit_adjustment) or train.class_weights == "balanced" or train.sampling != "natural"
