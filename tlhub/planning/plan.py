"""Which checkpoint, and how to transfer: candidates compared, costs estimated, and the command to type."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from accelerate import Accelerator

from tlhub import options
from tlhub.config import SHORT_OPTIONS, SINGLE_LABEL, RunConfig, as_dict, replace
from tlhub.data.cache import write_atomically
from tlhub.data.portions import within_memory
from tlhub.data.prepare import prepare
from tlhub.environment import versions
from tlhub.errors import CheckpointError, DataError, DiskFullError, LostDataError, StoppedError, TlhubError, UsageError
from tlhub.folder import finite, result_folder
from tlhub.parsers import one_line
from tlhub.planning.advice import Advice, Situation, advise
from tlhub.planning.candidates import Candidate, Subject, examine
from tlhub.planning.costs import DoesNotFitError
from tlhub.planning.estimates import Cost, Estimates
from tlhub.planning.memory import PeakMemory
from tlhub.planning.scores import weighted_tau
from tlhub.proving.trials import without_notes
from tlhub.registry import TASKS
from tlhub.run import check_target
from tlhub.training.processes import make_accelerator

logger = logging.getLogger(__name__)

T = TypeVar("T")
RESULT = "plan.json"
_PARENT = "plans"
_MOST_KEPT = 3
_LARGER = 1.5
"""How many times as large as the best one the largest candidate has to be for its size to count."""
_LEAST_ORDERED = 3
"""Candidates from which on the agreement of two orders is told."""
_NOT_OF_RUNS = ("model.name", "strategy.name", "out", "task")
_OF_ALL = (LostDataError, DiskFullError, StoppedError)
"""Errors that no other candidate would be spared."""


@dataclass(frozen=True)
class Kept:
    """A candidate that is worth running.

    Attributes:
        candidate: The candidate.
        reason: Why.
        costs: Of each strategy.
        advice: How to transfer.
        command: What to type.
    """

    candidate: Candidate
    reason: str
    costs: tuple[Cost, ...]
    advice: Advice
    command: str


@dataclass(frozen=True)
class Plan:
    """What was found.

    Attributes:
        folder: Where `plan.json` is.
        task: What is predicted.
        source: The data as named.
        examples: Of training; blocks or texts of a corpus.
        compared: Examples that candidates were compared on.
        rarest: Training examples of the rarest class; None where there are no classes.
        grouped: Whether examples belong to groups, which are left out whole.
        ranked: The candidates, the best first.
        by_size: Names of the candidates, the largest first.
        skipped: Why others are left out, by name.
        agreement: Weighted tau of the order by score with those by other things, where there are enough candidates.
        kept: What is worth running, the best first.
        limit: Bytes of memory that a run may take.
        device: Where.
        seconds: What planning took.
    """

    folder: Path
    task: str
    source: str
    examples: int
    compared: int
    rarest: int | None
    grouped: bool
    ranked: tuple[Candidate, ...]
    by_size: tuple[str, ...]
    skipped: Mapping[str, str]
    agreement: Mapping[str, float]
    kept: tuple[Kept, ...]
    limit: int
    device: str
    seconds: float


def plan(config: RunConfig, *, overwrite: bool = False) -> Plan:
    """Compare checkpoints for a data set, estimate what each strategy takes, and write `plan.json`.

    Nothing is trained but for a few steps on a few examples, whose result is thrown away.

    Args:
        config: As for `tlhub finetune`; `model.name` names several checkpoints, separated by commas, and `out` the
            folder, otherwise `plans/<task>-<n>`. The strategy is not looked at.
        overwrite: Replace the plan in the folder.

    Raises:
        UsageError: The configuration cannot be used.
        CheckpointError: No candidate can serve the task.
        DataError: The data cannot be used.
        TlhubError: None of the best can be tried.
    """
    started = time.perf_counter()
    config = replace(config, {"launch.num_processes": 1})
    options.check(config)
    names = candidate_names(config.model.name)
    if config.model.revision is not None and len(names) > 1:
        raise UsageError(f"--model.revision {config.model.revision!r} is given for {len(names)} checkpoints; name one "
                         "checkpoint, or leave it out")
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise UsageError(f"tlhub plan is run by {accelerator.num_processes} processes, and works in one; start it "
                         "without a launcher")
    with _reserved(config, overwrite=overwrite) as folder:
        found = _planned(config, names, accelerator, folder, started)
        text = json.dumps(finite(content(found)), indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / RESULT, text.encode())
    return found


@contextmanager
def _reserved(config: RunConfig, *, overwrite: bool) -> Iterator[Path]:
    """Give the folder of a plan; where none comes to be, what was there stays, and what was not is not there again.

    Raises:
        UsageError: It holds something, or cannot be made.
    """
    given = Path(config.out or _PARENT)
    if config.out and overwrite and given.is_dir() and os.listdir(given) == [RESULT]:
        yield given  # the plan in it stays until the new one takes its place
        return
    missing = [path for path in (given, *given.parents) if not path.exists()]
    folder = result_folder(config, RESULT, parent=_PARENT, noun="a plan", overwrite=overwrite)
    try:
        yield folder
    except BaseException:
        for path in missing if config.out else (folder, *missing):
            with suppress(OSError):
                path.rmdir()
        raise


def _planned(config: RunConfig, names: Sequence[str], accelerator: Accelerator, folder: Path, started: float) -> Plan:
    """Return the plan.

    Raises:
        TlhubError: There is none, as in `plan`.
    """
    task = TASKS.get(config.task)()
    data = prepare(config.data, task.modality, problems=task.problems, seed=config.seed,
                   keywords=task.keywords(config))
    for note in data.notes:
        logger.info(note)
    check_target(task, config, data.target)
    subject = Subject(config, data, accelerator)
    ranked, skipped = _ranked(subject, names)
    by_size = sorted(ranked, key=lambda candidate: -candidate.parameters)
    kept, untried = _all_kept(subject, _worth_running(ranked, by_size[0]))
    labels = data.splits["train"].labels
    return Plan(folder, config.task, config.data.source, len(data.splits["train"]), len(subject.compared),
                int(np.bincount(labels).min()) if data.target.problem_type == SINGLE_LABEL else None,
                not subject.generates and subject.groups is not None, tuple(ranked),
                tuple(each.name for each in by_size), {**skipped, **untried}, _agreement(ranked), tuple(kept),
                PeakMemory(accelerator.device).limit(), str(accelerator.device), time.perf_counter() - started)


def candidate_names(given: str) -> list[str]:
    """Return the checkpoints that `--model` names, each once.

    Raises:
        UsageError: It names none.
    """
    if os.path.isdir(os.path.expanduser(given)):  # which answers for names that no file system takes, too
        return [given]
    names = list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names:
        raise UsageError(f"--model {given!r} names no checkpoint; name one or several, separated by commas")
    return names


def _ranked(subject: Subject, names: Sequence[str]) -> tuple[list[Candidate], dict[str, str]]:
    """Return the candidates, the best first, and why others cannot serve.

    Raises:
        CheckpointError: None can.
        DataError: None can, and for each it is the data's fault.
        TlhubError: The only candidate fails, or all would.
    """
    found: list[Candidate] = []
    failed: dict[str, TlhubError] = {}
    for number, name in enumerate(names, start=1):
        logger.info("%s (%d of %d)", name, number, len(names))
        candidate = _attempted(name, partial(examine, subject, name), failed, alone=len(names) == 1)
        found += [] if candidate is None else [candidate]
    skipped = {name: str(error) for name, error in failed.items()}
    if not found:
        kind = DataError if all(isinstance(error, DataError) for error in failed.values()) else CheckpointError
        raise kind(f"none of the {len(names)} checkpoints can serve {subject.config.task}: "
                   + "; ".join(dict.fromkeys(skipped.values())))
    return sorted(found, key=lambda candidate: -candidate.merit), skipped


def _all_kept(subject: Subject, chosen: Sequence[tuple[Candidate, str]]) -> tuple[list[Kept], dict[str, str]]:
    """Return what is worth running of candidates, each with the reason, and why others cannot be tried.

    Raises:
        TlhubError: None can.
    """
    found: list[Kept] = []
    failed: dict[str, TlhubError] = {}
    for candidate, reason in chosen:
        logger.info("%s: a few steps of each strategy", candidate.name)
        kept = _attempted(candidate.name, partial(_kept, subject, candidate, reason), failed, alone=len(chosen) == 1)
        found += [] if kept is None else [kept]
    if not found:
        raise next(iter(failed.values()))
    return found, {name: str(error) for name, error in failed.items()}


def _attempted(name: str, compute: Callable[[], T], failed: dict[str, TlhubError], *, alone: bool) -> T | None:
    """Return what is computed of a candidate; None where it fails, of which the user is told.

    Args:
        name: Of the candidate.
        compute: What to attempt.
        failed: Takes the error.
        alone: Whether it is the only candidate, so that its error is that of the plan.

    Raises:
        TlhubError: It fails and is alone, or the others would fail likewise.
    """
    try:
        with without_notes("tlhub.planning"):
            found = within_memory(compute)
        if found is None:
            raise DoesNotFitError("memory does not suffice for it; free some, or take a smaller checkpoint")
    except TlhubError as error:
        if alone or isinstance(error, _OF_ALL):
            raise
        logger.warning("%s is left out: %s", name, one_line(str(error)))
        failed[name] = error
        return None
    return found


def _worth_running(ranked: Sequence[Candidate], largest: Candidate) -> list[tuple[Candidate, str]]:
    """Return the best candidate, those within one standard error of it, and the largest one, with the reasons.

    Where that error is not known, any of the others may be as good.

    Size says of unlike candidates what features do not (Renggli et al. 2022, "Which model to transfer?"): the best by
    either together are seldom far from the best there is.
    """
    best, *others = ranked
    found = [(best, "the best score" if others else "the only candidate")]
    near = "one text cannot tell it from the best" if math.isnan(best.standard_error) \
        else "within one standard error of the best"
    found = [*found, *((other, near) for other in others if other.within_error(best))][:_MOST_KEPT]
    if largest not in [candidate for candidate, _ in found] and largest.parameters >= _LARGER * best.parameters:
        found[_MOST_KEPT - 1:] = [(largest, "the largest, whose features may improve most")]
    return found


def _kept(subject: Subject, candidate: Candidate, reason: str) -> Kept:
    estimates = Estimates(subject, candidate.name)
    costs = estimates.all()
    labels = subject.data.splits["train"].labels
    counts = np.bincount(labels) if subject.data.target.problem_type == SINGLE_LABEL else None
    situation = Situation(
        modality=subject.task.modality, examples=estimates.examples,
        rarest=None if counts is None else int(counts.min()),
        imbalance=None if counts is None else float(counts.max() / max(counts.min(), 1)),
        score=candidate.score, standard_error=candidate.standard_error, kinds=candidate.kinds or {},
        half=candidate.half, masked=candidate.masked, parameters=candidate.parameters, tokens=estimates.tokens,
        adapter=next((cost.trained for cost in costs if cost.strategy == "lora"), None))
    advice = advise(situation, costs, estimates.config)
    return Kept(candidate, reason, tuple(costs), advice, command(subject.config, candidate.name, advice))


def command(config: RunConfig, name: str, advice: Advice) -> str:
    """Return what to type for a run as advised: every option that was given, but for those without an effect there.

    Args:
        config: As given.
        name: Of the checkpoint.
        advice: How to transfer.
    """
    given = options.dotted(as_dict(config))
    plain = options.dotted(as_dict(RunConfig()))
    values = {key: value for key, value in given.items() if key not in _NOT_OF_RUNS and value != plain.get(key)}
    run = replace(config, {"model.name": name, "strategy.name": advice.strategy})
    values = {key: value for key, value in values.items() if key not in options.without_effect(run, list(values))}
    words = ["tlhub", "finetune", config.task, "--model", name, "--data", str(values.pop("data.source")),
             "--strategy", advice.strategy]
    short = {full: brief for brief, full in SHORT_OPTIONS.items()}
    for key, value in {**values, **advice.options}.items():
        words += [f"--{short.get(key, key)}", _word(value)]
    return shlex.join(words)


def _word(value: Any) -> str:
    """Return a value as the command line takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _agreement(ranked: Sequence[Candidate]) -> dict[str, float]:
    """Return the weighted tau of the order by score with the other orders."""
    if len(ranked) < _LEAST_ORDERED:
        return {}
    merits = [candidate.merit for candidate in ranked]
    found = {"size": weighted_tau(merits, [candidate.parameters for candidate in ranked])}
    for name, values in (("kNN", [candidate.knn for candidate in ranked]),
                         ("LogME", [candidate.logme for candidate in ranked])):
        if all(value is not None for value in values):
            found[name] = weighted_tau(merits, [value for value in values if value is not None])
    return {name: value for name, value in found.items() if not math.isnan(value)}


