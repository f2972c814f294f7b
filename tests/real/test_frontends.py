"""Front ends on real clips against transformers' own extractors; skipped where the data sets are absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from tlhub.data.frontends import front_end

DATA = Path(__file__).parents[3] / "shared" / "data" / "spoken_digits"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the repository")


@pytest.mark.parametrize("extractor", [
    WhisperFeatureExtractor(), WhisperFeatureExtractor(chunk_length=1, feature_size=40), ASTFeatureExtractor(),
    ASTFeatureExtractor(max_length=64, num_mel_bins=40), Wav2Vec2FeatureExtractor(return_attention_mask=True)])
def test_real_clips_in_one_batch_as_the_extractor_has_them_one_by_one(extractor: Any) -> None:
    paths = sorted(DATA.rglob("*.ogg"))[::97]
    sounds = [soundfile.read(path, dtype="float32")[0] for path in paths]
    assert len(sounds) > 20
    waves = torch.zeros(len(sounds), max(map(len, sounds)))
    for row, sound in zip(waves, sounds, strict=True):
        row[:len(sound)] = torch.from_numpy(sound)
    result = front_end(extractor)(waves, torch.tensor([len(sound) for sound in sounds]))
    name = extractor.model_input_names[0]
    for mine, sound in zip(result[name].numpy(), sounds, strict=True):
        wanted = extractor(sound, sampling_rate=16_000, return_tensors="np")[name][0]
        assert np.abs(mine[:len(wanted)] - wanted).max() < 1e-4
