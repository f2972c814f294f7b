from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data_files import png, write
from tlhub.data.decode import open_image
from tlhub.errors import DataError


def content(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixel(data, place=(0, 0)):
    image = open_image(data)
    assert image.mode == "RGB"
    return image.getpixel(place)


def test_kinds_of_pixels_become_rgb():
    assert pixel(content(Image.new("L", (4, 4), 90))) == (90, 90, 90)
    assert pixel(content(Image.new("1", (4, 4), 1))) == (255, 255, 255)
    assert pixel(content(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))) == (255, 255, 255)
    assert pixel(content(Image.new("LA", (4, 4), (0, 255)))) == (0, 0, 0)
    assert pixel(content(Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4))) == (10, 20, 30)
    assert pixel(content(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")) == (255, 255, 255)
    assert pixel(content(Image.fromarray(np.full((4, 4), 32896, np.uint16)))) == (128, 128, 128)
    assert pixel(content(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")) == (128, 128, 128)
    assert pixel(content(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == (255, 255, 255)


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(content(image, "JPEG", exif=exif)).size == (4, 8)


def test_path_and_bytes_are_alike(tmp_path):
    path = write(tmp_path / "a.png", png(1))
    assert open_image(path).tobytes() == open_image(str(path)).tobytes() == open_image(png(1)).tobytes()


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


@pytest.mark.parametrize(("data", "words"), [
    (b"", "0 bytes"), (b"nothing", "no image"), (png(1, (64, 64), "JPEG")[:-200], "truncated"),
    (png(1)[:-40], "cannot be decoded"), (bomb(60000, 60000), "too many"),
])
def test_damaged_and_dangerous_files(data, words):
    with pytest.raises(DataError, match=words) as raised:
        open_image(data)
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_in_the_header_is_refused():
    with pytest.raises(DataError, match="10000 x 10000 pixels, the limit is 89478485"):
        open_image(bomb(10000, 10000))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none.png' cannot be read \(No such file"):
        open_image(tmp_path / "none.png")
