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
from tlhub.parsers import FINETUNE

AUGMENTED = ("--data.shift", "0.02", "--data.gain", "6", "--data.noise", "10", "--data.time_masks", "1",
             "--data.frequency_masks", "1")
REPOSITORY = Path(__file__).parents[2]
# Both processes carry out all runs of two processes one after the other: starting them takes longer than a run.
SCRIPT = """
import json, sys
sys.path.insert(0, {root!r})
import tlhub
from tlhub.cli import recipe

def main(options):
    from tlhub import results
    results._draw = lambda bench, outputs, content: None
    for choices in json.load(open({jobs!r})):
        tlhub.finetune(**choices)

recipe(main, task="text-classification")
"""
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


def words_of(case: str, folder: Path, name: str) -> list[str]:
    """Return the command of a run; its model and data are in the folder, and so is what it leaves."""
    task, _, _, choices = CASES[case]
    return ["finetune", task, "--model", str(folder / "model"), "--data", str(folder / "data"), "--max_steps", "12",
            "--batch_size", "8", "--model.dropout", "0", "--log.every", "1", "--out", str(folder / name), *choices,
            *VARIANTS[name]]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def runs_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, data and the runs of two processes for each case."""
    root = tmp_path_factory.mktemp("runs")
    jobs = []
    for case, (task, kind, make_data, _) in CASES.items():
        folder = root / case
        make_model = tiny.generator if task == "text-generation" else tiny.checkpoint
        make_model(folder / "model", kind)
        make_data(folder / "data", {"train": 45, "test": 12})
        jobs += [FINETUNE.arguments(words_of(case, folder, name)[1:]) for name, options in VARIANTS.items()
                 if "--num_processes" in options]
    assert len(jobs) == 2 * len(CASES)
    (root / "jobs.json").write_text(json.dumps(jobs))
    (root / "script.py").write_text(SCRIPT.format(root=str(REPOSITORY), jobs=str(root / "jobs.json")))
    words = [str(root / "script.py"), "--model", "-", "--data", "-", "--num_processes", "2"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "TLHUB_CACHE": str(root / "cache")})
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("case", CASES)
def test_losses_agree(case: str, runs_of_two: Path) -> None:
    folder = runs_of_two / case
    for name, options in VARIANTS.items():
        if "--num_processes" not in options:
            with working_in(folder):
                assert cli.main(words_of(case, folder, name)) == 0, name
    found = {name: losses(folder / name) for name in VARIANTS}
    assert len(found) == 5
    reference = found["one process"]
    assert len(reference) == 12
    assert np.ptp(reference) > 1e-3
    for name, values in found.items():
        np.testing.assert_allclose(values, reference, atol=1e-6, err_msg=name)
    counts = [json.loads((folder / name / "metrics.json").read_text())["data"] for name in VARIANTS]
    assert all(count == counts[0] for count in counts)
