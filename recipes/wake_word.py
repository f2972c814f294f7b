r"""Adapt a pretrained checkpoint to tell one spoken word of your own, or several, from everything else.

    python recipes/wake_word.py --model facebook/wav2vec2-base-960h --data words/ --keyword computer --strategy last_k
    accelerate-launch --config_file recipes/accelerate/ddp.yaml recipes/wake_word.py \
        --config recipes/wake_word/speech_commands_full.yaml

Every option of `tlhub finetune wake-word` works here too; `--help` lists them. Copy this file to change it.
"""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

import tlhub
from tlhub.cli import recipe


def main(options: dict[str, Any]) -> None:
    """Fine-tune, then use the run: what is missed and falsely accepted, its folder, its predictions."""
    run = tlhub.finetune("wake-word", **options)

    say = PartialState().print  # once for all processes
    split = "test" if "test" in run.metrics else "validation"
    for rate, missed in run.metrics[split]["miss_rate_at_fa_rate"].items():
        told = "too few other clips to tell" if missed is None else f"{missed:.4f}"
        say(f"{split} miss rate at {float(rate):.0%} false accepts: {told}")
    point = run.metrics["operating_point"]
    found = point[split]
    say(f"{split} at the threshold {point['threshold']:.4f}, which validation chose: "
        f"{found['misses']} of {found['positives']} keywords missed, "
        f"{found['false_accepts']} of {found['negatives']} other clips accepted")
    say(f"report: {run.folder / 'report.md'}")

    # The saved model is a classifier of transformers where its head is one; the threshold is applied here.
    # run.predict(["kitchen.wav"]) gives [{"input": ..., "label": ..., "score": ..., "scores": {...}}], the label being
    # the keyword or "other".


if __name__ == "__main__":
    recipe(main, task="wake-word")
