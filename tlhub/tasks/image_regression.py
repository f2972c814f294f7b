"""Image regression: one value for each picture, or several."""

from __future__ import annotations

from typing import ClassVar

from tlhub.config import REGRESSION
from tlhub.registry import TASKS
from tlhub.tasks.base import ImageTask


@TASKS.register("image-regression")
class ImageRegression(ImageTask):
    """Pictures to values, with the backbone of any `AutoModelForImageClassification` checkpoint."""

    problems: ClassVar[tuple[str, ...]] = (REGRESSION,)
