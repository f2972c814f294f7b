"""Images as pixel values: decoded and resized once, normalised and augmented in batches on the device."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from tlhub.config import DataConfig
from tlhub.data.augment import crop_boxes, resample
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.decode import open_image
from tlhub.data.prepare import Examples
from tlhub.data.tensors import to_device
from tlhub.errors import CheckpointError, DataError
from tlhub.seeding import uniforms

_CHUNK = 16
"""Images handed to the processor at a time: it then works on those of one size together."""
_GIB = 2**30
_LOGGER = logging.getLogger(__name__)


class _NotWholeError(Exception):
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
        CheckpointError: It makes images of different sizes.
    """

    def __init__(self, processor: Callable[..., Any]) -> None:
        self._processor = processor
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
        except ValueError as error:
            raise CheckpointError("the checkpoint's image processor does not give images one size "
                                  f"({str(error).splitlines()[0][:120]}); configure a fixed size") from None
        values: np.ndarray = output.to(torch.float32).numpy()
        return values

    def pixels(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return shaped images before normalisation, uint8, shape (n, channels, height, width).

        Raises:
            CheckpointError: An image gets another size than the others.
            _NotWholeError: They are not whole numbers.
        """
        values = self.fixed(images) * self.scale + self.shift
        whole = np.rint(values)
        if np.abs(values - whole).max(initial=0) > 0.01 or whole.min(initial=0) < 0 or whole.max(initial=0) > 255:
            raise _NotWholeError
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


class ImageInputs:
    """Images for a model, as `tlhub.data.batches.Inputs`.

    Every image is decoded and shaped once, into a table in the cache that later runs find again. Where the table would
    be larger than `data.cache_limit_gib`, images are decoded for each batch.

    Args:
        examples: Paths or contents of image files, and labels.
        processor: The checkpoint's image processor.
        fingerprint: What the examples are, for the cache.
        data: `crop`, `flip`, and where and how much is cached.
        seed: The run's seed, for the augmentation.
        workers: Threads that decode; None for the number of cores.

    Attributes:
        labels: int64, shape (n,).
        lengths: None: all images have one size.

    Raises:
        CheckpointError: The processor makes images of different sizes.
        DataError: An image cannot be decoded.
    """

    def __init__(self, examples: Examples, processor: Callable[..., Any], *, fingerprint: str, data: DataConfig,
                 seed: int, workers: int | None) -> None:
        self.labels = examples.labels
        self.lengths: np.ndarray | None = None
        self._examples = examples
        self._processor = PixelProcessor(processor)
        self._crop, self._flip, self._seed = bool(data.crop), bool(data.flip), seed
        self._pool = ThreadPoolExecutor(workers or os.cpu_count())
        self._table = self._cached(fingerprint, data)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for some images.

        Args:
            indices: Which images, shape (b,).
            epoch: The epoch whose crops and flips are applied; None for the images as the processor makes them.
            device: Where the images are normalised and augmented.

        Returns:
            `pixel_values`, float32, shape (b, channels, height, width).

        Raises:
            DataError: An image cannot be decoded.
        """
        table = self._table[indices] if self._table is not None else self._decoded(indices)
        tensor = to_device(table, device)
        if tensor.dtype == torch.uint8:
            shift, scale = (to_device(part, device) for part in (self._processor.shift, self._processor.scale))
            tensor = tensor.to(torch.float32).sub_(shift).div_(scale)
        if epoch is not None and (self._crop or self._flip):
            tensor = self._augmented(tensor, indices, epoch)
        return {"pixel_values": tensor}

    def _augmented(self, images: torch.Tensor, indices: np.ndarray, epoch: int) -> torch.Tensor:
        draws = uniforms(self._seed, epoch, indices, 5)
        flips = (draws[:, 4] < 0.5) & self._flip
        if self._crop:
            return resample(images, crop_boxes(draws[:, :4], *self._processor.shape[1:]), flips)
        mirrored = torch.from_numpy(flips).to(images.device)[:, None, None, None]
        return torch.where(mirrored, images.flip(-1), images)

    def _cached(self, fingerprint: str, data: DataConfig) -> np.ndarray | None:
        size = len(self) * int(np.prod(self._processor.shape))
        if not self._fits(size, data) or not len(self):
            return None
        cache = ArrayCache(cache_root(data) / "images")
        names = hashlib.sha256(json.dumps(list(self._examples.ids)).encode()).hexdigest()
        key = f"images 1 {fingerprint} {names} {self._processor.key()}"
        found = cache.get(key)
        if found is None:
            try:
                self._fill(cache, key, np.dtype(np.uint8), self._processor.pixels)
            except _NotWholeError:
                if not self._fits(4 * size, data):
                    return None
                self._fill(cache, key, np.dtype(np.float32), self._processor.fixed)
            found = cache.get(key)
        if found is None:
            raise DataError(f"prepared images cannot be read back from '{cache.root}'; check that disk, or name "
                            "another folder with --data.cache_dir")
        return found["pixels"]

    def _fits(self, size: int, data: DataConfig) -> bool:
        if size <= data.cache_limit_gib * _GIB:
            return True
        if data.cache_limit_gib > 0:
            _LOGGER.warning("%d images take %.1f GiB as pixels, more than data.cache_limit_gib %.1f: they are decoded "
                            "in every epoch", len(self), size / _GIB, data.cache_limit_gib)
        return False

    def _fill(self, cache: ArrayCache, key: str, dtype: np.dtype, shaped: Callable[..., np.ndarray]) -> None:
        with cache.create(key, {"pixels": ((len(self), *self._processor.shape), dtype)}) as maps:
            for places, pixels in self._chunks(np.arange(len(self)), shaped):
                maps["pixels"][places] = pixels

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        return np.concatenate([values for _, values in self._chunks(indices, self._processor.fixed)])

    def _chunks(self, indices: np.ndarray,
                shaped: Callable[..., np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield shaped images in order, several chunks at a time being worked on."""
        def work(part: np.ndarray) -> np.ndarray:
            return shaped([self._open(int(index)) for index in part])

        step = max(1, min(_CHUNK, len(indices) // 4))
        parts = [indices[start:start + step] for start in range(0, len(indices), step)]
        ahead = 32  # bounds what waits in memory
        for start in range(0, len(parts), ahead):
            some = parts[start:start + ahead]
            yield from zip(some, self._pool.map(work, some), strict=True)

    def _open(self, index: int) -> Image.Image:
        source: str | Path | bytes = self._examples.inputs[index]
        try:
            return open_image(source)
        except DataError as error:
            if isinstance(source, bytes):
                raise DataError(f"{self._examples.ids[index]}: {error}") from None
            raise
