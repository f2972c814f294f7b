"""What training loses of its data while it goes on, known to every process."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import gather_object

from tlhub.data.audio import AudioInputs
from tlhub.data.batches import Inputs
from tlhub.data.image import ImageInputs
from tlhub.training.job import Callback, Job, Progress, Report


class LostData(Callback):
    """Tells every process at each log point what any of them could not decode, so that all let the same stand in.

    Args:
        inputs: The training split as the task reads it.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def on_report(self, job: Job, progress: Progress, report: Report) -> None:
        """Tell it."""
        lost_examples(self.inputs, job.accelerator)


def lost_examples(inputs: Inputs, accelerator: Accelerator) -> dict[int, str]:
    """Return the examples that any process has lost, and why, on every process the same.

    Args:
        inputs: The training split as the task reads it.
        accelerator: The processes.

    Raises:
        LostDataError: They are more than may be lost.
    """
    stand_ins = inputs.stand_ins if isinstance(inputs, ImageInputs | AudioInputs) else None
    if stand_ins is None:
        return {}
    if accelerator.num_processes > 1:
        stand_ins.learn(dict(gather_object(sorted(stand_ins.lost.items()))))
    return stand_ins.lost
