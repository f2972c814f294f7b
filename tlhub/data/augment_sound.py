"""What is done to training clips: whole batches at a time, from numbers drawn beforehand."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad

from tlhub.config import DataConfig
from tlhub.data.tensors import to_device

_COLUMNS = {"shift": 1, "gain": 1, "noise": 3, "delay": 1}
"""Uniform numbers that each step needs, whether it is on or not: switching one on leaves the others as they were."""
_LARGEST_SHIFT = 4
"""No clip is moved by more than its length divided by this, so that most of a short one stays."""
_RATIO_RANGE = 30.0
"""Signal-to-noise ratios are drawn from the lowest one up to this many dB more."""
_COLORS = (0.0, 0.5, 1.0)
"""Noise is white, pink or brown: its amplitude falls with frequency to the power of these."""
_PERIOD = 2**19
"""Samples of noise of each colour, after which it begins again, without a seam."""
_LOWEST = 20.0
"""Hz below which noise has nothing: power that nobody hears would count in the signal-to-noise ratio."""
_FFT = 512
"""Samples of the windows in which bands are taken out of a waveform."""


@dataclass(frozen=True)
class Blank:
    """Stretches of time and bands of frequency to blank in a batch of clips (Park et al., 2019, "SpecAugment").

    Attributes:
        times: Uniform numbers for width and place of each stretch, shape (n, stretches, 2).
        bands: The same for each band, shape (n, bands, 2).
        longest: The longest stretch, as a share of the clip.
        widest: The widest band, as a share of the mel bands or of the spectrum.
    """

    times: np.ndarray
    bands: np.ndarray
    longest: float
    widest: float

    def features(self, values: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Return spectrograms in which what is blanked has the mean of the clip's valid frames.

        Args:
            values: Shape (n, t, mel bands).
            frames: Valid frames of each clip, int64, shape (n,); what lies behind them stays as it is.

        Returns:
            Shape (n, t, mel bands).
        """
        time, width = values.shape[1:]
        valid = torch.arange(time, device=values.device) < frames[:, None]
        total = (values.sum(dim=2, dtype=torch.float64) * valid).sum(dim=1) / (frames.clamp(min=1) * width)
        everywhere = torch.full_like(frames, width)
        blanked = _inside(self.times, self.longest, frames, time)[:, :, None]
        blanked = blanked | _inside(self.bands, self.widest, everywhere, width)[:, None, :]
        return torch.where(blanked & valid[:, :, None], total.to(values.dtype)[:, None, None], values)

    def waves(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return waveforms with silent stretches, and without the bands of their spectrum.

        Bands are taken out in short windows, so that the outcome depends on the clip alone, not on its padding.

        Args:
            waves: Shape (n, t), zero behind each clip's end.
            lengths: Samples of each clip, int64, shape (n,).

        Returns:
            Shape (n, t), zero behind each clip's end.
        """
        time = waves.shape[1]
        if self.bands.shape[1]:
            window = torch.hann_window(_FFT, device=waves.device)
            spectrum = torch.stft(pad(waves, (0, _FFT)), _FFT, _FFT // 4, window=window, center=True,
                                  pad_mode="constant", return_complex=True)
            everywhere = torch.full_like(lengths, spectrum.shape[1])
            kept = ~_inside(self.bands, self.widest, everywhere, spectrum.shape[1])
            waves = torch.istft(spectrum * kept[:, :, None], _FFT, _FFT // 4, window=window, center=True, length=time)
        silent = _inside(self.times, self.longest, lengths, time)
        return waves * (_valid(lengths, time) & ~silent)


@dataclass(frozen=True)
class SoundAugmentation:
    """The augmentation of clips: delay, shift, noise, gain, and what is blanked.

    Only a delay makes a clip longer: what a shift moves beyond either end is lost. A silent clip gets no noise, since
    there is no signal to be so much louder than it.

    Attributes:
        rate: Samples per second.
        shift: Largest shift to either side, in seconds, and at most a quarter of the clip.
        gain: Largest change of loudness, in dB.
        noise: Lowest signal-to-noise ratio, in dB; the highest is 30 dB more. None for no noise.
        time_masks: Stretches of time that are blanked, and the longest as a share of the clip.
        frequency_masks: Bands that are blanked, and the widest as a share of the mel bands or of the spectrum.
        delay: Longest silence that is put before a clip, in seconds.
    """

    rate: int
    shift: float
    gain: float
    noise: float | None
    time_masks: tuple[int, float]
    frequency_masks: tuple[int, float]
    delay: float = 0.0

    @classmethod
    def of(cls, data: DataConfig, rate: int) -> SoundAugmentation:
        """Return what the data section asks for; what is left open there is off.

        Args:
            data: The data section.
            rate: Samples per second of the clips.
        """
        return cls(rate=rate, shift=data.shift or 0.0, gain=data.gain, noise=data.noise,
                   time_masks=(data.time_masks, data.time_mask_share),
                   frequency_masks=(data.frequency_masks, data.frequency_mask_share), delay=data.delay)

    @property
    def active(self) -> bool:
        """Whether clips are changed at all."""
        return bool(self.delay or self.shift or self.gain or self.noise is not None or self.time_masks[0]
                    or self.frequency_masks[0])

    @property
    def draws(self) -> int:
        """Uniform numbers that each clip needs."""
        return sum(_COLUMNS.values()) + 4 * max(self.time_masks[0], self.frequency_masks[0])

    def delayed(self, waves: torch.Tensor, lengths: torch.Tensor, draws: np.ndarray,
                window: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return clips with silence of random length before them, and their new lengths.

        Args:
            waves: Shape (n, t), float32, zero behind each clip's end.
            lengths: Samples of each clip, int64, shape (n,), on the same device.
            draws: Uniform numbers, shape (n, self.draws).
            window: Samples beyond which no clip reaches.

        Returns:
            Clips, shape (n, t or the longest of them), zero behind each clip's end, and lengths, int64, shape (n,).
        """
        most = torch.clamp((window - lengths).clamp(min=0), max=round(self.delay * self.rate))
        offsets = _whole(draws[:, sum(_COLUMNS.values()) - 1], most + 1)
        longer = lengths + offsets
        width = waves.shape[1] if waves.shape[1] >= window else int(longer.max())
        places = torch.arange(width, device=waves.device) - offsets[:, None]
        there = (places >= 0) & (places < lengths[:, None])
        return pad(waves, (0, width - waves.shape[1])).gather(1, places.clamp_(0, width - 1)) * there, longer

    def apply(self, waves: torch.Tensor, lengths: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        """Return augmented clips, each the same whichever others are in the batch and however it is padded.

        Args:
            waves: Shape (n, t), float32, zero behind each clip's end.
            lengths: Samples of each clip, int64, shape (n,), on the same device.
            draws: Uniform numbers, shape (n, self.draws).

        Returns:
            Shape (n, t), zero behind each clip's end.
        """
        shift, gain, noise, *_ = np.split(draws, np.cumsum(list(_COLUMNS.values())), axis=1)
        if self.shift:
            waves = self._shifted(waves, lengths, shift[:, 0])
        if self.noise is not None:
            waves = self._noisy(waves, lengths, noise)
        if self.gain:
            factors = 10 ** (self.gain * (2 * gain - 1) / 20)
            waves = waves * to_device(factors.astype(np.float32), waves.device)
        return waves

    def blank(self, draws: np.ndarray) -> Blank | None:
        """Return what is to be blanked in clips, None where nothing is.

        Args:
            draws: The numbers that `apply` is given, shape (n, self.draws).
        """
        if not self.time_masks[0] and not self.frequency_masks[0]:
            return None
        pairs = draws[:, sum(_COLUMNS.values()):].reshape(len(draws), -1, 4)
        return Blank(times=pairs[:, :self.time_masks[0], :2], bands=pairs[:, :self.frequency_masks[0], 2:],
                     longest=self.time_masks[1], widest=self.frequency_masks[1])

    def _shifted(self, waves: torch.Tensor, lengths: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        most = torch.clamp(lengths // _LARGEST_SHIFT, max=round(self.shift * self.rate))
        offsets = _whole(draws, 2 * most + 1) - most
        places = torch.arange(waves.shape[1], device=waves.device) - offsets[:, None]
        there = (places >= 0) & (places < lengths[:, None]) & _valid(lengths, waves.shape[1])
        return waves.gather(1, places.clamp_(0, waves.shape[1] - 1)) * there

    def _noisy(self, waves: torch.Tensor, lengths: torch.Tensor, draws: np.ndarray) -> torch.Tensor:
        ratios, colors, offsets = draws.T
        starts = np.floor(colors * len(_COLORS)) * _PERIOD, np.floor(offsets * _PERIOD)
        color, offset = to_device(np.stack(starts).astype(np.int64), waves.device)[:, :, None]
        places = torch.arange(waves.shape[1], device=waves.device) + offset
        noise = _noises(self.rate, waves.device)[color + places % _PERIOD] * _valid(lengths, waves.shape[1])
        ratio = to_device(10 ** (((self.noise or 0.0) + _RATIO_RANGE * ratios) / 10), waves.device)
        signal, power = (torch.sum(values * values, dim=1, dtype=torch.float64) for values in (waves, noise))
        scale = torch.sqrt(signal / (ratio * power.clamp(min=1e-12))).to(waves.dtype)
        return waves + scale[:, None] * noise


@functools.lru_cache(maxsize=4)
def _noises(rate: int, device: torch.device) -> torch.Tensor:
    """Return noise of each colour in turn, float32, shape (colours * _PERIOD,)."""
    drawn = np.random.Generator(np.random.Philox(key=0)).standard_normal(_PERIOD)
    spectrum, frequencies = np.fft.rfft(drawn), np.fft.rfftfreq(_PERIOD, 1 / rate)
    heard = frequencies >= _LOWEST
    falling = np.where(heard, frequencies, _LOWEST)
    noises = np.stack([np.fft.irfft(spectrum * heard * falling ** -exponent) for exponent in _COLORS])
    noises /= noises.std(axis=1, keepdims=True)
    return to_device(noises.astype(np.float32).reshape(-1), device)


def _valid(lengths: torch.Tensor, time: int) -> torch.Tensor:
    """Return which samples belong to their clip, bool, shape (n, time)."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def _whole(draws: np.ndarray, counts: torch.Tensor) -> torch.Tensor:
    """Return a whole number from 0 to below each count, int64, by uniform numbers; shape (n,) each."""
    numbers = to_device(np.ascontiguousarray(draws), counts.device)
    return torch.floor(numbers * counts).to(torch.int64)


def _inside(draws: np.ndarray, share: float, sizes: torch.Tensor, count: int) -> torch.Tensor:
    """Return which of `count` places lie in any of some random stretches.

    Args:
        draws: Uniform numbers for width and place, shape (n, stretches, 2).
        share: The longest stretch, as a share of the size.
        sizes: Size of what the stretches lie in, int64, shape (n,).
        count: How many places are asked about.

    Returns:
        bool, shape (n, count).
    """
    places = torch.arange(count, device=sizes.device)
    inside = torch.zeros((len(sizes), count), dtype=torch.bool, device=sizes.device)
    for width, start in draws.transpose(1, 2, 0):
        widths = _whole(width, torch.floor(sizes * share).to(torch.int64) + 1)
        starts = _whole(start, sizes - widths + 1)[:, None]
        inside |= (places >= starts) & (places < starts + widths[:, None])
    return inside
