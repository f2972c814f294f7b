"""Front ends against transformers' own feature extractors, clip by clip."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    SpeechT5FeatureExtractor,
    ViTImageProcessor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from tlhub.data.augment_sound import Blank
from tlhub.data.frontends import (
    ASTFrontEnd,
    ExtractorFrontEnd,
    FilterbankFrontEnd,
    WaveformFrontEnd,
    WhisperFrontEnd,
    front_end,
)
from tlhub.errors import CheckpointError

WHISPER = {
    "defaults": {},
    "turbo": {"feature_size": 128},
    "tiny": {"chunk_length": 1, "feature_size": 8},
    "hop": {"chunk_length": 2, "hop_length": 200},
    "odd hop": {"chunk_length": 2, "hop_length": 147, "feature_size": 40},
    "hop beyond the window": {"chunk_length": 2, "hop_length": 300, "n_fft": 256, "feature_size": 20},
    "window": {"chunk_length": 2, "n_fft": 512, "feature_size": 64},
    "odd window": {"chunk_length": 2, "n_fft": 401, "feature_size": 33},
    "8 kHz": {"chunk_length": 2, "sampling_rate": 8000, "n_fft": 256, "hop_length": 80, "feature_size": 24},
    "22 kHz": {"chunk_length": 1, "sampling_rate": 22050, "n_fft": 1024, "hop_length": 221},
}
AST = {
    "defaults": {},
    "speech commands": {"max_length": 128, "mean": -6.845978, "std": 5.5654526},
    "bins": {"num_mel_bins": 23, "max_length": 97},
    "plain": {"do_normalize": False, "max_length": 50, "num_mel_bins": 64},
    "8 kHz": {"sampling_rate": 8000, "max_length": 101, "num_mel_bins": 40},
    "11 kHz": {"sampling_rate": 11025, "max_length": 60, "num_mel_bins": 31},
    "44 kHz": {"sampling_rate": 44100, "max_length": 70, "num_mel_bins": 80, "mean": 0.0, "std": 0.5},
}
WAVEFORM = {
    "defaults": {},
    "masked": {"return_attention_mask": True},
    "plain": {"do_normalize": False},
    "plain and masked": {"do_normalize": False, "return_attention_mask": True},
    "8 kHz": {"sampling_rate": 8000},
    "padding": {"padding_value": -1.0, "return_attention_mask": True},
}
FILTERBANK = {
    "defaults": {},
    "bins": {"num_mel_bins": 40, "feature_size": 40},
    "padding": {"padding_value": 1.0},
}
OTHER = {"stride": SeamlessM4TFeatureExtractor(stride=3),
         "left": Wav2Vec2FeatureExtractor(padding_side="left", return_attention_mask=True),
         "speecht5": SpeechT5FeatureExtractor()}
EXTRACTORS = {
    **{f"whisper: {name}": WhisperFeatureExtractor(**fields) for name, fields in WHISPER.items()},
    **{f"ast: {name}": ASTFeatureExtractor(**fields) for name, fields in AST.items()},
    **{f"waveform: {name}": Wav2Vec2FeatureExtractor(**fields) for name, fields in WAVEFORM.items()},
    **{f"filterbank: {name}": SeamlessM4TFeatureExtractor(**fields) for name, fields in FILTERBANK.items()},
    **{f"other: {name}": extractor for name, extractor in OTHER.items()},
}
BLANK = {"longest": 0.3, "widest": 0.2}


def voice(samples, rate, seed=0):
    """Return harmonics of a gliding pitch under a moving envelope, over soft noise, as speech has them."""
    random, time = np.random.default_rng(seed), np.arange(samples) / rate
    pitch = random.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.5, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(number * phase + random.uniform(0, 6)) / number**1.2 for number in range(1, 25))
    sound *= 0.15 * np.clip(np.sin(2 * np.pi * random.uniform(2, 5) * time), 0, 1)
    return (sound + 0.002 * random.standard_normal(samples)).astype(np.float32)


def clips(rate, least):
    """Return sounds of every kind: short ones, clicks, tones, silence, and some beyond any fixed length."""
    random, time = np.random.default_rng(1), np.arange(rate) / rate
    click = np.zeros(rate // 2, np.float32)
    click[rate // 5] = 0.9
    return [
        voice(rate, rate), voice(int(2.37 * rate), rate, seed=1), voice(int(0.31 * rate) + 7, rate, seed=2),
        (0.3 * random.standard_normal(rate)).astype(np.float32),
        (1e-4 * random.standard_normal(rate // 3)).astype(np.float32),
        np.zeros(rate // 2, np.float32), np.full(rate // 4, 0.25, np.float32), click,
        np.sin(2 * np.pi * 440 * time).astype(np.float32),
        voice(least, rate, seed=3), voice(least + 1, rate, seed=4),
        np.clip(3 * voice(rate, rate, seed=5), -0.5, 0.5),
    ]


def batch(sounds, padding=0):
    lengths = torch.tensor([len(sound) for sound in sounds])
    waves = torch.zeros(len(sounds), int(lengths.max()) + padding)
    for row, sound in zip(waves, sounds, strict=True):
        row[:len(sound)] = torch.from_numpy(sound)
    return waves, lengths


def expected(extractor, sound):
    output = extractor(sound, sampling_rate=extractor.sampling_rate, return_tensors="np")
    return {name: values[0] for name, values in output.items()}


def clean(extractor):
    """Return the sounds of which an extractor makes more than its own rounding."""
    sounds = clips(extractor.sampling_rate, front_end(extractor).least)
    seamless = isinstance(extractor, SeamlessM4TFeatureExtractor)  # divides by deviations next to nothing
    return sounds[:5] + sounds[7:8] + sounds[10:] if seamless else sounds


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_front_end_does_what_the_extractor_does(name):
    extractor = EXTRACTORS[name]
    front, sounds = front_end(extractor), clean(extractor)
    result = front(*batch(sounds))
    compared = 0
    for place, sound in enumerate(sounds):
        wanted = expected(extractor, sound)
        assert set(result) == set(wanted)
        for key, values in wanted.items():
            mine = result[key][place].numpy()
            mine = mine[len(mine) - len(values):] if extractor.padding_side == "left" else mine[:len(values)]
            assert mine.shape == values.shape
            assert np.abs(mine - values).max() < 1e-4, (key, place)
            compared += 1
    assert compared >= 8
    assert ("attention_mask" in result) == front.masked


def test_the_sweep_sees_every_setting():
    assert len(EXTRACTORS) == 29
    kinds = [type(front_end(extractor)) for extractor in EXTRACTORS.values()]
    wanted = {WhisperFrontEnd: 10, ASTFrontEnd: 7, WaveformFrontEnd: 6, FilterbankFrontEnd: 3, ExtractorFrontEnd: 3}
    assert {kind: kinds.count(kind) for kind in wanted} == wanted
    assert len({front_end(extractor).key() for extractor in EXTRACTORS.values()}) == 29


@pytest.mark.parametrize("blanked", [False, True])
@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_clip_is_the_same_in_any_batch_with_any_padding(name, blanked):
    extractor = EXTRACTORS[name]
    front, sounds = front_end(extractor), clean(extractor)
    draws = np.random.default_rng(0).random((2, len(sounds), 2, 2))

    def blank(rows):
        return Blank(draws[0, rows], draws[1, rows], **BLANK) if blanked else None

    whole = front(*batch(sounds), blank(slice(None)))
    for rows, padding in (([2, 7], 0), ([5, 1, 6], 4321), ([7], 1), ([3], 40_000)):
        part = front(*batch([sounds[row] for row in rows], padding), blank(rows))
        for key, values in part.items():
            for mine, row in zip(values, rows, strict=True):
                size = min(len(mine), len(whole[key][row]))
                places = slice(-size, None) if extractor.padding_side == "left" else slice(size)
                assert torch.allclose(mine[places], whole[key][row][places], atol=2e-6), (key, row)


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if name.startswith(("whisper", "ast", "waveform"))])
def test_behind_a_clip_is_what_the_extractor_pads_with(name):
    extractor = EXTRACTORS[name]
    front = front_end(extractor)
    sounds = clips(front.rate, front.least)[:3]
    result = front(*batch(sounds, padding=100))
    assert all(values.is_contiguous() for values in result.values())
    if front.samples is not None:
        noise = np.random.default_rng(0).standard_normal(front.samples).astype(np.float32)
        longer = front(*batch([np.concatenate([noise, sound]) for sound in sounds[:2]]))
        cut = front(*batch([noise] * 2))
        assert all(torch.equal(values, cut[key]) for key, values in longer.items())
        return
    for place, sound in enumerate(sounds):
        assert (result["input_values"][place, len(sound):] == extractor.padding_value).all()
        if front.masked:
            assert result["attention_mask"][place].tolist()[len(sound) - 1:len(sound) + 1] == [1, 0]
            assert result["attention_mask"][place].sum() == len(sound)


def test_fixed_lengths_and_least_samples():
    seen = {name: (front_end(extractor).samples, front_end(extractor).least, front_end(extractor).rate)
            for name, extractor in EXTRACTORS.items()}
    assert seen["whisper: defaults"] == (480_000, 1, 16_000)
    assert seen["ast: defaults"] == (1023 * 160 + 400, 400, 16_000)
    assert seen["ast: 11 kHz"] == (59 * 110 + 275, 275, 11_025)
    assert seen["waveform: 8 kHz"] == (None, 1, 8000)
    assert seen["filterbank: defaults"] == (None, 560, 16_000)
    assert seen["other: stride"][1] >= 400 + 160


def test_of_too_little_sound_nothing_breaks():
    for front in map(front_end, (ASTFeatureExtractor(max_length=20), WhisperFeatureExtractor(chunk_length=1),
                                 Wav2Vec2FeatureExtractor(), SeamlessM4TFeatureExtractor())):
        for samples in (1, 100, 399, 400, 560):
            result = front(torch.full((2, samples), 0.1), torch.tensor([samples, 0]))
            assert all(torch.isfinite(values).all() for values in result.values())


def test_blanked_features_are_the_mean_of_the_clip_within_it():
    extractor = ASTFeatureExtractor(max_length=120)
    front, sounds = front_end(extractor), clips(16_000, 400)[:3]
    waves, lengths = batch(sounds)
    blank = Blank(np.full((3, 1, 2), 0.9999), np.full((3, 1, 2), 0.9999), longest=0.5, widest=0.25)
    plain, blanked = (front(waves, lengths, some)["input_values"] for some in (None, blank))
    changed = plain != blanked
    for place, frames in enumerate((98, 120, 29)):
        assert changed[place, (frames + 1) // 2:frames].all()
        assert not changed[place, :frames // 2, :96].any()
        assert changed[place, :frames, 96:].all()
        assert not changed[place, frames:].any()
        mean = plain[place, :frames].mean()
        assert torch.allclose(blanked[place][changed[place]], mean, atol=1e-5)


def test_whisper_blanks_within_the_clip():
    front = front_end(WhisperFeatureExtractor(chunk_length=3))
    sounds = clips(16_000, 1)[:3]
    waves, lengths = batch(sounds)
    blank = Blank(np.full((3, 1, 2), 0.9999), np.zeros((3, 0, 2)), longest=1.0, widest=0.25)
    plain, blanked = (front(waves, lengths, some)["input_features"] for some in (None, blank))
    assert blanked.is_contiguous()
    ends = [(plain[place] != blanked[place]).any(dim=0).nonzero().max().item() for place in range(3)]
    assert ends == [len(sound) // 160 if len(sound) % 160 else len(sound) // 160 - 1 for sound in sounds]


def test_the_processor_may_hold_the_extractor():
    class Processor:
        feature_extractor = WhisperFeatureExtractor(chunk_length=1)

    assert front_end(Processor()).samples == 16_000


def test_a_subclass_goes_through_its_own_code():
    class Louder(Wav2Vec2FeatureExtractor):
        def __call__(self, raw_speech, **fields):
            return super().__call__([10 * np.asarray(raw_speech)], **fields)

    front, sounds = front_end(Louder(do_normalize=False)), [voice(500, 16_000), voice(400, 16_000)]
    assert isinstance(front, ExtractorFrontEnd)
    assert np.allclose(front(*batch(sounds))["input_values"][0], 10 * sounds[0])


def test_what_reads_no_sound_is_told():
    with pytest.raises(CheckpointError, match="ViTImageProcessor reads no sound"):
        front_end(ViTImageProcessor())

    class Broken(Wav2Vec2FeatureExtractor):
        def __call__(self, raw_speech, **fields):
            raise ValueError("stereo\nonly")

    with pytest.raises(CheckpointError, match=r"Broken makes nothing of a second of mono sound .*stereo"):
        front_end(Broken())


def test_the_key_changes_with_the_settings_only():
    one, other = (front_end(WhisperFeatureExtractor(chunk_length=1, hop_length=hop)) for hop in (160, 320))
    assert one.key() != other.key()
    settings = json.loads(one.extractor.to_json_string())
    assert one.key() == front_end(WhisperFeatureExtractor.from_dict(settings)).key()
