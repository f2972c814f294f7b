"""What a run was begun with: written beside its configuration, and compared with what it is to go on with."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator

from tlhub.config import RunConfig
from tlhub.data.prepare import PreparedData
from tlhub.environment import versions
from tlhub.errors import UsageError
from tlhub.folder import RunFolder, differences, plain_identity
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.fingerprints import file_digests
from tlhub.options import effective

logger = logging.getLogger(__name__)

_COMPUTING = ("torch", "transformers", "device")
"""What decides on the last bits of a result."""
_SHOWN = 12
"""Characters of a digest that tell two apart."""


def keep_record(folder: RunFolder, given: RunConfig, config: RunConfig, data: PreparedData, checkpoint: Checkpoint,
                accelerator: Accelerator) -> None:
    """Write `config.yaml`, or compare with the one that the run was begun with; then go on with its threads.

    Args:
        folder: The run's.
        given: The configuration as it was given.
        config: As it was resolved.
        data: What the run is trained and scored on.
        checkpoint: What it begins with.
        accelerator: Its processes.

    Raises:
        UsageError: The data, the checkpoint or what was resolved is no longer what the run was begun with.
    """
    record = _describe(given, config, data, checkpoint, accelerator)
    before = folder.record
    # What a run fills in itself follows the data and the checkpoint, so their change is the one to name.
    changes = [*_changed_data(before, record), *_changed_checkpoint(before, record)] or _changed_options(before, record)
    if changes:
        raise UsageError(f"{str(folder.path)!r} was begun with other content: {'; '.join(changes)}; put back what "
                         "changed, name another folder with --out, or pass --overwrite")
    if before.get("versions"):
        _warn(before, record, accelerator)
    same_group = before.get("processes", accelerator.num_processes) == accelerator.num_processes
    if same_group and isinstance(before.get("threads"), int) and before["threads"] > 0:
        torch.set_num_threads(before["threads"])  # sums of floating-point numbers depend on it
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        folder.write_config(effective(config), {**record, "threads": torch.get_num_threads(),
                                                 "processes": accelerator.num_processes})


def _describe(given: RunConfig, config: RunConfig, data: PreparedData, checkpoint: Checkpoint,
              accelerator: Accelerator) -> dict[str, Any]:
    origin = checkpoint.origin
    columns = {name: list(value) if isinstance(value, tuple) else value
               for name, value in dataclasses.asdict(data.columns).items()}
    return {"given": plain_identity(given), "identity": plain_identity(config), "label_names": list(data.label_names),
            "pairs": data.pairs, "conversations": data.columns.conversations, "columns": columns,
            "checkpoint": {"name": origin.name, "kind": origin.kind, "revision": origin.revision,
                           "sha256": origin.weight_hash, "files": file_digests(origin)},
            "data_fingerprint": data.fingerprint, "examples": {name: len(part) for name, part in data.splits.items()},
            "parts": dict(data.parts), "versions": versions(), "device": _device(accelerator)}


def _device(accelerator: Accelerator) -> str:
    kind = accelerator.device.type
    return f"{kind} ({torch.cuda.get_device_name(accelerator.device)})" if kind == "cuda" else kind


def _changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return differences(before["identity"], now["identity"]) if _entries(before, "identity") else []


def _changed_checkpoint(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changed, each in a few words; what was not recorded is not compared."""
    old, new = _entries(before, "checkpoint"), now["checkpoint"]
    for key, what in (("name", "the checkpoint's name"), ("revision", "the checkpoint's revision")):
        if key in old and old[key] != new[key]:
            yield f"{what} was {old[key]}, now {new[key]}"
    if "sha256" in old and old["sha256"] != new["sha256"]:
        yield (f"the checkpoint's weights changed (SHA-256 {str(old['sha256'])[:_SHOWN]}, "
               f"now {new['sha256'][:_SHOWN]})")
    files = _entries(old, "files")
    for name in sorted(files.keys() | new["files"].keys()) if files else ():
        if files.get(name) != new["files"].get(name):
            how = "is gone" if name not in new["files"] else "is new" if name not in files else "changed"
            yield f"the checkpoint's {name} {how}"


def _changed_data(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if not before.get("data_fingerprint") or before["data_fingerprint"] == now["data_fingerprint"]:
        return
    found = [*_named(before, now, "columns", "the column of {} was {!r}, now {!r}"),
             *_named(before, now, "examples", "{} had {} examples, now {}")]
    if before.get("label_names") != now["label_names"]:
        found.append(f"the labels were {_listed(before.get('label_names'))}, now {_listed(now['label_names'])}")
    resized = {name for name, count in now["examples"].items() if _entries(before, "examples").get(name) != count}
    found += [f"the {part} of {split} changed" for split, part in
              (name.rsplit(".", 1) for name, digest in now["parts"].items()
               if _entries(before, "parts").get(name) != digest) if split not in resized]
    yield from found or ["the data changed"]


def _named(before: Mapping[str, Any], now: Mapping[str, Any], key: str, words: str) -> Iterator[str]:
    old, new = _entries(before, key), now[key]
    for name in [*new, *(name for name in old if name not in new)] if old else ():
        if old.get(name) != new.get(name):
            yield words.format(name, old.get(name, 0), new.get(name, 0))


def _listed(names: object) -> str:
    values = [str(name) for name in names] if isinstance(names, list) else []
    return ", ".join(values[:10]) + (" ..." if values[10:] else "")


def _entries(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _warn(before: Mapping[str, Any], now: Mapping[str, Any], accelerator: Accelerator) -> None:
    """Tell what cannot be put back, and lets a continued run differ in its last bits from an undisturbed one."""
    old, new = ({**_entries(record, "versions"), "device": record.get("device")} for record in (before, now))
    changed = [f"{name} was {old[name]}, now {new[name]}" for name in _COMPUTING
               if old.get(name) and old[name] != new.get(name)]
    if changed and accelerator.is_main_process:
        logger.warning("beware: %s; the run goes on, and its results may differ in their last bits from those of one "
                       "that was never stopped", "; ".join(changed))
