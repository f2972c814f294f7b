"""From waveforms to a model's keyword arguments, as the checkpoint's own feature extractor makes them, but in batch."""

from __future__ import annotations

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import pad
from torchaudio.compliance import kaldi
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from tlhub.data.augment_sound import Blank
from tlhub.data.sound import MAX_RATE
from tlhub.data.spectrograms import kaldi_spectrogram, whisper_spectrogram
from tlhub.data.tensors import to_device
from tlhub.errors import CheckpointError

_NO_WARPING = (100.0, -500.0, 1.0)
"""Kaldi's default limits, in Hz, and factor of vocal tract length normalisation."""
_PADDED_FRAMES = 2
"""What SeamlessM4T's extractor pads frames to a multiple of; with another stride it would cut them off."""
_VERSION = 1
"""Part of every key: to be raised when what a front end computes changes."""


class FrontEnd(ABC):
    """What stands between waveforms and the model.

    What comes of a clip depends on the clip alone: not on the others of its batch, nor on how far it is padded.

    Attributes:
        extractor: The checkpoint's feature extractor.
        rate: Samples per second of the sound that the checkpoint reads.
        samples: Number of samples that every clip is brought to; None where clips keep their lengths.
        masked: Whether the model is told which part of a clip is padding.
        least: The fewest samples that anything can be made of.

    Raises:
        CheckpointError: The rate is none that sound has.
    """

    samples: int | None = None
    masked: bool = False
    least: int = 1

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor
        self.rate = int(extractor.sampling_rate)
        if not 0 < self.rate <= MAX_RATE:
            raise CheckpointError(f"the checkpoint reads sound of {self.rate} samples a second; use another checkpoint")

    @abstractmethod
    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments, on the device that holds the waveforms.

        Args:
            waves: Mono, at `rate`, shape (b, t), float32, zero behind each clip's end.
            lengths: Samples of each clip, int64, shape (b,), on the same device.
            blank: Stretches and bands to blank (SpecAugment); None for none.
        """

    def key(self) -> str:
        """Return a text that changes with what the front end does."""
        settings = json.dumps(self.extractor.to_dict(), sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        return f"{type(self).__name__} {_VERSION} {type(self.extractor).__name__} {digest}"


class WaveformFrontEnd(FrontEnd):
    """The waveform itself, of zero mean and unit variance where the checkpoint wants it (wav2vec2 and its kin).

    The statistics are those of the clip without its padding, also where the extractor, for want of a mask, would
    count in the padding of a batch: the outcome is what it makes of the clip alone.

    Args:
        extractor: A `Wav2Vec2FeatureExtractor` that pads on the right.
    """

    def __init__(self, extractor: Wav2Vec2FeatureExtractor) -> None:
        super().__init__(extractor)
        self.masked = bool(extractor.return_attention_mask)

    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return `input_values`, shape (b, t), and if `masked`, `attention_mask`, int64, shape (b, t)."""
        valid = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        if self.extractor.do_normalize:
            waves = _standardized(waves, valid, lengths)
        if blank is not None:
            waves = blank.waves(waves, lengths)
        if self.extractor.padding_value:
            waves = waves.masked_fill(~valid, self.extractor.padding_value)
        return {"input_values": waves, "attention_mask": valid.long()} if self.masked else {"input_values": waves}


