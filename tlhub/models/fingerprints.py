"""Digests of what turns examples into a model's outputs: its settings, and its processor."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tlhub.builtin import CARD
from tlhub.models.loading import quiet
from tlhub.models.origin import CHUNK, Origin

_READ = (".json", ".txt", ".model", ".jinja")
"""Endings of a checkpoint's files beside its weights: settings, vocabularies, chat templates."""


def settings_digest(model: PreTrainedModel) -> str:
    """Return a digest of a model's configuration, as it is set now."""
    settings = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        settings.pop(name, None)
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


def processing_digest(processor: Any, *settings: object) -> str:
    """Return a digest of what turns examples into a model's inputs.

    Args:
        processor: The checkpoint's.
        settings: What else decides on it.
    """
    with tempfile.TemporaryDirectory() as folder, quiet():
        processor.save_pretrained(folder)
        parts = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return hashlib.sha256(b"\0".join([*parts, *(str(value).encode() for value in settings)])).hexdigest()[:16]


def file_digests(origin: Origin) -> dict[str, str]:
    """Return the SHA-256 of each file beside a checkpoint's weights that decides on what it computes, by name."""
    digests = {}
    for path in sorted(origin.folder.iterdir()):
        if path.suffix in _READ and path.name != CARD and path.is_file():
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
            digests[path.name] = digest.hexdigest()
    return digests
