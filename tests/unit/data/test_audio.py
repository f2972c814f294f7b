from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio

from tests import tiny
from tests.sounds import sound, tone, write_sound
from tlhub.config import DataConfig
from tlhub.data.audio import AudioInputs, longest_seconds, sound_at
from tlhub.data.prepare import Examples, prepare
from tlhub.errors import DataError

CPU = torch.device("cpu")
SECONDS = (0.3, 0.15, 0.5, 0.02, 0.31, 0.4)
CLIPS = [tone(200 + 100 * number, seconds) for number, seconds in enumerate(SECONDS)]
EXAMPLES = Examples([sound(clip) for clip in CLIPS], np.arange(6) % 2, [f"row:{number}" for number in range(6)])


def inputs(tmp_path, kind, examples=EXAMPLES, **fields):
    data = DataConfig(cache_dir=str(tmp_path / "cache"), **{"max_seconds": 0.4, **fields})
    return AudioInputs(examples, tiny.processor(kind), fingerprint="f", data=data, seed=3, workers=2)


@pytest.mark.parametrize("kind", tiny.AUDIO_KINDS)
def test_a_clip_is_the_same_in_every_batch_and_without_a_cache(tmp_path, kind):
    cached, decoded = inputs(tmp_path, kind), inputs(tmp_path, kind, cache_limit_gib=0.0)
    name = "input_values" if kind in (*tiny.WAVE_KINDS, "ast") else "input_features"
    together = cached.batch(np.arange(6), None, CPU)
    assert together[name].dtype == torch.float32
    assert torch.equal(together[name], decoded.batch(np.arange(6), None, CPU)[name])
    for index in range(6):
        alone = cached.batch(np.array([index]), None, CPU)[name][0]
        row = together[name][index]
        assert (row[:len(alone)] - alone).abs().max() < 1e-5
        assert not row[len(alone):].any()


def test_masks_follow_the_checkpoints_extractor(tmp_path):
    masked = inputs(tmp_path, "hubert")
    rates = [min(round(seconds * tiny.RATE), round(0.4 * tiny.RATE)) for seconds in SECONDS]
    assert masked.lengths.tolist() == rates
    batch = masked.batch(np.array([1, 2]), None, CPU)
    assert batch["attention_mask"].sum(1).tolist() == [rates[1], rates[2]]
    plain = inputs(tmp_path, "wav2vec2")
    assert plain.lengths is None
    assert set(plain.batch(np.array([1, 2]), None, CPU)) == {"input_values"}
    assert plain.batch(np.array([1]), None, CPU)["input_values"].shape == (1, round(0.4 * tiny.RATE))


def test_clips_are_cut_at_their_start_and_short_ones_continued(tmp_path):
    made = inputs(tmp_path, "hubert")
    assert made.batch(np.array([2]), None, CPU)["input_values"].shape[1] == round(0.4 * tiny.RATE)
    assert made.batch(np.array([3]), None, CPU)["input_values"].shape[1] == round(0.1 * tiny.RATE)


def test_another_rate_is_resampled_once(tmp_path):
    clip = tone(300, 0.3, rate=44100)
    examples = Examples([sound(clip, 44100, subtype="FLOAT")], np.zeros(1, np.int64), ["a"])
    expected = torchaudio.functional.resample(torch.from_numpy(clip), 44100, tiny.RATE)
    torch.testing.assert_close(torch.from_numpy(sound_at(examples.inputs[0], tiny.RATE)), expected, rtol=0, atol=1e-5)
    values = inputs(tmp_path, "wav2vec2", examples).batch(np.array([0]), None, CPU)["input_values"][0]
    shown = tiny.processor("wav2vec2")(np.pad(expected.numpy(), (0, 6400 - len(expected))), sampling_rate=tiny.RATE)
    assert (values - torch.from_numpy(np.asarray(shown["input_values"][0]))).abs().max() < 1e-5


