"""What is damaged: the bytes of checkpoints, pictures and recordings."""

from __future__ import annotations

import csv
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lives import Durations, Journal, Life, Moment
from setups import PICTURES, RECORDINGS, STEPS, Setup, picture_model, sound_model
from starts import FORKED, started
from state import look, result

from tlhub.training import checkpointing

FLIP, TRUNCATION = "flip", "truncation"
BAD_SHARE = 0.01


def checkpoints(setup: Setup, folder: Path, forks: Any) -> Path:
    """Return the `checkpoints` of a run that was killed in its middle.

    Args:
        setup: The run.
        folder: Where it lies.
        forks: The context of `prepare_forks`.
    """
    life = Life("kill", setup, folder, forks, Durations())
    if not (life.run / "checkpoints").exists():
        life.sit(Moment(FORKED, "training", 0.5, STEPS // 2, 0), 0)
    return life.run / "checkpoints"


def damages(path: Path, count: int, random: np.random.Generator) -> Iterator[tuple[str, int, bytes]]:
    """Yield (kind, place, content): a file with a byte changed, or cut off; all places where they are few.

    Args:
        path: The file.
        count: Changes of each kind.
        random: Draws the places, and what a byte becomes.
    """
    content = path.read_bytes()
    for kind in (FLIP, TRUNCATION):
        places = {0, len(content) - 1, *random.permutation(len(content))[:count - 2].tolist()}
        for place in sorted(places):
            changed = bytes([content[place] ^ int(random.integers(1, 256))])
            yield kind, place, content[:place] + (changed + content[place + 1:] if kind == FLIP else b"")


def flips(source: Path, trial: Path, count: int, seed: int) -> dict[str, Any]:
    """Damage each file of the newest checkpoint in many places, one at a time; each time the one before is to be used.

    Args:
        source: The checkpoints of a run.
        trial: Where they are damaged.
        count: How many damages in all.
        seed: What their places are drawn from.
    """
    logging.getLogger("tlhub").setLevel(logging.ERROR)
    older, newest = sorted(source.glob("step-*"))[-2:]
    random, tried, unseen = np.random.default_rng(seed), Counter[str](), []
    files = sorted(newest.iterdir())
    for path in files:
        for kind, place, content in damages(path, max(3, count // (2 * len(files))), random):
            shutil.rmtree(trial, ignore_errors=True)
            for checkpoint in (older, newest):
                shutil.copytree(checkpoint, trial / checkpoint.name, copy_function=os.link)
            (trial / newest.name / path.name).unlink()
            (trial / newest.name / path.name).write_bytes(content)
            tried[f"{path.name} {kind}"] += 1
            if checkpointing.latest(trial, "step") != trial / older.name or (trial / newest.name).exists():
                unseen.append(f"{path.name} {kind} at {place}")
    shutil.rmtree(trial, ignore_errors=True)
    return {"tried": dict(tried), "damages": sum(tried.values()), "detected": sum(tried.values()) - len(unseen),
            "problems": unseen}


def goes_on(setup: Setup, source: Path, folder: Path, forks: Any, reference: dict[str, str], seed: int,
            journal: Journal) -> None:
    """Let a run go on whose newest checkpoint has a damaged file, for each file: it is to name it and end the same.

    Args:
        setup: The run.
        source: Its checkpoints, when it was killed.
        folder: Where copies of it go on.
        forks: The context of `prepare_forks`.
        reference: What the undisturbed run left.
        seed: What the places are drawn from.
        journal: Where all is written down.
    """
    random = np.random.default_rng(seed)
    older, newest = sorted(source.glob("step-*"))[-2:]
    for path in sorted(newest.iterdir()):
        for kind, _, content in list(damages(path, 3, random))[1::3]:
            name = f"{path.name} {kind}"
            if journal.entries(name):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source.parent, folder / "run")
            (folder / "run" / "checkpoints" / newest.name / path.name).write_bytes(content)
            words = setup.words(folder / "run", folder / "cache")
            with started(words, folder / "log.txt", FORKED, forks) as command:
                code, said = command.ended(300.0), command.said()
            problems = [] if code == 0 else [f"exit code {code}: {said[-300:]}"]
            named = [line for line in said.splitlines() if newest.name in line and "damaged" in line]
            if not named or f"continued after step {int(older.name.split('-')[1])} " not in said:
                problems.append("it did not say so, or did not use the one before")
            if not problems and result(folder / "run") != reference:
                problems.append("what it left differs from the undisturbed run's")
            journal.add({"run": name, "said": named, "problems": problems})


def broken(content: bytes, other: bytes, number: int, random: np.random.Generator) -> bytes:
    """Return a file that cannot be decoded: empty, noise, its beginning lost, a text, or cut off in its header.

    Args:
        content: The whole file.
        other: A text.
        number: Which of the five.
        random: Draws the noise.
    """
    noise = random.integers(0, 256, len(content), dtype=np.uint8).tobytes()
    return (b"", noise, bytes(64) + content[64:], other, content[:40])[number % 5]


def corrupt(source: Path, folder: Path, share: float, seed: int) -> list[str]:
    """Copy a data set and break a share of its files, rounded down; return their names.

    Args:
        source: With `train` and `test`, and files in folders of classes.
        folder: The copy.
        share: Of all files.
        seed: What they are drawn from.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for split in ("train", "test"):
        shutil.copytree(source / split, folder / split)
    files = sorted(path for path in folder.glob("*/*/*") if path.is_file())
    random = np.random.default_rng(seed)
    chosen = sorted(random.permutation(len(files))[:int(share * len(files))].tolist())
    text = (source / "README.md").read_bytes()
    for number, index in enumerate(chosen):
        path = files[index]
        path.write_bytes(broken(path.read_bytes(), text, number, random))
    return [str(files[index].relative_to(folder)) for index in chosen]


def quarantined(run: Path) -> list[str]:
    """Return the names of the examples that a run left out."""
    with (run / "quarantine.csv").open(newline="") as file:
        return sorted(row["id"] for row in csv.DictReader(file))


def corrupt_runs(data: Path, models: Path, folder: Path, forks: Any, seed: int, journal: Journal) -> None:
    """Train on pictures and on recordings of which 1% are broken, and try to with twice as many.

    Args:
        data: Folder of the data sets.
        models: Folder of the small models.
        folder: Where copies and runs lie.
        forks: The context of `prepare_forks`.
        seed: What the files are drawn from.
        journal: Where all is written down.
    """
    kinds = {PICTURES: ("image-classification", picture_model(models / "pictures")),
             "flowers5": ("image-classification", picture_model(models / "pictures")),
             RECORDINGS: ("audio-classification", sound_model(models / "sounds"))}
    for name, (task, model) in kinds.items():
        for share, expected in ((BAD_SHARE, 0), (2 * BAD_SHARE, 3)):
            title = f"{name} {share:.0%}"
            if journal.entries(title):
                continue
            bad = corrupt(data / name, folder / "data", share, seed)
            run = folder / f"{name}_{expected}"
            words = ["finetune", task, "--model", str(model), "--data", str(folder / "data"), "--max_steps", "5",
                     "--batch_size", "16", "--data.cache_dir", str(folder / "cache"), "--out", str(run)]
            with started(words, folder / "log.txt", FORKED, forks) as command:
                code, said = command.ended(300.0), command.said()
            problems = [] if code == expected else [f"exit code {code}: {said[-300:]}"]
            left_out = quarantined(run) if code == 0 else []
            if expected == 0 and left_out != sorted(bad):
                problems.append(f"quarantine.csv differs in {sorted(set(left_out) ^ set(bad))[:5]}")
            if expected == 3 and look(run).step:
                problems.append("it trained before it refused the data")
            journal.add({"run": title, "files": len(list((folder / "data").glob("*/*/*"))), "broken": len(bad),
                         "left_out": len(left_out), "code": code, "said": said.splitlines()[-1:], "problems": problems})
            shutil.rmtree(folder / "data")
