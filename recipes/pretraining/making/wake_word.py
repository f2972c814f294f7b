"""A wake phrase, phrases that sound like it, and others, spoken by espeak-ng in many voices over noise."""

from __future__ import annotations

import csv
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from making.noises import NOISES, babble, level
from making.phrases import KEYWORD, NEAR_MISSES, NEW_NEAR_MISSES, NEW_OTHERS, OTHERS, VOICES

RATE = 16000
_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
_WORDS_A_MINUTE = (120, 180)
_PITCHES = (25, 75)
_SECONDS = (1.3, 1.8)
_SNR_DB = (8.0, 28.0)
_LOUDNESS_DB = (-32.0, -16.0)
"""Of the speech, relative to full scale."""
_BITRATE = 14
"""Kilobits a second."""
_PER_VOICE = {
    "train": {"hey_tilly": 3, "near_miss": 3, "other": 4, "background": 1},
    "validation": {"hey_tilly": 5, "near_miss": 5, "other": 6, "background": 1},
    "test": {"hey_tilly": 7, "near_miss": 6, "other": 8, "background": 1},
}


@dataclass(frozen=True)
class Clip:
    """What is heard in one file.

    Attributes:
        split: `train`, `validation` or `test`.
        label: The class.
        text: What is said; empty for background alone.
        voice: A variant of espeak-ng.
        number: Of the clip among those of its class and voice.
    """

    split: str
    label: str
    text: str
    voice: str
    number: int

    @property
    def file(self) -> str:
        """Where it lies."""
        return f"{self.split}/{self.label}/{self.voice}_{self.number}.ogg"

    @property
    def random(self) -> np.random.Generator:
        """What is drawn for this clip, whatever is drawn for others."""
        return np.random.default_rng(zlib.crc32(self.file.encode()))


def make(folder: Path) -> None:
    """Write `<split>/<class>/<voice>_<number>.ogg` and `metadata.csv`."""
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file_name", "label", "split", "group", "text", "accent", "noise", "snr_db"])
        for split, voices in VOICES.items():
            clips = [clip for voice in voices for clip in clips_of(split, voice)]
            for clip in clips:
                table.writerow([clip.file, clip.label, split, clip.voice, clip.text, *write(clip, folder)])
            counts = {label: sum(clip.label == label for clip in clips) for label in _PER_VOICE[split]}
            print(f"{split}: {len(voices)} voices,", ", ".join(f"{label} {count}" for label, count in counts.items()))


def clips_of(split: str, voice: str) -> list[Clip]:
    """Return the clips of a voice, whose phrases are drawn once each; half of a test voice's are in no other split."""
    random = np.random.default_rng(zlib.crc32(voice.encode()))
    texts = {"hey_tilly": [KEYWORD] * 9, "background": [""]}
    for label, known, new in (("near_miss", NEAR_MISSES, NEW_NEAR_MISSES), ("other", OTHERS, NEW_OTHERS)):
        count = _PER_VOICE[split][label]
        unheard = count // 2 if split == "test" else 0
        texts[label] = [*random.permutation(known)[:count - unheard], *random.permutation(new)[:unheard]]
    return [Clip(split, label, str(texts[label][number]), voice, number)
            for label, count in _PER_VOICE[split].items() for number in range(count)]


def write(clip: Clip, folder: Path) -> tuple[str, str, str]:
    """Write a clip, and return its accent, its noise and its signal-to-noise ratio in dB, as text."""
    random = clip.random
    accent = str(random.choice(_ACCENTS))
    samples = int(random.uniform(*_SECONDS) * RATE)
    noise = str(random.choice([*NOISES, "babble"]))
    if noise == "babble":
        others = [speak(str(text), str(random.choice(_ACCENTS)), str(voice), random)
                  for voice, text in zip(random.choice(VOICES[clip.split], 3), random.choice(OTHERS, 3), strict=True)]
        background = babble(others, samples, random)
    else:
        background = NOISES[noise](samples, random)
    sound = np.zeros(samples)
    loudness = random.uniform(*_LOUDNESS_DB)
    ratio = random.uniform(*_SNR_DB)
    if clip.text:
        speech = speak(clip.text, accent, clip.voice, random)[:samples]
        start = random.integers(0, samples - len(speech) + 1)
        sound[start:start + len(speech)] = level(speech, loudness)
    sound += level(background, loudness - ratio)
    encode(sound * min(1.0, 0.99 / np.abs(sound).max()), folder / clip.file)
    return (accent if clip.text else "", noise, f"{ratio:.1f}" if clip.text else "")


def speak(text: str, accent: str, voice: str, random: np.random.Generator) -> np.ndarray:
    """Return a phrase as espeak-ng says it, without silence around it, at 16 kHz.

    Raises:
        RuntimeError: espeak-ng fails.
    """
    rate, pitch = int(random.integers(*_WORDS_A_MINUTE)), int(random.integers(*_PITCHES))
    wave = _run(["espeak-ng", "-v", f"{accent}+{voice}", "-s", str(rate), "-p", str(pitch), "--stdout", "--", text])
    # The header is of 44 bytes, and the lengths in it are not set on a pipe.
    samples = np.frombuffer(wave[44:len(wave) // 2 * 2], "<i2") / 32768
    if int.from_bytes(wave[24:28], "little") != 22050:
        raise RuntimeError(f"espeak-ng speaks voice {voice!r} at another rate than 22,050 Hz")
    samples = resample_poly(samples, 320, 441)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    return samples[loud[0]:loud[-1] + 1]


def encode(samples: np.ndarray, path: Path) -> None:
    """Write samples between -1 and 1 at 16 kHz as Ogg/Opus.

    Raises:
        RuntimeError: opusenc fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = np.rint(samples * 32767).astype("<i2").tobytes()
    _run(["opusenc", "--quiet", "--raw", "--raw-rate", str(RATE), "--raw-chan", "1", "--bitrate", str(_BITRATE),
          "--serial", "0", "--padding", "0", "-", str(path)], raw)


def _run(command: Sequence[str], content: bytes = b"") -> bytes:
    """Return what a program writes."""
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
