"""Words spoken by espeak-ng (Debian package espeak-ng; 1.51 made the checkpoint), as arrays of 16 kHz."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import numpy as np
from pretraining.acoustics import RATE, generator, resampled

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
VOICES = tuple(accent + variant for accent in ACCENTS for variant in VARIANTS)
RATES, PITCHES = (110, 220), (15, 85)
"""Words a minute, and espeak-ng's pitch: lowest and highest."""
_HEADER = 44
"""Bytes of the header of a canonical WAV file, whose sizes are not set where it is written to a pipe."""
_AUDIBLE, _MARGIN = 0.003, 160
"""Smallest sample that counts as speech, and samples that are kept on both sides of it."""


@dataclass(frozen=True)
class Utterance:
    """What is said, and how.

    Attributes:
        text: A word or phrase.
        voice: One of `VOICES`.
        rate: Words a minute.
        pitch: From 0 to 99.
    """

    text: str
    voice: str
    rate: int
    pitch: int


def utterances(text: str, count: int) -> list[Utterance]:
    """Return who says a text and how: `count` different voices, drawn for each text."""
    draw = generator("utterance", text)
    voices = draw.choice(len(VOICES), count, replace=count > len(VOICES))
    return [Utterance(text, VOICES[voice], int(draw.integers(*RATES)), int(draw.integers(*PITCHES)))
            for voice in voices]


def speak(what: Utterance) -> np.ndarray:
    """Return what espeak-ng says, without the silence around it, float32, shape (t,).

    Raises:
        RuntimeError: espeak-ng fails.
    """
    command = ["espeak-ng", "-v", what.voice, "-s", str(what.rate), "-p", str(what.pitch), "--stdout", "--", what.text]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or len(done.stdout) <= _HEADER:
        raise RuntimeError(f"espeak-ng failed for {what}: {done.stderr.decode(errors='replace').strip()}")
    rate = int.from_bytes(done.stdout[24:28], "little")
    samples = np.frombuffer(done.stdout[_HEADER:len(done.stdout) // 2 * 2], dtype="<i2").astype(np.float32) / 2**15
    samples = resampled(samples, RATE / rate)
    loud = np.nonzero(np.abs(samples) > _AUDIBLE)[0]
    return samples[max(0, loud[0] - _MARGIN):loud[-1] + _MARGIN] if len(loud) else samples
