"""A checkpoint's image processor, split into what shapes an image and what normalises its values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from tlhub.errors import CheckpointError

_LONGEST_EDGE = 2**14


class NotWholeError(Exception):
    """The processor makes pixels that are not whole numbers before they are normalised."""


class PixelProcessor:
    """A checkpoint's image processor, split into what shapes an image and what normalises its values.

    Any processor will do: what it makes of a black and of a white image tells the normalisation, `(value - shift) /
    scale` for each channel, and undoing that gives the whole numbers 0..255 that it normalised.

    Args:
        processor: Called with a list of images and `return_tensors="pt"`, it returns `pixel_values`.

    Attributes:
        shape: Channels, height and width of what it makes.
        shift: float32, shape (channels, 1, 1).
        scale: float32, shape (channels, 1, 1).

    Raises:
        CheckpointError: It makes images of different sizes, or of a size that fills the memory.
    """

    def __init__(self, processor: Callable[..., Any]) -> None:
        self._processor = processor
        sizes = [getattr(processor, name, None) for name in ("size", "crop_size")]
        edges = [edge for size in sizes for edge in (dict(size).values() if size else ()) if isinstance(edge, int)]
        if max(edges, default=0) > _LONGEST_EDGE:
            raise CheckpointError(f"the checkpoint's image processor makes images of {max(edges)} pixels a side; "
                                  f"configure {_LONGEST_EDGE} at most")
        black, white = (self.values([Image.new("RGB", (256, 256), (level,) * 3)])[0] for level in (0, 255))
        self.shape: tuple[int, ...] = tuple(black.shape)
        middle = (slice(None), self.shape[1] // 2, self.shape[2] // 2)
        low, high = black[middle].astype(np.float64), white[middle].astype(np.float64)
        step = np.where(high > low, (high - low) / 255, 1.0)
        self.shift: np.ndarray = (-low / step).astype(np.float32)[:, None, None]
        self.scale: np.ndarray = (1 / step).astype(np.float32)[:, None, None]

    def values(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return exactly what the processor makes of images, float32, shape (n, channels, height, width).

        Raises:
            CheckpointError: It does not give all images one size.
        """
        try:
            output = self._processor(list(images), return_tensors="pt")["pixel_values"]
            values: np.ndarray = output.to(torch.float32).numpy()
        except ValueError as error:
            raise CheckpointError("the checkpoint's image processor does not give images one size "
                                  f"({(str(error).splitlines() or [''])[0][:120]}); configure a fixed size") from None
        except Exception as error:  # of every kind, where its settings are not what its class expects
            raise CheckpointError("the checkpoint's image processor cannot be used "
                                  f"({' '.join(repr(error).split())[:160]}); fetch its preprocessor_config.json again"
                                  ) from None
        return values

    def pixels(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return shaped images before normalisation, uint8, shape (n, channels, height, width).

        Raises:
            CheckpointError: An image gets another size than the others.
            NotWholeError: They are not whole numbers.
        """
        values = self.fixed(images) * self.scale + self.shift
        whole = np.rint(values)
        if np.abs(values - whole).max(initial=0) > 0.01 or whole.min(initial=0) < 0 or whole.max(initial=0) > 255:
            raise NotWholeError
        pixels: np.ndarray = whole.astype(np.uint8)
        return pixels

    def fixed(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return `values`, checked to have the one shape.

        Raises:
            CheckpointError: An image gets another size than the others.
        """
        values = self.values(images)
        if values.shape[1:] != self.shape:
            raise CheckpointError(f"the checkpoint's image processor makes {values.shape[1:]} of one image and "
                                  f"{self.shape} of another; set a fixed size in its configuration")
        return values

    def key(self) -> str:
        """Return a text that changes with what the processor does."""
        noise = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (151, 203, 3), dtype=np.uint8)
        outcome = hashlib.sha256(self.values([Image.fromarray(noise)]).tobytes()).hexdigest()
        return f"{type(self._processor).__name__} {self.shape} {outcome} PIL {PIL.__version__}"
