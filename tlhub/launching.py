"""Several processes from one command: started as one group, stopped together, and one ending that counts.

tlhub starts them itself: `accelerate launch` and `torchrun` turn every failure into exit code 1, kill what does not end
within 30 seconds of a signal, and let processes live on that were just being started. Each process leaves its ending
in a folder named by an environment variable, and the command that launched them reports the one that counts.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tlhub.errors import UsageError
from tlhub.stopping import StopRequest, listening

_REPORTS = "TLHUB_LAUNCH_REPORTS"
_LAUNCHER = "TLHUB_LAUNCH_PID"
_PACE = 0.05
_GRACE = 60.0
"""Seconds that the others have when one process of the group failed."""
_LOST_WORDS = ("gloo/transport", "connection closed by peer", "connection reset by peer", "broken pipe", "nccl")
"""What says in an error of a collective that another process is no longer there."""


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        code: Its exit code.
        reason: Where it failed, why.
        lost: Whether it failed only because another process of its group was gone.
        at: When it was known, in seconds of a clock that the processes of a machine share.
    """

    code: int
    reason: str = ""
    lost: bool = False
    at: float = 0.0


def is_launched() -> bool:
    """Tell whether this process is one of a group that a launcher started."""
    return "WORLD_SIZE" in os.environ


def is_alone() -> bool:
    """Tell whether this process has no others beside it; clusters set the size of a group for one process, too."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def is_relaunched() -> bool:
    """Tell whether this process was started by `launch`, which reports for it."""
    return _REPORTS in os.environ and is_launched()


def require_group(num_processes: int) -> None:
    """Check that a run of several processes was started as such.

    Raises:
        UsageError: This process is alone.
    """
    if num_processes > 1 and is_alone():
        raise UsageError(f"launch.num_processes is {num_processes}, but this script runs in one process; start it with "
                         f"'accelerate-launch --multi_gpu --num_processes {num_processes} SCRIPT'")


def rank() -> int:
    """Return this process's number in its group, 0 where there is none."""
    return int(os.environ.get("RANK", "0"))


