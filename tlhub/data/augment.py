"""What is done to training pictures: whole batches at a time, from numbers drawn beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tlhub.config import DataConfig
from tlhub.data import augment_color as color
from tlhub.data.augment_geometry import crop_boxes, mirrors, rectangles, resample, shifts, zooms
from tlhub.data.augment_random import RandAugment
from tlhub.data.tensors import to_device

_COLUMNS = {"crop": 4, "flip": 1, "color": 3, "erasing": 5}
"""Uniform numbers that each step needs, whether it is on or not: switching one on leaves the others as they were."""
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of single pictures; mixing two of them is `tlhub.data.mixing`.

    Crop, flip and the geometric operations of RandAugment are one resampling. Then come the colour jitter, the colours
    of RandAugment, and erasing.

    Attributes:
        crop: `none`; `resized`, a part enlarged; `padded`, a shift by whole pixels that leaves a black edge.
        flip: Whether half of the pictures are mirrored.
        color: Brightness, contrast and saturation are multiplied by factors within this of 1, in that order.
        erasing: Probability that a rectangle is erased (Zhong et al., 2020, "Random erasing data augmentation").
        random: RandAugment.
    """

    crop: str
    flip: bool
    color: float
    erasing: float
    random: RandAugment

    @classmethod
    def of(cls, data: DataConfig) -> Augmentation:
        """Return what the data section asks for; what is left open there is off."""
        return cls(crop=data.crop or "none", flip=bool(data.flip), color=data.color, erasing=data.erasing,
                   random=RandAugment(data.randaugment, data.randaugment_magnitude))

    @property
    def active(self) -> bool:
        """Whether pictures are changed at all."""
        return self.crop != "none" or self.flip or bool(self.color or self.erasing or self.random.operations)

    @property
    def draws(self) -> int:
        """Uniform numbers that each picture needs."""
        return sum(_COLUMNS.values()) + self.random.draws

    def apply(self, images: torch.Tensor, draws: np.ndarray, erased: torch.Tensor) -> torch.Tensor:
        """Return augmented pictures, each the same to the bit whichever others are in the batch.

        Args:
            images: Values 0 to 255, float32, shape (n, c, h, w); may be changed in place.
            draws: Uniform numbers, shape (n, self.draws).
            erased: Value of each channel in erased rectangles, shape (c, 1, 1).

        Returns:
            Shape (n, c, h, w).
        """
        parts = np.split(draws, np.cumsum(list(_COLUMNS.values())), axis=1)
        crop, flip, jitter, erasing, random = parts
        images = self._moved(images, crop, (flip[:, 0] < 0.5) & self.flip, random)
        if self.color:
            images = _jittered(images, 1 + self.color * (2 * jitter - 1))
        images = self.random.recolor(images, random)
        if self.erasing:
            height, width = images.shape[-2:]
            boxes = erased_boxes(erasing, self.erasing, height, width)
            images = torch.where(rectangles(boxes, height, width, images.device), erased, images)
        return images

    def _moved(self, images: torch.Tensor, crop: np.ndarray, flips: np.ndarray, random: np.ndarray) -> torch.Tensor:
        size = images.shape[-2:]
        if self.crop == "none" and not self.random.operations:
            rows = to_device(np.flatnonzero(flips), images.device)
            return images.index_copy_(0, rows, images[rows].flip(-1))
        maps = mirrors(flips) @ self.random.maps(random, *size)
        if self.crop == "resized":
            maps = zooms(crop_boxes(crop, *size)) @ maps
        elif self.crop == "padded":
            maps = shifts(crop[:, 2:], *size) @ maps
        each = self.crop != "padded" and self.random.operations > 0
        return resample(images, maps, black=self.random.moved(random) if each else self.crop == "padded")


def erased_boxes(draws: np.ndarray, probability: float, height: int, width: int) -> np.ndarray:
    """Return rectangles to erase, with torchvision's ranges of area and ratio; one that does not fit is cut.

    Args:
        draws: Uniform numbers for whether, area, ratio and place, shape (n, 5).
        probability: That a picture has one.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        Left, top, right and bottom in pixels, the latter two exclusive, int64, shape (n, 4); zeros for none.
    """
    area = height * width * (_ERASED_AREA[0] + (_ERASED_AREA[1] - _ERASED_AREA[0]) * draws[:, 1])
    low, high = np.log(_ERASED_RATIO[0]), np.log(_ERASED_RATIO[1])
    ratio = np.exp(low + (high - low) * draws[:, 2])
    wide, tall = np.minimum(np.rint(np.sqrt(area / ratio)), width), np.minimum(np.rint(np.sqrt(area * ratio)), height)
    left, top = np.floor(draws[:, 3] * (width - wide + 1)), np.floor(draws[:, 4] * (height - tall + 1))
    boxes = np.stack([left, top, left + wide, top + tall], axis=1).astype(np.int64)
    return boxes * (draws[:, :1] < probability)


def _jittered(images: torch.Tensor, factors: np.ndarray) -> torch.Tensor:
    """Return pictures with changed brightness, contrast and saturation; factors have the shape (n, 3)."""
    table = to_device(np.ascontiguousarray(factors.T, dtype=np.float32), images.device)[..., None, None, None]
    for step, factor in zip((color.brightness, color.contrast, color.saturation), table, strict=True):
        images = step(images, factor)
    return images
