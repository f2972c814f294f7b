"""The accelerator of a run: which device, which precision, and whether the processes really know each other."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import ProjectConfiguration, broadcast_object_list

from tlhub.config import RunConfig
from tlhub.errors import TlhubError, UsageError, nearest
from tlhub.launching import leave_group

_Answer = TypeVar("_Answer")

_PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_PATIENCE = timedelta(hours=12)
"""How long processes wait for each other: one prepares data for all, which takes more than NCCL's own ten minutes where
there are many. Of one that is gone the launcher tells."""
_SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
             "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM", "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config"}
"""What accelerate's launcher sets in the environment where a process holds only a part of the model."""


def make_accelerator(config: RunConfig, *, training: bool = True) -> Accelerator:
    """Return the accelerator for a run.

    Args:
        config: Precision and trackers.
        training: False for a finished run: it predicts without trackers, and on a CPU whatever it was trained on.

    Raises:
        UsageError: The launcher started processes that do not know each other or asks for a divided model, a tracker is
            not installed, or the device does not compute in the precision.
    """
    _refuse_sharding()
    trackers = list(config.log.trackers) if training else []
    _check_trackers(trackers)
    accelerated = torch.accelerator.is_available()
    precision = resolve_precision(config.train.precision)
    if precision == "fp16" and not accelerated:
        if training:
            raise UsageError("--train.precision 'fp16' needs an accelerator, and this machine has none; take 'bf16' or "
                             "'fp32'")
        precision = "no"
    AcceleratorState._reset_state()  # accelerate keeps the precision of a process's first run for all that follow
    # The pooler of a checkpoint may stand idle behind pooled features.
    kwargs = [DistributedDataParallelKwargs(find_unused_parameters=True), InitProcessGroupKwargs(timeout=_PATIENCE)]
    accelerator = Accelerator(cpu=not accelerated, mixed_precision=precision, log_with=trackers or None,
                              project_config=ProjectConfiguration(logging_dir=os.curdir), kwargs_handlers=list(kwargs))
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise UsageError(f"the launcher set WORLD_SIZE={launched} but accelerate reports {accelerator.num_processes} "
                         "process(es), so each would train alone; use --num_processes, or the launch configurations "
                         "in recipes/accelerate")
    if launched > 1:
        atexit.register(leave_group)
    return accelerator


def on_main(accelerator: Accelerator, work: Callable[[], _Answer]) -> _Answer:
    """Do something on the main process alone, and return its result on all of them; an error is raised on all of them.

    Raises:
        TlhubError: On the other processes, whatever the main one failed with.
    """
    if accelerator.num_processes == 1:
        return work()
    answer: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            answer[0] = work()
        except Exception as error:
            known = isinstance(error, TlhubError)
            broadcast_object_list([None, error if known else TlhubError(f"{type(error).__name__}: {error}")])
            raise
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise answer[1]
    result: _Answer = answer[0]
    return result


def _refuse_sharding() -> None:
    """Refuse launchers that divide the model: checkpoints, the audit and the saved model take it for whole.

    The environment tells, since without an accelerator accelerate copies the model nevertheless, and says nothing.
    """
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "false").lower() == "true":
            raise UsageError(f"the launch configuration asks for {name}, which gives each process a part of the model, "
                             "and tlhub trains whole models only: launch copies of it, as "
                             "recipes/accelerate/ddp.yaml does, and lower --train.micro_batch_size or take --strategy "
                             "lora where memory is short")


def _check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that accelerate does not know, and those it would leave out without a word."""
    installed = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UsageError(f"tracker {name!r} of --log.trackers is not known; {nearest(name, LOGGER_TYPE_TO_CLASS)}")
        if name not in installed:
            raise UsageError(f"tracker {name!r} of --log.trackers is not installed; install it, or take one of: "
                             f"{', '.join(sorted(installed)) or 'none is installed'}")


def resolve_precision(precision: str) -> str:
    """Return accelerate's name of a precision; `auto` is bf16 on a GPU that computes in it, otherwise float32."""
    if precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return _PRECISIONS[precision]


def anywhere(accelerator: Accelerator, flag: bool) -> bool:
    """Return whether the flag is set on any process, the same answer on all of them; the devices are not waited for."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(int(flag))
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=_hosts())
    return bool(flags)


@functools.cache
def _hosts() -> torch.distributed.ProcessGroup | None:
    """Return a group of all processes that talks from host to host; None where the default one does."""
    return None if torch.distributed.get_backend() == "gloo" else torch.distributed.new_group(backend="gloo")
