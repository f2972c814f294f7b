"""Audio classification: one label for each sound, or several."""

from __future__ import annotations

from typing import ClassVar

from tlhub.config import MULTI_LABEL, SINGLE_LABEL
from tlhub.registry import TASKS
from tlhub.tasks.base import AudioTask


@TASKS.register("audio-classification")
class AudioClassification(AudioTask):
    """Sounds to classes, with any `AutoModelForAudioClassification` checkpoint."""

    problems: ClassVar[tuple[str, ...]] = (SINGLE_LABEL, MULTI_LABEL)
