"""Log-mel spectrograms of whole batches, on the device that holds the sound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import pad

_PREEMPHASIS = 0.97
_FRAMES = {"cpu": 512}
"""Frames that are worked on at a time, on a CPU few enough to stay in its caches: that makes it four times as fast."""
_MANY_FRAMES = 2**16
"""The same elsewhere; it bounds the memory."""


def whisper_spectrogram(waves: torch.Tensor, samples: int, hop: int, window: torch.Tensor,
                        filters: torch.Tensor) -> torch.Tensor:
    """Return what Whisper reads: decadic logarithms, the lowest 8 below the clip's highest, scaled.

    Clips are brought to a fixed length. What is silent behind the longest is not computed: its value is known.

    Args:
        waves: Shape (b, t), float32, zero behind each clip's end.
        samples: Fixed number of samples.
        hop: Samples from one frame to the next.
        window: Of the Fourier transform, shape (w,).
        filters: Mel filters, shape (mel bands, w // 2 + 1).

    Returns:
        Shape (b, mel bands, f), f being `samples // hop` where w is even.
    """
    half = len(window) // 2
    # The signal is mirrored at both ends: behind the longest clip there must be silence enough, or the fixed end.
    computed = min(samples, -(-(waves.shape[1] + len(window)) // hop) * hop)
    waves = waves[:, :computed] if waves.shape[1] >= computed else pad(waves, (0, computed - waves.shape[1]))
    mel = _mel_energies(pad(waves, (half, half), mode="reflect"), hop, lambda frames: frames * window,
                        (len(window), len(window)), filters)
    logs = mel[:, :-1].clamp_(min=1e-10).log10_()
    floor = (logs.amax(dim=(1, 2)) - 8)[:, None, None]
    silence = (floor.clamp(min=-10.0) + 4) / 4
    result = silence.repeat(1, len(filters), (samples + 2 * half - len(window)) // hop)
    result[..., :logs.shape[1]] = logs.maximum(floor).add_(4).div_(4).transpose(1, 2)
    return result


def kaldi_spectrogram(waves: torch.Tensor, hop: int, window: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Return natural logarithms of mel energies as Kaldi's `compute-fbank-feats` has them, without dithering.

    torchaudio's `kaldi.fbank` takes one clip at a time; this is the same over a batch.

    Args:
        waves: Shape (b, t), float32.
        hop: Samples from one frame to the next.
        window: By which frames are multiplied, shape (w,).
        filters: Mel filters, shape (mel bands, size of the Fourier transform // 2 + 1).

    Returns:
        Shape (b, (t - w) // hop + 1, mel bands); no frames where t is below w.
    """
    def windowed(frames: torch.Tensor) -> torch.Tensor:
        # Rounded step by step as torchaudio does: beside a loud tone, quiet bands hold little but rounding.
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = frames[..., :-1] * _PREEMPHASIS
        frames[..., 1:].sub_(before)
        frames[..., 0].sub_(frames[..., 0] * _PREEMPHASIS)
        return frames.mul_(window)

    mel = _mel_energies(waves, hop, windowed, (len(window), 2 * (filters.shape[1] - 1)), filters)
    return mel.clamp_(min=torch.finfo(torch.float32).eps).log_()


def _mel_energies(waves: torch.Tensor, hop: int, windowed: Callable[[torch.Tensor], torch.Tensor],
                  sizes: tuple[int, int], filters: torch.Tensor) -> torch.Tensor:
    """Return the power spectrum of each frame through mel filters.

    Args:
        waves: Shape (b, t).
        hop: Samples from one frame to the next.
        windowed: What is done to frames, shape (n, m, w), before the Fourier transform.
        sizes: Samples of a frame, w, and of its Fourier transform.
        filters: Shape (mel bands, size of the Fourier transform // 2 + 1).

    Returns:
        Shape (b, frames, mel bands).
    """
    count = max(0, (waves.shape[1] - sizes[0]) // hop + 1)
    energies = waves.new_empty((len(waves), count, len(filters)))
    if not count:
        return energies
    frames, many = waves.unfold(1, sizes[0], hop), _FRAMES.get(waves.device.type, _MANY_FRAMES)
    clips = max(1, many // count)
    for some, result in zip(torch.split(frames, clips), torch.split(energies, clips), strict=True):
        for part, place in zip(torch.split(some, many, dim=1), torch.split(result, many, dim=1), strict=True):
            spectrum = torch.view_as_real(torch.fft.rfft(windowed(part), n=sizes[1]))
            power = torch.addcmul(spectrum[..., 0].square(), spectrum[..., 1], spectrum[..., 1])
            place.copy_(power @ filters.T)
    return energies
