"""Arrays kept on disk between runs: written once under a key, then memory-mapped by every run that needs them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlhub.config import DataConfig
from tlhub.errors import DiskFullError, UsageError

_MANIFEST = "manifest.json"
_STALE_S = 2 * 24 * 3600


def cache_root(data: DataConfig) -> Path:
    """Return the folder of prepared data: `data.cache_dir`, else `$TLHUB_CACHE`, else `~/.cache/tlhub`.

    Raises:
        UsageError: The folder cannot be created.
    """
    folder = Path(data.cache_dir or os.environ.get("TLHUB_CACHE") or "~/.cache/tlhub").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cache folder '{folder}' cannot be created ({error.strerror}); "
                         "name another with --data.cache_dir, or in the variable TLHUB_CACHE") from None
    return folder


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class ArrayCache:
    """Named arrays under text keys, one folder a key.

    An entry appears by one rename, complete with a manifest of shapes and types, so that processes that fill the same
    entry at the same time do no harm: the first one stays.

    Args:
        root: The folder that holds the entries; created when needed.
    """

    root: Path

    def folder(self, key: str) -> Path:
        """Return where the entry for `key` is or would be."""
        return self.root / hashlib.sha256(key.encode()).hexdigest()[:32]

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of an entry as read-only memory maps, or None where there is no usable entry."""
        folder = self.folder(key)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                      for name in manifest["arrays"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        described = {name: _describe(array) for name, array in arrays.items()}
        return arrays if manifest["arrays"] == described and manifest.get("key") == key else None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Store arrays and return them as they now lie in the cache."""
        with self.create(key, {name: (array.shape, array.dtype) for name, array in arrays.items()}) as maps:
            for name, array in arrays.items():
                maps[name][...] = array
        return self._stored(key)

    @contextlib.contextmanager
    def create(self, key: str,
               shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Iterator[dict[str, np.ndarray]]:
        """Give writable memory maps to fill; the entry appears when the block ends without an error.

        Args:
            key: What the entry is found by.
            shapes: For each array its shape and type.

        Raises:
            DiskFullError: The disk has too little room.
        """
        temporary = self.root / f".{uuid.uuid4().hex}"
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._check_room(sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values()))
        temporary.mkdir()
        try:
            maps = {name: _create_map(temporary / f"{name}.npy", shape, dtype)
                    for name, (shape, dtype) in shapes.items()}
            yield maps
            manifest = {"key": key, "arrays": {name: _describe(array) for name, array in maps.items()}}
            for array in maps.values():
                if isinstance(array, np.memmap):
                    array.flush()
            (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
            self._publish(temporary, key)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes that were killed have left."""
        for left in self.root.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left)

    def _check_room(self, needed: int) -> None:
        """Refuse beforehand: writing to a memory map on a full disk kills the process."""
        free = shutil.disk_usage(self.root).free
        if needed > free:
            raise DiskFullError(f"the disk of the cache folder '{self.root}' is full ({needed / 2**20:.0f} MiB needed, "
                                f"{free / 2**20:.0f} MiB free); name another with --data.cache_dir, or lower "
                                "--data.cache_limit_gib")

    def _publish(self, temporary: Path, key: str) -> None:
        final = self.folder(key)
        if final.exists() and self.get(key) is None:
            shutil.rmtree(final, ignore_errors=True)
        try:
            os.rename(temporary, final)
        except OSError:
            if self.get(key) is None:
                raise

    def _stored(self, key: str) -> dict[str, np.ndarray]:
        arrays = self.get(key)
        if arrays is None:
            raise OSError(f"cache entry '{self.folder(key)}' cannot be read back after it was written")
        return arrays


def _create_map(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if 0 in shape:
        np.save(path, np.empty(shape, dtype), allow_pickle=False)
        return np.empty(shape, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _describe(array: np.ndarray) -> list[object]:
    return [list(array.shape), array.dtype.str]
