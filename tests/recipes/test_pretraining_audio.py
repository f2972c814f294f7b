"""What the embedded checkpoint of sound is pretrained on, and its longer window."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

RECIPES = Path(__file__).parents[2] / "recipes"
UNHEARD = ("alexa", "computer", "smart", "mirror", "view", "glass", "amelia", "tilly", "robin", "tulip")
"""Parts of the wake words that the checkpoint is measured on: none may be among its words."""


@pytest.fixture
def audio(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("pretraining.audio")


def test_no_wake_word_of_the_tables_is_spoken(audio):
    texts = [line for line in audio.WORDS.read_text().splitlines() if line and not line.startswith("#")]
    assert len(texts) == len(set(texts)) == 691
    assert [text for text in texts if re.search("|".join(UNHEARD), text)] == []


def test_a_resampled_tone_keeps_its_shape_at_another_pitch(audio):
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    faster = importlib.import_module("pretraining.acoustics").resampled(tone, 0.8)
    assert len(faster) == 12800
    np.testing.assert_allclose(faster[200:-200], np.sin(2 * np.pi * 550 * time)[200:12600], atol=2e-2)


def test_artificial_sounds_are_the_same_again_and_fit_into_the_window(audio):
    artificial = importlib.import_module("pretraining.artificial")
    assert len(artificial.MAKERS) == 48
    for name in artificial.MAKERS:
        sound = artificial.artificial(name, 0)
        assert np.abs(sound).max() == 1, name
        assert 0.3 * 16000 < len(sound) <= audio.SECONDS * 16000, name
        assert not np.array_equal(sound, artificial.artificial(name, 1)), name
    np.testing.assert_array_equal(artificial.artificial("bell", 3), artificial.artificial("bell", 3))


def test_altered_clips_depend_on_their_numbers_alone(audio):
    acoustics = importlib.import_module("pretraining.acoustics")
    clip, noises = np.sin(np.arange(8000) / 9).astype(np.float32), [np.ones(100, np.float32)]
    copies = [acoustics.altered(clip, noises, acoustics.generator("clip", number), (0.8, 1.2)) for number in (0, 0, 1)]
    np.testing.assert_array_equal(copies[0], copies[1])
    assert len(copies[0]) != len(copies[2])
    assert all(np.abs(copy).max() <= 1 for copy in copies)


def test_a_longer_window_hears_the_same_at_its_beginning(audio, tmp_path):
    folder = RECIPES / "pretrain" / "audio"
    torch.manual_seed(0)
    short = transformers.WhisperForAudioClassification(transformers.WhisperConfig.from_pretrained(folder))
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    short.save_pretrained(tmp_path / "short")
    extractor.save_pretrained(tmp_path / "short")
    longer = audio.between(tmp_path / "short", tmp_path / "long")
    long = transformers.WhisperForAudioClassification.from_pretrained(longer)
    assert transformers.WhisperFeatureExtractor.from_pretrained(longer).n_samples == 48000
    positions = [model.encoder.embed_positions.weight for model in (short, long)]
    assert [len(each) for each in positions] == [25, 75]
    torch.testing.assert_close(positions[1][:25], positions[0])
    torch.testing.assert_close(long.classifier.weight, short.classifier.weight)
    assert long.config._attn_implementation == "eager"
