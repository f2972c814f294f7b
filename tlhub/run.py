"""A run from beginning to end."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from tlhub import options, results
from tlhub.config import MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL, RunConfig, replace
from tlhub.data.audit import BadExample
from tlhub.data.batches import Inputs
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.prepare import PreparedData, prepare
from tlhub.data.targets import Target
from tlhub.errors import DataError, DiskFullError, LostDataError, StoppedError, TlhubError, UsageError, is_disk_full
from tlhub.evaluation.metrics import METRICS, direction
from tlhub.finished import Run
from tlhub.folder import RunFolder, plain_identity, taken_folder
from tlhub.models.assembly import lay_out
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.features import available_features
from tlhub.models.heads import backbone_width
from tlhub.options import check, effective
from tlhub.parsers import one_line
from tlhub.record import keep_record
from tlhub.registry import STRATEGIES, TASKS
from tlhub.stopping import StopRequest, listening
from tlhub.tasks.base import Task
from tlhub.training import defaults
from tlhub.training.loop import Callback
from tlhub.training.lost_data import lost_examples
from tlhub.training.processes import make_accelerator
from tlhub.workbench import Workbench

logger = logging.getLogger(__name__)

_READINGS = 3
"""How often data are read in all, where files are lost meanwhile."""

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


def finetune(config: RunConfig, *, overwrite: bool = False, callbacks: Sequence[Callback] = ()) -> Run:
    """Carry out one run, or go on with it where it was stopped.

    Args:
        config: What to do.
        overwrite: Empty a folder that holds another run.
        callbacks: Called in the loop after the run's own (`tlhub.training.loop.Callback`).

    Returns:
        The finished run.

    Raises:
        TlhubError: One of its kinds, with a one-line message; `status.json` says the same.
    """
    check(config)
    with listening(passes_on=True) as stop, ExitStack() as held:
        accelerator = make_accelerator(config)
        folder = _agreed_folder(accelerator, config, held, overwrite=overwrite)
        held.enter_context(_status_of(folder, accelerator, stop))
        started = time.perf_counter()
        task: Task = TASKS.get(config.task)()
        given, ready = config, _prepared(config, task, accelerator)
        config, data, checkpoint = ready.config, ready.data, ready.checkpoint
        keep_record(folder, given, config, data, checkpoint, accelerator)
        _start_trackers(folder, config, accelerator)
        bench = Workbench(config, folder, accelerator, task, checkpoint, ready.inputs, data.target, data.fingerprint,
                          ArrayCache(cache_root(config.data)), observers=callbacks, stop=stop,
                          names=data.splits["train"].ids, groups=data.splits["train"].groups)
        if config.evaluate.knn:
            offered = available_features(checkpoint.model, checkpoint.new_parameters)[:1]
            bench.features(offered)
            if not offered:
                bench.tell("evaluate.knn has nothing to search: the backbone is fresh, so it has no features yet")
        before = results.begin(bench, data)
        prepared = time.perf_counter()
        fitted = STRATEGIES.get(config.strategy.name)().fit(bench)
        times = {"prepare_s": prepared - started, "train_s": time.perf_counter() - prepared + bench.seconds_before}
        results.finish(bench, fitted, _with_lost(data, ready.inputs["train"], accelerator), times, before)
    return Run(folder.path)


@dataclass(frozen=True)
class _Prepared:
    """What a run works on; the configuration is resolved."""

    config: RunConfig
    data: PreparedData
    checkpoint: Checkpoint
    inputs: dict[str, Inputs]


def _prepared(config: RunConfig, task: Task, accelerator: Accelerator) -> _Prepared:
    """Read data and checkpoint, and begin again where files were lost since they were checked.

    Raises:
        DataError: The data cannot be used, or are lost faster than they are read.
    """
    lost: dict[str, BadExample] = {}
    for _ in range(_READINGS):
        found: dict[str, str] = {}
        ready = _read(config, task, accelerator, lost, found)
        told = [(ready.data.fingerprint, _placed(found, ready.data))]
        told = gather_object(told) if accelerator.num_processes > 1 else told
        missing = {path: bad for _, some in told for path, bad in some.items()}
        if not missing and len({fingerprint for fingerprint, _ in told}) == 1:
            return ready
        lost |= missing
        for path, bad in missing.items() if accelerator.is_main_process else ():
            logger.warning("%r was checked and now %s: the data are read again without it", path, bad.reason)
    words = "".join(f", the last {path!r}, which {bad.reason}" for path, bad in list(lost.items())[-1:])
    raise DataError(f"{config.data.source!r} changes while it is read ({len(lost)} files were lost{words}); leave it "
                    "alone meanwhile, and the same command begins again")


def _placed(found: Mapping[str, str], data: PreparedData) -> dict[str, BadExample]:
    """Return what is lost, by path: what was found, and all the other files that are gone."""
    if not found:
        return {}
    gone = "cannot be read (No such file or directory)"
    return {path: BadExample("", path, reason) for path, reason in found.items()} | {
        path: BadExample(split, name, found.get(path, gone))
        for split, examples in data.splits.items() for path, name in zip(examples.inputs, examples.ids, strict=True)
        if isinstance(path, str) and (path in found or not os.path.exists(path))}


def _read(config: RunConfig, task: Task, accelerator: Accelerator, lost: Mapping[str, BadExample],
          found: dict[str, str]) -> _Prepared:
    """Read data and checkpoint; add to `found` what is lost beside `lost`, and why."""
    with accelerator.main_process_first():
        data = prepare(config.data, task.modality, problems=task.problems, seed=config.seed,
                       keywords=task.keywords(config), lost=lost)
    for note in data.notes if accelerator.is_main_process else ():
        logger.info(note)
    check_target(task, config, data.target)
    checkpoint = fitting_checkpoint(config, task, data)
    inputs: dict[str, Inputs] = {}
    with _noting(found):
        config = _resolve(config, task, data, checkpoint, accelerator)
    with accelerator.main_process_first(), _noting(found):
        for split, examples in data.splits.items() if not found else ():
            inputs[split] = task.inputs(examples, checkpoint.processor, config, fingerprint=data.fingerprint + split)
    return _Prepared(config, data, checkpoint, inputs)


def fitting_checkpoint(config: RunConfig, task: Task, data: PreparedData) -> Checkpoint:
    """Load the checkpoint of a run, with an output for each of the data's labels.

    Args:
        config: The run.
        task: What is predicted.
        data: The data as prepared.

    Raises:
        CheckpointError: It is missing, damaged, or of a kind that does not fit the task.
    """
    checkpoint = load_checkpoint(
        config.model, auto_model=task.auto_model, auto_processor=task.auto_processor,
        label_names=data.target.names[-1:] if config.model.sigmoid else data.target.names,
        problem_type=data.target.problem_type, pretrained=STRATEGIES.get(config.strategy.name).pretrained,
        seed=config.seed)
    lay_out(checkpoint.model)
    task.settle(checkpoint, data)
    return checkpoint


@contextmanager
def _noting(found: dict[str, str]) -> Iterator[None]:
    """Note a file that is lost instead of raising an error: the other processes have to hear of it first."""
    try:
        yield
    except LostDataError as error:
        if not error.path:
            raise
        found[error.path] = error.reason


def _with_lost(data: PreparedData, train: Inputs, accelerator: Accelerator) -> PreparedData:
    """Return the data with what was lost in training among what is listed as unusable."""
    ids = data.splits["train"].ids
    lost = [BadExample("train", ids[index], reason) for index, reason in lost_examples(train, accelerator).items()]
    note = [f"{len(lost)} training examples were lost while the run went on, the first is {lost[0].id!r}: "
            f"{lost[0].reason}; others stood in for them"] if lost else []
    return dataclasses.replace(data, quarantined=(*data.quarantined, *lost), notes=(*data.notes, *note))


def _agreed_folder(accelerator: Accelerator, config: RunConfig, held: ExitStack, *, overwrite: bool) -> RunFolder:
    """Let the main process choose the folder, hold it as long as `held`, and tell the others, its refusal included."""
    answer: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            folder = held.enter_context(taken_folder(config, overwrite=overwrite))
            if not folder.config:
                folder.write_config(effective(config), {"given": plain_identity(config)})
            folder.write_status("running")
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
def _status_of(folder: RunFolder, accelerator: Accelerator, stop: StopRequest) -> Iterator[None]:
    """Write to `status.json` how the block ended, which a request to stop interrupts, and none that comes later."""
    try:
        with stop.interrupting():
            yield
        state, code, reason = "finished", 0, ""
    except BaseException as error:
        told = _told(error, folder, stop)
        code = told.exit_code if isinstance(told, TlhubError) else 75 if isinstance(told, KeyboardInterrupt) else 1
        state = "stopped" if code == StoppedError.exit_code else "failed"
        reason = str(told) if isinstance(told, TlhubError) else f"{type(told).__name__}: {told}"
        if told is error:
            raise
        raise told from error
    finally:
        if accelerator.is_main_process:
            folder.write_status(state, code, reason)
        _finish_trackers(accelerator)
    if accelerator.is_main_process:
        shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)  # not before it is known that none is needed
    accelerator.wait_for_everyone()  # and stay a group: the finished run may be asked for predictions


def _told(error: BaseException, folder: RunFolder, stop: StopRequest) -> BaseException:
    """Return the error that a run ends with; a library may have turned an interrupt into one of its own."""
    if isinstance(error, TlhubError):
        return error
    if stop.requested:
        return StoppedError("stopped on request; the same command goes on")
    if is_disk_full(error):
        return DiskFullError(_disk_words(folder, error))
    return error


def _finish_trackers(accelerator: Accelerator) -> None:
    for tracker in accelerator.trackers:
        try:
            tracker.finish()
        except Exception as error:  # another system's trouble does not undo what was done here
            logger.warning("tracker %s could not be finished: %s", tracker.name, one_line(str(error)))


def check_target(task: Task, config: RunConfig, target: Target) -> None:
    """Refuse, before anything is trained, what does not fit the kind of target that the data turned out to have.

    Metrics are tried on a made-up answer.

    Raises:
        UsageError: An option or a metric does not fit.
    """
    options.check_problem(replace(config, {"data.problem_type": target.problem_type}))
    problem = task.problem(target.problem_type)
    problem.check(config, target.names)
    made_up = {SINGLE_LABEL: np.arange(2), MULTI_LABEL: np.eye(2, dtype=bool), REGRESSION: np.eye(2),
               NEXT_TOKEN: np.ones((2, 2), dtype=np.int64)}
    best = config.evaluate.best
    names = [*(config.evaluate.metrics or problem.metrics), *([best] if best else [])]
    scores = problem.score(np.eye(2), made_up[target.problem_type], names)
    if best and not isinstance(scores.get(best), float):
        single = [name for name, score in scores.items() if isinstance(score, float)]
        raise UsageError(f"--evaluate.best {best!r} is no score by itself; take one of: {', '.join(single)}")
    if best and best not in METRICS and direction(best) > 0:
        logger.info("evaluate.best %r is not tlhub's own: its highest value is taken for the best", best)


def facts_of(config: RunConfig, task: Task, data: PreparedData,
             checkpoint: Checkpoint) -> tuple[RunConfig, list[defaults.Default], defaults.Facts]:
    """Return the configuration with the task's own defaults filled in, these, and what the others depend on.

    Args:
        config: As given.
        task: What is predicted.
        data: The data as prepared.
        checkpoint: The checkpoint, loaded.

    Raises:
        UsageError: An option does not fit the checkpoint.
        DataError: The training data are too little.
    """
    problem = task.problem(data.target.problem_type)
    config, own = defaults.fill(config, task.own_defaults(config, data, checkpoint))
    return config, own, defaults.Facts(
        examples=task.amount(data.splits["train"], checkpoint.processor, config), modality=task.modality,
        convolutional=not any("Attention" in type(module).__name__ for module in checkpoint.model.modules()),
        hidden=backbone_width(checkpoint.model), metrics=problem.metrics,
        best=problem.best_of(data.target.names),
        problem_type=data.target.problem_type, loss=problem.losses[0])


def _resolve(config: RunConfig, task: Task, data: PreparedData, checkpoint: Checkpoint,
             accelerator: Accelerator) -> RunConfig:
    config, own, facts = facts_of(config, task, data, checkpoint)
    resolved, chosen = defaults.resolve(config, facts)
    if accelerator.is_main_process:
        for default in (*own, *chosen):
            logger.info("%s = %s (%s)", default.name, default.value, default.reason)
    return resolved
