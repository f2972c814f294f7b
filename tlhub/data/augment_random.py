"""RandAugment on whole batches: each picture draws its own operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tlhub.data import augment_color as color
from tlhub.data.augment_geometry import affine
from tlhub.data.tensors import to_device

_HIGHEST = 30
"""The magnitude at which an operation has its full range."""
_GEOMETRIC: dict[str, float] = {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331,
                                "rotate": np.pi / 6}
"""Full range: of shears the tangent, of translations the share of the side, of rotations radians."""
_ENHANCING: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": color.brightness, "color": color.saturation, "contrast": color.contrast,
    "sharpness": color.sharpness}
_ENHANCED = 0.9
"""Full range of what is added to or taken from the factor 1."""
_PLAIN: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "posterize": lambda images, share: color.posterize(images, 8 - round(4 * share)),
    "solarize": lambda images, share: color.solarize(images, 255 * (1 - share)),
    "autocontrast": lambda images, share: color.autocontrast(images),
    "equalize": lambda images, share: color.equalize(images),
}
OPERATIONS = ("identity", *_GEOMETRIC, *_ENHANCING, *_PLAIN)
"""The 14 operations, with the ranges of torchvision's `RandAugment`."""


@dataclass(frozen=True)
class RandAugment:
    """Operations drawn alike for every picture, all at one magnitude (Cubuk et al., 2020, "RandAugment").

    The geometric operations of a picture are one map, so that it is resampled once and shows what lies beyond the edges
    of its crop; the colours come after, in the order of their drawing. Where torchvision would carry out the two kinds
    in another order, what is black beyond the picture's edge can differ.

    Attributes:
        operations: How many each picture gets.
        magnitude: Strength, 0 to 30.
    """

    operations: int
    magnitude: float

    @property
    def draws(self) -> int:
        """Uniform numbers that each picture needs: for each operation, which one, and its sign."""
        return 2 * self.operations

    def moved(self, draws: np.ndarray) -> np.ndarray:
        """Return which pictures have drawn a geometric operation, bool, shape (n,)."""
        moved = np.isin(self._names(draws), list(_GEOMETRIC)).any(axis=1)
        return np.asarray(moved)

    def maps(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return the geometric operations as maps of `tlhub.data.augment_geometry`.

        Args:
            draws: Uniform numbers, shape (n, self.draws).
            height: Of the images, in pixels.
            width: Of the images, in pixels.

        Returns:
            Shape (n, 3, 3).
        """
        matrices = np.tile(np.eye(3), (len(draws), 1, 1))
        names, strengths = self._names(draws), self._signs(draws) * (self.magnitude / _HIGHEST)
        for name, strength in zip(names.T, strengths.T, strict=True):
            matrices = matrices @ _map(name, strength, height, width)
        return matrices

    def recolor(self, images: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Carry out the operations on colours, each on the pictures that drew it.

        Args:
            images: Values 0 to 255, shape (n, c, h, w); changed in place.
            draws: Uniform numbers, shape (n, self.draws).

        Returns:
            `images`.
        """
        share = self.magnitude / _HIGHEST
        names, factors = self._names(draws), 1 + self._signs(draws) * (_ENHANCED * share)
        for turn in range(self.operations):
            for name in (*_ENHANCING, *_PLAIN):
                rows = np.flatnonzero(names[:, turn] == name)
                if not len(rows):
                    continue
                chosen = to_device(rows, images.device)
                if name in _PLAIN:
                    images[chosen] = _PLAIN[name](images[chosen], share)
                else:
                    factor = to_device(factors[rows, turn].astype(np.float32), images.device)
                    images[chosen] = _ENHANCING[name](images[chosen], factor[:, None, None, None])
        return images

    def _names(self, draws: np.ndarray) -> np.ndarray:
        names: np.ndarray = np.array(OPERATIONS)[(draws[:, ::2] * len(OPERATIONS)).astype(np.int64)]
        return names

    def _signs(self, draws: np.ndarray) -> np.ndarray:
        return np.where(draws[:, 1::2] < 0.5, -1.0, 1.0)


def _map(names: np.ndarray, strengths: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return one operation of each picture as a map; of the amounts at most one is not zero."""
    amounts = {name: np.where(names == name, most * strengths, 0.0) for name, most in _GEOMETRIC.items()}
    shear_x, shear_y = amounts["shear_x"] * height / width, amounts["shear_y"] * width / height
    right, down = (2 * np.trunc(amounts[f"translate_{axis}"] * side) / side
                   for axis, side in (("x", width), ("y", height)))  # whole pixels
    cosine, sine = np.cos(amounts["rotate"]), np.sin(amounts["rotate"])
    return affine((cosine, shear_x - sine * height / width, shear_x - right),
                  (shear_y + sine * width / height, cosine, shear_y - down))
