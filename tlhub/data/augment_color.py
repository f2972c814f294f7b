"""Operations on the colours of pictures, on whole batches with a strength for each picture.

Pictures are float32, shape (n, c, h, w), values 0 to 255; strengths are (n, 1, 1, 1). The operations are those of PIL's
`ImageEnhance` and `ImageOps`, which torchvision has as well, without rounding in between. None of them depends on the
batch: sums over a picture are sums of whole numbers in float64, which are exact in any order.
"""

from __future__ import annotations

import torch

_LEVELS = 256
_LUMA = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601), as torchvision has them."""


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return pictures with every value times `factor`."""
    return (images * factor).clamp_(0, 255)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return pictures whose distance from their mean grey is times `factor`."""
    mean = grey(images).floor_().mean(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    return _blend(images, mean.to(images.dtype), factor)


def saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return pictures whose distance from their grey picture is times `factor`."""
    return _blend(images, grey(images), factor)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return pictures whose distance from their smoothed picture is times `factor`; the outermost pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = images.clone()
    inner = images[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    return _blend(images, smooth, factor)


def posterize(images: torch.Tensor, bits: int) -> torch.Tensor:
    """Return pictures with only the highest `bits` of each value."""
    step = 2 ** (8 - bits)
    kept: torch.Tensor = (images.round() / step).floor_() * step
    return kept


def solarize(images: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return pictures in which values from `threshold` on are inverted."""
    return torch.where(images.round() >= threshold, 255 - images, images)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Return pictures whose channels are stretched to 0 to 255; a channel of one value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    span = high - low
    stretched = (images - low) * (255 / span.clamp(min=torch.finfo(images.dtype).tiny))
    return torch.where(span > 0, stretched, images).clamp_(0, 255)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Return pictures in whose channels every value is about as frequent, by PIL's whole-number arithmetic."""
    count, channels, height, width = images.shape
    values = images.round().clamp_(0, 255).long().view(count, channels, height * width)
    histogram = torch.zeros((count, channels, _LEVELS), dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    step = (height * width - histogram.gather(2, values.amax(dim=2, keepdim=True))) // (_LEVELS - 1)
    before = histogram.cumsum(dim=2) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    spread = torch.where(step > 0, table.gather(2, values), values)
    return spread.view_as(images).to(images.dtype)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Return grey pictures, shape (n, 1, h, w); the plain mean of the channels where they are not three."""
    if images.shape[1] != len(_LUMA):
        return images.mean(dim=1, keepdim=True)
    mixed: torch.Tensor = images[:, :1] * _LUMA[0] + images[:, 1:2] * _LUMA[1] + images[:, 2:] * _LUMA[2]
    return mixed


def _blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (images * factor).add_(other * (1 - factor)).clamp_(0, 255)
