"""Features on their principal axes, where linear probes are cheap to fit and an L2 penalty is what it was before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tlhub.errors import CheckpointError

_CHUNK = 4096
_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Axes:
    """How features become coordinates on their principal axes: `((x - mean) / scale) @ rotation`.

    Attributes:
        mean: float64, shape (d,); zeros where features are not centred.
        scale: float64, shape (d,).
        rotation: Orthonormal columns, float64, shape (d, k); k is the rank.
        energies: Squared singular values of the standardised features, float64, shape (k,).
    """

    mean: torch.Tensor
    scale: torch.Tensor
    rotation: torch.Tensor
    energies: torch.Tensor

    def undo(self, weights: torch.Tensor, intercept: torch.Tensor | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the weights (c, d) and the bias (c,) that do to features as given what these do to coordinates.

        Args:
            weights: Of the coordinates, float64, shape (c, k).
            intercept: Shape (c,), or None where features were not centred: there is no bias then.
        """
        weight = weights @ self.rotation.T / self.scale
        return weight.numpy(), None if intercept is None else (intercept - weight @ self.mean).numpy()


def principal_axes(features: np.ndarray, *, standardise: bool = True, centre: bool = True) -> tuple[Axes, torch.Tensor]:
    """Return the axes of features (n, d), and the features' coordinates on them, float64, shape (n, k).

    Args:
        features: Shape (n, d).
        standardise: Divide each feature by its standard deviation (plus 1e-6 of the overall one).
        centre: Subtract the mean.

    Raises:
        CheckpointError: A feature is not finite.
    """
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise CheckpointError(f"the features of {bad} of {len(features)} examples are not finite; check the "
                              "checkpoint, or set train.precision to fp32")
    mean = features.mean(axis=0, dtype=np.float64) if centre else np.zeros(features.shape[1])
    scale = np.ones(features.shape[1])
    if standardise:
        spread = np.sqrt(sum(((features[part] - mean) ** 2).sum(axis=0) for part in _parts(len(features)))
                         / len(features))
        scale = spread + max(1e-6 * float(np.sqrt((spread**2).mean())), np.finfo(np.float64).tiny)
    shift, unit = torch.from_numpy(mean), torch.from_numpy(scale)
    rotation, energies = _spectrum(features, shift, unit)
    coordinates = torch.empty(len(features), len(energies), dtype=torch.float64)
    for part in _parts(len(features)):
        torch.mm(_standardised(features[part], shift, unit), rotation, out=coordinates[part])
    return Axes(shift, unit, rotation, energies), coordinates


def _spectrum(features: np.ndarray, mean: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the principal axes (d, k) and squared singular values (k,) of the standardised features."""
    count, size = features.shape
    if count < size:
        rows = _standardised(features, mean, scale)
        energies, left = torch.linalg.eigh(rows @ rows.T)
        kept = energies > _RANK_TOLERANCE * energies[-1]
        return rows.T @ (left[:, kept] / energies[kept].sqrt()), energies[kept]
    gram = torch.zeros(size, size, dtype=torch.float64)
    for part in _parts(count):
        rows = _standardised(features[part], mean, scale)
        gram += rows.T @ rows
    energies, axes = torch.linalg.eigh(gram)
    kept = energies > _RANK_TOLERANCE * energies[-1]
    return axes[:, kept], energies[kept]


def _standardised(features: np.ndarray, mean: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (torch.from_numpy(np.asarray(features, dtype=np.float64)) - mean) / scale


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
