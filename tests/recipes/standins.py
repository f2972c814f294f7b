"""Small data sets with the columns, the classes and the splits of those that the recipes name."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from tests.sounds import sound, tone, write_sound

RECIPES = Path(__file__).parents[2] / "recipes"
FILLERS = ("the", "a", "film", "was", "is", "very", "book", "day")
TELLING = ("bad", "good", "rain", "cat", "sun", "dog")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "_silence_", "_unknown_")
EMOTIONS = ("angry", "fearful", "happy", "neutral", "playfulness", "sad", "surprise")


def sst2(folder: Path) -> None:
    """Columns idx, sentence and label; the test split is published with every label -1."""
    sizes = {"train": 48, "validation": 16, "test": 8}
    features = {"idx": datasets.Value("int32"), "sentence": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["negative", "positive"])}
    splits = {}
    for split, size in sizes.items():
        labels = cycle(size, 2)
        splits[split] = {"idx": list(range(size)), "sentence": texts(split, labels),
                         "label": [-1] * size if split == "test" else labels}
    save(folder, features, splits)


def ag_news(folder: Path) -> None:
    """Columns text and label; no validation split."""
    features = {"text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"])}
    save(folder, features, {split: {"text": texts(split, cycle(size, 4)), "label": cycle(size, 4)}
                            for split, size in {"train": 80, "test": 16}.items()})


def mrpc(folder: Path) -> None:
    """Columns sentence1, sentence2, label and idx; GLUE's one test split with labels."""
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["not_equivalent", "equivalent"]), "idx": datasets.Value("int32")}
    splits = {}
    for split, size in {"train": 48, "validation": 16, "test": 16}.items():
        labels = cycle(size, 2)
        splits[split] = {"sentence1": texts(split, [1] * size), "sentence2": texts(split, labels), "label": labels,
                         "idx": list(range(size))}
    save(folder, features, splits)


def stsb(folder: Path) -> None:
    """Columns sentence1, sentence2 and score (0 to 1)."""
    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string"),
                "score": datasets.Value("float64")}
    splits = {}
    for split, size in {"train": 48, "validation": 16, "test": 16}.items():
        alike = cycle(size, 2)
        splits[split] = {"sentence1": texts(split, [1] * size), "sentence2": texts(split, alike),
                         "score": [one - (2 * one - 1) * (row % 5) / 20 for row, one in enumerate(alike)]}
    save(folder, features, splits)


def beans(folder: Path) -> None:
    """Columns image_file_path (on the author's machine), image and labels."""
    features = {"image_file_path": datasets.Value("string"), "image": datasets.Image(),
                "labels": datasets.ClassLabel(names=["angular_leaf_spot", "bean_rust", "healthy"])}
    splits = {}
    for split, size in {"train": 24, "validation": 12, "test": 12}.items():
        labels = cycle(size, 3)
        splits[split] = {"image_file_path": [f"/home/author/{split}/{row}.jpg" for row in range(size)],
                         "image": pictures(split, labels), "labels": labels}
    save(folder, features, splits)


