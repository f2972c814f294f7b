"""Image classification: one label for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tlhub.config import RunConfig
from tlhub.data.batches import Inputs
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import Examples
from tlhub.data.sources import list_images
from tlhub.registry import TASKS
from tlhub.tasks.base import Classification


@TASKS.register("image-classification")
class ImageClassification(Classification):
    """Pictures to classes, with any `AutoModelForImageClassification` checkpoint."""

    modality: ClassVar[str] = "image"
    auto_model: ClassVar[str] = "AutoModelForImageClassification"
    auto_processor: ClassVar[str] = "AutoImageProcessor"

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return pictures, decoded and resized once."""
        return ImageInputs(examples, processor, fingerprint=fingerprint, data=config.data, seed=config.seed,
                           workers=config.launch.workers)

    def read(self, values: Sequence[str]) -> Examples:
        """Return picture files; a folder stands for the pictures in it.

        Raises:
            DataError: A file is not there, or a folder holds no pictures.
        """
        files = [file for value in values for file in list_images(value)]
        return Examples(inputs=files, labels=np.zeros(len(files), dtype=np.int64), ids=files, groups=None)
