"""What a task is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from tlhub.config import RunConfig
from tlhub.data import audio, image
from tlhub.data.audio import AudioInputs, longest_seconds
from tlhub.data.batches import Inputs
from tlhub.data.frontends import front_end
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import Examples, PreparedData
from tlhub.data.sampling import class_sampling
from tlhub.data.sound import LONG_SECONDS
from tlhub.data.sources import list_files
from tlhub.errors import UsageError
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.pooling import heeds_padding
from tlhub.problems import PROBLEMS, Problem
from tlhub.seeding import generator
from tlhub.training.defaults import Default

_USUAL_CLIPS = 32
_SECONDS_AT_ONCE = 128.0
"""Seconds of sound in one forward pass: wav2vec2's first convolution alone makes 6.5 MB of each."""


class Task(ABC):
    """What is predicted from what.

    Attributes:
        modality: What the data layer reads: `image`, `text`, `audio` or `corpus`.
        problems: The kinds of target, by transformers' problem types; where the data do not tell, the first.
        auto_model: The transformers class that loads a checkpoint with its head.
        auto_processor: The transformers class that loads what prepares the inputs.
    """

    modality: ClassVar[str]
    problems: ClassVar[tuple[str, ...]]
    auto_model: ClassVar[str]
    auto_processor: ClassVar[str]

    def problem(self, problem_type: str, known: Mapping[str, Any] | None = None) -> Problem:
        """Return how a kind of target is trained towards, scored and told.

        Args:
            problem_type: One of `config.PROBLEM_TYPES`.
            known: The content of `metrics.json` of a finished run; None before there is any.
        """
        return PROBLEMS[problem_type]()

    def keywords(self, config: RunConfig) -> tuple[str, ...]:
        """Return the classes that are told apart from all others taken together; none where every class is its own."""
        return ()

    def own_defaults(self, config: RunConfig, data: PreparedData, checkpoint: Checkpoint) -> list[Default]:
        """Return the values of the task's own options, for those that the user left open."""
        return []

    def front(self, processor: Any) -> str:
        """Return a text that changes with tlhub's own part of what turns examples into inputs."""
        return ""

    def settle(self, checkpoint: Checkpoint, data: PreparedData) -> None:
        """Fit the checkpoint's own settings to the data, where something beside the weights has to be."""
        return

    def amount(self, examples: Examples, processor: Any, config: RunConfig) -> int:
        """Return how many examples an epoch over the split has, `own_defaults` being filled in."""
        return len(examples)

    def samples(self, model: nn.Module, processor: Any, examples: Examples, config: RunConfig) -> list[tuple[str, str]]:
        """Return a few prompts with what a model makes of them, for the report; none where it answers otherwise.

        Args:
            model: The checkpoint's model, or the fitted one.
            processor: The checkpoint's.
            examples: The validation split.
            config: The run.
        """
        return []

    @abstractmethod
    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return a split as the model's inputs.

        Args:
            examples: The split.
            processor: The checkpoint's processor or tokenizer.
            config: The run.
            fingerprint: Of the data, for caches.
        """

    @abstractmethod
    def read(self, values: Sequence[Any], *, pairs: bool) -> Examples:
        """Return what a user asked a prediction for as examples without labels.

        Args:
            values: Files, folders or texts, as the task reads them.
            pairs: Whether the run was trained on pairs.
        """


class ImageTask(Task):
    """Something about pictures, with any `AutoModelForImageClassification` checkpoint."""

    modality: ClassVar[str] = "image"
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    auto_processor: ClassVar[str] = "AutoImageProcessor"

    def front(self, processor: Any) -> str:
        """Return how pictures are decoded."""
        return image.DECODING

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return pictures, decoded and resized once."""
        sampling = class_sampling(examples.labels, config.train.sampling, seed=config.seed)
        return ImageInputs(examples, processor, fingerprint=fingerprint, data=config.data, seed=config.seed,
                           workers=config.launch.workers, sampling=sampling)

    def read(self, values: Sequence[Any], *, pairs: bool) -> Examples:
        """Return picture files; a folder stands for the pictures in it.

        Raises:
            DataError: A file is not there, or a folder holds no pictures.
        """
        files = [file for value in values for file in list_files(value, self.modality)]
        return unlabelled(files, files)


