"""Background noise from numpy's generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_RATE = 16000


def level(samples: np.ndarray, loudness_db: float) -> np.ndarray:
    """Return samples at a mean power relative to full scale, in dB."""
    power = np.sqrt(np.mean(samples**2))
    return samples * (10 ** (loudness_db / 20) / power)


def coloured(slope: float, samples: int, random: np.random.Generator) -> np.ndarray:
    """Return noise whose power falls with frequency to the power `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / _RATE)
    return np.fft.irfft(spectrum * np.maximum(frequencies, 50.0) ** (-slope / 2), samples)


def hum(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return the mains' hum with its harmonics, over some pink noise."""
    time = np.arange(samples) / _RATE
    base = random.choice([50.0, 60.0]) * random.uniform(0.998, 1.002)
    waves = sum(random.uniform(0.2, 1) / order * np.sin(2 * np.pi * (order * base * time + random.uniform()))
                for order in range(1, 13))
    return level(waves, 0.0) + level(coloured(1.0, samples, random), random.uniform(-20, -5))


def babble(speech: Sequence[np.ndarray], samples: int, random: np.random.Generator) -> np.ndarray:
    """Return several people talking at once, each going round from a random place, over faint pink noise."""
    talk = sum(np.roll(np.resize(level(part, 0.0), samples), random.integers(samples)) for part in speech)
    return talk + level(coloured(1.0, samples, random), -15.0)


NOISES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "white": lambda samples, random: coloured(0.0, samples, random),
    "pink": lambda samples, random: coloured(1.0, samples, random),
    "brown": lambda samples, random: coloured(2.0, samples, random),
    "hum": hum,
}
"""By name: samples and a generator to noise at any level."""
