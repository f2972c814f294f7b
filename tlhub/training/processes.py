"""The accelerator of a run: which device, which precision, and whether the processes really know each other."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from tlhub.config import RunConfig
from tlhub.errors import UsageError

_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def make_accelerator(config: RunConfig) -> Accelerator:
    """Return the accelerator for a run.

    Args:
        config: Precision and trackers.

    Raises:
        UsageError: The launcher started processes that do not know each other, or a tracker is not installed.
    """
    accelerated = torch.accelerator.is_available()
    # The pooler of a checkpoint may stand idle behind pooled features.
    kwargs = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    try:
        accelerator = Accelerator(cpu=not accelerated, mixed_precision=resolve_precision(config.train.precision),
                                  log_with=list(config.log.trackers) or None,
                                  kwargs_handlers=list(kwargs))
    except (ValueError, ImportError) as error:
        raise UsageError(f"--log.trackers {config.log.trackers}: {error}") from error
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UsageError(f"the launcher set WORLD_SIZE={launched} but accelerate reports {accelerator.num_processes} "
                         "process(es), so each would train alone; use --num_processes, or the launch configurations "
                         "in recipes/accelerate")
    return accelerator


def resolve_precision(precision: str) -> str:
    """Return accelerate's name of a precision; `auto` is bf16 on a GPU that computes in it, otherwise float32."""
    if precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return _PRECISIONS[precision]