class AudioTask(Task):
    """Something about sounds, with any `AutoModelForAudioClassification` checkpoint."""

    modality: ClassVar[str] = "audio"
    auto_model: ClassVar[str] = "AutoModelForAudioClassification"
    auto_processor: ClassVar[str] = "AutoFeatureExtractor"

    def front(self, processor: Any) -> str:
        """Return how sounds are decoded, and what the front end of the checkpoint's kind is and computes."""
        return f"{audio.DECODING} {front_end(processor).key()}"

    def own_defaults(self, config: RunConfig, data: PreparedData, checkpoint: Checkpoint) -> list[Default]:
        """Return how much of a clip is read, whether to one length, and where it is much, how many clips at a time.

        Raises:
            UsageError: Clips are to have different lengths for a model that is not told what is padding.
        """
        read = self._seconds(config, data, checkpoint)
        found = [self._length(config, checkpoint), *([] if read is None else [read])]
        seconds = float(read.value if read is not None else config.data.max_seconds or 0.0)
        if seconds * _USUAL_CLIPS > _SECONDS_AT_ONCE:
            at_once = max(1, int(_SECONDS_AT_ONCE / seconds))
            found.append(Default("train.micro_batch_size", at_once, f"clips of {seconds:g} s take much memory"))
        return found

    @staticmethod
    def _length(config: RunConfig, checkpoint: Checkpoint) -> Default:
        """Return whether clips are brought to one length, for which the model is tried on a quarter of a second."""
        front, name = front_end(checkpoint.processor), "data.one_length"
        if not front.masked:
            if config.data.one_length is False:
                raise UsageError(f"--data.one_length false has no effect: {checkpoint.origin.name!r} is not told what "
                                 "is padding, and gets clips of one length; leave it out")
            return Default(name, True, "the model is not told what is padding")
        size = max(2 * front.least, front.rate // 4)
        waves = torch.zeros(1, 4 * size)
        waves[0, :size] = torch.from_numpy(generator(0, "padding").normal(scale=0.1, size=size))
        alone, padded = (front(part, torch.tensor([size])) for part in (waves[:, :size], waves))
        if heeds_padding(checkpoint.model, alone, padded):
            return Default(name, True, "what the model makes of a clip depends on how far it is padded, in spite of "
                                       "its mask")
        return Default(name, False, "the model leaves out what is padding")

    @staticmethod
    def _seconds(config: RunConfig, data: PreparedData, checkpoint: Checkpoint) -> Default | None:
        if config.data.max_seconds is not None:
            return None
        front = front_end(checkpoint.processor)
        if front.samples is not None:
            return Default("data.max_seconds", front.samples / front.rate, "what the checkpoint reads")
        longest = max(0.1, math.ceil(10 * longest_seconds(data.splits["train"])) / 10)
        reason = "the longest training clip" if longest <= LONG_SECONDS else "longer clips take much memory"
        return Default("data.max_seconds", min(longest, LONG_SECONDS), reason)

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return sounds, decoded and resampled once."""
        return AudioInputs(examples, processor, fingerprint=fingerprint, data=config.data, seed=config.seed,
                           workers=config.launch.workers)

    def read(self, values: Sequence[Any], *, pairs: bool) -> Examples:
        """Return sound files; a folder stands for the sounds in it.

        Raises:
            DataError: A file is not there, or a folder holds no sounds.
        """
        files = [file for value in values for file in list_files(value, self.modality)]
        return unlabelled(files, files)


def unlabelled(inputs: Sequence[Any], ids: Sequence[str]) -> Examples:
    """Return examples whose labels say nothing."""
    return Examples(inputs=inputs, labels=np.zeros(len(inputs), dtype=np.int64), ids=ids, groups=None)
