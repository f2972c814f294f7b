"""Moving pictures about: affine maps, composed and carried out as one resampling, and rectangles.

A map is a 3x3 matrix that takes places in the result to places in the picture, (x, y, 1) with x and y from -1 to 1
between the outer edges. The product `first @ second` does `first` to the picture and `second` to what comes of it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import grid_sample

from tlhub.data.tensors import to_device

_AREA = (0.5, 1.0)
_RATIO = (3 / 4, 4 / 3)
_LARGEST_SHIFT = 8
"""The side divided by this is the largest shift: 4 pixels of 32."""


def affine(x: tuple[np.ndarray, ...], y: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return maps, float64, shape (n, 3, 3).

    Args:
        x: The shares that x, y and 1 have in the picture's x, each of shape (n,).
        y: The same for the picture's y.
    """
    matrices = np.zeros((len(x[0]), 3, 3))
    matrices[:, 0] = np.stack(x, axis=1)
    matrices[:, 1] = np.stack(y, axis=1)
    matrices[:, 2, 2] = 1
    return matrices


def crop_boxes(draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return random parts of images, as random resized crops have them.

    Area and logarithm of the ratio are uniform (Szegedy et al., 2015, "Going deeper with convolutions"); a box that
    does not fit is cut to the image.

    Args:
        draws: Uniform numbers for area, ratio, and place, shape (n, 4).
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        Left, top, width and height of each box as fractions of the image, float64, shape (n, 4).
    """
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * draws[:, 0]
    low, high = np.log(_RATIO[0]), np.log(_RATIO[1])
    ratio = np.exp(low + (high - low) * draws[:, 1]) * height / width
    wide, tall = np.minimum(np.sqrt(area * ratio), 1.0), np.minimum(np.sqrt(area / ratio), 1.0)
    return np.stack([(1 - wide) * draws[:, 2], (1 - tall) * draws[:, 3], wide, tall], axis=1)


def zooms(boxes: np.ndarray) -> np.ndarray:
    """Return maps that enlarge boxes, as `crop_boxes` gives them, to whole images; shape (n, 3, 3)."""
    left, top, wide, tall = boxes.T
    none = np.zeros(len(boxes))
    return affine((wide, none, 2 * left + wide - 1), (none, tall, 2 * top + tall - 1))


def shifts(draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return maps that shift by whole pixels, up to an eighth of the side, as cutting a padded image does.

    Args:
        draws: Uniform numbers for the two directions, shape (n, 2).
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        Maps, shape (n, 3, 3).
    """
    sides = np.array([width, height])
    most = sides // _LARGEST_SHIFT
    across, down = (2 * (np.floor(draws * (2 * most + 1)) - most) / sides).T
    one, none = np.ones(len(draws)), np.zeros(len(draws))
    return affine((one, none, across), (none, one, down))


def mirrors(flips: np.ndarray) -> np.ndarray:
    """Return maps that exchange left and right where `flips`, bool, shape (n,), says so; shape (n, 3, 3)."""
    one, none = np.ones(len(flips)), np.zeros(len(flips))
    return affine((np.where(flips, -1.0, 1.0), none, none), (none, one, none))


def resample(images: torch.Tensor, matrices: np.ndarray, black: np.ndarray | bool = False) -> torch.Tensor:
    """Carry out a map of each image, bilinearly.

    Every step acts on single elements, so that an image comes out the same to the bit in any batch; a matrix product
    or a fused multiplication and addition would not promise that.

    Args:
        images: Shape (n, c, h, w), float32.
        matrices: The maps, shape (n, 3, 3).
        black: Whether images are black beyond their edges, or go on as they are at the edge: all alike, or each by
            itself, bool, shape (n,). The two ways differ in rounding, so that which is taken has to follow from the
            configuration, never from the batch.

    Returns:
        Shape (n, c, h, w).
    """
    height, width = images.shape[-2:]
    terms = to_device(matrices[:, :2].astype(np.float32), images.device)[..., None, None]
    across = _middles(width, images.device)[None, None, :]
    down = _middles(height, images.device)[None, :, None]
    grid = torch.empty((len(images), height, width, 2), dtype=torch.float32, device=images.device)
    for axis in (0, 1):
        torch.add(terms[:, axis, 0] * across, terms[:, axis, 1] * down + terms[:, axis, 2], out=grid[..., axis])
    if isinstance(black, np.ndarray):
        outermost = 1 - 1 / np.array([width, height], dtype=np.float32)  # the middle of the last pixel
        limits = to_device(np.where(black[:, None], np.float32(np.inf), outermost), images.device)[:, None, None, :]
        grid.clamp_(-limits, limits)
        black = True
    return grid_sample(images, grid, padding_mode="zeros" if black else "border", align_corners=False)


def rectangles(boxes: np.ndarray, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return which pixels lie in boxes, bool, shape (n, 1, height, width).

    Args:
        boxes: Left, top, right and bottom in pixels, the latter two exclusive, int64, shape (n, 4).
        height: Of the images, in pixels.
        width: Of the images, in pixels.
        device: Where the answer is wanted.
    """
    left, top, right, bottom = to_device(np.ascontiguousarray(boxes.T), device)[:, :, None]
    across, down = torch.arange(width, device=device), torch.arange(height, device=device)
    columns, rows = (across >= left) & (across < right), (down >= top) & (down < bottom)
    inside: torch.Tensor = (rows[:, :, None] & columns[:, None, :])[:, None]
    return inside


def _middles(size: int, device: torch.device) -> torch.Tensor:
    """Return the places of the middles of pixels, from -1 to 1."""
    middles: torch.Tensor = (torch.arange(size, dtype=torch.float32, device=device) * 2 + 1) / size - 1
    return middles
