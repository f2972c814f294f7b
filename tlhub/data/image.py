"""Images as pixel values: decoded and resized once, normalised and augmented in batches on the device."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from tlhub.config import DataConfig
from tlhub.data.augment import Augmentation
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.decode import open_image
from tlhub.data.mixing import Mixing
from tlhub.data.pixels import NotWholeError, PixelProcessor
from tlhub.data.prepare import Examples
from tlhub.data.sampling import ClassSampling
from tlhub.data.stand_ins import StandIns, as_lost
from tlhub.data.tensors import to_device
from tlhub.data.workers import executor
from tlhub.errors import DataError
from tlhub.seeding import uniforms

DECODING = f"images 1 PIL {PIL.__version__}"
"""Part of every key of what is made of pictures: its number is to be raised when decoding or shaping changes."""
_CHUNK = 16
"""Images handed to the processor at a time: it then works on those of one size together."""
_GIB = 2**30
_LOGGER = logging.getLogger(__name__)


class ImageInputs:
    """Images for a model, as `tlhub.data.batches.Inputs`.

    Every image is decoded and shaped once, into a table in the cache that later runs find again. Where the table would
    be larger than `data.cache_limit_gib`, images are decoded for each batch.

    Args:
        examples: Paths or contents of image files, and labels.
        processor: The checkpoint's image processor.
        fingerprint: What the examples are, for the cache.
        data: The augmentation, and where and how much is cached.
        seed: The run's seed, for the augmentation.
        workers: Threads that decode; 0 for none of their own, None for the number of cores.
        sampling: How often each class is drawn for training, which is what pictures are mixed with.

    Attributes:
        labels: The targets, of shape (n,) or (n, t).
        lengths: None: all images have one size.
        mixing: What is mixed with what in training; None for nothing.
        stand_ins: What stands in for images that are lost; None where all are kept in the cache.

    Raises:
        CheckpointError: The processor makes images of different sizes.
        DataError: An image cannot be decoded.
    """

    def __init__(self, examples: Examples, processor: Callable[..., Any], *, fingerprint: str, data: DataConfig,
                 seed: int, workers: int | None, sampling: ClassSampling | None = None) -> None:
        self.labels = examples.labels
        self.lengths: np.ndarray | None = None
        self._examples = examples
        self._processor = PixelProcessor(processor)
        self._augmentation, self._seed = Augmentation.of(data), seed
        _, height, width = self._processor.shape
        self.mixing = Mixing(seed, len(self), mixup=data.mixup, cutmix=data.cutmix,
                             size=(height, width), sampling=sampling) if data.mixup or data.cutmix else None
        self._pool = executor(workers)
        self._table = self._cached(fingerprint, data)
        self.stand_ins = StandIns(examples, self._open) if self._table is None else None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def augmented(self) -> bool:
        """Whether training images differ from epoch to epoch, alone or by what they are mixed with."""
        return self._augmentation.active or self.mixing is not None

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for some images.

        Args:
            indices: Which images, shape (b,), modulo n; one that an epoch draws again has another augmentation.
            epoch: The epoch whose augmentation is applied; None for the images as the processor makes them.
            device: Where the images are normalised and augmented.

        Returns:
            `pixel_values`, float32, shape (b, channels, height, width).

        Raises:
            DataError: An image cannot be decoded.
        """
        if epoch is not None and self.augmented:
            return {"pixel_values": self._normalised(self._view(indices, epoch, device))}
        values = self._stored(indices, device)
        return {"pixel_values": values if values.is_floating_point() else self._normalised(values.to(torch.float32))}

    def pictures(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        """Return images to look at, as the model gets them but for the normalisation.

        Args:
            indices: Which images, shape (b,).
            epoch: The epoch whose augmentation is applied; None for the images as the processor makes them.

        Returns:
            uint8, shape (b, height, width, 3).

        Raises:
            DataError: An image cannot be decoded.
        """
        device = torch.device("cpu")
        pixels = self._pixels(indices, device) if epoch is None else self._view(indices, epoch, device)
        whole: np.ndarray = pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).numpy()
        return np.ascontiguousarray(whole.transpose(0, 2, 3, 1))

    def _view(self, indices: np.ndarray, epoch: int, device: torch.device) -> torch.Tensor:
        """Return augmented and mixed images, values 0 to 255."""
        if self.mixing is None:
            return self._augmented(indices, epoch, device)
        mix = self.mixing.draw(epoch, indices)
        images, others = self._augmented(np.concatenate([indices, mix.partners]), epoch, device).chunk(2)
        return mix.blend(images, others)

    def _augmented(self, indices: np.ndarray, epoch: int, device: torch.device) -> torch.Tensor:
        draws = uniforms(self._seed, epoch, indices, self._augmentation.draws)
        mean = to_device(self._processor.shift, device)  # what normalisation makes zero
        return self._augmentation.apply(self._pixels(indices, device), draws, erased=mean)

    def _pixels(self, indices: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return images before normalisation, values 0 to 255, float32."""
        values = self._stored(indices, device)
        if values.is_floating_point():
            shift, scale = self._normalisation(device)
            return values.mul_(scale).add_(shift)
        return values.to(torch.float32)

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        shift, scale = self._normalisation(pixels.device)
        return pixels.sub_(shift).div_(scale)

    def _normalisation(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return to_device(self._processor.shift, device), to_device(self._processor.scale, device)

    def _stored(self, indices: np.ndarray, device: torch.device) -> torch.Tensor:
        """Return a copy of what is kept: pixels where uint8, normalised values where float32."""
        indices = indices % len(self)
        return to_device(self._table[indices] if self._table is not None else self._decoded(indices), device)

    def _cached(self, fingerprint: str, data: DataConfig) -> np.ndarray | None:
        size = len(self) * int(np.prod(self._processor.shape))
        if not self._fits(size, data) or not len(self):
            return None
        cache = ArrayCache(cache_root(data) / "images")
        names = hashlib.sha256(json.dumps(list(self._examples.ids)).encode()).hexdigest()
        key = f"{DECODING} {fingerprint} {names} {self._processor.key()}"
        found = cache.get(key)
        if found is None:
            try:
                self._fill(cache, key, np.dtype(np.uint8), self._processor.pixels)
            except NotWholeError:
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
            for places, pixels in self._chunks(np.arange(len(self)), shaped, self._open):
                maps["pixels"][places] = pixels

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        assert self.stand_ins is not None
        return np.concatenate([values for _, values in self._chunks(indices, self._processor.fixed,
                                                                       self.stand_ins.decode)])

    def _chunks(self, indices: np.ndarray, shaped: Callable[..., np.ndarray],
                opened: Callable[[int], Image.Image]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield shaped images in order, several chunks at a time being worked on."""
        def work(part: np.ndarray) -> np.ndarray:
            return shaped([opened(int(index)) for index in part])

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
            named = DataError(f"{self._examples.ids[index]}: {error}") if isinstance(source, bytes) else error
            raise as_lost(named, source) from None
