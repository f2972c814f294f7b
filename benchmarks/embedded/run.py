r"""Transfer of the embedded checkpoints: scratch, linear_probe, lora and full, at 16 examples a class and at all.

    python benchmarks/embedded/run.py vision --data FOLDER --runs runs
    python benchmarks/embedded/run.py audio --data FOLDER --runs runs
    python benchmarks/embedded/run.py text --data FOLDER --runs runs

Sets that the checkpoint was not pretrained on, in FOLDER (`sets.py`). `scratch` is the same architecture from fresh
weights; its learning rate and its steps are tuned for every set and amount, on validation, with the first seed. The
others have tlhub's defaults, but for the number of steps and their size (`TRANSFER`, `BATCH`). Seeds draw the examples,
the validation split and all else; the test split is scored once, by the run itself. A run that is finished is read, not
repeated: its name has the weights and the settings in it.

Heads on texts that are trained step by step read the mean over the tokens (`--model.pool mean`), those of `scratch`
too: the last token, which a decoder's own classifier reads, was trained to tell what follows and not what was said.
What a probe reads it chooses itself.

The table holds means over the k seeds. Interval: mean -+ t sqrt(e^2 + s^2 / k), where e is the standard error over
test examples (a quarter of the mean width of the runs' bootstrap intervals), which the seeds share, s the standard
deviation over the seeds, and t Student's quantile for the degrees of freedom of that sum by Welch and Satterthwaite:
4.3 where the seeds make the difference and there are three of them, 1.96 where the examples do; cut off at 0 and 1,
which no score exceeds. Clips of one test speaker are drawn together: e then has one degree of freedom less than there
are speakers, and is that of a sample of so many. `cards.py` writes the tables into the model cards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from sets import SETS, Set, draw

import tlhub
from tlhub.builtin import WEIGHTS, checkpoint_folder
from tlhub.environment import versions

SEEDS = (0, 1, 2)
STRATEGIES = ("scratch", "linear_probe", "lora", "full")
AMOUNTS = ("few", "all")
DESCRIPTION = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
VALIDATIONS = 10
"""Validations of a run, at most."""
RATES = {"vision": (5e-4, 1e-3, 3e-3), "audio": (5e-4, 1e-3, 2e-3), "text": (5e-4, 1e-3, 3e-3)}
"""Peak learning rates that scratch is tuned over."""
STEPS = {"few": (200, 600), "all": (400, 1200)}
"""Optimizer steps that scratch is tuned over, from the fewest."""
BATCH = {"few": 16, "all": 32}
TRANSFER: dict[str, dict[str, dict[str, Any]]] = {
    amount: {"linear_probe": {}, "lora": {"max_steps": steps}, "full": {"max_steps": steps}}
    for amount, steps in (("few", 200), ("all", 400))}


def one(kind: str, chosen: Set, amount: str, strategy: str, seed: int, given: argparse.Namespace,
        train: dict[str, Any]) -> dict[str, Any]:
    """Carry out a run, unless it is there already, and return its metrics."""
    words = "-".join(f"{name}{value:g}" for name, value in train.items())
    parts = (_digest(kind, strategy, given), chosen.name, chosen.label, amount, strategy, words, str(seed))
    name = "-".join(filter(None, parts))
    out = given.runs / kind / name
    if not (out / "metrics.json").exists():
        data = draw(chosen, given.data, given.runs / kind / "draws", amount, seed)
        if chosen.group:
            data["group_column"] = "group"
        options: dict[str, Any] = dict(chosen.options)
        if strategy != "linear_probe":
            steps = train["max_steps"]
            options["train"] = {"batch_size": BATCH[amount], "epochs": steps, "evaluate_every": steps // VALIDATIONS,
                                **train}
            options["log"] = {"every": 50}
            options["model"] = {"pool": "mean"} if kind == "text" else {}
        model = {"name": given.model or f"builtin/{kind}", **options.pop("model", {})}
        tlhub.finetune(chosen.task, model=model, strategy=strategy, seed=seed, out=str(out), data=data,
                       overwrite=out.exists(), **options)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def _digest(kind: str, strategy: str, given: argparse.Namespace) -> str:
    """Return what tells a checkpoint from others: its weights, or for `scratch` the files that describe it."""
    folder = Path(given.model) if given.model else checkpoint_folder(f"builtin/{kind}")
    names = [WEIGHTS] if strategy != "scratch" else [name for name in DESCRIPTION if (folder / name).exists()]
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:8]


def tuned(kind: str, chosen: Set, amount: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of scratch that validation prefers, with the first seed.

    All rates are tried with the fewest steps, then the best rate with more.
    """
    def value(train: dict[str, Any]) -> float:
        scores = one(kind, chosen, amount, "scratch", SEEDS[0], given, train)["validation"]
        return float(scores[chosen.score])

    fewest, *more = STEPS[amount]
    best = max(({"learning_rate": rate, "max_steps": fewest} for rate in RATES[kind]), key=value)
    return max([best, *({**best, "max_steps": steps} for steps in more)], key=value)


