r"""The classic recipes on real pictures, with a small backbone in the place of VGG-16, Inception-v3 and the ResNets.

    python benchmarks/classic/run.py --model CHECKPOINT --data FOLDER --runs runs

The settings are those of `recipes/image_classification/*.yaml` and `recipes/image_regression/*.yaml`, read from there;
only the checkpoint and the data are others. The checkpoint: a small residual network (transformers' ResNet: embedding
32, widths 48, 96, 192, 384, depths 1, 2, 2, 1, basic layers; 64 pixels) that tlhub trained on Tiny ImageNet with
`--strategy scratch --epochs 24 --batch_size 128 --learning_rate 2e-3 --train.label_smoothing 0.1 --train.precision
bf16`: 0.3121 of the validation pictures of 199 classes right. Four tables:

1. every recipe on `cats_vs_dogs`, `flowers5` and `chest_xray` (one sigmoid only where there are two classes);
2. the three kinds of transfer (`full`, `linear_probe`, `scratch`) with tlhub's defaults, 20 epochs;
3. the rule of thumb on `chest_xray`: how much to train, with how many pictures (macro F1 on the test split);
4. values: how much a photo was shrunk and how bright the picture is, which are known exactly (`targets.py`).

All of it in bf16, which is twice as fast on this CPU. A run that is finished is read, not repeated. The test split is
scored once, by the run itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import targets
import torch
import yaml

import tlhub
from tlhub.environment import versions

RECIPES = Path(__file__).parents[2] / "recipes"
DATA = ("cats_vs_dogs", "flowers5", "chest_xray")
CLASSIC = ("pictures_full", "cifar10_full", "cats_and_dogs_head", "flowers_head", "chest_xray_last_k")
RULE = ((60, 200, None), ("linear_probe", "last_k", "full"))
COLUMNS = ("file_column", "label_column")


def settings(recipe: str, model: Path, data: Path, *, classes: int) -> dict[str, Any]:
    """Return a recipe's options with another checkpoint and other data."""
    content: dict[str, Any] = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    content["model"]["name"] = str(model)
    if classes != 2:
        content["model"].pop("sigmoid", None)
    content["train"] = {**content.get("train", {}), "precision": "bf16"}
    kept = {name: value for name, value in content["data"].items() if name not in COLUMNS}
    return content | {"data": {**kept, "source": str(data)}}


def one(options: dict[str, Any], out: Path) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return its metrics."""
    if not (out / "metrics.json").exists():
        tlhub.finetune(**options, out=str(out))
    metrics = tlhub.load(out).metrics
    return {key: metrics[key] for key in ("strategy", "test", "validation", "baselines", "parameters", "data", "time")}


def recipes(choices: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every recipe on every set, and the three kinds of transfer."""
    rows = []
    for data in DATA:
        classes = len(list((choices.data / data / "train").iterdir()))
        for recipe in CLASSIC:
            options = settings(f"image_classification/{recipe}", choices.model, choices.data / data, classes=classes)
            rows.append({"set": data, "recipe": recipe, **one(options, choices.runs / f"{data}_{recipe}")})
        for strategy in ("full", "linear_probe", "scratch"):
            options = {"task": "image-classification", "model": str(choices.model), "strategy": strategy,
                       "data": str(choices.data / data), "train": {"precision": "bf16"}}
            if strategy != "linear_probe":
                options["train"]["epochs"] = 20
            rows.append({"set": data, "recipe": "", **one(options, choices.runs / f"{data}_{strategy}")})
    return rows


def rule(choices: argparse.Namespace) -> list[dict[str, Any]]:
    """Train more or less of the backbone with more or fewer pictures."""
    rows = []
    sizes, strategies = RULE
    for size in sizes:
        for strategy in strategies:
            options = settings("image_classification/chest_xray_last_k", choices.model, choices.data / "chest_xray",
                               classes=3)
            options["strategy"] = {"name": strategy, **({"k": 3} if strategy == "last_k" else {})}
            options["data"]["max_train_examples"] = size
            rows.append({"pictures": size, **one(options, choices.runs / f"rule_{size or 'all'}_{strategy}")})
    return rows


def values(choices: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict two values of a picture at once."""
    made = targets.make(choices.data / "cats_vs_dogs", choices.runs / "size_and_brightness")
    rows = []
    for strategy in ("head", "linear_probe", "full", "scratch"):
        options = settings("image_regression/body_length_head", choices.model, made, classes=0)
        options["data"]["target_columns"] = ["size", "brightness"]
        if strategy != "head":
            options["model"], options["strategy"] = str(choices.model), {"name": strategy}
        if strategy in ("full", "scratch"):
            options["data"] |= {"crop": "none"}  # a crop would change the size
            options["train"]["epochs"] = 20
        out = choices.runs / f"values_{strategy}"
        rows.append(one(options, out) | {"targets": tlhub.load(out).metrics["breakdown"]["test"]})
    shutil.copy(choices.runs / "values_full" / "plots" / "predicted_test.png", choices.out.parent / "predicted.png")
    return rows


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{'data':<13} {'recipe':<19} {'strategy':<13} test accuracy  macro F1  loss    baseline  trained")
    for row in result["recipes"]:
        test = row["test"]
        print(f"{row['set']:<13} {row['recipe'] or '-':<19} {row['strategy']:<13} {test['accuracy']:.4f}         "
              f"{test['f1_macro'] if 'f1_macro' in test else float('nan'):.4f}    {test['loss']:.4f}  "
              f"{row['baselines']['majority']['accuracy']:.4f}    {row['parameters']['trainable']:,}")
    sizes, strategies = RULE
    print("\nchest_xray, macro F1: pictures, then " + ", ".join(strategies))
    for size in sizes:
        found = [row["test"]["f1_macro"] for row in result["rule"] if row["pictures"] == size]
        print(f"{size or 'all':>5}  " + "  ".join(f"{value:.4f}" for value in found))
    print("\nvalues, R2 on the test split: size, brightness")
    for row in result["values"]:
        print(f"{row['strategy']:<13} " + "  ".join(f"{target['r2']:.4f}" for target in row["targets"].values()))


def main() -> None:
    """Run what is missing and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "runs"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    choices = parser.parse_args()
    result = {"recipes": recipes(choices), "rule": rule(choices), "values": values(choices),
              "threads": torch.get_num_threads(), "versions": versions()}
    show(result)
    choices.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
