"""A run's folder: where it is, what state it is in, and the files that describe it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tlhub import locking
from tlhub.config import RunConfig, replace
from tlhub.errors import UsageError, is_disk_full
from tlhub.options import dotted, identity
from tlhub.parsers import one_line
from tlhub.yaml_files import parse, read_mapping

WRITTEN = ("config.yaml", "metrics.json", "history.jsonl", "quarantine.csv", "report.md", "model", "plots",
           "checkpoints", "evaluations", "trackers", "status.json")
"""What a run writes to its folder; the status goes last, since it tells that a folder is a run's."""

_LOCK = ".lock"
_HIDDEN = frozenset({_LOCK, *(f".{name}.tmp" for name in WRITTEN)})
"""What a process that was killed may leave beside them."""
_PATIENCE = 10.0
"""Seconds that a command waits for the one before it, whose processes may still be leaving."""
_NAMED = 4
"""Differences between configurations that a message names."""

# That of libyaml, where it is there, takes a tenth of the time.
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run (`README.md` lists its files)."""

    path: Path

    @property
    def status(self) -> dict[str, Any]:
        """What `status.json` says; empty where there is none."""
        return _read_json(self.path / "status.json")

    def write_status(self, state: str, exit_code: int | None = None, reason: str = "") -> None:
        """Write `status.json`: running, finished, stopped or failed; in place where the disk is full.

        Raises:
            OSError: It cannot be written.
        """
        content = {"state": state, "exit_code": exit_code, "reason": one_line(reason)}
        try:
            self.write_json("status.json", content)
        except OSError as error:
            if not is_disk_full(error) or not self.status:
                raise
            with (self.path / "status.json").open("r+") as file:  # a file that exists keeps its block of the disk
                file.write(json.dumps(content) + "\n")
                file.truncate()

    def write_json(self, name: str, content: dict[str, Any]) -> Path:
        """Write a JSON file whole: under another name first, then renamed.

        Raises:
            OSError: It cannot be written; what was there before stays.
        """
        return self._write(name, json.dumps(content, indent=2) + "\n")

    def _write(self, name: str, text: str) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            temporary.write_text(text)
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return target

    def write_config(self, config: dict[str, Any], record: dict[str, Any]) -> None:
        """Write `config.yaml`: the resolved configuration, and below `record` what it was run with."""
        text = yaml.dump({**config, "record": record}, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
        self._write("config.yaml", text)

    @property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` holds; empty where there is none.

        Raises:
            ValueError: It is no configuration; the message goes on after its name.
        """
        path = self.path / "config.yaml"
        return read_mapping(path) if path.exists() else {}

    @property
    def record(self) -> dict[str, Any]:
        """What the run was begun with, as `config.yaml` records it; empty where that is unknown."""
        try:
            record = self.config.get("record")
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def check_links(self) -> None:
        """Check that what a run writes to lies in the folder.

        Raises:
            UsageError: It is a link, which may lead anywhere.
        """
        for name in (*WRITTEN, *_HIDDEN):
            if (self.path / name).is_symlink():
                raise UsageError(f"{str(self.path / name)!r} is a link, and a run would write through it to another "
                                 "place; remove it, or name another folder")

    @property
    def failed_before_training(self) -> bool:
        """Whether a run failed here before it had anything worth keeping."""
        return self.status.get("state") == "failed" and not (self.path / "checkpoints").exists()

    def clear(self) -> None:
        """Remove what a run writes, and nothing that somebody else put there."""
        for name in (*(_HIDDEN - {_LOCK}), *WRITTEN):
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def is_unfinished(self, config: RunConfig) -> bool:
        """Return whether this is an unfinished run of the same configuration, as it was given or as it was resolved."""
        record = self.record
        same = plain_identity(config) in (record.get("given"), record.get("identity"))
        return same and self.status.get("state") != "finished"

    def differences(self, config: RunConfig) -> list[str]:
        """Return in which options a configuration differs from that of the run here, given or resolved, in words."""
        now = plain_identity(config)
        found = [differences(before, now) for before in (self.record.get("given"), self.record.get("identity"))
                 if isinstance(before, dict)]
        return min(found, key=len, default=[])


