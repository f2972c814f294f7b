"""What the runs of one task show together: scores beside the control's, curves, and examples to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tlhub.data.cache import write_atomically
from tlhub.data.prepare import Examples, prepare
from tlhub.evaluation.intervals import paired_interval
from tlhub.evaluation.metrics import direction
from tlhub.finished import Run
from tlhub.quickstart.exhibits import exhibit
from tlhub.quickstart.runs import kept_outputs
from tlhub.quickstart.shows import Show
from tlhub.quickstart.words import preferred
from tlhub.training.callbacks import read_history

FINDINGS = "findings.json"


def find(show: Show, folder: Path, seed: int) -> dict[str, Any]:
    """Compare the finished runs of one task, and write `findings.json` beside them.

    Args:
        show: The task.
        folder: Of the whole quickstart.
        seed: Of the runs.

    Returns:
        Its content: `show`, `lower_is_better`, `data` (sizes), `rows` by strategy, `untouched` (the checkpoint's own
        score, where it can be scored before anything is trained), and `exhibit`.
    """
    runs = {strategy: Run(show.run_folder(strategy, folder)) for strategy in show.strategies}
    outputs = {strategy: kept_outputs(show, strategy, folder) for strategy in runs}
    control = runs[show.strategies[0]]
    test = _test_split(control, seed)
    labels = control.inputs(test).labels
    rows = [_row(show, run, outputs, labels, test.groups) for run in runs.values()]
    untouched = [run.metrics["baselines"]["checkpoint"] for run in runs.values()
                 if "checkpoint" in run.metrics["baselines"]]
    lower = direction(show.metric) < 0
    best = preferred(rows, lower=lower)["strategy"]
    content = {"show": show.plain(), "lower_is_better": lower, "data": control.metrics["data"],
               "rows": rows, "untouched": untouched[0][show.metric] if untouched else None,
               "exhibit": exhibit(runs, test, outputs, best=best, seed=seed)}
    write_atomically(folder / show.task / FINDINGS, json.dumps(content, indent=1).encode())
    return content


def _test_split(run: Run, seed: int) -> Examples:
    """Return the examples that all runs were scored on, in their order."""
    task = run.task
    data = prepare(run.config.data, task.modality, problems=task.problems, seed=seed,
                   keywords=task.keywords(run.config))
    return data.splits["test"]


def _row(show: Show, run: Run, outputs: dict[str, np.ndarray], labels: np.ndarray,
         groups: np.ndarray | None) -> dict[str, Any]:
    """Return what is told of one strategy; a gain is positive where it is better than the control."""
    metrics, strategy, control = run.metrics, run.config.strategy.name, show.strategies[0]
    sign = direction(show.metric)
    gain = None
    if strategy != control:
        gain = paired_interval(show.metric, outputs[strategy], outputs[control], labels, groups=groups,
                               resamples=run.config.evaluate.resamples, seed=run.config.seed)
    history = read_history(run.folder / "history.jsonl")
    curve = [[line["step"], line["validation"][show.metric]] for line in history if "validation" in line]
    return {"strategy": strategy, "score": metrics["test"][show.metric],
            "interval": metrics["intervals"]["test"][show.metric],
            "gain_interval": None if gain is None else sorted(sign * edge for edge in gain),
            "trained": metrics["parameters"]["trainable"], "total": metrics["parameters"]["total"],
            "seconds": metrics["time"]["train_s"], "learning_rate": run.config.train.learning_rate,
            "validation": metrics["validation"][show.metric], "curve": curve}
