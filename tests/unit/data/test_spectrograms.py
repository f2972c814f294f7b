import pytest
import torch
from torch.nn.functional import pad
from torchaudio.compliance import kaldi

from tlhub.data import spectrograms
from tlhub.data.spectrograms import kaldi_spectrogram, whisper_spectrogram


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


def kaldi_tables(rate, bands):
    size = int(rate * 25.0 * 0.001)
    fourier = 2 ** (size - 1).bit_length()
    filters, _ = kaldi.get_mel_banks(bands, fourier, rate, 20.0, 0.0, 100.0, -500.0, 1.0)
    return int(rate * 10.0 * 0.001), torch.hann_window(size, periodic=False), pad(filters, (0, 1))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 48000])
@pytest.mark.parametrize("seconds", [0.025, 0.3, 6.0])
def test_a_batch_is_what_torchaudio_makes_of_each_clip(rate, seconds):
    waves = noise(3, int(rate * seconds))
    together = kaldi_spectrogram(waves, *kaldi_tables(rate, 40))
    for wave, mine in zip(waves, together, strict=True):
        wanted = kaldi.fbank(wave[None], sample_frequency=rate, num_mel_bins=40, window_type="hanning")
        assert mine.shape == wanted.shape
        assert (mine - wanted).abs().max() < 2e-5


def test_too_little_sound_has_no_frames():
    assert kaldi_spectrogram(noise(2, 399), *kaldi_tables(16_000, 40)).shape == (2, 0, 40)
    assert kaldi_spectrogram(noise(2, 0), *kaldi_tables(16_000, 40)).shape == (2, 0, 40)


@pytest.mark.parametrize("frames", [1, 7, 100, 10**6])
def test_how_many_frames_are_worked_on_at_a_time_changes_nothing(frames, monkeypatch):
    waves, filters = noise(5, 9000), noise(20, 201).abs()
    whisper, ast = (whisper_spectrogram(waves, 16_000, 160, torch.hann_window(400), filters),
                    kaldi_spectrogram(waves, *kaldi_tables(16_000, 40)))
    monkeypatch.setattr(spectrograms, "_FRAMES", {"cpu": frames})
    assert torch.allclose(whisper_spectrogram(waves, 16_000, 160, torch.hann_window(400), filters), whisper, atol=1e-5)
    assert torch.allclose(kaldi_spectrogram(waves, *kaldi_tables(16_000, 40)), ast, atol=1e-5)


@pytest.mark.parametrize("samples", [16_000, 16_003, 9000, 8999, 1600])
def test_silence_that_is_not_computed_has_the_value_it_would_have(samples):
    window, filters = torch.hann_window(400), noise(20, 201).abs()
    for time in (0, 1, 900, 8700, 9000, 9001):
        waves = noise(2, time)
        whole = pad(waves[:, :samples], (0, max(0, samples - time)))
        assert torch.allclose(whisper_spectrogram(waves, samples, 160, window, filters),
                              whisper_spectrogram(whole, samples, 160, window, filters), atol=1e-6)
