"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tlhub.config import DataConfig


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DataConfig]:
    """Return a maker of data sections whose cache is the test's own."""
    def make(source: Path | str, **fields: object) -> DataConfig:
        return DataConfig(source=str(source), cache_dir=str(tmp_path / "cache"), **fields)  # type: ignore[arg-type] (mixed)

    return make
