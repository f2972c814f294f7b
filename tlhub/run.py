"""A run from beginning to end, and what can be done with a finished one."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

from tlhub import options, results
from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, DataConfig, RunConfig, problem_type, replace
from tlhub.data.batches import Inputs
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.prepare import PreparedData, prepare, prepare_evaluation
from tlhub.data.targets import Target
from tlhub.environment import versions
from tlhub.errors import CheckpointError, DiskFullError, StoppedError, TlhubError, UsageError, is_disk_full
from tlhub.evaluation.metrics import METRICS, direction
from tlhub.folder import RunFolder, open_folder, plain_identity
from tlhub.models.assembly import lay_out
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.features import available_features
from tlhub.models.heads import output_layer
from tlhub.models.saving import load_saved
from tlhub.options import check, effective, from_kwargs
from tlhub.parsers import one_line
from tlhub.problems import Problem
from tlhub.registry import STRATEGIES, TASKS
from tlhub.tasks.base import Task
from tlhub.training import defaults
from tlhub.training.inference import predict_logits
from tlhub.training.processes import make_accelerator
from tlhub.workbench import Workbench

logger = logging.getLogger(__name__)

_LAYOUT = ("text_column", "text_pair_column", "label_column", "target_columns", "label_separator", "file_column",
           "metadata", "cache_dir", "max_bad_fraction")
"""Options of the section `data` that hold for other data of the same kind too."""


class Run:
    """A finished run.

    Args:
        folder: Its folder.

    Raises:
        CheckpointError: The folder holds no finished run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._files = RunFolder(Path(folder))
        if self._files.status.get("state") != "finished":
            state = self._files.status.get("state")
            found = f"found one that is {state}); finish it with the command that began it" if state else \
                "nothing by tlhub); give the folder that 'tlhub finetune' named at its end"
            raise CheckpointError(f"{str(folder)!r} holds no finished run ({found}")
        stored = self._files.config
        self.record: dict[str, Any] = stored.pop("record")
        self.config: RunConfig = from_kwargs(**stored)
        self._loaded: tuple[nn.Module, Any] | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._files.path

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        content: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        return content

    @property
    def target(self) -> Target:
        """What is predicted: the kind of target, and the names of its outputs in their order."""
        return Target(problem_type(self.config) or self.task.problems[0], tuple(self.record["label_names"]))

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, labels or targets, in the order of the outputs."""
        return self.target.names

    @property
    def problem(self) -> Problem:
        """How the kind of target is scored and told."""
        return self.task.problem(self.target.problem_type)

    @property
    def task(self) -> Task:
        """The run's task."""
        task: Task = TASKS.get(self.config.task)()
        return task

    def predict(self, values: Sequence[str | tuple[str, str]], *, batch_size: int = 64) -> list[dict[str, Any]]:
        """Return a prediction for each input.

        Args:
            values: Files, folders, or texts, as the task reads them; pairs of texts are tuples, or have a tab between.
            batch_size: Examples of one forward pass.

        Returns:
            Dictionaries with `input`, and `label`, `score` and `scores`, or `value`.

        Raises:
            DataError: An input cannot be read.
        """
        examples = self.task.read(values, pairs=self.record["pairs"])
        if len(examples.ids) == 0:
            return []
        logits = self.logits(self._inputs(examples), batch_size=batch_size)
        rows = self.problem.predictions(logits, self.target.names)
        return [{"input": str(name), **row} for name, row in zip(examples.ids, rows, strict=True)]

    def logits(self, inputs: Inputs, *, batch_size: int = 64) -> np.ndarray:
        """Return the saved model's outputs for inputs, shape (n, c)."""
        accelerator = make_accelerator(self.config, training=False)
        return predict_logits(self._model().to(accelerator.device), inputs, accelerator, batch_size=batch_size)

    def evaluate(self, source: str, **choices: Any) -> dict[str, Any]:
        """Score the saved model on data: its test split where it has one, otherwise all of it.

        Args:
            source: A folder, file or Hub id.
            choices: Options of the section `data` that are other than in the run, such as `text_column`.

        Returns:
            `metrics` with their `intervals`, written to `evaluations/` as well.

        Raises:
            UsageError: An option is unknown, has a wrong value or would have no effect.
            DataError: The data cannot be used, or holds labels that the model does not know.
        """
        section = self._data_section(source, choices)
        examples = prepare_evaluation(section, self.task.modality, target=self.target,
                                      pairs=self.record["pairs"])
        inputs = self._inputs(examples)
        scores = results.score_split(self.problem, self.logits(inputs), inputs.labels, self.config)
        if PartialState().is_main_process:
            number = len(list((self.folder / "evaluations").glob("*.json"))) + 1
            self._files.write_json(f"evaluations/{number:03d}.json", {
                "data": section.source, "examples": len(inputs), **scores["metrics"],
                "intervals": scores["intervals"]})
        return scores

    def _data_section(self, source: str, choices: Mapping[str, Any]) -> DataConfig:
        """Return the run's own section `data` for another source: its columns, unless other ones are named."""
        own = dataclasses.asdict(self.config.data)
        kept = [*_LAYOUT, "split_column"] if source == self.config.data.source else _LAYOUT
        named = {name: own[name] for name in kept if own[name] is not None}
        for one, other in (("label_column", "target_columns"), ("target_columns", "label_column")):
            if choices.get(one):
                named.pop(other, None)  # the run's way of naming the target gives way to the one chosen here
        named |= {**choices, "source": source}
        return from_kwargs(self.config.task, model="-", data=named).data

    def _model(self) -> nn.Module:
        return self._load()[0]

    def _inputs(self, examples: Any) -> Inputs:
        config = dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, cache_limit_gib=0.0))
        return self.task.inputs(examples, self._load()[1], config, fingerprint="")

    def _load(self) -> tuple[nn.Module, Any]:
        if self._loaded is None:
            model, processor = load_saved(self.folder / "model", auto_model=self.task.auto_model,
                                          auto_processor=self.task.auto_processor)
            self._loaded = lay_out(model), processor
        return self._loaded


