from __future__ import annotations

import os

import numpy as np
import pytest

from tlhub.config import DataConfig
from tlhub.data.cache import ArrayCache, cache_root, write_atomically
from tlhub.errors import DiskFullError, UsageError


def test_arrays_come_back_memory_mapped(tmp_path):
    cache = ArrayCache(tmp_path)
    arrays = {"a": np.arange(6.0).reshape(2, 3), "none": np.zeros((0, 4), np.float32)}
    assert cache.get("key") is None
    for stored in (cache.put("key", arrays), ArrayCache(tmp_path).get("key")):
        assert {name: (array.shape, array.dtype) for name, array in stored.items()} == {
            name: (array.shape, array.dtype) for name, array in arrays.items()}
        assert (stored["a"] == arrays["a"]).all()
        assert not stored["a"].flags.writeable
    assert cache.get("other") is None


def test_unfinished_entry_does_not_appear(tmp_path):
    cache = ArrayCache(tmp_path)
    with pytest.raises(RuntimeError), cache.create("key", {"a": ((2,), np.dtype(np.uint8))}):
        raise RuntimeError
    assert cache.get("key") is None
    assert list(tmp_path.iterdir()) == []


def test_damaged_entry_is_made_again(tmp_path):
    cache = ArrayCache(tmp_path)
    cache.put("key", {"a": np.arange(1000)})
    file = cache.folder("key") / "a.npy"
    file.write_bytes(file.read_bytes()[:100])
    assert cache.get("key") is None
    assert (cache.put("key", {"a": np.arange(3)})["a"] == np.arange(3)).all()


def test_first_of_two_writers_stays(tmp_path):
    cache = ArrayCache(tmp_path)
    with cache.create("key", {"a": ((1,), np.dtype(np.int64))}) as maps:
        maps["a"][:] = 1
        cache.put("key", {"a": np.array([2])})
    assert cache.get("key")["a"].tolist() == [2]
    assert len(list(tmp_path.iterdir())) == 1


def test_root_and_atomic_write(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHUB_CACHE", str(tmp_path / "env"))
    assert cache_root(DataConfig()) == tmp_path / "env"
    assert cache_root(DataConfig(cache_dir=str(tmp_path / "given"))) == tmp_path / "given"
    write_atomically(tmp_path / "x" / "f", b"1")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["f"]
    with pytest.raises(UsageError, match=r"--data\.cache_dir"):
        cache_root(DataConfig(cache_dir=str(tmp_path / "x" / "f" / "y")))


def test_full_disk_and_leftovers(tmp_path):
    old = tmp_path / ".left"
    old.mkdir()
    os.utime(old, (0, 0))
    with pytest.raises(DiskFullError, match="MiB free"), ArrayCache(tmp_path).create(
            "key", {"a": ((2**50,), np.dtype(np.uint8))}):
        pass
    assert list(tmp_path.iterdir()) == []
