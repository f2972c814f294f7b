"""A run from beginning to end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from tlhub import options, results
from tlhub.config import MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL, RunConfig, replace
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.prepare import PreparedData, prepare
from tlhub.data.targets import Target
from tlhub.errors import DiskFullError, StoppedError, TlhubError, UsageError, is_disk_full
from tlhub.evaluation.metrics import METRICS, direction
from tlhub.finished import Run
from tlhub.folder import RunFolder, open_folder, plain_identity
from tlhub.models.assembly import lay_out
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.features import available_features
from tlhub.models.heads import backbone_width
from tlhub.options import check, effective
from tlhub.parsers import one_line
from tlhub.record import keep_record
from tlhub.registry import STRATEGIES, TASKS
from tlhub.tasks.base import Task
from tlhub.training import defaults
from tlhub.training.loop import Callback
from tlhub.training.processes import make_accelerator
from tlhub.workbench import Workbench

logger = logging.getLogger(__name__)

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
    accelerator = make_accelerator(config)
    folder = _agreed_folder(accelerator, config, overwrite=overwrite)
    with _status_of(folder, accelerator):
        started = time.perf_counter()
        task: Task = TASKS.get(config.task)()
        strategy = STRATEGIES.get(config.strategy.name)()
        with accelerator.main_process_first():
            data = prepare(config.data, task.modality, problems=task.problems, seed=config.seed,
                           keywords=task.keywords(config))
        for note in data.notes if accelerator.is_main_process else ():
            logger.info(note)
        _check_target(task, config, data.target)
        checkpoint = load_checkpoint(
            config.model, auto_model=task.auto_model, auto_processor=task.auto_processor,
            label_names=data.target.names[-1:] if config.model.sigmoid else data.target.names,
            problem_type=data.target.problem_type, pretrained=strategy.pretrained, seed=config.seed)
        lay_out(checkpoint.model)
        task.settle(checkpoint, data)
        given, config = config, _resolve(config, task, data, checkpoint, accelerator)
        with accelerator.main_process_first():
            inputs = {split: task.inputs(examples, checkpoint.processor, config, fingerprint=data.fingerprint + split)
                      for split, examples in data.splits.items()}
        keep_record(folder, given, config, data, checkpoint, accelerator)
        _start_trackers(folder, config, accelerator)
        bench = Workbench(config, folder, accelerator, task, checkpoint, inputs, data.target, data.fingerprint,
                          ArrayCache(cache_root(config.data)), observers=callbacks)
        if config.evaluate.knn:
            offered = available_features(checkpoint.model, checkpoint.new_parameters)[:1]
            bench.features(offered)
            if not offered:
                bench.tell("evaluate.knn has nothing to search: the backbone is fresh, so it has no features yet")
        before = results.begin(bench, data)
        prepared = time.perf_counter()
        fitted = strategy.fit(bench)
        times = {"prepare_s": prepared - started, "train_s": time.perf_counter() - prepared + bench.seconds_before}
        results.finish(bench, fitted, data, times, before)
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


def _resolve(config: RunConfig, task: Task, data: PreparedData, checkpoint: Checkpoint,
             accelerator: Accelerator) -> RunConfig:
    problem = task.problem(data.target.problem_type)
    config, own = defaults.fill(config, task.own_defaults(config, data, checkpoint))
    facts = defaults.Facts(
        examples=task.amount(data.splits["train"], checkpoint.processor, config), modality=task.modality,
        convolutional=not any("Attention" in type(module).__name__ for module in checkpoint.model.modules()),
        hidden=backbone_width(checkpoint.model), metrics=problem.metrics,
        best=problem.best_of(data.target.names),
        problem_type=data.target.problem_type, loss=problem.losses[0])
    resolved, chosen = defaults.resolve(config, facts)
    if accelerator.is_main_process:
        for default in (*own, *chosen):
            logger.info("%s = %s (%s)", default.name, default.value, default.reason)
    return resolved