def load(folder: str | Path) -> Run:
    """Return the finished run in `folder`.

    Raises:
        CheckpointError: There is none.
    """
    return Run(folder)


def evaluate(run: Run | str | Path, source: str, **choices: Any) -> dict[str, Any]:
    """Score a finished run on data (see `Run.evaluate`).

    Raises:
        UsageError: An option cannot be used.
        DataError: The data cannot be used.
    """
    return (run if isinstance(run, Run) else Run(run)).evaluate(source, **choices)


def finetune(config: RunConfig, *, overwrite: bool = False) -> Run:
    """Carry out one run, or go on with it where it was stopped.

    Args:
        config: What to do.
        overwrite: Empty a folder that holds another run.

    Returns:
        The finished run.

    Raises:
        TlhubError: One of its kinds, with a one-line message; `status.json` says the same.
    """
    check(config)
    accelerator = make_accelerator(config)
    folder = _agreed_folder(accelerator, config, overwrite=overwrite)
    with _status_of(folder, accelerator):
        started = time.perf_counter()
        task: Task = TASKS.get(config.task)()
        strategy = STRATEGIES.get(config.strategy.name)()
        with accelerator.main_process_first():
            data = prepare(config.data, task.modality, problems=task.problems, seed=config.seed)
        for note in data.notes if accelerator.is_main_process else ():
            logger.info(note)
        _check_target(task, config, data.target)
        checkpoint = load_checkpoint(
            config.model, auto_model=task.auto_model, auto_processor=task.auto_processor,
            label_names=data.target.names[-1:] if config.model.sigmoid else data.target.names,
            problem_type=data.target.problem_type, pretrained=strategy.pretrained, seed=config.seed)
        lay_out(checkpoint.model)
        given, config = config, _resolve(config, task, data, checkpoint, accelerator)
        with accelerator.main_process_first():
            inputs = {split: task.inputs(examples, checkpoint.processor, config, fingerprint=data.fingerprint + split)
                      for split, examples in data.splits.items()}
        _record(folder, given, config, data, checkpoint, accelerator)
        _start_trackers(folder, config, accelerator)
        bench = Workbench(config, folder, accelerator, task, checkpoint, inputs, data.target, data.fingerprint,
                          ArrayCache(cache_root(config.data)))
        if config.evaluate.knn:
            offered = available_features(checkpoint.model, checkpoint.new_parameters)[:1]
            bench.features(offered)
            if not offered:
                bench.tell("evaluate.knn has nothing to search: the backbone is fresh, so it has no features yet")
        prepared = time.perf_counter()
        fitted = strategy.fit(bench)
        times = {"prepare_s": prepared - started, "train_s": time.perf_counter() - prepared + bench.seconds_before}
        results.finish(bench, fitted, data, times)
    return Run(folder.path)


def _agreed_folder(accelerator: Accelerator, config: RunConfig, *, overwrite: bool) -> RunFolder:
    """Let the main process choose the folder, and tell the others, its refusal included."""
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            folder = open_folder(config, overwrite=overwrite)
            folder.write_status("running")
            if not folder.config:
                folder.write_config(effective(config), {"given": plain_identity(config)})
            answer = [str(folder.path)]
        except TlhubError as error:
            answer = [error]
        except OSError as error:
            answer = [_unwritable(config, error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], TlhubError):
        raise answer[0]
    folder = RunFolder(Path(answer[0]))
    seen = accelerator.gather(torch.tensor([bool(folder.status)], device=accelerator.device))
    if not bool(seen.all()):
        raise UsageError(f"--out {str(folder.path)!r} is not seen by {int((~seen).sum())} of {len(seen)} processes; "
                         "name a folder on a disk that all machines share")
    return folder


