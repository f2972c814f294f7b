"""What a run leaves: scores with intervals, baselines, plots, the model and the report."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tlhub.config import NEXT_TOKEN, SINGLE_LABEL, RunConfig, as_dict
from tlhub.data.audit import write_quarantine
from tlhub.data.batches import Inputs
from tlhub.data.blocks import GenerationInputs
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import PreparedData
from tlhub.environment import versions
from tlhub.evaluation import plots, report
from tlhub.evaluation.baselines import knn
from tlhub.evaluation.breakdown import breakdown
from tlhub.evaluation.calibration import fit_temperature, reliability
from tlhub.evaluation.intervals import bootstrap_intervals, group_counts
from tlhub.evaluation.scores import Scores, one_number
from tlhub.evaluation.sheets import sheet
from tlhub.models.outputs import temperature
from tlhub.models.saving import save_model
from tlhub.problems import Problem
from tlhub.registry import STRATEGIES
from tlhub.strategies.base import Fitted
from tlhub.training.callbacks import read_history
from tlhub.workbench import Workbench

_SHEET_ROWS, _SHEET_VIEWS = 4, 7
"""Training pictures on the sheet of what augmentation does, and in how many epochs each is shown."""


def score_split(problem: Problem, outputs: np.ndarray, labels: np.ndarray, groups: np.ndarray | None,
                config: RunConfig) -> dict[str, Any]:
    """Return `metrics` and their 95% bootstrap `intervals` for one split, and the `groups` that were drawn whole.

    Args:
        problem: The kind of target.
        outputs: Final outputs, shape (n, c).
        labels: Of that kind.
        groups: The group of each row (speaker, patient), or None.
        config: Names of the metrics, resamples and seed.
    """
    names = config.evaluate.metrics
    intervals = bootstrap_intervals(names, outputs, labels, groups=groups, resamples=config.evaluate.resamples,
                                    seed=config.seed)
    counts = group_counts(groups, labels)
    return {"metrics": problem.score(outputs, labels, names), **({} if counts is None else {"groups": counts}),
            "intervals": {name: {part: edges and list(edges) for part, edges in interval.items()}
                          if isinstance(interval, dict) else list(interval) for name, interval in intervals.items()}}


def groups_of(inputs: Inputs, groups: np.ndarray | None) -> np.ndarray | None:
    """Return the group of each row that a model answers, shape (n,), from those of the examples; None without them."""
    return inputs.spread(groups) if isinstance(inputs, GenerationInputs) and groups is not None else groups


@dataclass(frozen=True)
class Before:
    """What a checkpoint does before anything is trained.

    Attributes:
        scores: Its own scores as a baseline, by name; none where it cannot be scored, or is not used.
        samples: What it makes of a few prompts, in the task's order; none where the task has no samples.
    """

    scores: Mapping[str, Scores]
    samples: tuple[str, ...]


def begin(bench: Workbench, data: PreparedData) -> Before:
    """Score the checkpoint as it is, where that can be done, and let it go on with a few prompts.

    Args:
        bench: The run.
        data: The data as prepared.
    """
    if not STRATEGIES.get(bench.config.strategy.name).pretrained:
        return Before({}, ())
    model, scores = bench.checkpoint.model.to(bench.accelerator.device), {}
    if bench.problem.scores_checkpoint:
        scored = bench.inputs[_scored(bench)]
        scores["checkpoint"] = bench.problem.score(bench.predict(model, scored), scored.labels,
                                                   bench.config.evaluate.metrics)
    return Before(scores, tuple(text for _, text in _samples(bench, model, data)))


def finish(bench: Workbench, fitted: Fitted, data: PreparedData, times: dict[str, float], before: Before) -> None:
    """Score the fitted model and write the run's results; the model is touched by the test split nowhere else.

    Args:
        bench: The run.
        fitted: What the strategy returned.
        data: The data as prepared.
        times: `prepare_s` and `train_s`; `evaluate_s` is added.
        before: What `begin` returned.
    """
    started = time.perf_counter()
    scorer = fitted.scorer.to(bench.accelerator.device)
    outputs: Mapping[str, np.ndarray] = {
        split: fitted.outputs.apply(bench.predict(scorer, fitted.inputs[split]))
        for split in ("validation", "test") if split in fitted.inputs}
    if not bench.accelerator.is_main_process:
        bench.accelerator.wait_for_everyone()
        return
    fitted.outputs.fold(fitted.model)
    outputs, calibration = _calibrated(bench, fitted, outputs)
    for observer in bench.observers:
        observer.on_result(fitted.model, outputs)
    groups = {split: groups_of(bench.inputs[split], data.splits[split].groups) for split in outputs}
    scores = {split: score_split(bench.problem, values, bench.inputs[split].labels, groups[split], bench.config)
              for split, values in outputs.items()}
    breakdowns = {split: breakdown(values, bench.inputs[split].labels, bench.target.names)
                  for split, values in outputs.items()}
    content = _content(bench, fitted, scores, times) | {"breakdown": breakdowns} | calibration
    content["baselines"] = {**before.scores, **_baselines(bench)}
    samples = _samples(bench, fitted.model, data)
    if samples:
        content["samples"] = [{"prompt": prompt, "before": old, "after": text} for (prompt, text), old
                              in zip(samples, before.samples or [None] * len(samples), strict=True)]
    content |= bench.problem.facts(outputs, {split: bench.inputs[split].labels for split in outputs},
                                   groups, bench.target.names, bench.config)
    content["time"]["evaluate_s"] = time.perf_counter() - started
    save_model(fitted.model, bench.checkpoint.processor, bench.folder.path / "model", origin=bench.checkpoint.origin,
               label_names=() if bench.target.problem_type == NEXT_TOKEN else bench.target.names,
               save_base=bench.config.model.save_base)
    write_quarantine(bench.folder.path / "quarantine.csv", data.quarantined)
    bench.folder.write_json("metrics.json", content)
    _draw(bench, outputs, content)
    for sentence in report.losing_to(content, bench.config.evaluate.best):
        bench.tell(f"beware: {sentence}")
    origin = bench.checkpoint.origin
    facts = {"checkpoint revision": origin.revision or "as found", "checkpoint SHA-256": origin.weight_hash,
             "data fingerprint": data.fingerprint, **versions()}
    report.write_report(bench.folder.path, config=as_dict(bench.config), metrics=content, notes=list(data.notes),
                        facts=facts, sections=bench.problem.sections(content))
    bench.accelerator.wait_for_everyone()


def _calibrated(bench: Workbench, fitted: Fitted,
                outputs: Mapping[str, np.ndarray]) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    """Return the outputs after calibration, where it is asked for, and what it does in either case.

    The temperature is that of validation, which the test split's calibration error then checks.
    """
    if bench.target.problem_type != SINGLE_LABEL:
        return outputs, {}
    found = fit_temperature(outputs["validation"], bench.inputs["validation"].labels)
    divide = temperature(found)
    cooled = {split: divide.apply(values) for split, values in outputs.items()}
    errors = {split: [one_number(bench.problem.score(values, bench.inputs[split].labels, ["ece"])["ece"])
                      for values in (outputs[split], cooled[split])] for split in outputs}
    applied = bench.config.evaluate.calibrate
    if applied:
        divide.fold(fitted.model)
    return cooled if applied else outputs, {"calibration": {"temperature": found, "applied": applied, "ece": errors}}


def _content(bench: Workbench, fitted: Fitted, scores: Mapping[str, Any], times: dict[str, float]) -> dict[str, Any]:
    """Return `metrics.json` without its baselines."""
    examples = {split: len(inputs) for split, inputs in bench.inputs.items()}
    trained = sum(value.numel() for value in fitted.scorer.parameters() if value.requires_grad)
    labels = {split: inputs.labels for split, inputs in bench.inputs.items()}
    seen = (bench.examples_seen or examples["train"]) / examples["train"] * bench.problem.amount(labels["train"])
    return {
        "task": bench.config.task, "problem_type": bench.target.problem_type,
        "model": bench.config.model.name, "strategy": bench.config.strategy.name,
        "seed": bench.config.seed, **{split: values["metrics"] for split, values in scores.items()},
        "intervals": {split: values["intervals"] for split, values in scores.items()},
        "groups": {split: values["groups"] for split, values in scores.items() if "groups" in values},
        "baselines": {},
        "parameters": {"total": sum(value.numel() for value in fitted.model.parameters()), "trainable": trained},
        "data": {**examples, **bench.problem.counts(labels, bench.target.names)}, "time": dict(times),
        "throughput": {f"{bench.problem.unit}_per_s": seen / max(times["train_s"], 1e-9)},
        "peak_memory_mib": _peak_memory_mib(),
    }


def _baselines(bench: Workbench) -> dict[str, Scores]:
    """Return what a fitted model has to beat, on the test split or else on validation."""
    split = _scored(bench)
    train, scored = bench.inputs["train"], bench.inputs[split]
    baselines = dict(bench.problem.baselines(train, scored, bench.config.evaluate.metrics, bench.classes))
    if bench.known_features:
        features = bench.known_features[bench.read_features]
        baselines["knn"] = knn(features["train"], train.labels, features[split], scored.labels,
                               bench.config.evaluate.metrics)
    return baselines


def _scored(bench: Workbench) -> str:
    return "test" if "test" in bench.inputs else "validation"


def _samples(bench: Workbench, model: nn.Module, data: PreparedData) -> list[tuple[str, str]]:
    """Return prompts with what the model makes of them, on the main process alone."""
    if not bench.accelerator.is_main_process:
        return []
    return bench.task.samples(model, bench.checkpoint.processor, data.splits["validation"], bench.config)


def _draw(bench: Workbench, outputs: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> None:
    """Draw the plots of a run."""
    problem = bench.task.problem(bench.target.problem_type, content)
    folder = bench.folder.path / "plots"
    folder.mkdir(exist_ok=True)
    history = read_history(bench.folder.path / "history.jsonl")
    if history:
        plots.curves(history, folder / "curves.png", one_loss=_trained_as_scored(bench.config))
    for split, values in outputs.items():
        problem.draw(values, bench.inputs[split].labels, bench.target.names, split, folder)
    if "calibration" in content:
        _draw_reliability(bench, outputs, content["calibration"], folder)
    train = bench.inputs["train"]
    if isinstance(train, ImageInputs) and train.augmented and bench.examples_seen:
        sheet(_views(train), folder / "augmentation.png")


def _trained_as_scored(config: RunConfig) -> bool:
    """Return whether the loss of training is the one that validation is scored by."""
    train, data = config.train, config.data
    changed = (train.label_smoothing, train.logit_adjustment, data.mixup, data.cutmix)
    return train.loss == "cross_entropy" and train.class_weights == "none" and not any(changed)


def _draw_reliability(bench: Workbench, outputs: Mapping[str, np.ndarray], calibration: Mapping[str, Any],
                      folder: Path) -> None:
    """Draw how often predictions of each confidence are right, before and after division by the temperature."""
    found = calibration["temperature"]
    split, values = list(outputs.items())[-1]
    trained = temperature(1 / found).apply(values) if calibration["applied"] else values
    labels = bench.inputs[split].labels
    diagrams = {"as trained": reliability(trained, labels),
                f"at temperature {found:.2f}": reliability(temperature(found).apply(trained), labels)}
    plots.reliability(diagrams, folder / f"reliability_{split}.png")


def _views(inputs: ImageInputs) -> np.ndarray:
    """Return some training pictures as they are and in several epochs, uint8, shape (r, k, h, w, 3)."""
    chosen = np.linspace(0, len(inputs) - 1, min(_SHEET_ROWS, len(inputs))).astype(np.int64)
    return np.stack([inputs.pictures(chosen, epoch) for epoch in (None, *range(_SHEET_VIEWS))], axis=1)


def _peak_memory_mib() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
