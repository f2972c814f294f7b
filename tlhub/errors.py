"""The errors a user can cause, each with the exit code that `tlhub` ends with."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable


class TlhubError(Exception):
    """A failure with a one-line message: what was given, what was found, what to do."""

    exit_code = 1


class UsageError(TlhubError):
    """Wrong usage or configuration."""

    exit_code = 2


class DataError(TlhubError):
    """The data cannot be used as given."""

    exit_code = 3


class LostDataError(DataError):
    """An example could be used when it was checked, and cannot any more.

    Args:
        message: As for every error.
        path: The file; empty where there is none.
        reason: Why it cannot be used, as it stands in `quarantine.csv`.
    """

    def __init__(self, message: str, path: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class CheckpointError(TlhubError):
    """The checkpoint cannot be used as given."""

    exit_code = 4


class StoppedError(TlhubError):
    """Stopped on request (SIGTERM or SIGINT); the same command continues the run."""

    exit_code = 75


class DiskFullError(TlhubError):
    """A disk has no room for what has to be written."""


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, says that a disk or the user's share of it is full.

    Libraries that are not written in Python raise errors of their own, which say it only in words.
    """
    while error is not None:
        numbers = (errno.ENOSPC, errno.EDQUOT)
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        if any(os.strerror(number) in str(error) for number in numbers):
            return True
        error = error.__cause__ or error.__context__
    return False


def printable(text: str) -> str:
    """Return a text with every character that is not printable as Python's literals have it.

    What comes from data, file names and checkpoints may hold what a terminal obeys: colours and positions of the
    cursor, line breaks, and marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory, of the host or of a GPU, does not suffice.

    torch raises a `RuntimeError` for it; which one depends on the device and on the library that asked for memory.
    """
    words = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError)
                                              and any(word in str(error) for word in words))


def is_panic(error: BaseException) -> bool:
    """Tell whether a library that is written in Rust has given up; what it raises then is no `Exception`."""
    return type(error).__name__ == "PanicException"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Words that name the valid choices closest to `name`, for the end of an error message.

    Args:
        name: What the user wrote.
        valid: The names that would have been accepted.

    Returns:
        `did you mean 'x'?` where something is close, otherwise `valid: a, b, c`.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "valid: " + ", ".join(names)