def summary(results: Sequence[dict[str, Any]], score: str) -> dict[str, Any]:
    """Return the mean, its interval, and the figures that each seed gave."""
    values = [float(metrics["test"][score]) for metrics in results]
    widths = [high - low for low, high in (metrics["intervals"]["test"][score] for metrics in results)]
    examples, seeds = float(np.mean(widths) / 3.92) ** 2, float(np.var(values, ddof=1)) / len(values)
    groups = results[0].get("groups", {}).get("test", {}).get("all", math.inf)
    if groups < math.inf:
        examples *= groups / (groups - 1)
    freedom = (examples + seeds) ** 2 / max(seeds**2 / (len(values) - 1) + examples**2 / (groups - 1), 1e-12)
    error = float(scipy.stats.t.ppf(0.975, freedom)) * math.sqrt(examples + seeds)
    mean = float(np.mean(values))
    low, high = max(mean - error, 0.0), min(mean + error, 1.0)
    rates = {f"miss_rate_at_{level}": [metrics["test"]["miss_rate_at_fa_rate"][level] for metrics in results]
             for level in ("0.01", "0.05") if "miss_rate_at_fa_rate" in results[0]["test"]}
    return {"mean": mean, "interval": [low, high], "seeds": values, **rates,
            "trainable": results[0]["parameters"]["trainable"], "train": results[0]["data"]["train"],
            "test": results[0]["data"]["test"], "seconds": [metrics["time"]["train_s"] for metrics in results]}


def table(kind: str, given: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Carry out what a checkpoint's table needs, and yield the amount, the title and the content of each line."""
    for amount in given.amounts:
        for chosen in (some for some in SETS[kind] if not given.sets or {some.name, some.title} & {*given.sets}):
            rows: dict[str, Any] = {}
            for strategy in STRATEGIES:
                train = tuned(kind, chosen, amount, given) if strategy == "scratch" else TRANSFER[amount][strategy]
                results = [one(kind, chosen, amount, strategy, seed, given, train) for seed in SEEDS]
                rows[strategy] = {**summary(results, chosen.score), **({"settings": train} if train else {})}
                low, high = rows[strategy]["interval"]
                print(f"{chosen.title:<24} {amount:<4} {strategy:<13} {chosen.score} {rows[strategy]['mean']:.4f} "
                      f"[{low:.4f}, {high:.4f}]", flush=True)
            yield amount, chosen.title, {"score": chosen.score, "strategies": rows}


def keep(path: Path, amount: str, title: str, row: dict[str, Any]) -> None:
    """Write a line of the table into the JSON file, beside those that are there."""
    tables = json.loads(path.read_text())["tables"] if path.exists() else {}
    tables.setdefault(amount, {})[title] = row
    path.write_text(json.dumps({"versions": versions(), "a_class": 16, "tables": tables}, indent=2) + "\n")


def main() -> None:
    """Make the table of one checkpoint, and write it as JSON beside this file, each line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=tuple(SETS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--model", help="folder of another checkpoint than the embedded one")
    parser.add_argument("--sets", nargs="+", help="some of the data sets, or lines of the table; default: all")
    parser.add_argument("--amounts", nargs="+", choices=AMOUNTS, default=AMOUNTS)
    given = parser.parse_args()
    for line in table(given.kind, given):
        if given.model is None:
            keep(Path(__file__).with_name(f"{given.kind}.json"), *line)


if __name__ == "__main__":
    main()
