"""Every random draw of a run, as a function of its seed and of what the draw is for."""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def derive(seed: int, *purpose: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on `seed` and on each part of `purpose`.

    Examples:
        >>> derive(0, "order", 3) == derive(0, "order", 3) != derive(0, "order", 4)
        True
    """
    text = "\x1f".join([str(seed), *(f"{type(part).__name__}:{part}" for part in purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """Return a numpy generator (Philox) for one purpose of one run."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *purpose)))


def uniforms(seed: int, epoch: int, indices: np.ndarray, draws: int) -> np.ndarray:
    """Return uniform numbers that depend only on (seed, epoch, index, number of the draw).

    Batches, processes and workers see the same numbers for the same example. The numbers are the output function of
    SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators") over a counter.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        indices: Global indices of the examples, shape (n,).
        draws: How many numbers each example needs.

    Returns:
        float64 in [0, 1), shape (n, draws).
    """
    stream = np.uint64(derive(seed, "uniforms", epoch))
    with np.errstate(over="ignore"):
        example = _mix(indices.astype(np.uint64) * _GOLDEN + stream)
        counter = example[:, None] + np.arange(1, draws + 1, dtype=np.uint64)[None, :] * _GOLDEN
        bits = _mix(counter) >> np.uint64(11)
    result: np.ndarray = bits.astype(np.float64) * 2.0**-53
    return result


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    mixed: np.ndarray = value ^ (value >> np.uint64(31))
    return mixed
