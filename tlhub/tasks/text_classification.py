"""Text classification: one label for each text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tlhub.config import RunConfig
from tlhub.data.batches import Inputs
from tlhub.data.prepare import Examples
from tlhub.data.sources import read_lines
from tlhub.data.text import TextInputs
from tlhub.errors import DataError
from tlhub.registry import TASKS
from tlhub.tasks.base import Classification

_LONGEST_PATH = 4096


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
        """Return the texts; the name of a file stands for its lines.

        Raises:
            DataError: A file cannot be read, or what looks like one is not there.
        """
        texts: list[str] = []
        for value in values:
            path = Path(value) if len(value) < _LONGEST_PATH and "\n" not in value else None
            if path is not None and os.sep in value and path.is_dir():
                raise DataError(f"'{value}' is a folder; give texts, or files with a text in each line")
            if path is not None and path.suffix == ".txt" and not path.exists() and len(value.split()) == 1:
                raise DataError(f"'{value}' is no file; check the path")
            texts += read_lines(path) if path is not None and path.is_file() else [value]
        return Examples(inputs=texts, labels=np.zeros(len(texts), dtype=np.int64), ids=texts, groups=None)