def _start_trackers(folder: RunFolder, config: RunConfig, accelerator: Accelerator) -> None:
    """Tell the trackers the resolved configuration; what they write to a disk lies in the run's folder."""
    if config.log.trackers:
        accelerator.project_configuration.logging_dir = str(folder.path / "trackers")
        values = {name: value if isinstance(value, (int, float, str)) else json.dumps(value)
                  for name, value in options.dotted(effective(config)).items()}
        accelerator.init_trackers("tlhub", config=values)


def _unwritable(config: RunConfig, error: OSError) -> TlhubError:
    if is_disk_full(error):
        return DiskFullError(f"the disk is full (--out {config.out or 'runs'!r} cannot be written); free some space, "
                             "or name a folder on another disk")
    return UsageError(f"--out {config.out or 'runs'!r} cannot be written ({error.strerror}); name another folder")


def _disk_words(folder: RunFolder, error: BaseException) -> str:
    return (f"the disk is full, in the run's folder {str(folder.path)!r} or the cache's ({one_line(str(error))}); free "
            "some space, and the same command goes on, or name other folders with --out and --data.cache_dir")


@contextmanager
def _status_of(folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Write to `status.json` how the block ended."""
    try:
        yield
        state, code, reason = "finished", 0, ""
    except KeyboardInterrupt:
        state, code, reason = "stopped", 75, "interrupted outside of training"
        raise
    except BaseException as error:
        if is_disk_full(error) and not isinstance(error, DiskFullError):
            state, code, reason = "failed", DiskFullError.exit_code, _disk_words(folder, error)
            raise DiskFullError(reason) from error
        code = error.exit_code if isinstance(error, TlhubError) else 1
        state = "stopped" if code == StoppedError.exit_code else "failed"
        reason = str(error) if isinstance(error, TlhubError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        if accelerator.is_main_process:
            folder.write_status(state, code, reason)
    accelerator.wait_for_everyone()  # and stay a group: the finished run may be asked for predictions


def _check_target(task: Task, config: RunConfig, target: Target) -> None:
    """Refuse, before anything is trained, what does not fit the kind of target that the data turned out to have.

    Metrics are tried on a made-up answer.

    Raises:
        UsageError: An option or a metric does not fit.
    """
    options.check_problem(replace(config, {"data.problem_type": target.problem_type}))
    problem = task.problem(target.problem_type)
    problem.check(config, target.names)
    made_up = {SINGLE_LABEL: np.arange(2), MULTI_LABEL: np.eye(2, dtype=bool), REGRESSION: np.eye(2)}
    best = config.evaluate.best
    names = [*config.evaluate.metrics, *([best] if best else [])]
    scores = problem.score(np.eye(2), made_up[target.problem_type], names)
    if best and best not in scores:
        raise UsageError(f"--evaluate.best {best!r} is no score by itself; take one of: {', '.join(scores)}")
    if best and best not in METRICS and direction(best) > 0:
        logger.info("evaluate.best %r is not tlhub's own: its highest value is taken for the best", best)


def _resolve(config: RunConfig, task: Task, data: PreparedData, checkpoint: Checkpoint,
             accelerator: Accelerator) -> RunConfig:
    problem = task.problem(data.target.problem_type)
    facts = defaults.Facts(
        examples=len(data.splits["train"].labels), text=task.modality == "text",
        convolutional=not any("Attention" in type(module).__name__ for module in checkpoint.model.modules()),
        hidden=output_layer(checkpoint.model)[1].in_features, metrics=problem.metrics,
        best=problem.best_of(data.target.names),
        problem_type=data.target.problem_type, loss=problem.losses[0])
    resolved, chosen = defaults.resolve(config, facts)
    if accelerator.is_main_process:
        for default in chosen:
            logger.info("%s = %s (%s)", default.name, default.value, default.reason)
    return resolved


def _record(folder: RunFolder, given: RunConfig, config: RunConfig, data: PreparedData, checkpoint: Checkpoint,
            accelerator: Accelerator) -> None:
    """Write `config.yaml`, or compare with the one that the run was begun with.

    Raises:
        UsageError: The data or the checkpoint is no longer what the run was begun with.
    """
    origin = checkpoint.origin
    record = {"given": plain_identity(given), "identity": plain_identity(config), "label_names": list(data.label_names),
              "pairs": data.pairs,
              "checkpoint": {"name": origin.name, "kind": origin.kind, "revision": origin.revision,
                             "sha256": origin.weight_hash},
              "data_fingerprint": data.fingerprint, "versions": versions()}
    before = folder.config.get("record", {})
    watched = {"data_fingerprint": "the data", "checkpoint": "the checkpoint", "label_names": "the labels"}
    for key, what in watched.items():
        if key in before and before[key] != record[key]:
            raise UsageError(f"{str(folder.path)!r} was begun with other content: {what} changed from {before[key]} to "
                             f"{record[key]}; name another folder with --out, or pass --overwrite")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.write_config(effective(config), record)
