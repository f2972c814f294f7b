"""Gradual unfreezing: which part of a model trains, as a function of the step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tlhub.models.blocks import Block
from tlhub.models.freezing import freeze_all_but
from tlhub.training.callbacks import Audit
from tlhub.training.loop import Callback, Job, Progress


@dataclass(frozen=True)
class Schedule:
    """When each part is unfrozen: the first at once, the others at even distances, as Howard and Ruder (2018) do.

    Attributes:
        parts: In the order of unfreezing.
        fraction: Share of the steps after which the last part is unfrozen; at the latest it is for the last step.
    """

    parts: tuple[Block, ...]
    fraction: float

    def starts(self, total_steps: int) -> tuple[int, ...]:
        """Return for each part the number of steps that are done before it is trained."""
        last = min(round(self.fraction * total_steps), total_steps - 1)
        return tuple(place * last // max(len(self.parts) - 1, 1) for place in range(len(self.parts)))

    def trained(self, step: int, total_steps: int) -> frozenset[str]:
        """Return the names of the parameters that train after `step` steps."""
        return frozenset(name for part, start in zip(self.parts, self.starts(total_steps), strict=True)
                         for name in part.prefixes if start <= step)

    def words(self, total_steps: int) -> str:
        """Return the schedule in words."""
        starts = self.starts(total_steps)
        return ", ".join(f"{part.name} after {start}" for part, start in zip(self.parts, starts, strict=True)
                         ) + f" of {total_steps} steps"


class Unfreezing(Callback):
    """Freezes all that the schedule has not reached; what is frozen evaluates, and the audit begins anew each time.

    The optimizer holds every parameter from the start and passes over those without a gradient, so a part's moments
    begin when it is unfrozen.

    Args:
        model: The bare model; all that the schedule names is declared trainable.
        schedule: When each part is unfrozen.
        audit: Comes before this callback.
    """

    def __init__(self, model: nn.Module, schedule: Schedule, audit: Audit) -> None:
        self.model = model
        self.schedule = schedule
        self.audit = audit

    def on_start(self, job: Job, progress: Progress) -> None:
        """Freeze what is frozen at the step where this sitting begins."""
        self._freeze(job, progress)

    def on_step(self, job: Job, progress: Progress) -> None:
        """Unfreeze what is due."""
        if progress.step in self.schedule.starts(job.total_steps):
            self.audit.conclude(job)
            self._freeze(job, progress)

    def on_end(self, job: Job, progress: Progress) -> None:
        """Declare all of it trainable again, as it was before."""
        freeze_all_but(self.model, self.schedule.trained(job.total_steps, job.total_steps).__contains__)

    def _freeze(self, job: Job, progress: Progress) -> None:
        freeze_all_but(self.model, self.schedule.trained(progress.step, job.total_steps).__contains__)
        self.audit.renew(progress)