def food101(folder: Path) -> None:
    """Columns image and label; a validation split and no test split."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["apple_pie", "baklava", "beignets"])}
    save(folder, features, {split: {"image": pictures(split, cycle(size, 3)), "label": cycle(size, 3)}
                            for split, size in {"train": 24, "validation": 12}.items()})


def cifar10(folder: Path) -> None:
    """Columns img and label; no validation split."""
    features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(CIFAR))}
    save(folder, features, {split: {"img": pictures(split, cycle(size, 10), (32, 32)), "label": cycle(size, 10)}
                            for split, size in {"train": 60, "test": 20}.items()})


def class_folders(classes: Sequence[str], sizes: dict[str, int]) -> Callable[[Path], None]:
    """Return what writes `<split>/<class>/<n>.png`; the split "" has its classes at the top."""
    def make(folder: Path) -> None:
        for split, size in sizes.items():
            labels = cycle(size, len(classes))
            for row, (label, picture) in enumerate(zip(labels, pictures(split, labels), strict=True)):
                target = folder / split / classes[label] / f"{row}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                picture.save(target)
    return make


def cats_and_tigers(folder: Path) -> None:
    """Pictures beside a metadata.csv with columns file_name and body_length."""
    labels = cycle(60, 2)
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "body_length"])
        for row, (label, picture) in enumerate(zip(labels, pictures("animals", labels), strict=True)):
            picture.save(folder / f"{row}.png")
            writer.writerow([f"{row}.png", 46 + 120 * label + row / 4])


def emotion(folder: Path) -> None:
    """Columns text and label."""
    features = {"text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["sadness", "joy", "love", "anger", "fear", "surprise"])}
    save(folder, features, {split: {"text": texts(split, cycle(size, 6)), "label": cycle(size, 6)}
                            for split, size in {"train": 48, "validation": 12, "test": 12}.items()})


def superb_ks(folder: Path) -> None:
    """Columns file, audio and label; silence is a few long clips to train, and none to validate."""
    features = {"file": datasets.Value("string"), "audio": datasets.Audio(16000),
                "label": datasets.ClassLabel(names=list(COMMANDS))}
    splits = {}
    for number, (split, size) in enumerate({"train": 48, "validation": 22, "test": 24}.items()):
        labels = cycle(size, 12) if split != "validation" else [label + label // 10 for label in cycle(size, 11)]
        clips = [tone(200 + 100 * label + row + number / 4,
                      2.0 if COMMANDS[label] == "_silence_" and split == "train" else 0.2)
                 for row, label in enumerate(labels)]
        names = [f"/home/author/{COMMANDS[label]}/{row}.wav" for row, label in enumerate(labels)]
        splits[split] = {"file": names, "audio": recordings(clips, names), "label": labels}
    save(folder, features, splits)


def csemotions(folder: Path) -> None:
    """Columns audio, text, emotion and speaker, at 48 kHz; one split."""
    features = {"audio": datasets.Audio(), "text": datasets.Value("string"), "emotion": datasets.Value("string"),
                "speaker": datasets.Value("string")}
    rows = [(speaker, label) for speaker in range(6) for label in range(len(EMOTIONS))]
    clips = [tone(200 + 100 * label + 5 * speaker, 0.2, 48000) for speaker, label in rows]
    save(folder, features, {"train": {
        "audio": recordings(clips, [f"{row}.wav" for row in range(len(rows))], 48000),
        "text": [f"text {row}" for row in range(len(rows))], "emotion": [EMOTIONS[label] for _, label in rows],
        "speaker": [f"S{speaker:02}" for speaker, _ in rows]}})


def words(folder: Path) -> None:
    """Folders of clips, one of them the wake word's."""
    for row, label in enumerate(cycle(60, 4)):
        clip = tone(200 + 150 * label + row, 0.15 + 0.01 * (row % 5))
        write_sound(folder / ("computer", "commuter", "hey", "noise")[label] / f"{row}.wav", clip)


def speech_commands(folder: Path) -> None:
    """Folders of words, with the speaker in the files' names, and one of noise; the recipe's command writes a table."""
    for row, label in enumerate(cycle(100, 5)):
        word, speaker = ("bed", "cat", "marvin", "sheila", "tree")[label], 0xabc00000 + row // 10
        write_sound(folder / word / f"{speaker:08x}_nohash_{row // 5 % 2}.wav", tone(200 + 150 * label + row, 0.2))
    write_sound(folder / "_background_noise_" / "hum.wav", tone(50, 1.0))
    (folder / "testing_list.txt").write_text("bed/abc00000_nohash_0.wav\n")
    run_shell(folder, "wake_word/speech_commands_full.yaml")


