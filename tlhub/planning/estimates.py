"""What a run of each strategy would take, for one candidate and all of the data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tlhub.config import FEATURE_STRATEGIES, RunConfig, replace
from tlhub.data.cache import ArrayCache
from tlhub.data.portions import within_memory
from tlhub.data.prepare import Examples
from tlhub.errors import StoppedError, TlhubError
from tlhub.folder import RunFolder
from tlhub.models.features import available_features
from tlhub.planning.candidates import Subject, load
from tlhub.planning.costs import PATIENCE_S, DoesNotFitError, Measured, MeasuringBench, steps_and_validations
from tlhub.planning.memory import PeakMemory
from tlhub.planning.subsets import excerpts, subset, take
from tlhub.registry import STRATEGIES

_TRIED, _SCORED, _FEWEST = 128, 64, 16
"""Training examples that steps are tried on, examples that are scored, and how many of each where they take long."""
_CHARACTERS, _STRETCH = 200_000, 50_000
"""Of training texts that steps are tried on, and of a stretch of them."""
_SCORED_CHARACTERS = 20_000


@dataclass(frozen=True)
class Cost:
    """What a run of one strategy would take.

    Attributes:
        strategy: Its name.
        trained: Numbers that are trained; None where it cannot be told.
        steps: Optimizer steps; 0 where a head is fitted in closed form.
        batch_size: Examples of each.
        seconds: Of the run, from the moment that the data are prepared; None where it cannot be had.
        step_seconds: Of an optimizer step.
        peak: Bytes at the peak: of the accelerator, or of the whole process; None where the system does not tell.
        micro_batch: Examples that memory suffices for at a time, where that is less than was asked for.
        largest: Examples of the largest step that was tried; fewer than a run takes at a time where the rest is
            extrapolated.
        fits: Whether memory suffices.
        reason: Why it cannot be had; empty where it can.
        at_once: Examples at a time that were asked for; None where nothing is trained by gradient.
    """

    strategy: str
    trained: int | None = None
    steps: int = 0
    batch_size: int | None = None
    seconds: float | None = None
    step_seconds: float | None = None
    peak: int | None = None
    micro_batch: int | None = None
    largest: int | None = None
    fits: bool = True
    reason: str = ""
    at_once: int | None = None


class Estimates:
    """The costs of all strategies for one candidate, tried on a few examples.

    Args:
        subject: What for.
        name: Of the candidate.
    """

    def __init__(self, subject: Subject, name: str) -> None:
        self._subject = subject
        self._name = name
        self._first = load(subject, name, "full")
        self._memory = PeakMemory(subject.accelerator.device)
        self._counts, self._tokens = {split: len(part) for split, part in subject.data.splits.items()}, 0
        for split, part in subject.data.splits.items() if subject.generates else ():
            blocks = subject.task.inputs(part, self._first.checkpoint.processor, self._first.config, fingerprint="")
            self._counts[split] = len(blocks)
            self._tokens += int(blocks.labels[:, 0].sum()) if split == "train" else 0
        self._few = {"train": self._drawn("train", _TRIED, _CHARACTERS),
                     "validation": self._drawn("validation", _SCORED, _SCORED_CHARACTERS)}
        self._known: dict[tuple[int | None, ...], tuple[Measured, float]] = {}
        self._features: dict[str, dict[str, np.ndarray]] = {}
        self._forward, self._forward_peak = 0.0, 0

    @property
    def config(self) -> RunConfig:
        """The configuration of a run that trains all of the candidate, with what it fills in by itself."""
        return self._first.config

    @property
    def examples(self) -> int:
        """Of training; blocks where texts are cut into blocks."""
        return self._counts["train"]

    @property
    def tokens(self) -> int:
        """Tokens of training that are predicted; 0 where there are labels."""
        return self._tokens

    def all(self) -> list[Cost]:
        """Return the cost of each strategy that the task allows, the one that trains least first."""
        names = [name for name in STRATEGIES.names() if not (self._subject.generates and name in FEATURE_STRATEGIES)]
        with tempfile.TemporaryDirectory(prefix="tlhub-plan-") as folder:
            if not self._subject.generates:
                self._read_features(Path(folder))
            found = [self._cost(name, Path(folder)) for name in names]
        return sorted(found, key=lambda cost: (cost.seconds is None, cost.trained or 0, cost.seconds or 0.0))

    def _read_features(self, folder: Path) -> None:
        """Run the frozen checkpoint over the few examples, and note what an example takes.

        A first example tells whether the others are too many to wait for.
        """
        bench = self._bench("linear_probe", folder, {split: take(examples, np.arange(1))
                                                     for split, examples in self._few.items()})
        model = bench.checkpoint.model
        kinds = available_features(model, bench.checkpoint.new_parameters)
        for passed in ("first", "second"):  # the first forward pass is to warm up
            bench.known_features.clear()
            bench.cache = ArrayCache(folder / passed)  # of its own, or the second would find what the first has kept
            started = time.perf_counter()
            bench.features(kinds)
        most = max(int(PATIENCE_S / max((time.perf_counter() - started) / 2, 1e-9)), _FEWEST)
        seed = self._subject.config.seed
        self._few = {split: subset(examples, most, seed=seed, purpose="few") for split, examples in self._few.items()}
        bench = self._bench("linear_probe", folder, self._few)
        self._memory.reset(collect=True)
        started = time.perf_counter()
        self._features = bench.features(kinds)
        self._forward = (time.perf_counter() - started) / sum(map(len, self._few.values()))
        self._forward_peak = self._memory.peak() or 0

    def _cost(self, strategy: str, folder: Path) -> Cost:
        try:
            found = within_memory(partial(self._estimate, strategy, folder))
        except StoppedError:
            raise
        except DoesNotFitError as error:
            return Cost(strategy, fits=False, reason=str(error))
        except TlhubError as error:
            return Cost(strategy, reason=str(error))
        return found or Cost(strategy, fits=False, reason="memory does not suffice for the model")

    def _estimate(self, strategy: str, folder: Path) -> Cost:
        """Return the cost of a strategy.

        Raises:
            TlhubError: It cannot be had with this checkpoint.
        """
        bench = self._bench(strategy, folder, self._few)
        bench.known_features.update(self._features if STRATEGIES.get(strategy).pretrained else {})
        self._memory.reset(collect=True)
        bench.began = time.perf_counter()
        fitted = STRATEGIES.get(strategy)().fit(bench)
        train, measured, everything = bench.config.train, bench.measured, sum(self._counts.values())
        before = bench.before if measured else time.perf_counter() - bench.began
        # A probe is fitted to all examples, and frozen blocks are run over them; models and adapters are built once.
        growing = before if bench.read_features else bench.entering
        seconds = before + growing * (self._counts["train"] / len(bench.inputs["train"]) - 1)
        seconds += self._forward * everything if bench.read_features else 0.0
        held = (self._memory.peak(), self._forward_peak if bench.read_features else 0) if measured is None else ()
        if measured is None:
            trained = sum(value.numel() for value in fitted.scorer.parameters())
            return Cost(strategy, trained, seconds=seconds, peak=max(filter(None, held), default=None))
        assert train.batch_size is not None
        steps, validations = steps_and_validations(self._counts["train"], train.batch_size, train.epochs,
                                                   train.max_steps, train.evaluate_every)
        scored = validations * self._counts["validation"] + everything - self._counts["train"]
        return Cost(strategy, bench.trained, steps, train.batch_size,
                    seconds + steps * measured.step_seconds + scored * bench.scoring, measured.step_seconds,
                    measured.peak, measured.micro_batch, measured.largest,
                    at_once=min(train.batch_size, train.micro_batch_size or train.batch_size))

    def _bench(self, strategy: str, folder: Path, examples: Mapping[str, Examples]) -> MeasuringBench:
        """Return a workbench that keeps what it makes in a folder, where those of other strategies find it."""
        subject = self._subject
        loaded = load(subject, self._name, strategy, self._first)
        config = replace(loaded.config, {"train.compile": False, "data.cache_dir": str(folder)})
        inputs = {split: subject.task.inputs(part, loaded.checkpoint.processor, config,
                                             fingerprint=f"{subject.data.fingerprint}-{len(part)}-of-{config.seed}{split}")
                  for split, part in examples.items()}
        return MeasuringBench(config, RunFolder(folder / strategy), subject.accelerator, subject.task,
                              loaded.checkpoint, inputs, subject.data.target, subject.data.fingerprint,
                              ArrayCache(folder / strategy), memory=self._memory, known=self._known)

    def _drawn(self, split: str, most: int, characters: int) -> Examples:
        """Return a few examples of a split, or stretches of its texts."""
        examples, seed = self._subject.data.splits[split], self._subject.config.seed
        if self._subject.generates:
            return excerpts(examples, characters, seed=seed, purpose="few", size=_STRETCH)
        return subset(examples, most, seed=seed, purpose="few")
