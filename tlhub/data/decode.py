"""From an image file to upright RGB pixels, whatever kind of file it is."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tlhub.data.room import DECODING
from tlhub.errors import DataError

MAX_PIXELS = 89_478_485
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of what is read. It knows others, among them EPS, which it hands to Ghostscript, a whole language."""
_WHITE = (255, 255, 255)
_BYTES_A_PIXEL = 8
"""What a picture takes while it is decoded and converted."""


def open_image(source: str | Path | bytes) -> Image.Image:
    """Decode an image fully to 8-bit RGB.

    Turned upright by its EXIF tag; transparency laid over white; palettes, CMYK and greyscale converted; 16-bit
    greyscale scaled to 8 bits; of an animation the first picture.

    Args:
        source: A file's path or its content.

    Returns:
        An image in mode `RGB`.

    Raises:
        DataError: The file cannot be read or decoded, or its header announces more than `MAX_PIXELS` pixels.
    """
    name = "image" if isinstance(source, bytes) else f"image '{source}'"
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror or error}); check the file") from None
    if not content:
        raise DataError(f"{name} is empty (0 bytes); replace the file")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                with DECODING.taken(width * height * _BYTES_A_PIXEL):
                    image.load()
                    return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DataError(f"{name} is no image in a known format; replace the file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name} announces too many pixels, the limit is {MAX_PIXELS}; scale it down") from None
    except Exception as error:  # decoders of damaged files raise every kind of error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{name} cannot be decoded ({reason}); replace the file") from None
    raise DataError(f"{name} has {width} x {height} pixels, the limit is {MAX_PIXELS} in all; scale it down")


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of `_FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_integers(image)
    if image.mode == "F":
        values = np.asarray(image)
        top = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
        levels = np.rint(np.clip(np.nan_to_num(values) / top, 0, 1) * 255).astype(np.uint8)
        return Image.fromarray(levels).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        below = Image.new("RGB", layer.size, _WHITE)
        below.paste(layer, mask=layer.getchannel("A"))
        return below
    return image.convert("RGB")


def _from_integers(image: Image.Image) -> Image.Image:
    """Scale greyscale of more than 8 bits: values up to 255 are taken as 8-bit, others as 16-bit."""
    values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    scaled = values if values.max(initial=0) <= 255 else np.rint(values / 257)
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