class WhisperFrontEnd(FrontEnd):
    """The log-mel spectrogram that Whisper reads, of clips brought to one length.

    The extractor's dithering, which is off by default, is left out: it would make the outcome depend on more than the
    clip.

    Args:
        extractor: A `WhisperFeatureExtractor` that pads with zeros on the right.
    """

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        super().__init__(extractor)
        self.samples: int = int(extractor.n_samples)
        filters = np.ascontiguousarray(extractor.mel_filters.T, dtype=np.float32)
        self._tables = _Tables(torch.hann_window(extractor.n_fft), torch.from_numpy(filters))

    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return `input_features`, shape (b, mel bands, frames)."""
        hop = self.extractor.hop_length
        features = whisper_spectrogram(waves, self.samples, hop, *self._tables.on(waves.device))
        if blank is not None:
            frames = ((lengths + hop - 1) // hop).clamp(max=features.shape[2])
            features = blank.features(features.transpose(1, 2), frames).transpose(1, 2).contiguous()
        return {"input_features": features}


class ASTFrontEnd(FrontEnd):
    """Kaldi's log-mel spectrogram of a fixed number of frames, as the Audio Spectrogram Transformer reads it.

    Args:
        extractor: An `ASTFeatureExtractor`.
    """

    def __init__(self, extractor: ASTFeatureExtractor) -> None:
        super().__init__(extractor)
        size, self._hop = (int(self.rate * milliseconds * 0.001) for milliseconds in (25.0, 10.0))  # Kaldi's rounding
        self.least, self.samples = size, (extractor.max_length - 1) * self._hop + size
        fourier = 2 ** (size - 1).bit_length()
        bands = (20.0, 0.0)  # lowest and highest frequency in Hz, the latter counted from the highest there is
        filters, _ = kaldi.get_mel_banks(extractor.num_mel_bins, fourier, float(self.rate), *bands, *_NO_WARPING)
        self._tables = _Tables(torch.hann_window(size, periodic=False), pad(filters, (0, 1)))

    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return `input_values`, shape (b, frames, mel bands)."""
        features = kaldi_spectrogram(waves[:, :self.samples], self._hop, *self._tables.on(waves.device))
        missing = self.extractor.max_length - features.shape[1]
        features = pad(features, (0, 0, 0, missing))
        frames = ((lengths - self.least) // self._hop + 1).clamp(0, self.extractor.max_length)
        behind = torch.arange(features.shape[1], device=waves.device) >= frames[:, None]
        features = features.masked_fill_(behind[:, :, None], 0.0)
        if self.extractor.do_normalize:
            features = features.sub_(self.extractor.mean).div_(self.extractor.std * 2)
        return {"input_values": features if blank is None else blank.features(features, frames)}


class FilterbankFrontEnd(FrontEnd):
    """Kaldi's log-mel spectrogram, each band of zero mean and unit variance over the clip, as Wav2Vec2-BERT reads it.

    Several frames in a row make one of the model's. The last one is masked where the clip ends within it. The spectrum
    is worked out in float64, as the extractor does: dividing by the deviation of still bands enlarges rounding. Of
    constants, pure tones and two frames alike, the extractor's own outcome is rounding in part and is not met as well.

    Args:
        extractor: A `SeamlessM4TFeatureExtractor` that pads on the right.
    """

    masked = True

    def __init__(self, extractor: SeamlessM4TFeatureExtractor) -> None:
        super().__init__(extractor)
        self._hop = 160  # as the extractor has it, whatever the rate
        self.least = len(extractor.window) + max(1, extractor.stride - 1) * self._hop
        filters = np.ascontiguousarray(extractor.mel_filters.T, dtype=np.float64)
        self._tables = _Tables(torch.from_numpy(extractor.window.astype(np.float64)), torch.from_numpy(filters))

    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return `input_features`, shape (b, frames, stride * mel bands), and `attention_mask`, shape (b, frames)."""
        window, filters = self._tables.on(waves.device)
        features = kaldi_spectrogram(waves.double() * 2**15, self._hop, window, filters).to(waves.dtype).double()
        frames = ((lengths - len(window)) // self._hop + 1).clamp(min=0)
        valid = (torch.arange(features.shape[1], device=waves.device) < frames[:, None])[:, :, None]
        mean = (features * valid).sum(dim=1, keepdim=True) / frames.clamp(min=1)[:, None, None]
        centred = (features - mean) * valid
        variance = centred.square().sum(dim=1, keepdim=True) / (frames - 1).clamp(min=1)[:, None, None]
        features = (centred / torch.sqrt(variance + 1e-7)).to(waves.dtype)
        if blank is not None:
            features = blank.features(features, frames)
        stride, padding = self.extractor.stride, self.extractor.padding_value
        features = features.masked_fill(~valid, padding) if padding else features
        missing = -features.shape[1] % stride
        features = pad(features, (0, 0, 0, missing), value=padding)
        count = features.shape[1] // stride
        whole = (torch.arange(count, device=waves.device) + 1) * stride <= frames[:, None]
        return {"input_features": features.reshape(len(features), count, stride * features.shape[2]),
                "attention_mask": whole.long()}


class ExtractorFrontEnd(FrontEnd):
    """Any other feature extractor, applied to one clip after the other on the CPU.

    Args:
        extractor: A feature extractor of transformers.

    Raises:
        CheckpointError: Nothing comes of a second of sound.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__(extractor)
        noise = np.random.Generator(np.random.Philox(key=0)).standard_normal(self.rate).astype(np.float32) * 0.1
        try:
            self.masked = "attention_mask" in self._extracted(noise)
        except Exception as error:
            raise CheckpointError(f"the checkpoint's {type(extractor).__name__} makes nothing of a second of mono "
                                  f"sound ({' '.join(repr(error).split())[:160]}); use another checkpoint") from None
        self.least = self._fewest(noise)
        self._main = extractor.model_input_names[0]

    def __call__(self, waves: torch.Tensor, lengths: torch.Tensor,
                 blank: Blank | None = None) -> dict[str, torch.Tensor]:
        """Return what the extractor calls its outputs, padded to the longest, each of shape (b, frames, ...)."""
        if blank is not None:
            waves = blank.waves(waves, lengths)
        clips = [wave[:length] for wave, length in zip(waves.cpu().numpy(), lengths.tolist(), strict=True)]
        outputs = [self._extracted(clip) for clip in clips]
        return {name: to_device(self._stacked(name, [output[name] for output in outputs]), waves.device)
                for name in outputs[0]}

    def key(self) -> str:
        """Return a text that changes with what the front end does."""
        return f"{super().key()} transformers {transformers.__version__}"

    def _extracted(self, clip: np.ndarray) -> dict[str, np.ndarray]:
        output = self.extractor(clip, sampling_rate=self.rate, return_tensors="np")
        return {name: values[0] for name, values in output.items()}

    def _stacked(self, name: str, values: list[np.ndarray]) -> np.ndarray:
        longest = max(len(value) for value in values)
        padding = self.extractor.padding_value if name == self._main else 0
        left = self.extractor.padding_side == "left"
        padded = []
        for value in values:
            missing = longest - len(value)
            widths = [(missing, 0) if left else (0, missing), *[(0, 0)] * (value.ndim - 1)]
            padded.append(np.pad(value, widths, constant_values=padding))
        return np.stack(padded)

    def _fewest(self, noise: np.ndarray) -> int:
        """Return how many samples it takes at least, found by halving."""
        low, high = 0, len(noise)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._makes_something(noise[:middle]) else (middle, high)
        return high

    def _makes_something(self, clip: np.ndarray) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = self._extracted(clip)
        except Exception:
            return False
        return all(value.size and np.isfinite(value).all() for value in values.values())


class _Tables:
    """Tensors, and their copies on the devices where they have been needed."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._copies = {tensors[0].device: tensors}

    def on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        if device not in self._copies:
            self._copies[device] = tuple(tensor.to(device) for tensor in next(iter(self._copies.values())))
        return self._copies[device]


def front_end(processor: Any) -> FrontEnd:
    """Return the front end that does what a checkpoint's processor does with sound.

    Args:
        processor: A feature extractor of transformers, or a processor that holds one beside a tokenizer.

    Raises:
        CheckpointError: The processor reads no sound, or cannot be set up.
    """
    extractor = getattr(processor, "feature_extractor", processor)
    if not hasattr(extractor, "sampling_rate") or not callable(extractor):
        raise CheckpointError(f"the checkpoint's {type(processor).__name__} reads no sound; use a checkpoint whose "
                              "preprocessor_config.json names a feature extractor for audio")
    try:
        return _front_end_of(extractor)
    except CheckpointError:
        raise
    except Exception as error:  # of every kind, where its settings are not what its class expects
        raise CheckpointError(f"the checkpoint's {type(extractor).__name__} cannot be set up "
                              f"({' '.join(repr(error).split())[:160]}); fetch its preprocessor_config.json again"
                              ) from None


def _front_end_of(extractor: Any) -> FrontEnd:
    right = extractor.padding_side == "right"
    # A subclass may do otherwise than its base, so it goes through its own code.
    if type(extractor) is Wav2Vec2FeatureExtractor and right:
        return WaveformFrontEnd(extractor)
    if type(extractor) is WhisperFeatureExtractor and right and not extractor.padding_value:
        return WhisperFrontEnd(extractor)
    if type(extractor) is ASTFeatureExtractor:
        return ASTFrontEnd(extractor)
    if type(extractor) is SeamlessM4TFeatureExtractor and right and extractor.stride == _PADDED_FRAMES:
        return FilterbankFrontEnd(extractor)
    return ExtractorFrontEnd(extractor)


def _standardized(waves: torch.Tensor, valid: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return clips of zero mean and unit variance, zero where not valid; sums are exact enough for any padding."""
    counts = lengths.clamp(min=1)[:, None]
    mean = waves.sum(dim=1, keepdim=True, dtype=torch.float64) / counts
    centred = (waves - mean.to(waves.dtype)) * valid
    variance = torch.sum(centred * centred, dim=1, keepdim=True, dtype=torch.float64) / counts
    return centred / torch.sqrt(variance + 1e-7).to(waves.dtype)
