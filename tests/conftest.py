"""What every test runs under: no network, and a cache of its own."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Read by huggingface_hub and datasets when they are imported, so set before any test module is.
_HF_HOME = tempfile.mkdtemp(prefix="tlhub-tests-")
# Workers of pytest and threads of torch would otherwise contend for the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=_HF_HOME, TOKENIZERS_PARALLELISM="false")

import tlhub  # noqa: E402, F401  (its finder has to be there before torchaudio and torchvision are imported)

_LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")


def pytest_sessionfinish() -> None:
    """Remove the session's Hugging Face cache."""
    shutil.rmtree(_HF_HOME, ignore_errors=True)


class NetworkBlockedError(OSError):
    """A test tried to reach another machine."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anything but this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in _LOOPBACK:
            raise NetworkBlockedError(f"tests may not connect to {address[0]!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """Let tlhub's notes through, whatever a command of another test has set."""
    logger = logging.getLogger("tlhub")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep prepared data and features out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TLHUB_CACHE", str(folder))
    return folder
