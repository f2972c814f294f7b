r"""What a linear probe costs beside a bare forward pass over the same data.

    python benchmarks/probe/run.py --model MODEL --data DATA --repeats 3 --out benchmarks/probe/results.json

Each repeat runs, one after the other and each in a fresh process: a bare PyTorch loop (tokenised beforehand, batches of
64 sorted by length, no gradient), and `tlhub finetune text-classification --strategy linear_probe` with an empty cache.
The ratio is (prepare_s + train_s) / forward_s; the median over the repeats is what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import tlhub
from tlhub.config import DataConfig
from tlhub.data.prepare import prepare
from tlhub.environment import versions


def bare_forward(model_name: str, data: str) -> float:
    """Return the seconds of one forward pass over every split."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_name)
    model = transformers.AutoModel.from_pretrained(model_name, dtype=torch.float32).eval()
    splits = prepare(DataConfig(source=data), "text", seed=0).splits
    texts = [text for split in splits.values() for text in split.inputs]
    rows = sorted(tokenizer(texts, truncation=True)["input_ids"], key=len)
    batches = [tokenizer.pad({"input_ids": rows[start:start + 64]}, return_tensors="pt")
               for start in range(0, len(rows), 64)]
    started = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    return time.perf_counter() - started


def probe(model_name: str, data: str) -> dict[str, float]:
    """Return the times of a probe with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        run = tlhub.finetune("text-classification", model=model_name, strategy="linear_probe",
                             data={"source": data, "cache_dir": f"{folder}/cache"}, out=f"{folder}/run")
        return {**run.metrics["time"], "test_accuracy": run.metrics["test"]["accuracy"]}


def main() -> None:
    """Run the repeats and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--only", choices=("forward", "probe"))
    choices = parser.parse_args()
    if choices.only:
        answer = bare_forward(choices.model, choices.data) if choices.only == "forward" else \
            probe(choices.model, choices.data)
        print(json.dumps(answer))
        return
    repeats = []
    for _ in range(choices.repeats):
        forward, timed = (json.loads(subprocess.run(
            [sys.executable, __file__, "--model", choices.model, "--data", choices.data, "--only", what],
            check=True, capture_output=True, text=True).stdout.splitlines()[-1]) for what in ("forward", "probe"))
        repeats.append({"forward_s": forward, **timed,
                        "ratio": (timed["prepare_s"] + timed["train_s"]) / forward})
        print(json.dumps(repeats[-1]))
    result = {"data": Path(choices.data).name, "median_ratio": statistics.median(row["ratio"] for row in repeats),
              "repeats": repeats, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "versions": versions()}
    choices.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"median ratio {result['median_ratio']:.3f}")


if __name__ == "__main__":
    main()
