"""Sounds made in memory, for tests of what reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile


def tone(frequency: float = 440.0, seconds: float = 0.3, rate: int = 16000, loudness: float = 0.5) -> np.ndarray:
    """Return a sine, float32, shape (t,)."""
    times = np.arange(round(seconds * rate)) / rate
    return (loudness * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def sound(samples: np.ndarray, rate: int = 16000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return samples, shape (t,) or (t, channels), as the content of a sound file."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def write_sound(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    """Write a sound file of the kind that its ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path
