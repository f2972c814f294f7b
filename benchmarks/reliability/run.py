r"""Can a run be killed? It is, some hundreds of times, and has to end as if nothing had happened.

    python benchmarks/reliability/run.py --data FOLDER --runs runs [--parts kill term flip corrupt two] [--count N]

Small models (made here) are trained on real data of FOLDER: a BERT with dropout on `trec6`, a ResNet with BatchNorm and
augmentation on `hymenoptera`, the BERT with LoRA; 60 steps, a checkpoint every other step. One run gets up to 20
signals, one a start, drawn in advance from the seed and spread over start-up, training with its checkpoints, and final
evaluation; then it may end, and its weights, history and scores are compared with those of an undisturbed run.

- `kill`: 200 times SIGKILL. After each, the newest checkpoint has to be whole (its digests are computed here), and the
  next start has to go on from just that one, so that at most the work since the last checkpoint is lost.
- `term`: 100 times SIGTERM from the first line printed on, each to be answered by exit code 75.
- `two`: 20 times SIGKILL to one of two processes and 20 times to their launcher; nothing of the group may live on.
- `flip`: bytes changed, and files cut off, in every file of a checkpoint; and runs that go on from such checkpoints.
- `corrupt`: 1% of the pictures and of the recordings broken: the run completes and lists exactly those; 2%: refused.

One start in five is the command as a user gives it; in the others of `kill` and `term` a process that has imported the
libraries forks, which saves the seconds of importing. Kills end processes and not the machine, so nothing here tells
whether a disk keeps what it was told to keep. What is found is written down in `--runs` as it is seen: the command can
be stopped, and goes on. It ends with exit code 1 where something was not as promised.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import damage
import numpy as np
from lives import KILL, LAUNCHERS, RANKS, TERM, Durations, Journal, Life, draw, live
from setups import STEPS, Setup, setups
from starts import prepare_forks, read_json
from state import result, without

from tlhub.environment import versions

COUNTS = {KILL: 200, TERM: 100, RANKS: 20, LAUNCHERS: 20}
FLIPS = 600
PARTS = {"kill": (KILL,), "term": (TERM,), "two": (RANKS, LAUNCHERS), "flip": ("flip",), "corrupt": ("corrupt",)}
PER_RUN = 20
ENOUGH = 3
"""Runs in which something was not as promised, after which no further ones are begun."""


class Torture:
    """What all tests share.

    Args:
        data: Folder of the data sets.
        runs: Where everything is written.
        seed: What the signals and the damages are drawn from.
    """

    def __init__(self, data: Path, runs: Path, seed: int) -> None:
        self.data, self.runs, self.seed = data.resolve(), runs.resolve(), seed
        self.models = self.runs / "models"
        self.setups = setups(self.data, self.models)
        self.forks = prepare_forks()
        self.seen = {name: Durations() for name in self.setups}

    def journal(self, test: str) -> Journal:
        """Return what was seen in a test."""
        return Journal(self.runs / f"{test}.jsonl")

    def reference(self, setup: Setup) -> dict[str, Any]:
        """Return what a run leaves that nothing disturbs, and what it took; it is carried out where it is missing."""
        folder = self.runs / "references" / setup.name.replace(" ", "_")
        if not (folder / "result.json").exists():
            life = Life(KILL, setup, folder, self.forks, self.seen[setup.name])
            seen = life.sit(None, 0)
            if seen["problems"]:
                raise SystemExit(f"the undisturbed run of {setup.name} failed: {seen['problems']}")
            took = read_json(life.run / "metrics.json")["time"]
            (folder / "result.json").write_text(json.dumps(
                {"result": result(life.run), "seconds": seen["seconds"],
                 "step_with_its_checkpoint_s": round(took["train_s"] / STEPS, 4), "time": took}, indent=1))
        return read_json(folder / "result.json")

    def signal(self, test: str, count: int, jobs: int) -> None:
        """Stop runs until `count` signals have met them, `jobs` runs at a time."""
        journal = self.journal(test)
        chosen = [setup for setup in self.setups.values() if setup.alone == (test in (KILL, TERM))]
        references: dict[str, dict[str, str]] = {}

        def one(plan: dict[str, Any]) -> None:
            setup = self.setups[plan["setup"]]
            life = Life(test, setup, self.runs / plan["run"], self.forks, self.seen[setup.name])
            live(life, draw(test, setup, plan["life"], plan["signals"], self.seed), journal, references[setup.name])
            print(f"{test}: {len(met(journal.entries()))} of {count} signals", flush=True)

        plans = unfinished(journal) or further(journal, test, chosen, count)
        while plans:
            references |= {plan["setup"]: self.reference(self.setups[plan["setup"]])["result"] for plan in plans}
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(one, plans))
            wrong = {entry["run"] for entry in journal.entries() if entry.get("problems")}
            plans = further(journal, test, chosen, count) if len(wrong) < ENOUGH else []

    def damage(self, count: int) -> None:
        """Damage a checkpoint in `count` places, and let runs go on from damaged ones."""
        journal, setup, folder = self.journal("flip"), self.setups["texts"], self.runs / "flip"
        reference = self.reference(setup)["result"]
        source = damage.checkpoints(setup, folder / "killed", self.forks)
        if not journal.entries("bytes"):
            journal.add({"run": "bytes", **damage.flips(source, folder / "trial", count, self.seed)})
        damage.goes_on(setup, source, folder / "again", self.forks, reference, self.seed, journal)

    def corrupt(self) -> None:
        """Train on data of which a part is broken."""
        damage.corrupt_runs(self.data, self.models, self.runs / "corrupt", self.forks, self.seed,
                            self.journal("corrupt"))

    def results(self) -> dict[str, Any]:
        """Return all that was found so far."""
        tests = {path.stem: self.journal(path.stem).entries() for path in sorted(self.runs.glob("*.jsonl"))}
        found = {name: of_signals(entries) if name in COUNTS else of_damages(entries)
                 for name, entries in tests.items() if entries}
        references = {path.parent.name: {name: value for name, value in read_json(path).items() if name != "result"}
                      for path in sorted(self.runs.glob("references/*/result.json"))}
        return {"seed": self.seed, "cores": os.cpu_count(), "undisturbed": references, **found, "versions": versions()}


def unfinished(journal: Journal) -> list[dict[str, Any]]:
    """Return the runs that were begun before this script was stopped."""
    ended = {entry["run"] for entry in journal.entries() if "equal" in entry}
    return [entry for entry in journal.entries() if "signals" in entry and entry["run"] not in ended]


def further(journal: Journal, test: str, chosen: list[Setup], count: int) -> list[dict[str, Any]]:
    """Return new runs for the signals that are missing, and write them down."""
    entries = journal.entries()
    missing, number = count - len(met(entries)), sum("signals" in entry for entry in entries)
    plans = []
    while missing > 0:
        plans.append({"run": f"{test}_{number:03d}", "setup": chosen[number % len(chosen)].name, "life": number,
                      "signals": min(missing, PER_RUN)})
        journal.add(plans[-1])
        missing, number = missing - PER_RUN, number + 1
    return plans


def met(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events of signals that met a run at work."""
    return [entry for entry in entries if entry.get("place") not in (None, "after the end")]


