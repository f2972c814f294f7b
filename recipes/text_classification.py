r"""Adapt a pretrained checkpoint to your own texts, or pairs of them, and their classes, labels or values.

    python recipes/text_classification.py --model google-bert/bert-base-cased --data reviews.csv --strategy lora
    accelerate-launch --config_file recipes/accelerate/ddp.yaml recipes/text_classification.py \
        --config recipes/text_classification/sst2_full.yaml

Every option of `tlhub finetune text-classification` works here too; `--help` lists them. Copy this file to change it.
"""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

import tlhub
from tlhub.cli import recipe


def main(options: dict[str, Any]) -> None:
    """Fine-tune, then use the run: its scores, its folder, its predictions."""
    run = tlhub.finetune("text-classification", **options)

    say = PartialState().print  # once for all processes
    split = "test" if "test" in run.metrics else "validation"
    for name, (low, high) in run.metrics["intervals"][split].items():
        say(f"{split} {name} {run.metrics[split][name]:.4f} (95% interval {low:.4f} to {high:.4f})")
    for baseline, scores in run.metrics["baselines"].items():
        say(f"baseline {baseline}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    say(f"report: {run.folder / 'report.md'}")

    # The saved model answers here, and wherever transformers is: `from_pretrained(run.folder / "model")`.
    # run.predict(["a film that stays with you"]) gives [{"input": ..., "label": ..., "score": ..., "scores": {...}}]
    # A run on pairs takes tuples: run.predict([("It rains.", "The sun shines.")]).


if __name__ == "__main__":
    recipe(main, task="text-classification")
