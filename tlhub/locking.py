"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_PACE = 0.1


@contextmanager
def held(path: Path, *, patience: float) -> Iterator[None]:
    """Hold a lock for the length of the block; the kernel gives it up when the process ends, however it does.

    The file is removed afterwards. Where the file system knows no locks, it is said and the block runs without.

    Args:
        path: The lock's file, in a folder that exists.
        patience: Seconds to wait for a process that holds it.

    Raises:
        BlockingIOError: Another process holds it still.
    """
    deadline = time.monotonic() + patience
    told = False
    while (handle := _taken(path)) is None:
        if not told:
            logger.info("waiting for %s, which is at work in %s", holder(path), path.parent)
            told = True
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, "another process holds the lock", str(path))
        time.sleep(_PACE)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it sees that the file is no longer there
        os.close(handle)


def holder(path: Path) -> str:
    """Return which process holds a lock, in words, as it wrote into the lock's file."""
    try:
        return path.read_text(errors="replace") or "another process"
    except OSError:
        return "another process"


def _taken(path: Path) -> int | None:
    """Return the open file of the lock once this process has it, otherwise None."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            os.close(handle)
            raise
        logger.warning("%s: the file system knows no locks (%s), so nothing keeps two runs out of one folder",
                       path.parent, error.strerror)
        return handle
    os.close(handle)
    return None
