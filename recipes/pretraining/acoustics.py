"""What happens to a sound between a mouth and a file: speaker, room, microphone, noise, level, coding."""

from __future__ import annotations

import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
BITRATE = "24"
"""Kbit/s of the Opus coding that all sets of speech have been through."""
_GAP = RATE // 4
"""Silence between clips that are coded in one stream."""


def generator(*names: object) -> np.random.Generator:
    """Return random numbers that depend on names alone."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32("|".join(map(str, names)).encode())))


def resampled(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return a sound of `factor` times as many samples, its spectrum cut off or continued by zeros, float32, (t,)."""
    old, new = len(samples), round(len(samples) * factor)
    if old == new:
        return samples
    spectrum = np.fft.rfft(samples)
    kept = min(len(spectrum), new // 2)
    return (np.fft.irfft(spectrum[:kept], new) * (new / old)).astype(np.float32)


def altered(samples: np.ndarray, noises: Sequence[np.ndarray], draw: np.random.Generator,
            speed: tuple[float, float]) -> np.ndarray:
    """Return a clip as another speaker, in another room, at another microphone would have given it.

    Speed and pitch are changed together, by resampling. A room is a tail of noise that dies away; a microphone is a
    smooth curve of gain over frequency, with a lower and an upper end. Each of them is left out at random.

    Args:
        samples: Shape (t,).
        noises: Recordings to mix in, of any length.
        draw: Random numbers.
        speed: Lowest and highest factor of speed.
    """
    samples = resampled(samples, float(np.exp(-draw.uniform(*np.log(speed)))))
    samples = np.pad(samples, tuple(int(seconds * RATE) for seconds in draw.uniform(0.02, 0.3, 2)))
    if draw.random() < 0.4:
        samples = _in_room(samples, draw)
    if draw.random() < 0.7:
        samples = _through_microphone(samples, draw)
    if len(noises) and draw.random() < 0.4:
        samples = _with_noise(samples, noises[draw.integers(len(noises))], draw)
    return at_level(samples, draw)


def at_level(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return a clip whose largest sample is between -26 and 0 dB."""
    peak = 10 ** (draw.uniform(-26, -0.2) / 20)
    return (samples * (peak / max(float(np.abs(samples).max()), 1e-6))).astype(np.float32)


def _in_room(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    decay = draw.uniform(0.08, 0.5)
    time = np.arange(int(decay * RATE)) / RATE
    tail = draw.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail *= 10 ** (draw.uniform(-16, 0) / 20) / np.sqrt(np.sum(tail * tail))
    tail[0] = 1.0
    size = len(samples) + len(tail)
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(tail, size), size)[:len(samples)]


def _through_microphone(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    octaves = np.log2(np.maximum(frequencies, 30.0))
    gain = np.interp(octaves, np.log2([30, 125, 500, 2000, 8000]), draw.normal(0, 5, 5))
    if draw.random() < 0.4:
        gain = gain - 24 * np.maximum(0, np.log2(draw.uniform(80, 350)) - octaves)
    if draw.random() < 0.5:  # a telephone's upper end as often as any other
        top = draw.uniform(3400, 4000) if draw.random() < 0.6 else draw.uniform(4500, 7500)
        gain = gain - 200 * np.maximum(0, octaves - np.log2(top))
    return np.fft.irfft(spectrum * 10 ** (np.maximum(gain, -90) / 20), len(samples))


def _with_noise(samples: np.ndarray, noise: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    start = draw.integers(len(noise))
    noise = np.resize(np.roll(noise, -start), len(samples))
    power = float(np.mean(np.square(samples))) / max(float(np.mean(np.square(noise))), 1e-12)
    return samples + noise * np.sqrt(power / 10 ** (draw.uniform(2, 30) / 10))


def through_opus(clips: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield clips as they are after Opus coding, all in one stream, each as long as before."""
    gap = np.zeros(_GAP, np.float32)
    parts = [part for clip in clips for part in (gap, clip.astype(np.float32))]
    stream = np.concatenate([*parts, gap])
    with tempfile.TemporaryDirectory() as folder:
        wave, ogg = Path(folder, "stream.wav"), Path(folder, "stream.ogg")
        soundfile.write(wave, stream, RATE, subtype="PCM_16")
        subprocess.run(["opusenc", "--quiet", "--bitrate", BITRATE, "--comp", "5", "--serial", "1", wave, ogg],
                       check=True)
        coded, rate = soundfile.read(ogg, dtype="float32")
    coded = resampled(coded, RATE / rate)
    place = 0
    for clip in clips:
        place += _GAP
        yield coded[place:place + len(clip)]
        place += len(clip)
