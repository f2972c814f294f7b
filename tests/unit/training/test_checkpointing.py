"""Checkpoints: whole or not at all, verified, rotated only after the new one is good."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

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


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
        tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))
    bad = checkpointing.save(tmp_path, "step-000000002", snapshot(2))
    file = bad / ("manifest.json" if damage == "manifest" else "model.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        content[-1] ^= 1
        file.write_bytes(content[:-1] if damage == "truncate" else content)
    if damage == "manifest":
        file.write_text("{")
    assert checkpointing.latest(tmp_path, "step") == good
    assert "step-000000002" in caplog.text
    assert (tmp_path / "damaged-step-000000002").is_dir()
    assert not bad.exists()


def test_rotation_keeps_the_newest_and_what_is_older_than_a_damaged_one(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpointing.save(tmp_path, f"step-00000000{step}", snapshot(step))
    best = checkpointing.save(tmp_path, "best-000000001", snapshot(1))
    newest = tmp_path / "step-000000002"
    checkpointing.rotate(tmp_path, "step", newest)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-000000001", "step-000000002"]
    third = checkpointing.save(tmp_path, "step-000000003", snapshot(3))
    (third / "state.json").write_text("{}")
    checkpointing.rotate(tmp_path, "step", third)
    assert newest.exists()
    assert best.exists()


def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = checkpointing.save(tmp_path, "step-000000001", snapshot(1))

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointing, "save_file", full)
    with pytest.raises(OSError, match=r"step-000000002.*No space left"):
        checkpointing.save(tmp_path, "step-000000002", snapshot(2))
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert checkpointing.latest(tmp_path, "step") == good
