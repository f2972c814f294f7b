"""What is known of a file holds as long as it is the same file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tlhub.data.audit import Decoder, FileAuditor


def auditor(memory: Path, seen: list[bytes]) -> FileAuditor:
    def look(content: bytes) -> dict[str, Any]:
        seen.append(content)
        return {}

    return FileAuditor(memory, Decoder("thing", "1", look, lambda path: None))


def test_a_file_is_looked_at_once_while_it_stays(tmp_path: Path) -> None:
    seen: list[bytes] = []
    (tmp_path / "file").write_bytes(b"one")
    first, second = (auditor(tmp_path / "memory.json", seen).check([str(tmp_path / "file")]) for _ in range(2))
    assert seen == [b"one"]
    assert first.digests == second.digests


def test_content_that_came_with_the_old_size_and_time_is_looked_at(tmp_path: Path) -> None:
    """As copies that keep times, archives and some editors leave it."""
    seen: list[bytes] = []
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = auditor(tmp_path / "memory.json", seen).check([str(path)])
    times = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    now = auditor(tmp_path / "memory.json", seen).check([str(path)])
    assert seen == [b"one", b"two"]
    assert now.digests != before.digests
    other = tmp_path / "other"
    other.write_bytes(b"six")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    auditor(tmp_path / "memory.json", seen).check([str(path)])
    assert seen == [b"one", b"two", b"six"]


def test_a_file_that_is_touched_is_read_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, memory, seen = tmp_path / "file", tmp_path / "memory.json", list[bytes]()
    file.write_bytes(b"some")
    auditor(memory, seen).check([str(file)])
    os.utime(file, ns=(5, 5))
    reads: list[Path] = []
    original = Path.read_bytes

    def read(path: Path) -> bytes:
        reads.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    for _ in range(3):
        auditor(memory, seen).check([str(file)])
    assert (seen, reads) == ([b"some"], [file])
