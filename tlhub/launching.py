"""Several processes from one command: a re-launch under accelerate, and the exit code that survives it.

accelerate turns every failure into exit code 1. The processes therefore leave their codes and messages in a folder
named by an environment variable, and the command that launched them reports the one that counts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tlhub.errors import UsageError

_REPORTS = "TLHUB_LAUNCH_REPORTS"


@dataclass(frozen=True)
class Ending:
    """How a process ended: its exit code and, where it failed, why."""

    code: int
    reason: str = ""


def is_launched() -> bool:
    """Tell whether this process is one of a group that a launcher started."""
    return "WORLD_SIZE" in os.environ


def is_relaunched() -> bool:
    """Tell whether this process was started by `launch`, which reports for it."""
    return _REPORTS in os.environ and is_launched()


def require_group(num_processes: int) -> None:
    """Check that a run of several processes was started as such.

    Raises:
        UsageError: This process is alone.
    """
    if num_processes > 1 and not is_launched():
        raise UsageError(f"launch.num_processes is {num_processes}, but this script runs in one process; start it with "
                         f"'accelerate-launch --multi_gpu --num_processes {num_processes} SCRIPT'")


def rank() -> int:
    """Return this process's number in its group, 0 where there is none."""
    return int(os.environ.get("RANK", "0"))


def leave(ending: Ending) -> None:
    """Leave word of how this process ended to the command that launched it."""
    folder = Path(os.environ[_REPORTS])
    if folder.is_dir():
        (folder / f"{rank()}.json").write_text(json.dumps(asdict(ending)))


def leave_group() -> None:
    """Leave the group of processes, if there is one: its threads outlive Python otherwise, and abort the process."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def launch(script: Sequence[str], num_processes: int) -> Ending:
    """Run a script in several processes that form one group, and wait for them.

    On a machine without an accelerator the processes form a gloo group: accelerate starts as many as asked for only
    with `--multi_gpu`, and they find each other since tlhub asks accelerate for the CPU there.

    Args:
        script: A script with its arguments, or `-m`, a module and its arguments.
        num_processes: How many processes.

    Returns:
        The ending that counts: the most specific failure of any process.

    Raises:
        UsageError: There are fewer accelerators than processes.
    """
    import torch
    from accelerate.commands import launch as accelerate_launch

    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if 0 < devices < num_processes:
        raise UsageError(f"--num_processes {num_processes} is more than this machine's {devices} accelerator(s)")
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    arguments = ["--multi_gpu", "--num_processes", str(num_processes), "--num_machines", "1", "--mixed_precision", "no",
                 "--dynamo_backend", "no", "--main_process_port", "0",
                 "--num_cpu_threads_per_process", str(int(os.environ.get("OMP_NUM_THREADS", threads))), *script]
    with tempfile.TemporaryDirectory(prefix="tlhub-launch-") as folder:
        os.environ[_REPORTS] = folder
        # The launcher's own words on a failed process repeat, at length, what the process says in one line.
        logging.disable(logging.CRITICAL)
        try:
            accelerate_launch.launch_command(accelerate_launch.launch_command_parser().parse_args(arguments))
            fallback = Ending(0)
        except BaseException as error:  # the launcher's signals and exits too
            fallback = Ending(1, f"the launcher failed: {type(error).__name__}: {error}")
        finally:
            logging.disable(logging.NOTSET)
            del os.environ[_REPORTS]
        return _decisive([Ending(**json.loads(file.read_text())) for file in sorted(Path(folder).glob("*.json"))],
                         num_processes, fallback)


def _decisive(endings: Sequence[Ending], num_processes: int, fallback: Ending) -> Ending:
    """Return the ending of the group: a mistake of the user's, any other failure, a stop on request, success."""
    def weight(ending: Ending) -> int:
        order = (2, 3, 4, 1, 75, 0)
        return order.index(ending.code) if ending.code in order else order.index(1)

    failed = sorted((ending for ending in endings if ending.code), key=weight)
    if failed:
        return failed[0]
    if len(endings) < num_processes and fallback.code == 0:
        return Ending(1, f"{num_processes - len(endings)} of {num_processes} processes ended without a word")
    return fallback if len(endings) < num_processes else Ending(0)
