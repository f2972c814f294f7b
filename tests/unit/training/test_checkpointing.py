"""Checkpoints: whole or not at all, verified, rotated only after the new one is good."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tlhub.errors import DiskFullError
from tlhub.training import checkpointing
from tlhub.training.checkpointing import Snapshot


def snapshot(value: float) -> Snapshot:
    last = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    tensors = {"a": torch.full((3, 2), value), "last": last}
    return Snapshot({"model": tensors, "optimizer": {"0.step": torch.tensor(value)}}, {"step": int(value)})


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = snapshot(3)
    loaded = checkpointing.load(checkpointing.save(tmp_path, "step-000000003", saved))
    assert loaded.state == {"step": 3}
    for group, tensors in saved.tensors.items():
        assert all(torch.equal(loaded.tensors[group][name], value) for name, value in tensors.items())


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "extra", "empty", "link", "folder"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
        tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    bad = checkpointing.save(tmp_path, "step-000000002", snapshot(2))
    file = bad / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "manifest":
        (bad / "manifest.json").write_text("[" * 100_000)
    elif damage == "extra":
        (bad / "more.safetensors").write_bytes(content)
    elif damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder":
        checkpointing._remove(bad)
        bad.write_text("a file")
    else:
        for path in [file] if damage == "remove" else bad.iterdir():
            path.unlink()
    assert checkpointing.latest(tmp_path, "step") == good
    assert "step-000000002" in caplog.text
    assert (tmp_path / "damaged-step-000000002").exists()
    assert not bad.exists()


def test_every_flipped_byte_and_every_truncation_is_seen(tmp_path: Path) -> None:
    checkpoint = checkpointing.save(tmp_path, "step-000000001", Snapshot({"model": {"a": torch.ones(3)}}, {"step": 1}))
    tried = 0
    for path in sorted(checkpoint.iterdir()):
        content = path.read_bytes()
        for place in range(len(content)):
            flipped = bytes([content[place] ^ (1 << place % 8)])
            path.write_bytes(content[:place] + (flipped + content[place + 1:] if place % 8 else b""))
            assert checkpointing.flaw(checkpoint), (path.name, place)
            tried += 1
        path.write_bytes(content)
    assert tried > 250
    assert not checkpointing.flaw(checkpoint)


def test_a_manifest_that_says_the_same_in_another_way_is_seen(tmp_path: Path) -> None:
    checkpoint = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    manifest = checkpoint / "manifest.json"
    content = manifest.read_bytes()
    for same in (content + b"\n", content.replace(b"\n ", b"\n  "), content.replace(b"model", b"\\u006dodel")):
        manifest.write_bytes(same)
        assert json.loads(same) == json.loads(content)
        assert checkpointing.flaw(checkpoint) == "has a manifest.json that was changed"


def test_what_is_no_checkpoint_by_its_name_is_left_alone(tmp_path: Path) -> None:
    names = ["step-", "step-1e9", "step-\n2", "step-3 ", "step--1", "step-٣", "damaged-step-000000009", "best-1"]
    for name in names:
        (tmp_path / name).mkdir()
    assert checkpointing.latest(tmp_path, "step") is None
    assert checkpointing.latest(tmp_path / "missing", "step") is None
    assert {path.name for path in tmp_path.iterdir()} == set(names)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_rotation_keeps_the_newest(tmp_path: Path, keep: int) -> None:
    best = checkpointing.save(tmp_path, "best-000000001", snapshot(1))
    for step in range(1, 5):
        newest = checkpointing.save(tmp_path, f"step-{step:09d}", snapshot(step))
        checkpointing.rotate(tmp_path, "step", newest, keep)
        names = {f"step-{kept:09d}" for kept in range(max(1, step - keep + 1), step + 1)}
        assert {path.name for path in tmp_path.iterdir()} == {best.name, *names}


def test_rotation_removes_nothing_where_the_newest_cannot_be_read_back(
        tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older = [checkpointing.save(tmp_path, f"step-{step:09d}", snapshot(step)) for step in (1, 2)]
    third = checkpointing.save(tmp_path, "step-000000003", snapshot(3))
    (third / "state.json").write_text("{}")
    checkpointing.rotate(tmp_path, "step", third, 1)
    assert all(path.exists() for path in older)
    assert "state.json" in caplog.text
    assert checkpointing.latest(tmp_path, "step") == older[-1]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    for name in (".writing-step-000000002", ".removing-step-000000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    checkpointing.clean(tmp_path)
    assert list(tmp_path.iterdir()) == [good]


def test_a_name_can_be_written_again(tmp_path: Path) -> None:
    checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    again = checkpointing.save(tmp_path, "step-000000001", snapshot(7))
    assert checkpointing.load(again).state == {"step": 7}
    assert list(tmp_path.iterdir()) == [again]


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    monkeypatch.setattr(checkpointing, "save_file", lambda *args: pytest.fail("written nevertheless"))
    with pytest.raises(DiskFullError, match=rf"needs 0\.1 MiB in '{tmp_path}', and 0\.1 MiB are free"):
        checkpointing.save(tmp_path, "step-000000002", snapshot(2))
    assert list(tmp_path.iterdir()) == [good]


class FullOnce:
    """A disk that is full in one moment: of the calls that write, sync, rename or make, one fails."""

    CALLS = ((checkpointing, "save_file"), (os, "fsync"), (Path, "write_text"), (Path, "write_bytes"),
             (Path, "mkdir"), (Path, "rename"))

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.calls = 0

    def __call__(self, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.moment:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)
        return call


MOMENTS = 14


def save_on(disk: FullOnce, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in FullOnce.CALLS:
            patch.setattr(owner, name, disk(getattr(owner, name)))
        checkpointing.save(folder, "step-000000002", snapshot(2))


@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
def test_a_disk_that_fills_at_any_moment_leaves_the_checkpoints_before_it(tmp_path: Path, moment: int) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    with pytest.raises(DiskFullError, match=r"step-000000002.*No space left"):
        save_on(FullOnce(moment), tmp_path)
    found = checkpointing.latest(tmp_path, "step")
    assert found is not None
    assert not checkpointing.flaw(good)
    # Once it is in its place it is whole, and only the folder's entry may be lost with the power.
    assert (found == good) == (moment <= MOMENTS - 2)
    assert {path.name for path in tmp_path.iterdir()} == {good.name, found.name}


def test_these_are_all_the_moments(tmp_path: Path) -> None:
    disk = FullOnce(0)
    save_on(disk, tmp_path)
    assert disk.calls == MOMENTS
