"""Tiny checkpoints in the place of embedded ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests import tiny
from tlhub import builtin

TERMS = "for tests alone"


def embed(monkeypatch: pytest.MonkeyPatch, models: Path, name: str, kind: str, *, seed: int = 0) -> Path:
    """Let the package have one checkpoint, in half precision and with a head for four words; return its folder.

    Args:
        monkeypatch: Takes it back.
        models: The folder in the place of the package's.
        name: `builtin/…`.
        kind: As for `tiny.checkpoint`.
        seed: Seed of the weights.
    """
    folder = tiny.checkpoint(models / name.removeprefix(builtin.PREFIX), kind, ("p", "q", "r", "s"), seed=seed)
    weights = folder / builtin.WEIGHTS
    halved = {key: tensor.half() if tensor.is_floating_point() else tensor
              for key, tensor in load_file(weights).items()}
    save_file(halved, weights, metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "dtype": "float16"}))
    (folder / builtin.CARD).write_text(json.dumps({
        "tasks": ["text-classification"], "data": [{"name": "Words", "terms": TERMS}], "command": "none", "seed": 0,
        "seconds": 1.5, "device": "one core", "scores": {"words": {"full": 0.5}}}))
    monkeypatch.setattr(builtin, "_MODELS", models)
    monkeypatch.setattr(builtin, "CHECKPOINTS", (name,))
    return folder
