"""Text classification: one label for each text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tlhub.config import RunConfig
from tlhub.data.batches import Inputs
from tlhub.data.prepare import Examples
from tlhub.data.tables import read_utf8
from tlhub.data.text import TextInputs
from tlhub.registry import TASKS
from tlhub.tasks.base import Classification


@TASKS.register("text-classification")
class TextClassification(Classification):
    """Texts to classes, with any `AutoModelForSequenceClassification` checkpoint, encoder or decoder."""

    modality: ClassVar[str] = "text"
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    auto_processor: ClassVar[str] = "AutoTokenizer"

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return texts, tokenised once."""
        return TextInputs(examples, processor, max_length=config.data.max_length)

    def read(self, values: Sequence[str]) -> Examples:
        """Return the texts; the name of a file stands for its lines."""
        texts: list[str] = []
        for value in values:
            is_file = len(value) < 4096 and "\n" not in value and Path(value).is_file()
            texts += read_utf8(Path(value)).splitlines() if is_file else [value]
        return Examples(inputs=texts, labels=np.zeros(len(texts), dtype=np.int64), ids=texts, groups=None)
