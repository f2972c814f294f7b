"""Mixing training pictures in pairs: which ones, how much of each, and the blended picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tlhub.data.augment_geometry import rectangles
from tlhub.data.sampling import ClassSampling
from tlhub.data.tensors import to_device
from tlhub.seeding import derive, generator, uniforms


@dataclass(frozen=True)
class Mix:
    """What some examples are mixed with.

    Attributes:
        partners: The other example of each, int64, shape (b,), by its number as for the example itself.
        kept: Share that an example keeps of itself, in its picture and in its target, float64, shape (b,).
        boxes: Where the other's picture is pasted: left, top, right and bottom in pixels, the latter two exclusive,
            int64, shape (b, 4); zeros where the pictures are blended instead.
        pasted: Whether the other's picture is pasted (cutmix) or blended (mixup), bool, shape (b,).
    """

    partners: np.ndarray
    kept: np.ndarray
    boxes: np.ndarray
    pasted: np.ndarray

    def blend(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return mixed pictures.

        Args:
            images: The examples' pictures, shape (b, c, h, w).
            others: Their partners' pictures, shape (b, c, h, w).

        Returns:
            Shape (b, c, h, w).
        """
        if not self.pasted.all():
            share = np.where(self.pasted, 1.0, self.kept).astype(np.float32)  # 1: unchanged to the bit
            kept = to_device(share, images.device)[:, None, None, None]
            images = images * kept + others * (1 - kept)
        if self.pasted.any():
            height, width = images.shape[-2:]
            images = torch.where(rectangles(self.boxes, height, width, images.device), others, images)
        return images


class Mixing:
    """Mixup (Zhang et al., 2018) and CutMix (Yun et al., 2019): pairs and shares as functions of seed, epoch and index.

    The partner is the next in a random circle over all that the epoch draws, new in each epoch. With both kinds given,
    each example draws one of the two.

    Args:
        seed: The run's seed.
        count: Number of training examples.
        mixup: Both parameters of the Beta distribution of the kept share; 0 for no mixup.
        cutmix: The same for the share of the picture outside the box, before the box is cut to the picture.
        size: Height and width of the pictures, in pixels, which the exact share of a box depends on.
        sampling: How often each class is drawn; None for every example once an epoch.
    """

    def __init__(self, seed: int, count: int, *, mixup: float, cutmix: float, size: tuple[int, int],
                 sampling: ClassSampling | None = None) -> None:
        self._seed = derive(seed, "mixing")
        self._count = count
        self._mixup, self._cutmix = mixup, cutmix
        self._size = size
        self._sampling = sampling
        self._tables: tuple[int, dict[str, np.ndarray]] | None = None

    def draw(self, epoch: int, indices: np.ndarray) -> Mix:
        """Return what examples are mixed with in an epoch; the same for every batch they could be in.

        Args:
            epoch: The epoch, from 0.
            indices: Global indices of the examples, shape (b,), or numbers of `ClassSampling.drawn`.
        """
        tables = self._of_epoch(epoch)
        # What the epoch does not draw is only looked at, on the sheet of pictures: it has the place of a neighbour.
        places = np.minimum(np.searchsorted(tables["drawn"], indices), self._count - 1)
        draws = uniforms(self._seed, epoch, indices, 3)
        pasted = draws[:, 0] < (0.5 if self._mixup and self._cutmix else float(self._cutmix > 0))
        share = np.where(pasted, tables["cutmix"][places], tables["mixup"][places])
        boxes = self._boxes(share, draws[:, 1:]) * pasted[:, None]
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (self._size[0] * self._size[1])
        return Mix(tables["partners"][places], np.where(pasted, 1 - area, share), boxes, pasted)

    def _boxes(self, share: np.ndarray, middles: np.ndarray) -> np.ndarray:
        """Return boxes of the pictures' shape that cover 1 - `share` around random middles, cut to the pictures."""
        sides = np.array(self._size[::-1])
        half = np.sqrt(1 - share)[:, None] * sides / 2
        middle = middles * sides
        corners = np.concatenate([np.rint(middle - half), np.rint(middle + half)], axis=1)
        boxes: np.ndarray = np.clip(corners, 0, np.tile(sides, 2)).astype(np.int64)
        return boxes

    def _of_epoch(self, epoch: int) -> dict[str, np.ndarray]:
        """Return what is drawn, ascending, with its partners and shares, each (count,); the latest epoch's are kept."""
        if self._tables is None or self._tables[0] != epoch:
            drawn = np.arange(self._count) if self._sampling is None else self._sampling.drawn(epoch)
            order = generator(self._seed, "partners", epoch).permutation(self._count)
            partners = np.empty(self._count, dtype=np.int64)
            partners[order] = drawn[np.roll(order, -1)]
            shares = {name: generator(self._seed, name, epoch).beta(alpha, alpha, self._count) if alpha else
                      np.ones(self._count) for name, alpha in (("mixup", self._mixup), ("cutmix", self._cutmix))}
            self._tables = (epoch, {"drawn": drawn, "partners": partners, **shares})
        return self._tables[1]
