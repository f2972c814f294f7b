"""Image classification: one label for each picture, or several."""

from __future__ import annotations

from typing import ClassVar

from tlhub.config import MULTI_LABEL, SINGLE_LABEL
from tlhub.registry import TASKS
from tlhub.tasks.base import ImageTask


@TASKS.register("image-classification")
class ImageClassification(ImageTask):
    """Pictures to classes, with any `AutoModelForImageClassification` checkpoint."""

    problems: ClassVar[tuple[str, ...]] = (SINGLE_LABEL, MULTI_LABEL)
