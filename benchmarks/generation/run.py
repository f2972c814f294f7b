r"""Transfer of a small language model: from novels to Shakespeare, in bits per byte.

    python benchmarks/generation/run.py --data FOLDER --runs runs

`builtin/text` has read `classic_books`, which hold no Shakespeare, and articles of WikiText. On `tiny_shakespeare`: its
own score, and those after `lora` and `full` and from fresh weights (`scratch`), all with the same number of steps and
batches; learning rates are tlhub's defaults for each strategy. Then one epoch of `full` with packing and without: the
losses of all steps are compared, on short records (the lines of the plays) where rows are shared. A run that is
finished is read, not repeated. The test split is scored once, by the run itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import tlhub
from tlhub.environment import versions

MODEL = "builtin/text"
STRATEGIES = ("lora", "full", "scratch")
BATCH, STEPS, LINES = 16, 100, 2000


def one(strategy: str, model: str, data: dict[str, Any], out: Path, **train: Any) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return its metrics."""
    if not (out / "metrics.json").exists():
        tlhub.finetune("text-generation", model=model, data=data, strategy=strategy, out=str(out), overwrite=True,
                       train={"batch_size": BATCH, **train}, log={"every": 1},
                       task_options={"prompts": ["Once upon a time"]})
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def losses(out: Path) -> list[float]:
    """Return the loss of every step."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def speeches(corpus: Path, folder: Path) -> Path:
    """Write the first lines of the plays as a table of short records, one each, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", LINES), ("validation", LINES // 10), ("test", LINES // 10)):
        lines = [line for line in (corpus / f"{split}.txt").read_text().splitlines() if line.strip()][:count]
        rows = "".join(json.dumps({"text": line}) + "\n" for line in dict.fromkeys(lines))
        (folder / f"{split}.jsonl").write_text(rows)
    return folder


def packing(model: str, corpus: Path, runs: Path) -> dict[str, Any]:
    """Return how far apart the losses of packed and unpacked training are, and what each took."""
    source = str(speeches(corpus, runs / "speeches"))
    found = {}
    for packed in (True, False):
        out = runs / f"packing-{packed}"
        metrics = one("full", model, {"source": source, "packing": packed}, out, epochs=1, precision="fp32")
        found["packed" if packed else "unpacked"] = {"losses": losses(out), "tokens_per_s": metrics["throughput"]}
    differences = [abs(first - second) for first, second in zip(*(part["losses"] for part in found.values()),
                                                                strict=True)]
    return {"steps": len(differences), "largest_difference": max(differences),
            "throughput": {name: part["tokens_per_s"] for name, part in found.items()}}


def main() -> None:
    """Run everything, print the table and write it as JSON beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--runs"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--model", default=MODEL, help="another checkpoint than the embedded one")
    given = parser.parse_args()
    corpus = given.data / "tiny_shakespeare"
    table: dict[str, Any] = {}
    for strategy in STRATEGIES:
        metrics = one(strategy, given.model, {"source": str(corpus)}, given.runs / strategy, max_steps=STEPS,
                      precision="bf16")
        table[strategy] = {key: metrics[key] for key in ("test", "intervals", "baselines", "parameters", "time",
                                                         "throughput", "samples") if key in metrics}
        print(f"{strategy:<8} test bits per byte {metrics['test']['bits_per_byte']:.4f}  before: "
              + json.dumps(metrics["baselines"].get("checkpoint", {})), flush=True)
    compared = packing(given.model, corpus, given.runs)
    print(json.dumps(compared))
    path = Path(__file__).with_name("results.json")
    path.write_text(json.dumps({"versions": versions(), "steps": STEPS, "batch_size": BATCH, "table": table,
                                "packing": compared}, indent=2) + "\n")


if __name__ == "__main__":
    main()
