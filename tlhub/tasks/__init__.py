"""Tasks: what is predicted and how it is scored. One file each, the same attributes and methods in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlhub.tasks.image_classification import ImageClassification as ImageClassification
    from tlhub.tasks.image_regression import ImageRegression as ImageRegression
    from tlhub.tasks.text_classification import TextClassification as TextClassification
    from tlhub.tasks.text_generation import TextGeneration as TextGeneration
    from tlhub.tasks.wake_word import WakeWord as WakeWord

__all__ = ["ImageClassification", "ImageRegression", "TextClassification", "WakeWord"]


def __getattr__(name: str) -> Any:
    """Return a task class, `tlhub.tasks.TextClassification` for the task `text-classification`."""
    from tlhub.registry import TASKS

    for task in TASKS.names():
        if name == "".join(word.capitalize() for word in task.split("-")):
            return TASKS.get(task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
