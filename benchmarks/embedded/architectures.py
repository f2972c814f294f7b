r"""Which architecture the embedded checkpoint of vision has: a few of equal size, pretrained alike for a short while.

    python benchmarks/embedded/architectures.py --data FOLDER --runs runs

Each learns Tiny ImageNet by the last stage of the recipe of `builtin/vision`, from fresh weights and for `EPOCHS`.
What it is worth is the mean accuracy of `linear_probe` and of `full` over the sets of `sets.py`, with all their
examples, on their validation splits; the test splits decide nothing. The seconds of pretraining stand beside it, since
the recipe has two hours. A run that is finished is read, not repeated; the table is written as JSON beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import transformers
import yaml
from sets import SETS, draw

import tlhub
from tlhub.environment import versions

RECIPES = Path(__file__).parents[2] / "recipes"
RESNET = RECIPES / "pretrain" / "vision"
EPOCHS, STEPS, BATCH, SEED = 3, 150, 32, 0
TRAIN = {"epochs": EPOCHS, "warmup_fraction": 0.1, "average": 0.98, "evaluate_every": None}
"""Of some seven hundred steps, where the recipe has ten thousand."""
CANDIDATES: dict[str, transformers.PretrainedConfig] = {
    "ResNet": transformers.ResNetConfig.from_pretrained(RESNET),
    "ConvNeXt-V2": transformers.ConvNextV2Config(image_size=64, depths=[2, 2, 6, 2], hidden_sizes=[40, 80, 160, 320]),
    "ViT": transformers.ViTConfig(image_size=64, patch_size=8, hidden_size=192, num_hidden_layers=8,
                                  num_attention_heads=3, intermediate_size=768),
    "MobileNetV2": transformers.MobileNetV2Config(image_size=64, depth_multiplier=1.25),
}
"""Of three to four million parameters each, for pictures of 64 x 64 points."""


def pretrained(name: str, corpus: dict[str, Any], runs: Path) -> dict[str, Any]:
    """Pretrain a candidate, unless it is there already, and return its metrics."""
    folder, out = runs / f"{name}-start", runs / name
    if not (out / "metrics.json").exists():
        transformers.AutoModel.from_config(CANDIDATES[name]).save_pretrained(folder)
        shutil.copyfile(RESNET / "preprocessor_config.json", folder / "preprocessor_config.json")
        *_, options = yaml.safe_load_all((RECIPES / "pretrain" / "vision.yaml").read_text(encoding="utf-8"))
        options["train"] |= TRAIN
        tlhub.finetune(**{**options, "strategy": "scratch", "model": str(folder), "out": str(out),
                          "data": {**corpus, **options["data"]}})
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def worth(name: str, data: Path, runs: Path) -> dict[str, dict[str, float]]:
    """Return the accuracy on validation by strategy, then by data set."""
    found: dict[str, dict[str, float]] = {}
    for strategy in ("linear_probe", "full"):
        train = {"max_steps": STEPS, "epochs": STEPS, "batch_size": BATCH, "evaluate_every": STEPS // 3}
        for chosen in SETS["vision"]:
            out = runs / f"{name}-{chosen.name}-{strategy}"
            if not (out / "metrics.json").exists():
                tlhub.finetune(chosen.task, model=str(runs / name), strategy=strategy, out=str(out), seed=SEED,
                               data=draw(chosen, data, runs / "draws", "all", SEED),
                               **({"train": train} if strategy == "full" else {}))
            accuracy = json.loads((out / "metrics.json").read_text())["validation"]["accuracy"]
            found.setdefault(strategy, {})[chosen.name] = accuracy
    return found


def main() -> None:
    """Print a line for every candidate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--runs"):
        parser.add_argument(name, type=Path, required=True)
    given = parser.parse_args()
    sys.path.insert(0, str(RECIPES))
    from pretraining.vision import prepare

    corpus = prepare(given.data, given.runs / "corpus")
    table: dict[str, Any] = {}
    for name in CANDIDATES:
        metrics = pretrained(name, corpus, given.runs)
        accuracies = worth(name, given.data, given.runs)
        means = {strategy: round(float(np.mean(list(found.values()))), 4) for strategy, found in accuracies.items()}
        table[name] = {"parameters": metrics["parameters"]["total"], "seconds": round(metrics["time"]["train_s"]),
                       "tiny_imagenet": metrics["validation"]["accuracy"], "means": means, "validation": accuracies}
        print(f"{name:<12} {table[name]['parameters']:>9,} parameters  {table[name]['seconds']:>5} s  "
              f"Tiny ImageNet {table[name]['tiny_imagenet']:.4f}  linear_probe {means['linear_probe']:.4f}  "
              f"full {means['full']:.4f}", flush=True)
    Path(__file__).with_suffix(".json").write_text(
        json.dumps({"versions": versions(), "epochs": EPOCHS, "seed": SEED, "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
