"""An average of the weights over the steps, which is often better than those of any one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tlhub.training.job import Callback, Job, Progress


class WeightAverage(Callback):
    """Keeps an exponential moving average of the weights, and lends it to the model while that is scored.

    After step t the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the weights: the first steps, which
    are far from where training ends, are soon forgotten (`tf.train.ExponentialMovingAverage` with `num_updates`).
    Statistics of BatchNorm are averaged likewise; whole numbers are taken as they are.

    Args:
        weights: Returns the model's own tensors by name: what is trained, and the buffers.
        decay: Share of the average that a step leaves, below 1.

    Attributes:
        values: The average, by name; empty before training begins.
    """

    def __init__(self, weights: Callable[[], Mapping[str, torch.Tensor]], decay: float) -> None:
        self.weights = weights
        self.decay = decay
        self.values: dict[str, torch.Tensor] = {}

    def on_start(self, job: Job, progress: Progress) -> None:
        """Begin with the weights as they are, where no average is being continued."""
        self.values = {name: self._started(name, value) for name, value in self.weights().items()}

    @torch.no_grad()
    def on_step(self, job: Job, progress: Progress) -> None:
        """Move towards the weights."""
        own = self.weights()
        real = [name for name, value in own.items() if value.is_floating_point()]
        decay = min(self.decay, (1 + progress.step) / (10 + progress.step))
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch gives it no types
        move([self.values[name] for name in real], [own[name].detach() for name in real], None)
        for name in own.keys() - set(real):
            self.values[name].copy_(own[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the average, and afterwards its weights again, to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self.weights().items():
            kept = value.detach().clone()
            value.copy_(self.values[name])
            self.values[name].copy_(kept)

    def _started(self, name: str, value: torch.Tensor) -> torch.Tensor:
        kept = self.values.get(name)
        return value.detach().clone() if kept is None else kept.to(value.device)