def content(found: Plan) -> dict[str, Any]:
    """Return what `plan.json` holds."""
    best = found.ranked[0]
    candidates = []
    for place, candidate in enumerate(found.ranked, start=1):
        gap, error = candidate.behind(best)
        candidates.append({
            "name": candidate.name, "place": place, "place_by_size": 1 + found.by_size.index(candidate.name),
            "measure": candidate.measure, "score": candidate.score, "standard_error": candidate.standard_error,
            "behind": gap, "behind_standard_error": error, "within_one_error": candidate.within_error(best),
            "features": candidate.features, "by_features": candidate.kinds, "with_half": candidate.half,
            "knn": candidate.knn, "logme": candidate.logme, "parameters": candidate.parameters,
            "pretraining": candidate.pretraining})
    return {
        "task": found.task, "data": found.source, "examples": found.examples, "compared": found.compared,
        "rarest_class": found.rarest, "candidates": candidates, "skipped": dict(found.skipped),
        "agreement": dict(found.agreement),
        "kept": [{"name": kept.candidate.name, "reason": kept.reason, "advice": asdict(kept.advice),
                  "costs": [asdict(cost) for cost in kept.costs], "command": kept.command} for kept in found.kept],
        "memory_limit": found.limit, "device": found.device, "seconds": round(found.seconds, 2), "versions": versions()}