def is_loss_of_another(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, says only that another process of the group is gone."""
    while error is not None and is_launched():
        named = type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
        if named or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST_WORDS)):
            return True
        error = error.__cause__ or error.__context__
    return False


def follow_launcher() -> None:
    """Stop as on SIGTERM when the command that started this process is no longer there."""
    if is_relaunched():
        follow(int(os.environ[_LAUNCHER]))


def follow(launcher: int) -> None:
    """Stop as on SIGTERM when the process that started this one is no longer there.

    Args:
        launcher: Its number.
    """
    threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_PACE)
    os.kill(os.getpid(), signal.SIGTERM)


def leave(ending: Ending) -> bool:
    """Leave word of how this process ended to the command that launched it; return whether that could be done."""
    folder = Path(os.environ[_REPORTS])
    if folder.is_dir():
        temporary = folder / f"{rank()}.tmp"
        try:
            temporary.write_text(json.dumps(asdict(replace(ending, at=time.monotonic()))))
            temporary.replace(folder / f"{rank()}.json")
        except OSError:  # the disk may be full, which may be what there is to tell
            return False
    return True


def leave_group() -> None:
    """Leave the group of processes, if there is one: its threads outlive Python otherwise, and abort the process.

    Models that were wrapped for the group must be out of use. Those that wait for Python's collector are freed first:
    the last of them would otherwise free the group with it, waiting for the group's thread while it holds Python's
    lock, which that thread may need to end.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def launch(script: Sequence[str], num_processes: int) -> Ending:
    """Run a script in several processes that form one group, and wait for them.

    They are in sessions of their own, so that a terminal's Ctrl-C reaches this process only, which passes a request to
    stop on as SIGTERM. A second Ctrl-C ends them at once.

    Args:
        script: A script with its arguments, or `-m`, a module and its arguments.
        num_processes: How many processes.

    Returns:
        The ending that counts: that of the first process to fail, and of one that died rather than of those that miss
        it.

    Raises:
        UsageError: There are fewer accelerators than processes.
        KeyboardInterrupt: This process was asked to stop before it started any.
    """
    with listening() as stop:
        stop.raise_if_requested()
        with stop.deferring("when the libraries are loaded"):
            from torch.distributed import TCPStore  # type: ignore[attr-defined]  # its stubs leave it out

            environment = _environment(num_processes)
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        stop.raise_if_requested()
        with tempfile.TemporaryDirectory(prefix="tlhub-launch-") as folder, stop.deferring(""):
            group = _Group(Path(folder), num_processes)
            stop.last_resort = group.kill
            try:
                group.start(script, {**environment, "MASTER_PORT": str(store.port)})
                return group.wait(stop)
            finally:
                stop.last_resort = None
                group.kill()


def _environment(num_processes: int) -> dict[str, str]:
    """Return what processes on this machine need to find each other, at a store that the launcher holds.

    Raises:
        UsageError: There are fewer accelerators than processes.
    """
    import torch
    from accelerate.utils import check_cuda_p2p_ib_support

    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if 0 < devices < num_processes:
        raise UsageError(f"--num_processes {num_processes} is more than this machine's {devices} accelerator(s)")
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    faults = {} if check_cuda_p2p_ib_support() else {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    return {**faults, "OMP_NUM_THREADS": str(threads), **os.environ, "MASTER_ADDR": "127.0.0.1",
            "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes),
            # Read by torch's `env://`: the store is there already, and no process has to find a free port for it.
            "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}


class _Group:
    """The processes of a launch, and how they ended."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ended: dict[int, float] = {}
        self.sent: dict[int, signal.Signals] = {}

    def start(self, script: Sequence[str], environment: dict[str, str]) -> None:
        """Start all of them."""
        own = {_REPORTS: str(self.folder), _LAUNCHER: str(os.getpid())}
        for number in range(self.count):
            ranks = {"RANK": str(number), "LOCAL_RANK": str(number)}
            self.processes.append(subprocess.Popen([sys.executable, "-u", *script], env=environment | own | ranks,
                                                   start_new_session=True))

    def wait(self, stop: StopRequest) -> Ending:
        """Wait for all of them, and return the ending that counts; what stops one stops the others."""
        told = False
        while self._running():
            failed = [at for number, at in self.ended.items() if self.processes[number].returncode]
            if not told and (failed or stop.requested):
                told = True
                self._send(signal.SIGTERM)
            if failed and time.monotonic() - min(failed) > _GRACE:
                self._send(signal.SIGKILL)
            time.sleep(_PACE)
        return _decisive([self._ending(number, stop) for number in range(self.count)])

    def kill(self) -> None:
        """End those that still run."""
        self._send(signal.SIGKILL)

    def _running(self) -> list[int]:
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                self.ended.setdefault(number, time.monotonic())
        return [number for number in range(len(self.processes)) if number not in self.ended]

    def _send(self, which: signal.Signals) -> None:
        for number in self._running():
            self.sent[number] = which
            self.processes[number].send_signal(which)

    def _ending(self, number: int, stop: StopRequest) -> Ending:
        report, code, at = self.folder / f"{number}.json", self.processes[number].returncode, self.ended[number]
        if report.exists():
            return Ending(**json.loads(report.read_text()))
        which = f"process {number} of {self.count}"
        if code == -signal.SIGTERM and number in self.sent:  # it was told before it could listen
            return Ending(75, "stopped on request; the same command goes on", lost=not stop.requested, at=at)
        if code == -signal.SIGKILL and self.sent.get(number) == signal.SIGKILL:
            return Ending(1, f"{which} did not end within {_GRACE:.0f} s of another and was killed", lost=True, at=at)
        if code < 0:
            return Ending(1, f"{which} was killed ({signal.Signals(-code).name}); the same command goes on from the "
                             "last checkpoint", at=at)
        return Ending(code or 1, f"{which} ended without a word (exit code {code}); --debug may show more", at=at)


def _decisive(endings: Sequence[Ending]) -> Ending:
    """Return the ending of the group: its first failure, of those that no other one caused; otherwise success."""
    failed = [ending for ending in endings if ending.code]
    return min(failed, key=lambda ending: (ending.lost, ending.at)) if failed else Ending(0)
