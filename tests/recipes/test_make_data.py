"""The data sets that tlhub brings: what they hold is what their READMEs say, and making them again gives the same."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "tlhub" / "builtin" / "data"
SPLITS = ("train", "validation", "test")
LABELS = ("hey_tilly", "near_miss", "other", "background")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def messages() -> dict[str, list[dict[str, str]]]:
    return {split: read_csv(DATA / "messages" / f"{split}.csv") for split in SPLITS}


@pytest.fixture(scope="module")
def clips() -> list[dict[str, str]]:
    return read_csv(DATA / "wake_word" / "metadata.csv")


@pytest.fixture(scope="module")
def making() -> Iterator[Path]:
    folder = REPOSITORY / "recipes" / "pretraining"
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def test_digits_are_scikit_learns() -> None:
    original = {picture.tobytes() for picture in load_digits().images.astype(np.uint8)}
    seen = Counter[bytes]()
    for split, count in zip(SPLITS, (1097, 200, 500), strict=True):
        rows = pq.read_table(DATA / "digits" / f"{split}.parquet").to_pylist()
        assert len(rows) == count
        shares = Counter(row["label"] for row in rows)
        assert sorted(shares) == [str(digit) for digit in range(10)]
        assert max(shares.values()) - min(shares.values()) <= count // 100 + 1
        for row in rows:
            pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
            assert pixels.shape == (10, 10)
            assert (pixels[[0, -1]] == 255).all()
            assert (pixels[:, [0, -1]] == 255).all()
            seen[np.rint((255 - pixels[1:-1, 1:-1].astype(float)) * 16 / 255).astype(np.uint8).tobytes()] += 1
    assert set(seen) == original
    assert sum(seen.values()) == 1797


def test_messages_are_what_the_readme_says(messages: dict[str, list[dict[str, str]]]) -> None:
    assert {split: len(rows) for split, rows in messages.items()} == {"train": 490, "validation": 70, "test": 175}
    readme = (DATA / "messages" / "README.md").read_text()
    for rows in messages.values():
        counts = Counter(row["label"] for row in rows)
        assert len(set(counts.values())) == 1
        assert [label for label in counts if f"`{label}`" not in readme] == []
        assert len(counts) == 7
    lengths = [len(row["text"].split()) for rows in messages.values() for row in rows]
    assert min(lengths) == 1
    assert 20 <= max(lengths) <= 40
    assert len({row["text"].lower() for rows in messages.values() for row in rows}) == 735


def test_messages_of_two_splits_are_not_nearly_the_same(messages: dict[str, list[dict[str, str]]]) -> None:
    texts = {split: [row["text"] for row in rows] for split, rows in messages.items()}
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    grams.fit([text for rows in texts.values() for text in rows])
    vectors = {split: grams.transform(rows) for split, rows in texts.items()}
    largest = [(vectors[one] @ vectors[two].T).max()
               for one, two in (("train", "validation"), ("train", "test"), ("validation", "test"))]
    assert 0.3 < max(largest) < 0.5


def test_messages_are_neither_trivial_nor_hopeless(messages: dict[str, list[dict[str, str]]]) -> None:
    texts = {split: [row["text"] for row in rows] for split, rows in messages.items()}
    labels = {split: np.array([row["label"] for row in rows]) for split, rows in messages.items()}
    words = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    assert 0.55 < words.fit(texts["train"], labels["train"]).score(texts["test"], labels["test"]) < 0.8
    # No word stands for a class: whichever is picked, it is in less than a third of the class's messages.
    counts = CountVectorizer(binary=True, min_df=5)
    found = counts.fit_transform([text for rows in texts.values() for text in rows]).toarray()
    everywhere = np.concatenate([labels[split] for split in SPLITS])
    shares = {label: found[everywhere == label].mean(axis=0) for label in np.unique(everywhere)}
    for label, share in shares.items():
        others = found[everywhere != label].mean(axis=0)
        assert share[others == 0].max(initial=0) < 1 / 3, label


def test_digits_and_messages_are_made_again(tmp_path: Path, making: Path) -> None:
    command = [sys.executable, str(making / "make_data.py"), "--out", str(tmp_path), "--only", "digits,messages"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(made) == 6
    for path in made:
        if path.suffix == ".csv":
            assert (tmp_path / path).read_bytes() == (DATA / path).read_bytes()
        else:
            assert pq.read_table(tmp_path / path).equals(pq.read_table(DATA / path))
    assert "messages: 3 files" in printed


def test_clips_are_what_the_readme_says(clips: list[dict[str, str]]) -> None:
    readme = (DATA / "wake_word" / "README.md").read_text()
    counts = Counter((row["split"], row["label"]) for row in clips)
    for label in LABELS:
        line = next(line for line in readme.splitlines() if line.startswith(f"| `{label}` |"))
        assert [int(number) for number in re.findall(r"\| (\d+)", line)] == [counts[split, label] for split in SPLITS]
    files = {path.relative_to(DATA / "wake_word").as_posix() for path in DATA.glob("wake_word/*/*/*.ogg")}
    assert {row["file_name"] for row in clips} == files
    assert len(files) == len(clips) > 700
    assert all(row["file_name"].startswith(f"{row['split']}/{row['label']}/") for row in clips)


def test_voices_and_phrases_of_the_test_are_unheard(clips: list[dict[str, str]]) -> None:
    voices = {split: {row["group"] for row in clips if row["split"] == split} for split in SPLITS}
    assert {split: len(names) for split, names in voices.items()} == {"train": 36, "validation": 8, "test": 14}
    assert len(set.union(*voices.values())) == 58
    assert [name for names in voices.values() for name in names if re.fullmatch(r"[mf]\d", name)] == []
    texts = {split: {row["text"] for row in clips if row["split"] == split} for split in SPLITS}
    new = [row for row in clips if row["split"] == "test" and row["text"] not in texts["train"] | texts["validation"]]
    unlike = [row for row in clips if row["split"] == "test" and row["label"] in ("near_miss", "other")]
    assert len(new) == len(unlike) / 2
    assert {row["text"] for row in clips if row["label"] == "hey_tilly"} == {"hey tilly"}


def test_clips_can_be_heard(clips: list[dict[str, str]]) -> None:
    lengths = {label: [] for label in LABELS}
    for row in clips[::7]:
        samples, rate = soundfile.read(DATA / "wake_word" / row["file_name"], dtype="float32")
        assert rate == 16000
        assert samples.ndim == 1
        assert 0.0005 < np.sqrt(np.mean(samples**2)) < 0.4
        assert np.abs(samples).max() <= 1.01
        lengths[row["label"]].append(len(samples) / rate)
    assert sum(map(len, lengths.values())) > 100
    assert all(1.29 < min(seconds) < max(seconds) < 1.81 for seconds in lengths.values())
    means = [np.mean(seconds) for seconds in lengths.values()]
    assert max(means) - min(means) < 0.2  # the length tells nothing of the class


@pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("opusenc")), reason="espeak-ng or opusenc lacks")
def test_clips_are_made_again(tmp_path: Path, making: Path, monkeypatch: pytest.MonkeyPatch,
                              clips: list[dict[str, str]]) -> None:
    from making import wake_word

    rows = {row["file_name"]: row for row in clips}
    chosen = [clip for clip in wake_word.clips_of("validation", "Annie") if clip.number == 0]
    assert len(chosen) == len(LABELS)
    for clip in chosen:
        accent, noise, ratio = wake_word.write(clip, tmp_path)
        row = rows[clip.file]
        assert (row["accent"], row["noise"], row["snr_db"], row["text"]) == (accent, noise, ratio, clip.text)
        made, kept = (soundfile.read(folder / clip.file)[0] for folder in (tmp_path, DATA / "wake_word"))
        assert len(made) == len(kept)
        assert np.corrcoef(made, kept)[0, 1] > 0.8  # another version of either program is close


def test_the_sets_are_small() -> None:
    sizes = {folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
             for folder in DATA.iterdir()}
    assert sorted(sizes) == ["digits", "messages", "python_reference", "wake_word"]
    assert sum(sizes.values()) < 3_000_000
