"""Processes and accumulation change neither the batches nor the loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.generated import write_images, write_measured, write_sounds, write_texts
from tests.wrong import working_in
from tlhub import cli

AUGMENTED = ("--data.shift", "0.02", "--data.gain", "6", "--data.noise", "10", "--data.time_masks", "1",
             "--data.frequency_masks", "1")
CASES = {
    "texts": ("text-classification", "bert", write_texts, ("--strategy", "full", "--train.class_weights", "balanced")),
    "pictures": ("image-classification", "convnextv2", write_images,
                 ("--strategy", "full", "--train.class_weights", "balanced")),
    "mixed pictures": ("image-classification", "vit", write_images,
                       ("--strategy", "full", "--data.mixup", "0.4", "--data.cutmix", "1", "--data.randaugment", "2",
                        "--data.erasing", "0.5", "--train.sampling", "sqrt")),
    "unfreezing": ("text-classification", "distilbert", write_texts, ("--strategy", "gradual_unfreezing")),
    "values": ("image-regression", "swin", write_measured,
               ("--strategy", "last_k", "--strategy.k", "1", "--data.label_column", "brightness")),
    "sounds": ("audio-classification", "wavlm", write_sounds, ("--strategy", "full", *AUGMENTED)),
    "keywords": ("wake-word", "whisper", write_sounds,
                 ("--strategy", "full", "--keyword", "high", *AUGMENTED)),
    "blocks": ("text-generation", "qwen", write_texts, ("--strategy", "full", "--data.block_size", "12")),
}
VARIANTS = {
    "one process": (),
    "accumulation 1x8": ("--train.micro_batch_size", "8"),
    "accumulation 8x1": ("--train.micro_batch_size", "1"),
    "two processes": ("--num_processes", "2"),
    "two processes, accumulation": ("--num_processes", "2", "--train.micro_batch_size", "2"),
}


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("case", CASES)
def test_losses_agree(case: str, tmp_path: Path) -> None:
    task, kind, make_data, choices = CASES[case]
    make_model = tiny.generator if task == "text-generation" else tiny.checkpoint
    model, data = make_model(tmp_path / "model", kind), make_data(tmp_path / "data", {"train": 45, "test": 12})
    found = {}
    for number, (name, options) in enumerate(VARIANTS.items()):
        out = tmp_path / str(number)
        words = ["finetune", task, "--model", str(model), "--data", str(data), "--max_steps", "12", "--batch_size", "8",
                 "--model.dropout", "0", "--log.every", "1", "--out", str(out), *choices, *options]
        if "--num_processes" in options:
            done = subprocess.run([sys.executable, "-m", "tlhub", *words], env={**os.environ, "OMP_NUM_THREADS": "1"},
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr}"
        else:
            with working_in(tmp_path):
                assert cli.main(words) == 0, name
        found[name] = losses(out)
    assert len(found) == 5
    reference = found["one process"]
    assert len(reference) == 12
    assert np.ptp(reference) > 1e-3
    for name, values in found.items():
        np.testing.assert_allclose(values, reference, atol=1e-6, err_msg=name)
    counts = [json.loads((tmp_path / str(number) / "metrics.json").read_text())["data"] for number in range(5)]
    assert all(count == counts[0] for count in counts)
