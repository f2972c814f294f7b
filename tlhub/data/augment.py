"""Augmentation of whole batches of images, from numbers drawn beforehand."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

_AREA = (0.5, 1.0)
_RATIO = (3 / 4, 4 / 3)


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


def resample(images: torch.Tensor, boxes: np.ndarray, flips: np.ndarray) -> torch.Tensor:
    """Enlarge a part of each image to the whole, bilinearly.

    Args:
        images: Shape (n, c, h, w), floating point.
        boxes: Left, top, width and height as fractions, shape (n, 4).
        flips: Which results are mirrored, bool, shape (n,).

    Returns:
        Shape (n, c, h, w).
    """
    left, top, wide, tall = boxes.T
    theta = np.zeros((len(boxes), 2, 3))
    theta[:, 0, 0] = np.where(flips, -wide, wide)
    theta[:, 0, 2] = 2 * left + wide - 1
    theta[:, 1, 1] = tall
    theta[:, 1, 2] = 2 * top + tall - 1
    moves = torch.from_numpy(theta).to(device=images.device, dtype=images.dtype)
    grid = affine_grid(moves, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
