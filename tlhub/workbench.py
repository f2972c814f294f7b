"""What a run puts at its strategy's disposal: the checkpoint, the splits, cached features, and the loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from torch import nn

from tlhub.config import HEAD_STRATEGIES, NEXT_TOKEN, REGRESSION, RunConfig
from tlhub.data.batches import Inputs
from tlhub.data.cache import ArrayCache
from tlhub.data.image import ImageInputs
from tlhub.data.portions import Portions
from tlhub.data.sampling import class_sampling
from tlhub.data.targets import Target
from tlhub.evaluation import metrics
from tlhub.evaluation.scores import Scores
from tlhub.folder import RunFolder
from tlhub.models.blocks import block_index, blocks
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.features import extract_features
from tlhub.models.fingerprints import processing_digest, settings_digest
from tlhub.models.freezing import BatchNorm, freeze_batch_norm, frozen_modules, trainable_report
from tlhub.models.heads import PooledClassifier, drawn_parameters, feature_width, output_layer, output_parameters
from tlhub.models.memory import recompute_blocks
from tlhub.models.origin import HEAD_SETTINGS
from tlhub.models.outputs import OutputMap
from tlhub.models.prefix import CannotEnterError, Entry, cache_prefix, entering
from tlhub.problems import Problem
from tlhub.registry import STRATEGIES
from tlhub.seeding import derive
from tlhub.stopping import AbandonedError, StopRequest
from tlhub.strategies.base import is_augmented
from tlhub.tasks.base import Task
from tlhub.training import callbacks, optimizers
from tlhub.training.inference import predict_logits
from tlhub.training.loop import Callback, Job, train
from tlhub.training.lost_data import LostData
from tlhub.training.objectives import ExampleLoss, Mixed
from tlhub.training.processes import anywhere
from tlhub.training.store import CheckpointStore
from tlhub.training.unfreezing import Schedule, Unfreezing

logger = logging.getLogger(__name__)

_SCORED_AT_ONCE = 64
"""Examples of one forward pass without gradients, where nothing else is said."""


@dataclass
class Workbench:
    """The parts of a run that a strategy works with (`tlhub.strategies.base.Workbench`).

    Attributes:
        config: The resolved configuration.
        folder: The run's folder.
        accelerator: The processes and the device.
        task: What is predicted.
        checkpoint: The checkpoint, loaded.
        inputs: The splits.
        target: What is predicted: the kind of target, and the names of its outputs.
        fingerprint: Of the data.
        cache: Where features are kept.
        known_features: The features extracted so far, kind -> split -> (n, d).
        read_features: The kind that was asked for last.
        seconds_before: Time spent training in sittings before this one.
        examples_seen: Examples trained on, over all sittings; 0 where nothing was trained by gradient.
        observers: The caller's own callbacks, after those of the run.
        names: What the training examples are called in messages.
        groups: What of the training split is never divided, shape (n,); None without groups.
        stop: Whether this process was asked to stop.
    """

    config: RunConfig
    folder: RunFolder
    accelerator: Accelerator
    task: Task
    checkpoint: Checkpoint
    inputs: Mapping[str, Inputs]
    target: Target
    fingerprint: str
    cache: ArrayCache
    known_features: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    read_features: str = ""
    seconds_before: float = 0.0
    examples_seen: int = 0
    observers: Sequence[Callback] = ()
    names: Sequence[str] = ()
    groups: np.ndarray | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    problem: Problem = field(init=False)
    _scorer: tuple[nn.Module, nn.Module] | None = field(init=False, default=None)
    _told: set[str] = field(init=False, default_factory=set)
    _portions: Portions = field(init=False, default_factory=Portions)
    outputs: OutputMap = field(init=False)

    def __post_init__(self) -> None:
        """Choose the space that outputs are trained in; a head that the checkpoint brought is taken there."""
        self.problem = self.task.problem(self.target.problem_type)
        model = self.checkpoint.model
        has_bias = output_layer(model)[1].bias is not None
        self.outputs = self.problem.outputs(self.inputs["train"].labels, self.config, centre=has_bias)
        if self.target.problem_type == REGRESSION and output_parameters(model).isdisjoint(
                self.checkpoint.new_parameters):
            self.outputs.inverse().fold(model)
        labels = self.inputs["train"].labels
        if self.target.problem_type == REGRESSION and not has_bias and (abs(labels.mean(0)) > labels.std(0)).any():
            self.tell(f"beware: the last layer of {type(model).__name__} has no bias, so a target far from 0 is "
                      "learned slowly; subtract its mean, or take an encoder")
        origin, strategy = self.checkpoint.origin, self.config.strategy.name
        if (origin.folder / HEAD_SETTINGS).exists() and strategy in HEAD_STRATEGIES and strategy != "scratch":
            self.tell(f"beware: {origin.name!r} ends in a head of tlhub's own, which is not taken over; training "
                      "begins with a fresh one")

    @property
    def classes(self) -> int:
        """Number of final outputs."""
        return len(self.target)

    def sample(self) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for one training example, on the CPU."""
        return self.inputs["train"].batch(np.arange(1), None, torch.device("cpu"))

    def scorer(self, model: nn.Module) -> nn.Module:
        """Return the module that gives the outputs of this run's kind of target, the same one for the same model."""
        if self._scorer is None or self._scorer[0] is not model:
            self._scorer = model, self.problem.scorer(model, self.inputs, self._tell_once)
        return self._scorer[1]

    def predict(self, model: nn.Module, inputs: Inputs, between: Callable[[], None] | None = None) -> np.ndarray:
        """Return what a model gives for every example of a split, in the space that outputs are trained in, (n, k).

        Args:
            model: The model.
            inputs: The split.
            between: See `predict_logits`; None to be interrupted as soon as this process was asked to stop.
        """
        return predict_logits(self.scorer(model), inputs, self.accelerator,
                              batch_size=self.config.train.micro_batch_size or _SCORED_AT_ONCE,
                              between=between or self.stop.raise_if_requested, portions=self._portions)

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.tell(line)

    def tell(self, line: str) -> None:
        """Tell the user, once for all processes."""
        if self.accelerator.is_main_process:
            logger.info(line)

    def features(self, kinds: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Return the frozen checkpoint's features, kind -> split -> (n, d), computed once and cached."""
        self.read_features = kinds[0] if kinds else self.read_features
        missing = [kind for kind in kinds if kind not in self.known_features]
        model = self.checkpoint.model.to(self.accelerator.device)
        width = sum(feature_width(model, kind, self.sample()) for kind in missing)
        for split, inputs in self.inputs.items():
            if not missing:
                break
            key = f"{self._weights()}-{self._processing()}-{self.fingerprint}-{split}"
            fits = 4 * width * len(inputs) <= self.config.data.cache_limit_gib * 2**30
            if not fits:
                self.tell(f"the features of {split} are larger than data.cache_limit_gib and are not kept")
            found = extract_features(model, inputs, missing, device=self.accelerator.device,
                                     batch_size=self.config.train.micro_batch_size or 64,
                                     cache=self.cache if fits else None, key=key, accelerator=self.accelerator)
            for kind, values in found.items():
                self.known_features.setdefault(kind, {})[split] = values
        return {kind: self.known_features[kind] for kind in kinds}

    @contextmanager
    def entered(self, model: nn.Module) -> Iterator[Mapping[str, Inputs]]:
        """Let a partly frozen model begin at its first trained block, where that can be done; give what it reads then.

        What cannot be entered stays whole and reads `inputs`, and the user is told why.
        """
        with self.accelerator.main_process_first():
            found = self._prefix(model.to(self.accelerator.device))
        if found is None:
            yield self.inputs
            return
        entry, inputs = found
        self.tell(f"the frozen blocks were run once; training begins at {entry.name}")
        with entering(model, entry):
            yield inputs

    def _prefix(self, model: nn.Module) -> tuple[Entry, Mapping[str, Inputs]] | None:
        train = self.inputs["train"]
        drawn = sorted(name for name in self._new_in(model) if not model.get_parameter(name).requires_grad)
        if drawn:
            self.tell(f"beware: the checkpoint does not bring {drawn[0]!r}"
                      + (f" and {len(drawn) - 1} more tensors" if drawn[1:] else "")
                      + " of the frozen blocks, which stay as they were drawn")
        try:
            if self.target.problem_type == NEXT_TOKEN:
                raise CannotEnterError("what they read is laid out anew for every batch")
            if is_augmented(train):
                raise CannotEnterError("augmentation changes what they read")
            return cache_prefix(
                model, {split: self.inputs[split] for split in ("train", "validation")}, cache=self.cache,
                key=f"{self._weights()}-{self._processing()}-{self.fingerprint}"
                    + (f"-drawn-{self.config.seed}" if drawn else ""),
                limit=self.config.data.cache_limit_gib * 2**30, device=self.accelerator.device,
                batch_size=self.config.train.micro_batch_size or 64)
        except CannotEnterError as error:
            self.tell(f"the frozen blocks are run in every epoch: {error}")
            return None

    def train(self, model: nn.Module, inputs: Mapping[str, Inputs], *, whole: nn.Module | None = None,
              schedule: Schedule | None = None, from_start: bool = False) -> None:
        """Train what needs a gradient, and leave the weights that were best on validation.

        Args:
            model: The model; `requires_grad` says what is trained.
            inputs: What it reads, with the splits `train` and `validation`.
            whole: The model that `model` is the head of, where it is trained by itself.
            schedule: When each part of what is trained is unfrozen; None for all of it from the start.
            from_start: Whether the weights that training begins with may be the best ones.

        Raises:
            TlhubError: Tensors moved that should not have, or did not that should; or steps were not finite.
            StoppedError: The run was asked to stop.
        """
        if self.config.strategy.freeze_batch_norm:
            freeze_batch_norm(model)
        self._tell_trainable(whole or model)
        job = self._job(model, inputs["train"])
        store = CheckpointStore(self.folder.path / "checkpoints", model, keep=self.config.train.keep_last,
                                decay=self.config.train.average)
        progress = store.resume(job)
        if progress.step:
            self.tell(f"continued after step {progress.step} of {job.total_steps}")
        history = callbacks.History(self.folder.path / "history.jsonl", f"{self.problem.unit}_per_s",
                                    self.problem.accuracy)
        validation = self._validation(model, inputs["validation"], store, history, from_start=from_start)
        self.seconds_before = progress.seconds
        audit = callbacks.Audit(model, needed=self._needed(whole or model))
        if schedule is not None:
            self.tell(f"unfreezing: {schedule.words(job.total_steps)}")
        checkpointing = callbacks.Checkpointing(store, validation, every=self.config.train.checkpoint_every,
                                                stop=self.stop)
        with self.stop.deferring("after this step, with a checkpoint"):
            train(job, progress, [
                history, callbacks.ProgressBar(Console(stderr=True)),
                audit, *([] if schedule is None else [Unfreezing(model, schedule, audit)]),
                *([] if store.average is None else [store.average]), validation, LostData(self.inputs["train"]),
                checkpointing, *self.observers])
            store.load_best()
            store.finish(job, progress)
        self.stop.raise_if_requested()
        if progress.stop:
            self.tell(f"stopped early: {progress.stop}")
        if progress.bad_steps:
            self.tell(f"{progress.bad_steps} steps were not finite and changed no weight")
        whole_epochs, steps = divmod(progress.step, job.steps_per_epoch)
        self.examples_seen = whole_epochs * len(job.inputs) + steps * (self.config.train.batch_size or 0)

    def _needed(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return what every strategy has to train: the last layer, and all of the head that was drawn at random.

        A language model keeps its last layer, which need not be trained. Nor does a layer that begins with ones and
        zeros, such as AST's norm before its last layer.
        """
        if self.target.problem_type == NEXT_TOKEN:
            return {}
        new = self._new_in(model) & set(blocks(model)[-1].prefixes)
        layers = {name.rpartition(".")[0] for name in drawn_parameters(model, new)}
        drawn = {name for name in new if name.rpartition(".")[0] in layers}
        return {name: model.get_parameter(name) for name in output_parameters(model) | drawn}

    def _new_in(self, model: nn.Module) -> set[str]:
        """Return the names that parameters which the checkpoint did not bring have in the model."""
        named = model.own_name if isinstance(model, PooledClassifier) else str
        return set(map(named, self.checkpoint.new_parameters)) & {name for name, _ in model.named_parameters()}

    def _weights(self) -> str:
        """Return what identifies the frozen model: its weights, or the seed of fresh ones, and its configuration."""
        pretrained = STRATEGIES.get(self.config.strategy.name).pretrained
        weights = self.checkpoint.origin.weight_hash + ("" if pretrained else f"-fresh-{self.config.seed}")
        return f"{weights}-{settings_digest(self.checkpoint.model)}"

    def _processing(self) -> str:
        """Return a digest of what turns examples into the model's inputs."""
        data, processor = self.config.data, self.checkpoint.processor
        kept = (data.max_length, *(() if data.max_seconds is None else (data.max_seconds, data.one_length)))
        return processing_digest(processor, self.task.front(processor), *kept)

    def _tell_trainable(self, model: nn.Module) -> None:
        shares = trainable_report(model)
        trained, total = sum(share.trainable for share in shares), sum(share.total for share in shares)
        self.tell(f"trained: {trained:,} of {total:,} parameters ({trained / max(total, 1):.2%})")
        for share in shares:
            self.tell(f"  {share.name:<28} {share.trainable:>12,} of {share.total:>12,}")

    def _job(self, model: nn.Module, inputs: Inputs) -> Job:
        config = self.config
        torch.manual_seed(derive(config.seed, "training"))
        decay = config.strategy.layer_decay
        groups = optimizers.parameter_groups(model, config.train, layer_decay=decay,
                                             blocks=block_index(model) if decay is not None else {})
        self._warn_of_statistics(model)
        if config.train.gradient_checkpointing:
            recompute_blocks(model)
        scorer = self.scorer(model.to(self.accelerator.device))
        compiled = torch.compile(scorer) if config.train.compile else scorer
        prepared, optimizer = self.accelerator.prepare(compiled, optimizers.build(groups, config.train))
        objective = self.problem.objective(inputs.labels, self.classes, config.train, self.outputs)
        if isinstance(inputs, ImageInputs) and inputs.mixing is not None:
            assert isinstance(objective, ExampleLoss)
            objective = Mixed(objective, inputs.mixing)
        return Job(accelerator=self.accelerator, model=prepared, optimizer=optimizer, inputs=inputs,
                   objective=objective, train=config.train, seed=config.seed, log_every=config.log.every,
                   sampling=class_sampling(inputs.labels, config.train.sampling, seed=config.seed), names=self.names)

    def _warn_of_statistics(self, model: nn.Module) -> None:
        """BatchNorm is the one layer in which the examples of a forward pass see each other."""
        train = self.config.train
        split = self.accelerator.num_processes > 1 or (train.micro_batch_size or math.inf) < (train.batch_size or 0)
        frozen = set(frozen_modules(model))
        if split and any(isinstance(module, BatchNorm) and module not in frozen for module in model.modules()):
            self.tell("beware: this model has BatchNorm, whose statistics are those of one forward pass, so results "
                      "depend on launch.num_processes and train.micro_batch_size; --strategy.freeze_batch_norm true "
                      "leaves the statistics as they are")

    def _validation(self, model: nn.Module, inputs: Inputs, store: CheckpointStore,
                    history: callbacks.History, *, from_start: bool) -> callbacks.Validation:
        names, best = self.config.evaluate.metrics, self.config.evaluate.best
        assert best is not None
        names = list(dict.fromkeys([*names, best]))

        def give_up() -> None:
            if anywhere(self.accelerator, self.stop.requested):
                raise AbandonedError

        def score() -> Scores:
            outputs = self.outputs.apply(self.predict(model, inputs, give_up))
            return self.problem.score(outputs, inputs.labels, names)

        return callbacks.Validation(score, metric=best, direction=metrics.direction(best), store=store,
                                    history=history, every=self.config.train.evaluate_every,
                                    patience=self.config.train.patience, from_start=from_start)