def of_signals(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a test with signals."""
    hit, ends = met(entries), [entry for entry in entries if "equal" in entry]
    equal = {entry["run"] for entry in ends if entry["equal"]}
    wrong = {entry["run"] for entry in entries if entry.get("problems")}
    reactions = [entry["reaction"] for entry in hit]
    by_place = {place: [entry["reaction"] for entry in hit if entry["place"] == place]
                for place in sorted({entry["place"] for entry in hit})}
    lost = [entry["step"] - (entry["checkpoint_after"] or 0) for entry in hit]
    return {"signals": len(hit), "resumed": sum(entry["run"] in equal - wrong for entry in hit),
            "places": {place: len(found) for place, found in by_place.items()},
            "starts": dict(Counter(entry["how"] for entry in hit)),
            "exit_codes": dict(Counter(str(entry["code"]) for entry in hit)),
            "runs": len(ends), "runs_equal_to_the_undisturbed": len(equal), "most_steps_repeated": max(lost, default=0),
            "reaction_s": {"all": quantiles(reactions), **{place: quantiles(found)
                                                           for place, found in by_place.items()}},
            "problems": [f"{entry['run']}: {problem}" for entry in entries for problem in entry.get("problems", ())]}


def quantiles(values: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the largest value."""
    return {name: round(float(np.quantile(values, share)), 3)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0))} if values else {}


def of_damages(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of a test with damaged files."""
    rows = [{name: value for name, value in entry.items() if name != "problems"} for entry in entries]
    return {"trials": rows, "problems": [f"{entry['run']}: {problem}" for entry in entries
                                         for problem in entry.get("problems", ())]}


def main() -> None:
    """Run what is missing of the chosen parts, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--runs", required=True, type=Path)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--count", type=int, help="signals, or damaged bytes, of each test; default: those above")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time in kill and term")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    given = parser.parse_args()
    # Bits depend on the number of threads; forks, on there being one. The processes that are started inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"
    given.runs.mkdir(parents=True, exist_ok=True)
    torture = Torture(given.data, given.runs, given.seed)
    for part in given.parts:
        began = time.monotonic()
        for test in PARTS[part]:
            if test in COUNTS:
                torture.signal(test, given.count or COUNTS[test], given.jobs if part != "two" else 1)
            elif test == "flip":
                torture.damage(given.count or FLIPS)
            else:
                torture.corrupt()
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
        found = torture.results()
        # What was said names folders of this machine.
        given.out.write_text(json.dumps(found, indent=1).replace(str(torture.runs), "RUNS") + "\n")
    for name, figures in found.items():
        if isinstance(figures, dict) and "problems" in figures:
            print(name, json.dumps(without(figures, ("trials", "reaction_s"))))
    raise SystemExit(int(any(figures.get("problems") for figures in found.values() if isinstance(figures, dict))))


if __name__ == "__main__":
    main()
