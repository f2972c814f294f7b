r"""Make an embedded checkpoint again: prepare what it learns from, train, and write it in half precision.

    python recipes/pretrain.py recipes/pretrain/vision.yaml --data FOLDER --out checkpoints/vision

FOLDER holds the data sets that the recipe names. The recipe is the configuration of a run; where it holds several
documents, they are stages, each of which goes on from the one before. `recipes/pretraining/<name>.py` prepares the
data.
The runs lie beside DIR (`DIR-1`, `DIR-2`, ...), which ends as a checkpoint that plain transformers loads. The same
command goes on where it was stopped, and gives the same bytes on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
import yaml

import tlhub
from tlhub.cli import guarded
from tlhub.errors import UsageError
from tlhub.finished import Run
from tlhub.folder import RunFolder
from tlhub.launching import Ending
from tlhub.options import from_kwargs

KEPT = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def main() -> None:
    """Carry out the stages of a recipe, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a YAML file of recipes/pretrain")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    given = parser.parse_args()
    sys.exit(guarded(lambda: pretrain(given.recipe, given.data, given.out), debug=False, last=True))


def pretrain(recipe: Path, data: Path, out: Path) -> Ending:
    """Make one checkpoint, and print how long that took and how it scores.

    Raises:
        UsageError: The folder holds something else, or a stage beside it was made by another recipe.
    """
    if out.exists() and not (out / "config.json").exists() and any(out.iterdir()):
        raise UsageError(f"--out {str(out)!r} holds something that is no checkpoint; name another folder")
    module = importlib.import_module(f"pretraining.{recipe.stem}")
    work = out.with_name(f"{out.name}-data")
    prepared = module.prepare(data, work)
    seconds, finished = 0.0, None
    for number, stage in enumerate(yaml.safe_load_all(recipe.read_text(encoding="utf-8")), start=1):
        folder = out.with_name(f"{out.name}-{number}")
        finished = carry_out(stage, prepared, folder, carried_over(module, finished, folder, work))
        seconds += sum(finished.metrics["time"].values())
    assert finished is not None
    write_half(finished.folder / "model", out)
    scores = {split: finished.metrics[split] for split in ("validation", "test") if split in finished.metrics}
    print(json.dumps({"seconds": round(seconds), "parameters": finished.metrics["parameters"]["total"],
                      "bytes": (out / "model.safetensors").stat().st_size, **scores}, indent=2))
    return Ending(0)


def carry_out(stage: dict[str, Any], prepared: dict[str, Any], folder: Path, start: Path | None) -> Run:
    """Return the finished run of a stage: the one that lies there, or a new one, or one that is gone on with."""
    options = {**stage, "data": {**prepared, **stage.get("data", {})}, "out": str(folder)}
    if start is not None:
        options["model"] = str(start)
    held = RunFolder(folder)
    if held.status.get("state") != "finished":
        return tlhub.finetune(**options)
    differences = held.differences(from_kwargs(**options))
    if differences:
        raise UsageError(f"{str(folder)!r} is a finished stage of another recipe ({'; '.join(differences)}); move it "
                         "away, or name another --out")
    logging.getLogger("tlhub").info("%s is finished; it is taken as it is", folder)
    return tlhub.load(folder)


def carried_over(module: ModuleType, finished: Run | None, folder: Path, work: Path) -> Path | None:
    """Return what a stage begins with: None for what its recipe names, else the model before it.

    Where the module has `architecture`, that writes what the first stage begins with. Where it has `between`, that may
    change the model, such as its longest input, and writes it into a folder.
    """
    if finished is None:
        return module.architecture(work) if hasattr(module, "architecture") else None
    model = finished.folder / "model"
    return module.between(model, folder.with_name(f"{folder.name}-start")) if hasattr(module, "between") else model


def write_half(model: Path, out: Path) -> None:
    """Write a trained model with its weights in half precision, and what prepares its inputs.

    Its configuration asks for single precision to compute in, since half precision is slow on CPUs.
    """
    settings = transformers.AutoConfig.from_pretrained(model)
    kind = getattr(transformers, settings.architectures[0])
    kind.from_pretrained(model, dtype=torch.float16).save_pretrained(out)
    settings.dtype = torch.float32
    settings.save_pretrained(out)
    for name in KEPT:
        if (model / name).exists():
            shutil.copyfile(model / name, out / name)


if __name__ == "__main__":
    main()
