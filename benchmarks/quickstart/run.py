"""Learning rates of the quickstart's runs, chosen by validation: what `tlhub/quickstart/shows.py` names was found so.

    python benchmarks/quickstart/run.py --out DIR [--tasks image-classification,...] [--model builtin/text=FOLDER]

Each strategy that is trained by gradient is run at rates around the one that it would have, over several seeds, with
the quickstart's own data and numbers of steps. What is finished in DIR is not made again. `results.json` in DIR holds,
by task, strategy and rate, the score on validation of each seed, and the seconds; the test split decides nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlhub.evaluation.metrics import direction
from tlhub.quickstart import crew
from tlhub.quickstart.shows import SHOWS, Show

RATES = {
    "image-classification": {"scratch": (3e-4, 1e-3, 3e-3), "full": (3e-4, 1e-3, 3e-3), "lora": (1e-3, 3e-3, 1e-2)},
    "wake-word": {"scratch": (3e-4, 1e-3, 3e-3), "full": (3e-4, 1e-3, 3e-3), "lora": (1e-3, 3e-3, 1e-2)},
    "text-classification": {"scratch": (5e-4, 1.5e-3, 5e-3), "full": (1e-4, 3e-4, 1e-3), "lora": (5e-4, 2e-3, 5e-3)},
    "text-generation": {"scratch": (1e-3, 3e-3, 1e-2), "full": (3e-4, 1e-3, 3e-3), "lora": (1e-3, 3e-3, 1e-2)},
}


def variants(show: Show, out: Path, seeds: int) -> list[tuple[float, crew.Job]]:
    """Return every run of a task: its learning rate, and the job that carries it out."""
    found = []
    for strategy, rates in RATES[show.task].items():
        for rate in rates:
            own = {**show.own, strategy: {"train": {"learning_rate": rate}}}
            changed = dataclasses.replace(show, own=own)
            found += [(rate, {"show": changed.plain(), "strategy": strategy, "seed": seed,
                              "folder": str(out / f"{strategy}-{rate:g}-{seed}")}) for seed in range(seeds)]
    return found


def measured(job: crew.Job) -> dict[str, Any]:
    """Return the score on validation of a finished run, and its seconds of training."""
    show = Show.from_plain(job["show"])
    metrics = json.loads((show.run_folder(job["strategy"], Path(job["folder"])) / "metrics.json").read_text())
    return {"seed": job["seed"], "validation": metrics["validation"][show.metric],
            "seconds": round(metrics["time"]["train_s"], 1)}


def table(shows: Sequence[Show], results: dict[str, Any]) -> list[str]:
    """Return a line for each rate; the best of a strategy is marked."""
    lines = []
    for show in shows:
        for strategy, rates in results[show.task].items():
            means = {rate: statistics.mean(run["validation"] for run in runs) for rate, runs in rates.items()}
            best = max(means, key=lambda rate: direction(show.metric) * means[rate])
            lines += [f"{show.task:<22}{strategy:<10}{rate:>8}  {show.metric} {mean:.4f}"
                      f"{'  <' if rate == best else ''}" for rate, mean in means.items()]
    return lines


def main() -> None:
    """Make the runs that are missing, and write what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(RATES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--model", action="append", default=[], help="another folder for a checkpoint, NAME=FOLDER")
    options = parser.parse_args()
    models = dict(given.split("=", 1) for given in options.model)
    shows = [dataclasses.replace(show, model=models.get(show.model, show.model)) for show in SHOWS
             if show.task in options.tasks.split(",")]
    options.out.mkdir(parents=True, exist_ok=True)
    runs = [(show, rate, job) for show in shows for rate, job in variants(show, options.out, options.seeds)]

    def done(job: crew.Job) -> list[crew.Job]:
        print(job["folder"], job["show"]["task"], measured(job), flush=True)
        return []

    crew.carry_out([job for _, _, job in runs], done, processes=os.cpu_count() or 1, log=options.out / "log.txt")
    results: dict[str, Any] = {}
    for show, rate, job in runs:
        rates = results.setdefault(show.task, {}).setdefault(job["strategy"], {})
        rates.setdefault(f"{rate:g}", []).append(measured(job))
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(shows, results)))


if __name__ == "__main__":
    main()