def shakespeare(folder: Path) -> None:
    """A text file for each split."""
    folder.mkdir(parents=True)
    for split, size in {"train": 120, "validation": 20, "test": 20}.items():
        lines = texts(split, cycle(size, len(TELLING)))
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def capybara(folder: Path) -> None:
    """Columns source, messages and num_turns; no validation split."""
    features = {"source": datasets.Value("string"), "num_turns": datasets.Value("int64"),
                "messages": datasets.List({name: datasets.Value("string") for name in ("content", "role")})}
    splits: dict[str, dict[str, list[Any]]] = {}
    for split, size in {"train": 40, "test": 8}.items():
        turns = [1 + row % 3 for row in range(size)]
        said = [[message for text in texts(f"{split} {row}", [0] * count) for message in (
            {"role": "user", "content": f"what is {text}?"}, {"role": "assistant", "content": f"{text} is good"})]
            for row, count in enumerate(turns)]
        splits[split] = {"source": ["Airoboros"] * size, "num_turns": turns, "messages": said}
    save(folder, features, splits)


def run_shell(folder: Path, recipe: str) -> None:
    """Run in a folder the shell commands of a recipe's header that make the data ready."""
    lines = re.findall(r"^#   ((?:\(echo|head|tail) .*)$", (RECIPES / recipe).read_text(), re.MULTILINE)
    subprocess.run(["bash", "-euc", "\n".join(lines)], cwd=folder, check=True)


def recordings(clips: Sequence[np.ndarray], names: Sequence[str], rate: int = 16000) -> list[dict[str, Any]]:
    """Return clips as the cells of a column of audio."""
    return [{"bytes": sound(clip, rate), "path": name} for clip, name in zip(clips, names, strict=True)]


def cycle(size: int, classes: int) -> list[int]:
    """Return labels in turn."""
    return [row % classes for row in range(size)]


def save(folder: Path, features: dict[str, Any], splits: dict[str, dict[str, list[Any]]]) -> None:
    """Write a data set as `datasets.save_to_disk` does, sounds without torchcodec, which `datasets` asks for."""
    plain = {name: {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
             if isinstance(feature, datasets.Audio) else feature for name, feature in features.items()}
    info = datasets.DatasetInfo(features=datasets.Features(features))
    made = {split: datasets.Dataset.from_dict(rows, features=datasets.Features(plain))
            for split, rows in splits.items()}
    datasets.DatasetDict({split: datasets.Dataset(rows.data, info=info.copy())
                          for split, rows in made.items()}).save_to_disk(str(folder))


def texts(split: str, labels: list[int]) -> list[str]:
    """Return a text for each label, no two alike, with one word that tells the label."""
    random = np.random.default_rng(len(split))
    return [" ".join([*random.choice(FILLERS, 3 + row % 5), TELLING[label], split, str(row)])
            for row, label in enumerate(labels)]


def pictures(split: str, labels: list[int], size: tuple[int, int] = (36, 40)) -> list[Image.Image]:
    """Return a picture for each label, whose colour tells the label."""
    random = np.random.default_rng(len(split))
    made = []
    for label in labels:
        pixels = random.integers(0, 120, (*size, 3))
        pixels[..., label % 3] += 110 - 30 * (label // 3)
        made.append(Image.fromarray(pixels.astype(np.uint8)))
    return made


MAKERS: dict[str, Callable[[Path], None]] = {
    "stanfordnlp/sst2": sst2, "fancyzhx/ag_news": ag_news, "nyu-mll/glue:mrpc": mrpc,
    "sentence-transformers/stsb": stsb, "AI-Lab-Makerere/beans": beans, "ethz/food101": food101,
    "uoft-cs/cifar10": cifar10,
    "pictures": class_folders(("apple", "pear", "plum"), {"train": 24, "validation": 12, "test": 12}),
    "cats_and_dogs_small": class_folders(("cats", "dogs"), {"train": 24, "validation": 12, "test": 12}),
    "flowers": class_folders(("daisy", "dandelion", "rose", "sunflower", "tulip"), {"": 60}),
    "chest_xray": class_folders(("covid19", "no_finding", "pneumonia"), {"train": 40, "test": 12}),
    "cats_and_tigers": cats_and_tigers, "dair-ai/emotion:split": emotion, "superb_ks": superb_ks,
    "AIDC-AI/CSEMOTIONS": csemotions, "words": words, "speech_commands_v0.02": speech_commands,
    "shakespeare": shakespeare, "trl-lib/Capybara": capybara,
}
