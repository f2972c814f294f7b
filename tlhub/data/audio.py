"""Sounds as a model's inputs: decoded and resampled once, turned into features in batches on the device."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio

from tlhub.config import DataConfig
from tlhub.data.augment_sound import SoundAugmentation
from tlhub.data.cache import ArrayCache, cache_root
from tlhub.data.frontends import front_end
from tlhub.data.prepare import Examples
from tlhub.data.sound import open_sound, sound_seconds
from tlhub.data.stand_ins import StandIns, as_lost
from tlhub.data.tensors import to_device
from tlhub.data.workers import executor
from tlhub.errors import DataError
from tlhub.seeding import uniforms

LEAST_SECONDS = 0.1
"""Clips shorter than this are continued by silence, so that every architecture has something to read."""
DECODING = f"sounds 2 libsndfile {soundfile.__libsndfile_version__} torchaudio {torchaudio.__version__}"
"""Part of every key of what is made of sounds: its number is to be raised when decoding or resampling changes."""
_AT_A_TIME = 256
_FINEST = 640
"""Largest denominator of a ratio of rates; the usual ones have smaller ones, of others the pitch is off by 1e-4."""
_GIB = 2**30
_LOGGER = logging.getLogger(__name__)


class AudioInputs:
    """Sounds for a model, as `tlhub.data.batches.Inputs`.

    Every sound is decoded, mixed to one channel, resampled and cut once, into a table in the cache that later runs find
    again. Where the table would be larger than `data.cache_limit_gib`, sounds are decoded for each batch.

    A model that is told what is padded reads clips of different lengths, each batch padded to its longest. One that is
    not would take the padding for sound, so that its answer would depend on what else is in the batch: all its clips
    are continued by silence to one length. So are those of a model with `data.one_length`.

    Args:
        examples: Paths or contents of sound files, and labels.
        processor: The checkpoint's feature extractor.
        fingerprint: What the examples are, for the cache.
        data: `max_seconds`, `one_length`, the augmentation, and where and how much is cached.
        seed: The run's seed, for the augmentation.
        workers: Threads that decode; 0 for none of their own, None for the number of cores.

    Attributes:
        labels: The targets, of shape (n,) or (n, t).
        lengths: Samples of each clip, shape (n,); None where all have one length for the model.
        stand_ins: What stands in for sounds that are lost; None where all are kept in the cache.

    Raises:
        DataError: A sound cannot be decoded.
    """

    def __init__(self, examples: Examples, processor: Any, *, fingerprint: str, data: DataConfig, seed: int,
                 workers: int | None) -> None:
        assert data.max_seconds is not None
        self.labels = examples.labels
        self._examples = examples
        self._front = front_end(processor)
        self._augmentation, self._seed = SoundAugmentation.of(data, self._front.rate), seed
        self._most = max(1, round(data.max_seconds * self._front.rate))
        self._least = max(self._front.least, round(LEAST_SECONDS * self._front.rate))
        self._pool = executor(workers)
        self._waves = self._cached(fingerprint, data)
        self.stand_ins = StandIns(examples, self._decoded) if self._waves is None else None
        self.lengths: np.ndarray | None = None
        self._ragged = self._front.masked and not data.one_length
        if self._ragged:
            # Where there is no table, the sounds may be too many to be held at once.
            self.lengths = np.array([len(wave) for wave in self._all()], dtype=np.int64) \
                if self._waves is None else self._waves["lengths"].astype(np.int64)

    def __len__(self) -> int:
        """Return the number of sounds."""
        return len(self.labels)

    @property
    def augmented(self) -> bool:
        """Whether training clips differ from epoch to epoch."""
        return self._augmentation.active

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for some sounds.

        Args:
            indices: Which sounds, shape (b,), modulo n; one that an epoch draws again has another augmentation.
            epoch: The epoch whose augmentation is applied; None for the sounds as they are.
            device: Where features are computed.

        Returns:
            What the checkpoint's feature extractor calls it: `input_values` or `input_features`, float32, and
            `attention_mask`, (b, t), where the model is told what is padded.

        Raises:
            DataError: A sound cannot be decoded.
        """
        table, lengths = self._padded(indices % len(self))
        waves, own = to_device(table, device), to_device(lengths, device)
        if epoch is None or not self.augmented:
            return self._front(waves, self._sizes(waves, own))
        draws = uniforms(self._seed, epoch, indices, self._augmentation.draws)
        if self._augmentation.delay:
            window = min(self._most, self._front.samples or self._most)
            waves, own = self._augmentation.delayed(waves, own, draws, window)
        sizes = self._sizes(waves, own)
        waves, blank = self._augmentation.apply(waves, own, draws), self._augmentation.blank(draws)
        if blank is not None and sizes is not own:  # a share of the clip is blanked, not of the silence behind it
            waves, blank = blank.waves(waves, own), None
        return self._front(waves, sizes, blank)

    def _sizes(self, waves: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """Return how much of each row the model takes for sound.

        One that is not told of padding takes it for a part of the clip, unless its front end has a fixed size.
        """
        return own if self._front.masked or self._front.samples else torch.full_like(own, waves.shape[1])

    def _padded(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sounds continued by silence, float32, shape (b, t), and the samples of each, int64, shape (b,)."""
        waves = self._found(indices)
        lengths = np.maximum(np.array([len(wave) for wave in waves], dtype=np.int64), self._least)
        width = int(lengths.max(initial=self._least))
        if not self._ragged:
            width = max(self._least, min(self._most, self._front.samples or self._most))
        table = np.zeros((len(indices), width), dtype=np.float32)
        for row, wave in zip(table, waves, strict=True):
            row[:min(len(wave), width)] = wave[:width]
        return table, np.minimum(lengths, width)

    def _found(self, indices: np.ndarray) -> list[np.ndarray]:
        if self._waves is None:
            assert self.stand_ins is not None
            return list(self._pool.map(self.stand_ins.decode, indices.tolist()))
        samples, starts, lengths = self._waves["samples"], self._waves["starts"], self._waves["lengths"]
        return [samples[starts[index]:starts[index] + lengths[index]] for index in indices.tolist()]

    def _decoded(self, index: int) -> np.ndarray:
        try:
            return sound_at(self._examples.inputs[index], self._front.rate)[:self._most]
        except DataError as error:
            source = self._examples.inputs[index]
            named = DataError(f"{self._examples.ids[index]}: {error}") if isinstance(source, bytes) else error
            raise as_lost(named, source) from None

    def _cached(self, fingerprint: str, data: DataConfig) -> dict[str, np.ndarray] | None:
        """Return all sounds end to end with where each starts; None where they would be too large."""
        if data.cache_limit_gib <= 0 or not len(self):
            return None
        cache = ArrayCache(cache_root(data) / "sounds")
        names = hashlib.sha256(json.dumps(list(self._examples.ids)).encode()).hexdigest()
        key = f"{DECODING} {fingerprint} {names} {self._front.rate} {self._most}"
        found = cache.get(key)
        if found is None:
            most = [min(self._most, _most_samples(seconds, self._front.rate)) for seconds in self._seconds()]
            starts = np.concatenate([[0], np.cumsum(most)]).astype(np.int64)
            if 4 * int(starts[-1]) > data.cache_limit_gib * _GIB:
                _LOGGER.warning("%d sounds take %.1f GiB as samples, more than data.cache_limit_gib %.1f: they are "
                                "decoded in every epoch", len(self), 4 * int(starts[-1]) / _GIB, data.cache_limit_gib)
                return None
            with cache.create(key, {"samples": ((int(starts[-1]),), np.dtype(np.float32)),
                                    "starts": ((len(self),), np.dtype(np.int64)),
                                    "lengths": ((len(self),), np.dtype(np.int64))}) as maps:
                self._fill(maps, starts)
            found = cache.get(key)
        if found is None:
            raise DataError(f"prepared sounds cannot be read back from '{cache.root}'; check that disk, or name "
                            "another folder with --data.cache_dir")
        return found

    def _seconds(self) -> list[float]:
        return list(self._pool.map(_seconds_of, self._examples.inputs))

    def _fill(self, maps: dict[str, np.ndarray], starts: np.ndarray) -> None:
        for index, wave in enumerate(self._all()):
            room = int(starts[index + 1] - starts[index])
            if len(wave) > room:
                raise DataError(f"{self._examples.ids[index]}: the header announces fewer samples than there are; save "
                                "the file again")
            maps["samples"][starts[index]:starts[index] + len(wave)] = wave
            maps["starts"][index], maps["lengths"][index] = starts[index], len(wave)

    def _all(self) -> Iterator[np.ndarray]:
        """Yield every decoded sound in order, some being worked on ahead of time."""
        for start in range(0, len(self), _AT_A_TIME):
            yield from self._pool.map(self._decoded, range(start, min(start + _AT_A_TIME, len(self))))


def sound_at(source: str | Path | bytes, rate: int) -> np.ndarray:
    """Return a sound at another rate, float32, shape (t,).

    Args:
        source: A file's path or its content.
        rate: Samples a second; resampled by torchaudio's band-limited interpolation.

    Raises:
        DataError: It cannot be decoded.
    """
    samples, found = open_sound(source)
    if found == rate:
        return samples
    # The filter's table grows with both terms of the ratio: 44101 to 16000 Hz would take gigabytes.
    ratio = Fraction(max(found, rate), min(found, rate)).limit_denominator(_FINEST)
    terms = (ratio.numerator, ratio.denominator) if found > rate else (ratio.denominator, ratio.numerator)
    with torch.no_grad():
        resampled: np.ndarray = _resampler(*terms)(torch.from_numpy(samples)).numpy()
    return resampled[:-(-len(samples) * rate // found)]


@functools.lru_cache(maxsize=32)
def _resampler(found: int, wanted: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(found, wanted)


def _most_samples(seconds: float, rate: int) -> int:
    """Return the largest number of samples that a sound of this length can have at a rate."""
    return math.ceil(round(seconds * rate, 6)) + 1


def longest_seconds(examples: Examples) -> float:
    """Return the length of the longest sound, from the files' headers.

    Raises:
        LostDataError: A header cannot be read.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return max(pool.map(_seconds_of, examples.inputs), default=0.0)


def _seconds_of(source: str | bytes) -> float:
    try:
        return sound_seconds(source)
    except DataError as error:
        raise as_lost(error, source) from None
