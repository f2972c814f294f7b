"""Text classification: one label for each text or pair of texts, or several, or values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tlhub.config import MULTI_LABEL, REGRESSION, SINGLE_LABEL, RunConfig
from tlhub.data.batches import Inputs
from tlhub.data.prepare import Examples
from tlhub.data.text import TextInputs, given_texts, read_pair
from tlhub.errors import DataError
from tlhub.registry import TASKS
from tlhub.tasks.base import Task, unlabelled


@TASKS.register("text-classification")
class TextClassification(Task):
    """Texts or pairs of them to classes or values.

    Any `AutoModelForSequenceClassification` checkpoint will do, encoder or decoder.
    """

    modality: ClassVar[str] = "text"
    problems: ClassVar[tuple[str, ...]] = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
    auto_model: ClassVar[str] = "AutoModelForSequenceClassification"
    auto_processor: ClassVar[str] = "AutoTokenizer"

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return texts, tokenised once."""
        return TextInputs(examples, processor, max_length=config.data.max_length)

    def read(self, values: Sequence[Any], *, pairs: bool) -> Examples:
        """Return the texts; the name of a file stands for its lines. A pair is a tuple, or has a tab between.

        Raises:
            DataError: A file cannot be read, what looks like one is not there, or a pair is not one.
        """
        texts: list[Any] = []
        for value in values:
            texts += [value] if isinstance(value, tuple) else given_texts(value)
        if pairs:
            texts = [text if isinstance(text, tuple) else read_pair(text) for text in texts]
        elif wrong := [text for text in texts if isinstance(text, tuple)]:
            raise DataError(f"{wrong[0]!r} is a pair, and the run was trained on single texts; give one text")
        return unlabelled(texts, ["\t".join(text) if isinstance(text, tuple) else text for text in texts])
