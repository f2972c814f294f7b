r"""Adapt a pretrained checkpoint to your own sounds and their classes or labels.

    python recipes/audio_classification.py --model facebook/wav2vec2-base --data sounds/ --strategy lora
    accelerate-launch --config_file recipes/accelerate/ddp.yaml recipes/audio_classification.py \
        --config recipes/audio_classification/superb_ks_full.yaml

Every option of `tlhub finetune audio-classification` works here too; `--help` lists them. Copy this file to change it.
"""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

import tlhub
from tlhub.cli import recipe


def main(options: dict[str, Any]) -> None:
    """Fine-tune, then use the run: its scores, its folder, its predictions."""
    run = tlhub.finetune("audio-classification", **options)

    say = PartialState().print  # once for all processes
    split = "test" if "test" in run.metrics else "validation"
    for name, (low, high) in run.metrics["intervals"][split].items():
        say(f"{split} {name} {run.metrics[split][name]:.4f} (95% interval {low:.4f} to {high:.4f})")
    for baseline, scores in run.metrics["baselines"].items():
        say(f"baseline {baseline}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    say(f"report: {run.folder / 'report.md'}")

    # The saved model answers here, and wherever transformers is: `from_pretrained(run.folder / "model")`.
    # run.predict(["dog.wav"]) gives [{"input": ..., "label": ..., "score": ..., "scores": {...}}]


if __name__ == "__main__":
    recipe(main, task="audio-classification")