@pytest.mark.parametrize("found", [1, 11025, 16001, 22254, 44101, 95999])
def test_odd_rates_take_little_memory_and_keep_pitch_and_length(found, monkeypatch):
    sizes = []

    def noted(first, second):
        made = torchaudio.transforms.Resample(first, second)
        sizes.append(made.kernel.numel() if first != second else 0)
        return made

    monkeypatch.setattr("tlhub.data.audio._resampler", noted)
    clip = tone(300 if found > 1 else 0, 0.3 if found > 1 else 3, rate=found)
    samples = sound_at(sound(clip, found, subtype="FLOAT"), tiny.RATE)
    assert 0 <= -(-len(clip) * tiny.RATE // found) - len(samples) <= 1
    assert len(sizes) == 1
    assert sizes[0] < 1e6
    if found > 1:
        expected = tone(300, len(samples) / tiny.RATE, tiny.RATE)
        assert np.abs(samples - expected)[400:-400].max() < 0.03


def test_prepared_sounds_are_found_again(tmp_path, monkeypatch):
    inputs(tmp_path, "wav2vec2")
    monkeypatch.setattr("tlhub.data.audio.sound_at", lambda *_: pytest.fail("decoded again"))
    inputs(tmp_path, "whisper")
    with pytest.raises(pytest.fail.Exception):
        inputs(tmp_path, "wav2vec2", max_seconds=0.2)


@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_augmentation_is_a_function_of_epoch_and_index(tmp_path, kind):
    options = {"shift": 0.05, "gain": 6.0, "noise": 10.0, "time_masks": 1, "frequency_masks": 1}
    made = inputs(tmp_path, kind, **options)
    assert made.augmented
    name = "input_values" if kind == "hubert" else "input_features"
    together = made.batch(np.arange(6), 2, CPU)[name]
    for index in range(6):
        alone = made.batch(np.array([index]), 2, CPU)[name][0]
        assert (together[index][:len(alone)] - alone).abs().max() < 1e-4
    assert not torch.equal(together, made.batch(np.arange(6), 3, CPU)[name])
    assert not torch.equal(together, made.batch(np.arange(6), None, CPU)[name])
    twice = made.batch(np.array([0, 6]), 2, CPU)[name]
    assert not torch.equal(twice[0], twice[1])


def test_a_file_that_rots_after_it_was_checked_is_named(tmp_path):
    paths = [str(write_sound(tmp_path / f"{number}.wav", clip)) for number, clip in enumerate(CLIPS)]
    made = inputs(tmp_path, "wav2vec2", Examples(paths, np.zeros(6, np.int64), paths), cache_limit_gib=0.0)
    (tmp_path / "4.wav").write_bytes(b"no sound any more")
    with pytest.raises(DataError, match=r"4\.wav' cannot be decoded"):
        made.batch(np.arange(6), None, CPU)


def test_the_longest_is_told_from_headers():
    assert longest_seconds(EXAMPLES) == pytest.approx(0.5)


@pytest.mark.parametrize("ending", ["wav", "flac", "OGG", "mp3"])
def test_class_folders_of_sounds(tmp_path, config, ending):
    for label in ("high", "low"):
        for number in range(12):
            pitch = (200 if label == "low" else 900) + number
            write_sound(tmp_path / "d" / label / f"{number}.{ending}", tone(pitch, 0.2))
    (tmp_path / "d" / "low" / "broken.wav").write_bytes(b"words")
    data = prepare(config(tmp_path / "d", max_bad_fraction=0.1), "audio", seed=0)
    assert data.target.names == ("high", "low")
    assert sum(len(part) for part in data.splits.values()) == 24
    assert [(bad.id, bad.reason) for bad in data.quarantined] == [
        ("low/broken.wav", "cannot be decoded (Format not recognised)")]
    assert any(note.startswith("sounds last 0.20 to 0.2") for note in data.notes)


def test_a_short_clip_is_not_shifted_into_its_padding(tmp_path):
    clip = Examples([sound(tone(300, 0.2))], np.zeros(1, np.int64), ["a"])
    made = inputs(tmp_path, "wav2vec2", clip, max_seconds=4.0, shift=1.0)

    def heard(epoch):
        values = made.batch(np.zeros(1, np.int64), epoch, CPU)["input_values"][0]
        return int(((values - values[-1]).abs() > 1e-4).sum())

    whole = heard(None)
    assert min(heard(epoch) for epoch in range(20)) >= 0.74 * whole


def test_one_length_where_the_model_heeds_padding(tmp_path):
    made = inputs(tmp_path, "wavlm", one_length=True)
    assert made.lengths is None
    batch = made.batch(np.array([1, 3]), None, CPU)
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, round(0.4 * tiny.RATE))
    assert batch["attention_mask"].sum(1).tolist() == [round(0.15 * tiny.RATE), round(0.1 * tiny.RATE)]
    clip = CLIPS[1].astype(np.float32)
    plain = tiny.processor("wavlm")(clip, sampling_rate=tiny.RATE, padding="max_length", max_length=6400,
                                    return_tensors="pt")
    assert (batch["input_values"][0] - plain["input_values"][0]).abs().max() < 1e-3
    assert torch.equal(batch["attention_mask"][0], plain["attention_mask"][0].long())


def test_what_is_blanked_is_a_share_of_the_clip_not_of_the_silence_behind_it(tmp_path):
    made = inputs(tmp_path, "wav2vec2", max_seconds=2.0, time_masks=2)
    size, blanked = round(SECONDS[0] * tiny.RATE), []
    for epoch in range(20):
        values = made.batch(np.array([0]), epoch, CPU)["input_values"][0]
        assert len(values) == 2 * tiny.RATE
        blanked.append(float((values[:size] == values[-1]).float().mean()))
    assert 0.05 < max(blanked) < 0.22  # the tone itself crosses zero in 1% of its samples


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "whisper"])
def test_a_delay_is_the_same_in_every_batch_and_counts_as_sound(tmp_path, kind):
    made, plain = inputs(tmp_path, kind, max_seconds=1.0, delay=0.3), inputs(tmp_path, kind, max_seconds=1.0)
    assert made.augmented
    name = "input_features" if kind == "whisper" else "input_values"
    together, mask = (made.batch(np.arange(6), 2, CPU).get(key) for key in (name, "attention_mask"))
    moved = 0
    for index in range(6):
        batch = made.batch(np.array([index]), 2, CPU)
        size = batch[name].shape[-1]
        assert (together[index][..., :size] - batch[name][0]).abs().max() < 1e-4
        still = plain.batch(np.array([index]), 2, CPU)[name][0]
        moved += still.shape != batch[name][0].shape or not torch.equal(still, batch[name][0])
        if mask is not None:
            assert 0 <= mask[index].sum() - round(SECONDS[index] * tiny.RATE) <= 0.3 * tiny.RATE
    assert moved >= 5
    for epoch in (None, 2):
        assert torch.equal(plain.batch(np.arange(6), epoch, CPU)[name], made.batch(np.arange(6), None, CPU)[name])
