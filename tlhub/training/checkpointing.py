"""Checkpoints to resume from: written whole or not at all, and verified before they are trusted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint.

    Attributes:
        tensors: Groups of named tensors; each group is one safetensors file.
        state: Plain values: step, best score and so on.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    state: Mapping[str, Any]


def save(folder: Path, name: str, snapshot: Snapshot) -> Path:
    """Write a checkpoint under a temporary name, sync it to disk, and rename it into place.

    Args:
        folder: The run's `checkpoints/`.
        name: Name of the checkpoint; names of one kind sort by age.
        snapshot: What it holds.

    Returns:
        The finished checkpoint's folder.

    Raises:
        OSError: The disk is full or not writable; the checkpoints before this one are untouched.
    """
    temporary, final = folder / f".writing-{name}", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for group, tensors in snapshot.tensors.items():
            plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                     for key, value in tensors.items()}
            save_file(plain, temporary / f"{group}.safetensors")
        (temporary / "state.json").write_text(json.dumps(dict(snapshot.state), indent=1))
        digests = {path.name: _digest(path) for path in sorted(temporary.iterdir())}
        for path in temporary.iterdir():
            _sync(path)
        (temporary / _MANIFEST).write_text(json.dumps(digests, indent=1))
        _sync(temporary / _MANIFEST)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise OSError(f"checkpoint {final} could not be written: {error}") from error
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync(folder)
    return final


def is_intact(checkpoint: Path) -> bool:
    """Return whether every file of the checkpoint has the digest that its manifest states."""
    try:
        digests = json.loads((checkpoint / _MANIFEST).read_text())
        return all(_digest(checkpoint / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False


def load(checkpoint: Path) -> Snapshot:
    """Read a checkpoint that `is_intact`."""
    tensors = {path.stem: load_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    return Snapshot(tensors, json.loads((checkpoint / "state.json").read_text()))


def latest(folder: Path, prefix: str) -> Path | None:
    """Return the newest intact checkpoint whose name starts with `prefix`; damaged ones are set aside and named."""
    for checkpoint in sorted(folder.glob(f"{prefix}-*"), reverse=True):
        if is_intact(checkpoint):
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
        logger.warning("checkpoint %s is damaged; it is set aside as %s and the one before it is used",
                       checkpoint, aside.name)
    return None


def rotate(folder: Path, prefix: str, newest: Path) -> None:
    """Remove the checkpoints of a kind that are older than `newest`, once that one is verified."""
    if is_intact(newest):
        for checkpoint in folder.glob(f"{prefix}-*"):
            if checkpoint.name < newest.name:
                shutil.rmtree(checkpoint)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
