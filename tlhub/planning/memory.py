"""How much memory this process takes at its peak, and how much it may take."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import psutil
import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
"""What `proc(5)` wants written to `clear_refs` for the peak to be counted anew."""
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands, in both versions of control groups."""


class PeakMemory:
    """The peak of memory between two moments: of the accelerator where there is one, otherwise of the process.

    What a process holds includes the libraries, so that the figures are those of a run by itself.

    Args:
        device: Where models compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self, *, collect: bool = False) -> None:
        """Give back what is free, and count anew.

        Args:
            collect: Look for what is free only by reference cycles as well, which takes a tenth of a second or more.
        """
        if collect:
            gc.collect()
        if self._device.type != "cpu":
            torch.accelerator.empty_cache()
            torch.accelerator.reset_peak_memory_stats()
            return
        # Another C library may keep what was freed, and another system has no such counter: `peak` is too high then, or
        # is not told.
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)

    def peak(self) -> int | None:
        """Return the bytes at the peak since `reset`; None where the system does not tell."""
        if self._device.type != "cpu":
            return int(torch.accelerator.max_memory_allocated())
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) * 1024 if found else None

    def limit(self) -> int:
        """Return the bytes that this process may hold, those that it holds now included."""
        if self._device.type != "cpu":
            free, _ = torch.accelerator.get_memory_info()
            return int(free + torch.accelerator.memory_reserved())
        allowed = [psutil.virtual_memory().available + psutil.Process().memory_info().rss]
        for path in _LIMITS:
            try:
                text = path.read_text().strip()
            except OSError:
                continue
            allowed += [int(text)] if text.isdecimal() else []
        return int(min(allowed))
