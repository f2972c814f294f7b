"""Where a checkpoint comes from: tlhub itself, a local folder, a tlhub run or a snapshot of the Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from tlhub.builtin import checkpoint_folder, is_builtin
from tlhub.errors import CheckpointError
from tlhub.models.inspection import inspect_checkpoint, read_description
from tlhub.models.terms import tell_terms
from tlhub.models.timm_models import unknown_name

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md"]
"""What tlhub reads of a checkpoint, and the card with its licence."""
HUB_SKIPPED = ["*/*", "*.fp16.safetensors", "*.bf16.safetensors", "*.non_ema.safetensors"]
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl", ".pickle", ".joblib")
TIMM_OWNER = "timm/"
CHUNK = 1 << 22
GENERATION_SETTINGS = "generation_config.json"
HEAD_SETTINGS = "head.json"
HEAD_WEIGHTS = "head.safetensors"
"""Files of a head of tlhub's own."""
NAME_PARTS = 2
"""A Hub id is `name` or `owner/name`."""


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a model was loaded from.

    Attributes:
        name: The Hub id, the folder that the user gave, or the name of an embedded checkpoint.
        kind: `"builtin"`, `"local"` or `"hub"`.
        revision: The commit of the Hub snapshot; None otherwise.
        weight_hash: SHA-256 over the names and contents of the safetensors files.
        folder: The local folder that holds the files.
    """

    name: str
    kind: str
    revision: str | None
    weight_hash: str
    folder: Path

    @property
    def lasting_name(self) -> str:
        """What it is found by later, in any working directory."""
        return str(self.folder) if self.kind == "local" else self.name


def resolve_origin(name: str, revision: str | None = None, *, weights: bool = True) -> Origin:
    """Find a checkpoint's files, downloading them where the Hub is reachable.

    Args:
        name: A Hub id, a folder that holds a checkpoint, the folder of a tlhub run, or `builtin/…`.
        revision: Branch, tag or commit of a Hub checkpoint.
        weights: Whether weights are needed, or the configuration is enough.

    Returns:
        The origin, its folder holding `config.json` or `adapter_config.json`, and safetensors files only.

    Raises:
        CheckpointError: Nothing usable is there, its weights are pickled, or it asks for what tlhub never does
            (`inspect_checkpoint`).
    """
    folder = checkpoint_folder(name) if is_builtin(name) else Path(name).expanduser()
    if name and folder.is_dir():
        kind, commit = "builtin" if is_builtin(name) else "local", None
        if revision is not None:
            what = "comes with tlhub" if is_builtin(name) else "is a folder"
            raise CheckpointError(f"model.revision {revision!r} was given, but {name!r} {what}; leave it out")
        if (folder / "model").is_dir() and not (folder / "config.json").exists():
            folder = folder / "model"
        folder = folder.resolve()
    else:
        folder = _hub_folder(name, revision)
        kind, commit = "hub", folder.name
    _check_files(name, folder, weights=weights)
    origin = Origin(name, kind, commit, weight_hash(folder), folder)
    if kind == "builtin" and weights:
        tell_terms(name, origin.weight_hash)
    return origin


def resolve_base(name: str, revision: str | None, expected: str, where: str) -> Origin:
    """Find the base of something that was saved without it.

    Args:
        name: The base's `lasting_name`.
        revision: Its commit, on the Hub.
        expected: Its `weight_hash` at that time.
        where: The folder of what was saved.

    Raises:
        CheckpointError: The base is missing, or has other weights by now.
    """
    try:
        origin = resolve_origin(name, revision)
    except CheckpointError as error:
        gone = Path(name).is_absolute() and not Path(name).exists()
        raise CheckpointError(f"{where!r} was saved without its base {name!r}, which "
                              f"{'is not there any more; put it back' if gone else f'cannot be used: {error}'}"
                              ) from error
    if origin.weight_hash != expected:
        advice = "install the version of tlhub that made it" if origin.kind == "builtin" else "restore them"
        raise CheckpointError(f"the base {name!r} of {where!r} has other weights than those it was trained on "
                              f"({origin.weight_hash[:12]}, then {expected[:12]}); {advice}")
    return origin


def weight_hash(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's safetensors files (not its subfolders)."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _hub_folder(name: str, revision: str | None) -> Path:
    if not name or Path(name).is_absolute() or name.startswith((".", "~")) or len(name.split("/")) > NAME_PARTS:
        raise CheckpointError(f"model.name {name!r} is no folder that exists and no Hub id; give one of them")
    if Path(name).exists():
        raise CheckpointError(f"model.name {name!r} is a file; give the folder that holds it")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=HUB_SKIPPED))
    except (OSError, ValueError) as error:
        at = f" at revision {revision!r}" if revision else ""
        words = unknown_name(name.removeprefix(TIMM_OWNER)) if name.startswith(TIMM_OWNER) else ""
        raise CheckpointError(
            f"model.name {name!r}{at} is no folder, is not in the local cache and could not be fetched from the Hub "
            f"({type(error).__name__}); {words or 'check the name and the connection, or give a folder'}"
        ) from error


def _check_files(name: str, folder: Path, *, weights: bool) -> None:
    if not (folder / "config.json").exists() and not (folder / "adapter_config.json").exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(
            f"model.name {name!r} holds no config.json (found: {found}); give the folder of a checkpoint or of a run"
        )
    inspect_checkpoint(folder, name)
    brought = {path.name for path in folder.glob("*.safetensors")}
    if weights and brought == {HEAD_WEIGHTS}:
        base = read_description(folder / HEAD_SETTINGS, name).get("base")
        words = repr(base.get("name")) if isinstance(base, dict) else "itself"
        raise CheckpointError(f"model.name {name!r} holds the new layers of a run alone (model.save_base false); give "
                              f"their base {words}")
    if weights and not brought:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        found = f"only {', '.join(pickled)}" if pickled else "no weights"
        raise CheckpointError(
            f"model.name {name!r} has {found}; tlhub reads safetensors only: convert the checkpoint, or take a "
            "revision that has them"
        )
