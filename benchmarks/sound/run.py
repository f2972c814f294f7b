r"""Transfer of a small speech checkpoint, at 16 recordings a class: spoken digits, and a wake word on clips.

    python benchmarks/checkpoints/run.py audio --data FOLDER --out checkpoints/audio
    python benchmarks/sound/run.py --model checkpoints/audio --data FOLDER --runs runs

The checkpoint has heard 35 words of Speech Commands, the digits (some twenty recordings of each) among them, by other
people. Settings are tlhub's defaults for each strategy; `scratch` is the same architecture from fresh weights. Digits
are those of `spoken_digits`; the wake word is "computer" of `wakewords`, against "alexa", "smart mirror" and "view
glass". Speakers are never on two sides, by `--data.group_column`; those of the test split are unheard. Two seeds:
they draw the recordings, the validation speakers and all else. A run that is finished is read, not repeated. The test
split is scored once, by the run itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import tlhub
from tlhub.environment import versions

ROWS: dict[str, dict[str, Any]] = {
    "linear_probe": {"strategy": "linear_probe"}, "full": {"strategy": "full"}, "lora": {"strategy": "lora"},
    "scratch": {"strategy": "scratch"}}
"""With tlhub's defaults: 100 epochs for fresh weights, 30 for pretrained ones."""
SEEDS = (0, 1)
A_CLASS = 16
TASKS: dict[str, dict[str, Any]] = {
    "spoken_digits": {"task": "audio-classification", "classes": 10, "group": "speaker", "evaluate_every": 50},
    "wakewords": {"task": "wake-word", "classes": 4, "group": "pseudo_speaker", "keyword": ["computer"]},
}


def one(name: str, row: str, seed: int, model: Path, data: Path, runs: Path) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return its metrics."""
    out = runs / f"{name}-{row}-{seed}"
    settings = TASKS[name]
    if not (out / "metrics.json").exists():
        options = {"keyword": settings["keyword"]} if "keyword" in settings else {}
        # The validation split of the digits is three times as large as what is trained on.
        if "evaluate_every" in settings and row != "linear_probe":
            options["train"] = {"evaluate_every": settings["evaluate_every"]}
        tlhub.finetune(
            settings["task"], model=str(model), seed=seed, out=str(out), **ROWS[row],
            data={"source": str(data / name), "metadata": "clips.csv", "group_column": settings["group"],
                  "max_train_examples": A_CLASS * settings["classes"]}, **options)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of the test split that the table has; rates by their level."""
    found: dict[str, float] = {}
    for name, value in metrics["test"].items():
        if isinstance(value, dict):
            found |= {f"{name}_{level}": part for level, part in value.items() if part is not None}
        else:
            found[name] = value
    return found


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of each number over the seeds, and what the runs took."""
    tables = [figures(metrics) for metrics in results]
    names = set.intersection(*(set(table) for table in tables))
    values = {name: [table[name] for table in tables] for name in sorted(names)}
    return {"test": {name: {"mean": float(np.mean(seeds)), "deviation": float(np.std(seeds, ddof=1)), "seeds": seeds}
                     for name, seeds in values.items()},
            "trainable": results[0]["parameters"]["trainable"], "data": [metrics["data"] for metrics in results],
            "train_s": [metrics["time"]["train_s"] for metrics in results]}


def main() -> None:
    """Run everything, print the table and write it as JSON beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--data", "--runs"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    table: dict[str, Any] = {}
    for name in TASKS:
        for row in ROWS:
            results = [one(name, row, seed, given.model, given.data, given.runs) for seed in SEEDS]
            table.setdefault(name, {})[row] = found = summary(results)
            shown = [key for key in found["test"] if key in ("accuracy", "f1_macro", "average_precision")
                     or key.startswith("miss_rate")]
            print(f"{name:<14} {row:<18}" + "  ".join(
                f"{key} {found['test'][key]['mean']:.4f} +- {found['test'][key]['deviation']:.4f}" for key in shown),
                flush=True)
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps({"versions": versions(), "a_class": A_CLASS, "tables": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
