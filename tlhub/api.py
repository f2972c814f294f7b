"""The Python surface: `tlhub.finetune`, `tlhub.load` and `tlhub.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlhub import launching, options, run
from tlhub.finished import Run
from tlhub.training.loop import Callback


def finetune(task: str, *, overwrite: bool = False, callbacks: Sequence[Callback] = (), **choices: Any) -> Run:
    """Adapt a checkpoint to a data set and return the finished run.

    Args:
        task: What is predicted, such as `"image-classification"`.
        overwrite: Replace a finished or different run in `out`.
        callbacks: Called in the training loop after the run's own (`tlhub.training.loop.Callback`).
        choices: The run's other options: sections of the configuration as dictionaries (`train={"epochs": 3}`), a
            plain string for a section's main field (`model="google/vit-base-patch16-224"`), the command line's short
            options (`epochs=3`), or `config="run.yaml"` for a file to start from.

    Returns:
        The run: its folder, its metrics, and `predict`.

    Raises:
        UsageError: An option is unknown, has a wrong type or would have no effect; or several processes are asked
            for in a script that was started as one.
        DataError: The data cannot be used as given.
        CheckpointError: The checkpoint cannot be used as given.
        StoppedError: The run was asked to stop and can be continued.

    Examples:
        >>> run = tlhub.finetune("text-classification", model="bert-base-uncased", data="reviews.csv", strategy="lora")
        >>> run.metrics["test"]["accuracy"]
    """
    config = options.from_kwargs(task, **choices)
    launching.require_group(config.launch.num_processes)
    return run.finetune(config, overwrite=overwrite, callbacks=callbacks)


def load(folder: str | Path) -> Run:
    """Load a finished run for predictions.

    Args:
        folder: The run's folder.

    Returns:
        The run, as `finetune` returned it.

    Raises:
        CheckpointError: The folder holds no finished run.
    """
    return run.load(folder)


def evaluate(finished: Run | str | Path, data: str, **options: Any) -> dict[str, Any]:
    """Score a finished run on other data.

    Args:
        finished: A run or its folder.
        data: A folder, a file or a Hub id; labels are matched by name.
        options: Options of the section `data` that are other than in the run, such as `text_column`.

    Returns:
        The scores, as plain numbers by metric name.

    Raises:
        UsageError: An option is unknown, has a wrong value or would have no effect.
        DataError: The data cannot be used as given.
    """
    return run.evaluate(finished, data, **options)
