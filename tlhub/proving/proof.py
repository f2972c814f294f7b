"""What a proof is, and how one that breaks off is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlhub.errors import StoppedError, TlhubError
from tlhub.parsers import one_line

HOLDS, FAILS, NOT_APPLICABLE = "holds", "FAILS", "not applicable"
NAMED = 5
"""Tensors or examples that are named in a table's line before the rest is counted; the JSON file has them all."""


@dataclass(frozen=True)
class Finding:
    """What an attempt at a proof gave.

    Attributes:
        outcome: `HOLDS`, `FAILS` or `NOT_APPLICABLE`.
        words: What was seen, in one line.
        figures: The same as plain values, and more of it.
    """

    outcome: str
    words: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Proof:
    """A proof that was attempted: its name, what was found, and how long it took."""

    name: str
    finding: Finding
    seconds: float


def judged(holds: bool, words: str, **figures: Any) -> Finding:
    """Return a finding by whether it holds."""
    return Finding(HOLDS if holds else FAILS, words, figures)


def attempt(name: str, body: Callable[[], Finding]) -> Proof:
    """Return what a proof finds; one that breaks off has failed, with its message.

    Args:
        name: Of the proof.
        body: Makes the attempt.

    Raises:
        StoppedError: The user asked to stop.
    """
    started = time.perf_counter()
    try:
        finding = body()
    except StoppedError:
        raise
    except Exception as error:  # whatever breaks a run, the other proofs still tell something
        words = str(error) if isinstance(error, TlhubError) else f"{type(error).__name__}: {error}"
        finding = Finding(FAILS, one_line(words))
    return Proof(name, finding, time.perf_counter() - started)


def listed(names: list[str]) -> str:
    """Return names for a line of the table: the first few, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
