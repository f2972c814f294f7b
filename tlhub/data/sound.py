"""From a sound file, whatever its format, to samples of one channel."""

from __future__ import annotations

import collections
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tlhub.data.room import DECODING
from tlhub.errors import DataError

MAX_SECONDS = 600.0
"""Longest sound that is decoded, times the number of its channels."""
MAX_RATE = 192_000
"""Most samples a second. Files may announce billions, so that a few seconds fill the memory."""
_BLOCK = 2**20
_LOUDEST = 2.0**31
"""Files of floating-point numbers are found that hold the whole numbers of 32-bit files."""
SHORT_SECONDS, LONG_SECONDS = 0.1, 30.0
SILENT_PEAK = 1e-3
"""Largest sample below which a clip counts as silent: 60 dB below full scale."""
FULL_SCALE = 0.999
CLIPPED_RUN = 3
"""Samples at full scale in a row from which a clip counts as clipped."""


@dataclass(frozen=True)
class SoundFacts:
    """What can be told of a decoded sound.

    Attributes:
        seconds: Its length.
        rate: Samples a second.
        silent: Whether no sample is larger than `SILENT_PEAK`.
        clipped: Whether `CLIPPED_RUN` samples in a row are at full scale.
    """

    seconds: float
    rate: int
    silent: bool
    clipped: bool


class _Content(io.BytesIO):
    """A file's content, in which a decoder that a damaged header misleads can only look where there is something."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; one before the beginning is the beginning."""
        start = (0, self.tell(), len(self.getbuffer()))[whence]
        return super().seek(max(0, start + offset))


def open_sound(source: str | Path | bytes) -> tuple[np.ndarray, int]:
    """Decode a sound file; the mean of its channels is taken.

    Args:
        source: A file's path or its content: WAV, FLAC, Ogg, Opus, MP3, AIFF and what else libsndfile reads, of any
            rate and depth.

    Returns:
        Samples between -1 and 1 (files of floating-point numbers may go beyond), float32, shape (t,), and their rate
        in Hz.

    Raises:
        DataError: The file cannot be read or decoded, holds no sound, or is longer than `MAX_SECONDS`.
    """
    name = _name(source)
    try:
        with _opened(source, name) as file:
            _check_length(file, name)
            with DECODING.taken(2 * 4 * file.frames * file.channels):
                samples = _samples(file)
            rate = int(file.samplerate)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{name} cannot be decoded ({_reason(error)}); replace the file") from None
    if not len(samples):
        raise DataError(f"{name} holds no sound (0 samples); replace the file")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DataError(f"{name} holds samples that are not numbers; replace the file")
    if (peak := float(np.abs(mono).max())) > _LOUDEST:
        raise DataError(f"{name} holds samples as large as {peak:.0e}, full scale is 1; replace the file")
    return np.ascontiguousarray(mono), rate


def _samples(file: soundfile.SoundFile) -> np.ndarray:
    """Return what is in a file, float32, shape (t, channels).

    In blocks: room for all that a header announces would be made before it is seen whether that is there.
    """
    blocks = [np.zeros((0, file.channels), np.float32)]
    while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
        blocks.append(block)
    return np.concatenate(blocks)


def check_header(path: str) -> None:
    """Check a file without decoding it.

    Raises:
        DataError: It is no sound, or too long.
    """
    name = _name(path)
    try:
        with _opened(path, name) as file:
            _check_length(file, name)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{name} cannot be decoded ({_reason(error)}); replace the file") from None


def sound_seconds(source: str | Path | bytes) -> float:
    """Return how long a sound is, from its header alone.

    Raises:
        DataError: The header cannot be read.
    """
    name = _name(source)
    try:
        with _opened(source, name) as file:
            _check_length(file, name)
            return float(file.frames / file.samplerate)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{name} cannot be decoded ({_reason(error)}); replace the file") from None


def look(source: bytes) -> SoundFacts:
    """Return what can be told of a sound.

    Raises:
        DataError: As for `open_sound`.
    """
    samples, rate = open_sound(source)
    full = np.abs(samples) >= FULL_SCALE
    runs = np.lib.stride_tricks.sliding_window_view(full, CLIPPED_RUN).all(axis=1) if len(full) >= CLIPPED_RUN else full
    return SoundFacts(len(samples) / rate, rate, bool(np.abs(samples).max() < SILENT_PEAK), bool(runs.any()))


def describe_sounds(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what a user should be told of sounds: how long they are, and which are short, long, silent or clipped.

    Args:
        facts: By the name of each sound its `SoundFacts` as plain values.
    """
    if not facts:
        return []
    seconds = np.array([fact["seconds"] for fact in facts.values()])
    rates = collections.Counter(fact["rate"] for fact in facts.values())
    sampled = ", ".join(f"{rate} Hz" + (f" ({count})" if len(rates) > 1 else "")
                        for rate, count in rates.most_common(4))
    notes = [f"sounds last {seconds.min():.2f} to {seconds.max():.2f} s, median {np.median(seconds):.2f} s, "
             f"{seconds.sum() / 60:.1f} minutes in all, sampled at {sampled}"]
    kinds: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        f"shorter than {SHORT_SECONDS} s": lambda fact: fact["seconds"] < SHORT_SECONDS,
        f"longer than {LONG_SECONDS:.0f} s, which is more than most checkpoints read":
            lambda fact: fact["seconds"] > LONG_SECONDS,
        "silent, no sample being above -60 dB": lambda fact: fact["silent"],
        "clipped, samples in a row being at full scale": lambda fact: fact["clipped"],
    }
    for words, holds in kinds.items():
        names = [name for name, fact in facts.items() if holds(fact)]
        if names:
            notes.append(f"{len(names)} of {len(facts)} sounds are {words}, the first is {names[0]}")
    return notes


def _opened(source: str | Path | bytes, name: str) -> soundfile.SoundFile:
    if isinstance(source, bytes):
        if not source:
            raise DataError(f"{name} is empty (0 bytes); replace the file")
        return soundfile.SoundFile(_Content(source))
    path = Path(source)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{name} cannot be read ({error.strerror or error}); check the file") from None
    if not size:
        raise DataError(f"{name} is empty (0 bytes); replace the file")
    return soundfile.SoundFile(str(path))


def _check_length(file: soundfile.SoundFile, name: str) -> None:
    if not 0 < file.samplerate <= MAX_RATE:
        raise DataError(f"{name} has {file.samplerate} samples a second, the limit is {MAX_RATE}; replace the file")
    seconds = file.frames / file.samplerate
    if seconds * file.channels > MAX_SECONDS:
        channels = f" in {file.channels} channels" if file.channels > 1 else ""
        raise DataError(f"{name} is {seconds:.0f} s long{channels}, the limit is {MAX_SECONDS:.0f} s in all; cut it "
                        "into clips")


def _name(source: str | Path | bytes) -> str:
    return "sound" if isinstance(source, bytes) else f"sound '{source}'"


def _reason(error: soundfile.LibsndfileError) -> str:
    return " ".join(str(error.error_string).split())[:120].rstrip(".") or "unknown reason"