def open_folder(config: RunConfig, *, overwrite: bool) -> RunFolder:
    """Return the folder that a run of `config` writes to, created where it is new.

    Args:
        config: As given; `out` names the folder, otherwise it is `runs/<task>-<n>` with the highest n that holds an
            unfinished run of the same configuration, or the next n.
        overwrite: Empty a folder that holds another run.

    Raises:
        UsageError: The folder holds a finished run, a run of another configuration, a link in the place of what a run
            writes, or something else.
    """
    folder = RunFolder(Path(config.out) if config.out else _default_path(config))
    folder.check_links()
    if _is_to_be_cleared(folder, config, overwrite=overwrite):
        folder.clear()
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def taken_folder(config: RunConfig, *, overwrite: bool, patience: float = _PATIENCE) -> Iterator[RunFolder]:
    """Open the folder of a run (`open_folder`) and hold it for the length of the block.

    Of commands that choose their folders at the same time each gets one of its own.

    Args:
        config: As given.
        overwrite: Empty a folder that holds another run.
        patience: Seconds to wait for a command that holds the folder.

    Raises:
        UsageError: Another command is at work in the folder, or `open_folder` refuses it.
    """
    while True:
        path = Path(config.out) if config.out else _default_path(config)
        RunFolder(path).check_links()
        if config.out:
            _is_to_be_cleared(RunFolder(path), config, overwrite=overwrite)
        try:
            path.mkdir(parents=True)
            new = True
        except FileExistsError:
            new = False
            if not config.out and not RunFolder(path).is_unfinished(config):
                continue  # another command was quicker
        with ExitStack() as held:
            try:
                held.enter_context(locking.held(path / _LOCK, patience=patience))
            except BlockingIOError:
                raise UsageError(f"--out {str(path)!r} is in use by {locking.holder(path / _LOCK)}; wait until it "
                                 "ends, or name another folder") from None
            # The run may have been finished while this command waited.
            if config.out or new or RunFolder(path).is_unfinished(config):
                yield open_folder(replace(config, {"out": str(path)}), overwrite=overwrite)
                return


def _is_to_be_cleared(folder: RunFolder, config: RunConfig, *, overwrite: bool) -> bool:
    """Return whether what is in a folder has to go before a run of `config` begins there.

    Raises:
        UsageError: It has to stay, and is not a run to go on with.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise UsageError(f"--out {str(folder.path)!r} is a file; name a folder that is new or empty")
    held = {path.name for path in folder.path.iterdir()} - _HIDDEN if folder.path.exists() else ()
    if held and not folder.is_unfinished(config):
        if folder.failed_before_training:
            overwrite = True
        state = folder.status.get("state")
        if not state:
            raise UsageError(f"--out {str(folder.path)!r} is not empty and holds no tlhub run; name another folder")
        if not overwrite:
            what = "a finished run" if state == "finished" else "an unfinished run of another configuration"
            changes = folder.differences(config) if state != "finished" else []
            more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
            what += f" ({'; '.join(changes[:_NAMED])}{more})" if changes else ""
            raise UsageError(f"--out {str(folder.path)!r} holds {what}; name another folder, or pass --overwrite")
        return True
    return False


def result_folder(config: RunConfig, result: str, *, parent: str, noun: str, others: str | None = None,
                  overwrite: bool) -> Path:
    """Return the folder of a command that leaves one file, made where it is new.

    Args:
        config: As given; `out` names the folder, otherwise it is `<parent>/<task>-<n>` with the next n.
        result: The file, which is removed.
        parent: Where folders without a name go.
        noun: What the folder holds, for messages.
        others: A folder within it that is removed likewise.
        overwrite: Replace what the command has left there before.

    Raises:
        UsageError: It holds something, or cannot be made.
    """
    folder = Path(config.out) if config.out else _next_path(Path(parent), config.task)
    given = f"--out {str(folder)!r}"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{given} is a file; name a folder that is new or empty")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if result in found and not overwrite:
        raise UsageError(f"{given} holds {noun}; name another folder, or pass --overwrite")
    if found - {result, others}:
        raise UsageError(f"{given} is not empty and holds more than {noun}; name another folder")
    (folder / result).unlink(missing_ok=True)
    if others is not None:
        shutil.rmtree(folder / others, ignore_errors=True)  # what was stopped on the way has no result
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{given} cannot be written ({error.strerror}); name another folder") from error
    return folder


def _next_path(parent: Path, task: str) -> Path:
    return parent / f"{task}-{max(_numbers(parent, task), default=0) + 1}"


def _numbers(parent: Path, task: str) -> list[int]:
    """Return the numbers of the folders `<task>-<n>`, ascending."""
    pattern = re.compile(re.escape(task) + r"-(\d+)")
    return sorted(int(match[1]) for path in parent.glob(f"{task}-*") if (match := pattern.fullmatch(path.name)))


def plain_identity(config: RunConfig) -> dict[str, Any]:
    """Return what a configuration is, as it reads back from YAML."""
    return _plain(identity(config))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in which options two configurations differ, in words: `train.learning_rate 0.001, now 0.01`.

    Args:
        before: Sections of plain values, as `plain_identity` gives them.
        now: Likewise.
    """
    old, new = dotted(before), dotted(now)
    return [f"{name} {one_line(str(old.get(name, 'left open')))}, now {one_line(str(new.get(name, 'left open')))}"
            for name in sorted(old.keys() | new.keys(), key=str) if old.get(name) != new.get(name)]


def _default_path(config: RunConfig) -> Path:
    root = Path("runs")
    for number in reversed(_numbers(root, config.task)):
        if RunFolder(root / f"{config.task}-{number}").is_unfinished(config):
            return root / f"{config.task}-{number}"
    return _next_path(root, config.task)


def finite(value: Any) -> Any:
    """Return plain values with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = parse(yaml.dump(value, Dumper=_DUMPER))
    return plain


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
