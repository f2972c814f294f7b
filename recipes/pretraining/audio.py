"""Clips to pretrain a small network of sound on: words that people or espeak-ng say, and other sounds."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import transformers
from pretraining.acoustics import RATE, altered, at_level, generator, through_opus
from pretraining.artificial import MAKERS, artificial
from pretraining.spoken import Utterance, speak, utterances

RECORDINGS = ("speech_commands_v2_testset", "speech_commands_30words")
SILENCE = "_silence_"
COPIES, VOICES, SOUNDS = 3, 16, 24
"""At most so many altered copies of each recording, voices that speak each text, and sounds of each artificial kind."""
CLIPS = 10_000
"""Clips that are made in all, in turns over these."""
HELD_OUT = 12
"""One of so many speakers is for validation."""
RECORDED_SPEED, SPOKEN_SPEED = (0.84, 1.2), (0.9, 1.15)
"""By how much altered copies are faster and higher; espeak-ng has rates and pitches of its own."""
SECONDS = 3.0
STREAM = 100
"""Clips that are coded in one stream."""
WORDS = Path(__file__).parent.parent / "pretrain" / "audio" / "words.txt"


@dataclass(frozen=True)
class Recording:
    """A clip of one of the collections.

    Attributes:
        path: Where it lies.
        label: The word that is said, or `SILENCE`.
        split: `train`, `validation` or `test`.
    """

    path: Path
    label: str
    split: str

    @property
    def name(self) -> str:
        """What tells it from every other one."""
        return f"{self.path.parts[-4]}_{self.label}_{self.path.stem}"


@dataclass(frozen=True)
class Piece:
    """A clip to be made.

    Attributes:
        name: Of its file.
        label: Its class.
        turn: From 0 to 1, when it is made.
        source: What it is made of: a recording's path, what espeak-ng is to say, or the number of an artificial sound.
    """

    name: str
    label: str
    turn: float
    source: Path | Utterance | int


def prepare(data: Path, work: Path) -> dict[str, Any]:
    """Write the clips and their table, and return what the recipe adds to its data section.

    Every clip has been through the Opus coding of the collections. Altered and spoken clips are for training alone.

    Args:
        data: Folder that holds `RECORDINGS`.
        work: Where the clips are written.
    """
    clips = work / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    found = [recording for name in RECORDINGS for recording in recordings(data / name)]
    made = sorted(pieces(found), key=lambda piece: piece.turn)[:CLIPS]
    noises = _noises(found)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(write, folder=clips, noises=noises),
                      [made[start:start + STREAM] for start in range(0, len(made), STREAM)]))
    for one in found:
        if not (clips / f"{one.name}.ogg").exists():
            with whole(clips / f"{one.name}.ogg") as temporary:
                shutil.copyfile(one.path, temporary)
    rows = [(f"clips/{one.name}.ogg", one.label, one.split) for one in found]
    rows += [(f"clips/{piece.name}.wav", piece.label, "train") for piece in made]
    with (work / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "split"])
        table.writerows(rows)
    return {"source": str(work / "clips.csv"), "split_column": "split", "label_column": "label"}


def pieces(found: list[Recording]) -> list[Piece]:
    """Return what is to be made: copies of the training recordings, spoken words, artificial sounds."""
    made = [Piece(f"{one.name}_{copy}", one.label, copy / COPIES, one.path)
            for copy in range(COPIES) for one in found if one.split == "train"]
    texts = [line for line in WORDS.read_text().splitlines() if line and not line.startswith("#")]
    spoken = [utterances(text, VOICES) for text in texts]
    made += [Piece(f"spoken_{text.replace(' ', '_')}_{voice}", text, voice / VOICES, what[voice])
             for voice in range(VOICES) for text, what in zip(texts, spoken, strict=True)]
    return made + [Piece(f"artificial_{name.replace(' ', '_')}_{number}", name, number / SOUNDS, number)
                   for number in range(SOUNDS) for name in MAKERS]


def write(some: list[Piece], folder: Path, noises: Sequence[np.ndarray]) -> None:
    """Make clips, code them in one stream and write them, each as a WAV file of at most `SECONDS`, if not yet done."""
    paths = [folder / f"{piece.name}.wav" for piece in some]
    if all(path.exists() for path in paths):
        return
    sounds = [_made(piece, noises)[:round(SECONDS * RATE)] for piece in some]
    for path, clip in zip(paths, through_opus(sounds), strict=True):
        with whole(path) as temporary:
            soundfile.write(temporary, clip, RATE, subtype="PCM_16", format="WAV")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give another name to write under, so that a file of this name is there from beginning to end or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    yield temporary
    temporary.replace(path)


def _made(piece: Piece, noises: Sequence[np.ndarray]) -> np.ndarray:
    draw = generator(piece.name)
    if isinstance(piece.source, int):
        return at_level(artificial(piece.label, piece.source), draw)
    if isinstance(piece.source, Utterance):
        return altered(speak(piece.source), noises, draw, SPOKEN_SPEED)
    return altered(_read(piece.source), noises, draw, RECORDED_SPEED)


def recordings(folder: Path) -> list[Recording]:
    """Return the clips of a collection, with the word also where the class is `_unknown_`."""
    found = []
    with (folder / "clips.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            label = row.get("word") or row["label"]
            speaker = row["speaker"] or row["file"]
            held = row["split"] == "train" and zlib.crc32(speaker.encode()) % HELD_OUT == 0
            found.append(Recording(folder / row["file"], label, "validation" if held else row["split"]))
    return found


def _read(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != RATE:
        raise ValueError(f"{path} has {rate} samples a second, not {RATE}")
    return np.asarray(samples)


def _noises(found: list[Recording]) -> list[np.ndarray]:
    noises = [_read(one.path) for one in found if one.label == SILENCE and one.split == "train"]
    return [noise for noise in noises if np.abs(noise).max() > 1e-3]


def between(model: Path, folder: Path) -> Path:
    """Write a trained model with the window of `SECONDS`: its positions are sines, which go on by themselves."""
    old = transformers.WhisperForAudioClassification.from_pretrained(model)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(model)
    settings = transformers.WhisperConfig.from_pretrained(model)
    settings.max_source_positions = round(SECONDS * RATE) // extractor.hop_length // 2
    new = transformers.WhisperForAudioClassification(settings)
    positions = "encoder.embed_positions.weight"
    new.load_state_dict({**old.state_dict(), positions: new.state_dict()[positions]})
    new.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(
        feature_size=extractor.feature_size, sampling_rate=RATE, hop_length=extractor.hop_length,
        chunk_length=round(SECONDS), n_fft=extractor.n_fft).save_pretrained(folder)
    # What is saved does not say how attention is computed: without a fused kernel, which is slower in bf16 on a CPU.
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": "eager"}, indent=2) + "\n")
    return folder
