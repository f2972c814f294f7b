"""Hostile content for tests: files that lie about themselves, or ask for what is not theirs. None of it does harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data_files import png, write
from tests.sounds import sound, tone
from tests.wrong import working_in
from tlhub import cli

Make = Callable[[Path], object]
"""Puts a case's files into its folder."""


class Evil:
    """What is unpickled leaves a file called `ran` in the working folder."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """Return what a pickle of this would call."""
        return open, ("ran", "w")


PICKLE = pickle.dumps(Evil())
CODE = "open('ran', 'w')\n"
ANSI = "\x1b[2J\x1b[31mred"
BIDI = "\u202egnp.exe"


def png_of(width: int, height: int, *more: tuple[bytes, bytes], depth: int = 8) -> bytes:
    """Return a PNG whose header announces a size that its data do not have, with further chunks before the data."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)), *more,
              (b"IDAT", zlib.compress(b"\0" * (3 * min(width, 64) + 1) * min(height, 64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


def text_bomb(mebibytes: int = 70) -> bytes:
    """Return a small PNG with compressed texts that unfold to many MiB."""
    packed = zlib.compress(b"\0" * 2**20, 9)
    return png_of(8, 8, *[(b"zTXt", b"a%d\0\0" % number + packed) for number in range(mebibytes)])


def profile_bomb() -> bytes:
    """Return a small PNG with a colour profile that unfolds to 64 MiB."""
    return png_of(8, 8, (b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 2**26, 1)))


def with_size(kind: str, place: str, width: int, height: int) -> bytes:
    """Return a small picture of a kind, with another size written at a place of its header.

    Args:
        kind: Pillow's name.
        place: Where the size stands, and how: as struct's format after an offset, such as `6<HH`.
        width: In pixels.
        height: In pixels.
    """
    content = bytearray(png(1, (16, 16), kind))
    offset, _, form = place.partition(":")
    sizes = (height, width) if kind == "JPEG" else (width, height)
    start = content.index(b"\xff\xc0") + 5 if kind == "JPEG" else int(offset)
    struct.pack_into(form, content, start, *sizes)
    return bytes(content)


def webp_of(width: int, height: int) -> bytes:
    """Return an extended WebP file that announces a canvas and holds a small picture."""
    inner = png(1, (16, 16), "WEBP")[12:]
    canvas = struct.pack("<I", 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_of(width: int, height: int) -> bytes:
    """Return a TIFF that announces a size and has one strip of data."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
            (278, 4, height), (279, 4, 64)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + b"\0" * 64


def wav_of(seconds: float = 0.1, *, rate: int = 16000, channels: int = 1, announced: int | None = None) -> bytes:
    """Return a WAV file of silence that may announce more bytes than it has."""
    data = b"\0" * (2 * channels * int(16000 * seconds))
    size = len(data) if announced is None else announced
    speed, width = min(rate * 2 * channels, 2**32 - 1), 2 * channels % 2**16
    form = struct.pack("<HHIIHH", 1, channels, rate, speed, width, 16)
    whole = struct.pack("<I", min(36 + size, 2**32 - 1))
    return b"RIFF" + whole + b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size) + data


def flac_of(samples: int) -> bytes:
    """Return a FLAC file of a tenth of a second that announces so many samples."""
    content = bytearray(sound(tone(seconds=0.1), kind="FLAC"))
    packed = int.from_bytes(content[18:26], "big")
    content[18:26] = ((packed >> 36 << 36) | samples).to_bytes(8, "big")
    return bytes(content)


def pictures(folder: Path, content: bytes | None = None, name: str = "bad.png") -> None:
    """Write two classes of pictures, and one file that is given."""
    for number in range(12):
        write(folder / "ab"[number % 2] / f"{number}.png", png(number))
    if content is not None:
        write(folder / "a" / name, content)


def sounds(folder: Path, content: bytes | None = None, name: str = "bad.wav") -> None:
    """Write two classes of sounds, and one file that is given."""
    for number in range(12):
        write(folder / "ab"[number % 2] / f"{number}.wav", sound(tone(200 + 50 * number, 0.1)))
    if content is not None:
        write(folder / "a" / name, content)


def picture(content: bytes | Callable[[], bytes], name: str = "bad.png") -> Make:
    """Return what writes pictures, one of them with this content."""
    return lambda folder: pictures(folder, content if isinstance(content, bytes) else content(), name)


def clip(content: bytes | Callable[[], bytes], name: str = "bad.wav") -> Make:
    """Return what writes sounds, one of them with this content."""
    return lambda folder: sounds(folder, content if isinstance(content, bytes) else content(), name)


def naming(name: str, prepare: Make = lambda folder: None) -> Make:
    """Return what writes pictures with a table, one row of which gives this file name."""
    def make(folder: Path) -> None:
        for number in range(12):
            write(folder / f"{number}.png", png(number))
        prepare(folder)
        rows = [{"file_name": f"{number}.png", "label": "ab"[number % 2]} for number in range(12)]
        lines = [json.dumps(row) for row in [*rows, {"file_name": name, "label": "a"}]]
        write(folder / "metadata.jsonl", "\n".join(lines))

    return make


def table(content: bytes | str, name: str = "train.csv") -> Make:
    """Return what writes one table."""
    return lambda folder: write(folder / name, content)


def rows(text: str = "hello", label: str = "a", count: int = 40) -> str:
    """Return a csv of texts and two labels, of which one text and one label are given, quoted."""
    lines = [f"text number {number},{'xy'[number % 2]}" for number in range(count)]
    quoted = ",".join('"' + value.replace('"', '""') + '"' for value in (text, label))
    return "text,label\n" + "\n".join(lines) + f"\n{quoted}\n{quoted.replace(text, text + ' again')}\n"


def linked(target: str, name: str, base: Make = pictures) -> Make:
    """Return what writes files and a link among them; `OUT` in its target is the folder outside."""
    def make(folder: Path) -> None:
        base(folder)
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target.replace("OUT", str(outside(folder))))

    return make


def outside(folder: Path) -> Path:
    """Return the folder that no case may read from or write to."""
    return folder.parents[2] / "outside"


def zip_of(folder: Path) -> bytes:
    """Return a zip archive with a member that leads out of any folder."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../outside/written.txt", "x")
        archive.writestr("train/a/1.png", png(1))
    return stream.getvalue()


def tar_of(folder: Path) -> bytes:
    """Return a tar archive with a member that leads out of any folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("../../outside/written.txt", "/tmp/written-by-tlhub-test.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    return stream.getvalue()


def link_farm(folder: Path) -> None:
    """Write folders that link to each other twice a level, so that the ways through them are a thousand millions."""
    pictures(folder)
    for level in range(30):
        (folder / "a" / f"d{level}").mkdir()
    for level in range(29):
        for letter in "xy":
            (folder / "a" / f"d{level}" / letter).symlink_to(folder / "a" / f"d{level + 1}")


def deep_folders(folder: Path) -> None:
    """Write folders within folders, hundreds of them."""
    pictures(folder)
    here = os.open(folder / "a", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def eps() -> bytes:
    """Return an EPS picture, which is a program, that would be handed to Ghostscript."""
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(stream, "EPS")
    return stream.getvalue()


@dataclass(frozen=True)
class Case:
    """A hostile input, and what has to come of it.

    Attributes:
        name: Of the case, and of its folder.
        words: What follows `tlhub`, with `{}` for the case's folder.
        code: The exit code; 0 for what is harmless as tlhub reads it.
        told: What the message, or for code 0 the output, says; `{}` again is the case's folder.
        make: Puts its files into its folder.
        inside: What in the folder the command is given; all of it by default.
    """

    name: str
    words: str
    code: int
    told: str
    make: Make
    inside: str = ""


@contextmanager
def working_beside_secrets(root: Path) -> Iterator[Path]:
    """Work in a folder beside one that nothing may be read from, and with a limit to the memory that may be asked for.

    Args:
        root: Where both are made.
    """
    write(root / "outside" / "secret.txt", "s3cret\n" * 20)
    write(root / "outside" / "secret.png", png(5))
    write(root / "outside" / "a" / "1.png", png(6))
    write(root / "outside" / "train.csv", "text,label\n" + "s3cret,a\nother s3cret,b\n" * 20)
    work = root / "work"
    work.mkdir()
    with working_in(work):
        yield work


def check(work: Path, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a case, and look at its exit code, what it printed, what it wrote, and how much memory it asked for."""
    folder = work / "given" / case.name
    folder.mkdir(parents=True)
    case.make(folder)
    written = ("runs", "cache", *([f"given/{case.name}"] if "--out {}" in case.words else []))
    before = _content(work, written)
    capsys.readouterr()
    with _memory(3 * 2**30):
        code = cli.main([word.replace("{}", str(folder / case.inside)) for word in case.words.split()])
    output = capsys.readouterr()
    printed = output.out + output.err
    assert "Traceback" not in printed
    assert "s3cret" not in printed
    assert [char for char in printed if not char.isprintable() and char != "\n"] == []
    said = [line for line in output.err.splitlines() if line.startswith("tlhub: ")]
    assert len(said) == (1 if case.code else 0), said
    assert code == case.code, said
    assert case.told.replace("{}", str(folder)) in (said[0] if case.code else printed), said
    assert _content(work, written) == before
    shutil.rmtree(folder)
    assert not Path("/tmp/written-by-tlhub-test.txt").exists()


def _content(work: Path, written: Collection[str]) -> dict[str, bytes | str]:
    """Return what lies in both folders, but for what tlhub may write in the first."""
    found: dict[str, bytes | str] = {}
    for top in (work.parent / "outside", work):
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if os.path.relpath(os.path.join(folder, name), work) not in written]
            for name in files:
                path = Path(folder, name)
                plain = path.is_file() and not path.is_symlink()
                found[str(path)] = hashlib.sha256(path.read_bytes()).digest() if plain else "special"
    return found


@contextmanager
def _memory(more: int) -> Iterator[None]:
    """Refuse the process more than so many further bytes of memory inside the block."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
