r"""Adapt a pretrained language model to your own texts, to completions of prompts, or to conversations.

    python recipes/text_generation.py --model openai-community/gpt2 --data books/ --strategy lora
    accelerate-launch --config_file recipes/accelerate/ddp.yaml recipes/text_generation.py \
        --config recipes/text_generation/shakespeare_gpt2_full.yaml

Every option of `tlhub finetune text-generation` works here too; `--help` lists them. Copy this file to change it.
"""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

import tlhub
from tlhub.cli import recipe


def main(options: dict[str, Any]) -> None:
    """Fine-tune, then use the run: its scores beside the checkpoint's own, what it writes, its folder."""
    run = tlhub.finetune("text-generation", **options)

    say = PartialState().print  # once for all processes
    split = "test" if "test" in run.metrics else "validation"
    for name, (low, high) in run.metrics["intervals"][split].items():
        say(f"{split} {name} {run.metrics[split][name]:.4f} (95% interval {low:.4f} to {high:.4f})")
    for baseline, scores in run.metrics["baselines"].items():
        say(f"baseline {baseline}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
    for sample in run.metrics["samples"]:
        say(f"{sample['prompt']!r} goes on: {sample['after']!r} (before training: {sample['before']!r})")
    say(f"report: {run.folder / 'report.md'}")

    # The saved model writes here, and wherever transformers or peft is: `from_pretrained(run.folder / "model")`.
    # run.predict(["Once upon a time"], max_new_tokens=50, num_return_sequences=3) gives [{"input", "text"}, ...]


if __name__ == "__main__":
    recipe(main, task="text-generation")
