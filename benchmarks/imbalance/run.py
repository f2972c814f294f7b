r"""Do the remedies against imbalance help? Macro F1 and the rare class's recall, with each remedy and without.

    python benchmarks/imbalance/run.py --texts MINILM_FOLDER --pictures CHECKPOINT --data FOLDER --runs runs

Texts: `sms_spam` (one spam message in eight), 400 training messages. Pictures: `hymenoptera` with one ant to twenty
bees in training and validation, which this script cuts (copies, seed 0); its test split stays balanced. The model is
chosen by validation's macro F1. Recall has few rare examples behind it, so each row is the mean of several seeds. The
linear probe takes weights and, after the fit, the adjustment; it is not drawn and has no loss to choose.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tlhub
from tlhub.environment import versions

REMEDIES: dict[str, dict[str, Any]] = {
    "none": {}, "class weights": {"class_weights": "balanced"}, "balanced sampling": {"sampling": "balanced"},
    "logit adjustment": {"logit_adjustment": 1.0}, "focal loss": {"loss": "focal"}}
OF_A_PROBE = ("none", "class weights", "logit adjustment")
RATIO = 20


def cut(source: Path, folder: Path) -> Path:
    """Copy `hymenoptera` with one ant to twenty bees in train, and return the folder."""
    if not folder.exists():
        for split in ("train", "test"):
            for label in ("ants", "bees"):
                files = sorted((source / split / label).iterdir())
                if (split, label) == ("train", "ants"):
                    bees = len(list((source / "train" / "bees").iterdir()))
                    files = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:bees // RATIO]]
                (folder / split / label).mkdir(parents=True)
                for file in files:
                    shutil.copy(file, folder / split / label / file.name)
    return folder


def one(task: str, options: dict[str, Any], remedy: str, seed: int, out: Path, rare: str) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return what is compared."""
    train = {**options.pop("train", {}), **REMEDIES[remedy]}
    if not (out / "metrics.json").exists():
        tlhub.finetune(task, out=str(out), seed=seed, train=train, evaluate={"best": "f1_macro"}, **options)
    run = tlhub.load(out)
    return {"data": Path(options["data"]["source"]).name, "strategy": run.metrics["strategy"], "remedy": remedy,
            "seed": seed, "f1_macro": run.metrics["test"]["f1_macro"], "accuracy": run.metrics["test"]["accuracy"],
            "recall": run.metrics["breakdown"]["test"][rare]["recall"]}


def show(rows: list[dict[str, Any]]) -> None:
    """Print means over the seeds."""
    print(f"{'data':<20} {'strategy':<13} {'remedy':<18} macro F1  recall of the rare class  accuracy")
    for data, strategy, remedy in dict.fromkeys((row["data"], row["strategy"], row["remedy"]) for row in rows):
        found = [row for row in rows if (row["data"], row["strategy"], row["remedy"]) == (data, strategy, remedy)]
        keys = ("f1_macro", "recall", "accuracy")
        f1, recall, accuracy = (statistics.mean(row[key] for row in found) for key in keys)
        print(f"{data:<20} {strategy:<13} {remedy:<18} {f1:.4f}    {recall:.4f}                    {accuracy:.4f}")


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("texts", "pictures", "data", "runs"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    choices = parser.parse_args()
    pictures = cut(choices.data / "hymenoptera", choices.runs / "hymenoptera_1_to_20")
    sources = {"sms": ("text-classification", choices.texts, choices.data / "sms_spam", "spam"),
               "ants": ("image-classification", choices.pictures, pictures, "ants")}
    rows = []
    for seed in choices.seeds:
        for name, (task, model, source, rare) in sources.items():
            data = {"source": str(source), **({"max_train_examples": 400} if name == "sms" else {})}
            for remedy in REMEDIES:
                trained = {"strategy": "last_k", "train": {"epochs": 5}} if name == "sms" else {"strategy": "full"}
                options = {"model": str(model), "data": data, **trained}
                rows.append(one(task, options, remedy, seed,
                                choices.runs / f"{name}_{remedy.replace(' ', '_')}_{seed}", rare))
            for remedy in OF_A_PROBE:
                options = {"model": str(model), "data": data, "strategy": "linear_probe"}
                rows.append(one(task, options, remedy, seed,
                                choices.runs / f"{name}_probe_{remedy.replace(' ', '_')}_{seed}", rare))
    show(rows)
    choices.out.write_text(json.dumps({"rows": rows, "threads": torch.get_num_threads(), "versions": versions()},
                                      indent=1) + "\n")


if __name__ == "__main__":
    main()
