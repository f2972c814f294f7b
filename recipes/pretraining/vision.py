"""Pictures to pretrain a small network on: Tiny ImageNet, without look-alikes of the sets it serves later."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NETWORK = Path(__file__).parents[1] / "pretrain" / "vision"
PREPROCESSOR = "preprocessor_config.json"
CORPUS = "tiny_imagenet"
TARGETS = ("flowers5", "hymenoptera", "cats_vs_dogs", "chest_xray")
FIRST_SIDE = 48
"""Of the first stage's pictures: little more than half the work of 64, and most can be learned from them."""
SIDE = 12
ALIKE = 0.9
"""Correlation of two thumbnails from which their pictures count as the same one. Of pictures that share nothing, the
closest are at about 0.9; one that was shrunk, cut square, or saved again is above 0.95."""
logger = logging.getLogger("tlhub")


def prepare(data: Path, work: Path) -> dict[str, Any]:
    """Write the corpus without the pictures that also stand in a target set, and say how many those are.

    Args:
        data: Folder that holds the corpus and `TARGETS`.
        work: Where the tables are written.

    Returns:
        The section `data` of the run.
    """
    work.mkdir(parents=True, exist_ok=True)
    for path in work.glob("*.parquet"):
        path.unlink()
    targets = {name: np.concatenate([thumbnails(image) for image in pictures(data / name)]) for name in TARGETS}
    removed = dict.fromkeys(TARGETS, 0)
    for path in sorted((data / CORPUS).glob("*.parquet")):
        table = pq.read_table(path)
        keep = np.ones(len(table), dtype=bool)
        if path.name.startswith("train"):
            own = np.stack([upright(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()])
            for name, rows in targets.items():
                alike = (own @ rows.T).max(axis=1) > ALIKE
                removed[name] += int((alike & keep).sum())
                keep &= ~alike
        pq.write_table(table.filter(pa.array(keep)), work / path.name)
    logger.info("pictures removed from %s that look like one of another set: %s", CORPUS,
                ", ".join(f"{name} {count}" for name, count in removed.items()))
    return {"source": str(work)}


def architecture(work: Path) -> Path:
    """Write the configuration of the first stage: the network, for pictures of `FIRST_SIDE`."""
    folder = work.with_name(f"{work.name}-start")
    shutil.copytree(NETWORK, folder, dirs_exist_ok=True)
    settings = json.loads((NETWORK / PREPROCESSOR).read_text())
    settings["size"] = {"shortest_edge": FIRST_SIDE}
    (folder / PREPROCESSOR).write_text(json.dumps(settings, indent=2) + "\n")
    return folder


def between(model: Path, folder: Path) -> Path:
    """Write a trained model, for pictures of the size that the checkpoint has in the end."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    shutil.copyfile(NETWORK / PREPROCESSOR, folder / PREPROCESSOR)
    return folder


def pictures(folder: Path) -> Iterator[Image.Image]:
    """Yield the pictures of a target set, of all its splits."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            with Image.open(path) as image:
                yield image.convert("RGB")


def thumbnails(image: Image.Image) -> np.ndarray:
    """Return a picture squeezed and cut square, each also mirrored: rows of `upright`, shape (4, n)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.stack([upright(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view)
                     for view in (image, square) for mirrored in (False, True)])


def upright(image: Image.Image) -> np.ndarray:
    """Return a small copy in grey, of mean 0 and norm 1, so that a product of two is their correlation."""
    small = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)
