"""Checkpoints to resume from: written whole or not at all, and verified before they are trusted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tlhub.errors import CheckpointError, DiskFullError, TlhubError, is_disk_full
from tlhub.parsers import one_line

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_STATE = "state.json"
_WRITING, _REMOVING = ".writing-", ".removing-"
_ROOM_BESIDE, _ROOM_PER_TENSOR = 2**17, 2**8
"""Bytes that a checkpoint takes beside its tensors' content."""


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
        DiskFullError: There is no room for it; the checkpoints before this one are untouched.
        TlhubError: It cannot be written for another reason; likewise.
    """
    temporary, final = folder / f"{_WRITING}{name}", folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        _check_room(folder, snapshot)
        temporary.mkdir()
        _write(temporary, snapshot)
        _remove(final)
        temporary.rename(final)
        _sync(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        words = f"checkpoint {str(final)!r} could not be written ({one_line(str(error))})"
        if is_disk_full(error):
            raise DiskFullError(f"{words}; the ones before it are as they were: free some space on that disk, and the "
                                "same command goes on from there") from error
        raise TlhubError(f"{words}; the ones before it are as they were: make the folder writable, and the same "
                         "command goes on from there") from error
    return final


def _check_room(folder: Path, snapshot: Snapshot) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        DiskFullError: It has less room than the tensors take.
    """
    needed = _ROOM_BESIDE + sum(value.numel() * value.element_size() + _ROOM_PER_TENSOR
                                for tensors in snapshot.tensors.values() for value in tensors.values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(f"a checkpoint needs {needed / 2**20:.1f} MiB in {str(folder)!r}, and {free / 2**20:.1f} "
                            "MiB are free; free some space on that disk, and the same command goes on from the "
                            "checkpoint before")


def _write(folder: Path, snapshot: Snapshot) -> None:
    """Write every file and sync it; the manifest, which makes a checkpoint of them, goes last."""
    for group, tensors in snapshot.tensors.items():
        plain = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for key, value in tensors.items()}
        save_file(plain, folder / f"{group}.safetensors")
    (folder / _STATE).write_text(json.dumps(dict(snapshot.state), indent=1))
    digests = {path.name: _digest(path) for path in folder.iterdir()}
    for name in digests:
        _sync(folder / name)
    (folder / _MANIFEST).write_bytes(_manifest(digests))
    _sync(folder / _MANIFEST)
    _sync(folder)


def _manifest(digests: Mapping[str, str]) -> bytes:
    """Return the one way in which a manifest of these files is written."""
    return json.dumps(dict(digests), indent=1, sort_keys=True).encode()


def flaw(checkpoint: Path) -> str:
    """Return what is wrong with a checkpoint, in a few words; empty where every byte is as it was written.

    The manifest is compared with the one way to write it, so that no byte of any file can differ unseen.
    """
    try:
        if checkpoint.is_symlink() or not checkpoint.is_dir():
            return "is no folder"
        modes = {path.name: path.lstat().st_mode for path in checkpoint.iterdir()}
        strange = [name for name, mode in modes.items() if not stat.S_ISREG(mode)]
        if strange:
            return f"holds {strange[0]!r}, which is no plain file"
        if _MANIFEST not in modes:
            return f"has no {_MANIFEST}, so it was not written to its end"
        content = (checkpoint / _MANIFEST).read_bytes()
        digests = json.loads(content)
        if not isinstance(digests, dict) or content != _manifest(digests):
            return f"has a {_MANIFEST} that was changed"
        expected = {*digests, _MANIFEST}
        for name in sorted(expected ^ set(modes)):
            return f"has no {name!r}" if name in expected else f"holds {name!r}, which is not its own"
        if _STATE not in digests:
            return f"has no {_STATE}"
        for name, digest in digests.items():
            if _digest(checkpoint / name) != digest:
                return f"has a {name!r} that was changed"
    except (OSError, ValueError, RecursionError) as error:
        return f"cannot be read ({one_line(str(error))})"
    return ""


def load(checkpoint: Path) -> Snapshot:
    """Read a checkpoint that has no `flaw`.

    Raises:
        CheckpointError: Its files are whole, and hold something else than a checkpoint of a run.
    """
    try:
        tensors = {path.stem: load_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
        state = json.loads((checkpoint / _STATE).read_text())
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise foreign(checkpoint, one_line(str(error))) from error
    if not isinstance(state, dict):
        raise foreign(checkpoint, f"{_STATE} holds no values by name")
    return Snapshot(tensors, state)


def foreign(checkpoint: Path, found: str) -> CheckpointError:
    """Return the error for a checkpoint whose bytes are as they were written, and which does not fit the run."""
    return CheckpointError(f"checkpoint {str(checkpoint)!r} was not written by this run ({found}); remove it to go on "
                           "from the one before, or pass --overwrite to begin anew")


def latest(folder: Path, prefix: str) -> Path | None:
    """Return the newest intact checkpoint whose name starts with `prefix`; damaged ones are set aside and named."""
    for checkpoint in reversed(_of_kind(folder, prefix)):
        reason = flaw(checkpoint)
        if not reason:
            return checkpoint
        _set_aside(checkpoint, reason)
    return None


def rotate(folder: Path, prefix: str, newest: Path, keep: int) -> None:
    """Remove all but the `keep` latest checkpoints of a kind, once `newest` has been read back and is intact."""
    reason = flaw(newest)
    if reason:
        _set_aside(newest, reason)
        return
    kept = [checkpoint for checkpoint in _of_kind(folder, prefix) if checkpoint.name <= newest.name]
    for checkpoint in kept[:-keep]:
        _remove(checkpoint)


def clean(folder: Path) -> None:
    """Remove what a process that was killed had begun to write or to remove."""
    for begun in (_WRITING, _REMOVING):
        for path in folder.glob(f"{begun}*"):
            _remove(path)


def _of_kind(folder: Path, prefix: str) -> list[Path]:
    """Return the checkpoints of a kind, whole or not, by age; what is named otherwise is none."""
    name = re.compile(re.escape(prefix) + r"-[0-9]+(-[a-z]+)?")
    return sorted(path for path in folder.glob(f"{prefix}-*") if name.fullmatch(path.name))


def _set_aside(checkpoint: Path, reason: str) -> None:
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    try:
        _remove(aside)
        checkpoint.rename(aside)
        where = f"set aside as {aside.name!r}"
    except OSError as error:
        where = f"left where it is ({one_line(str(error))})"
    logger.warning("checkpoint %r is damaged: it %s; it is %s, and the one before it is used", str(checkpoint), reason,
                   where)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder; a folder under another name first, so that no part of it keeps its own."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        hidden = path.with_name(f"{_REMOVING}{path.name.removeprefix(_REMOVING)}")
        if hidden != path:
            shutil.rmtree(hidden, ignore_errors=True)
            path.rename(hidden)
        shutil.rmtree(hidden)


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
