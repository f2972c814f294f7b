"""The terms of an embedded checkpoint are told once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.embedded import TERMS, embed
from tlhub import builtin
from tlhub.models.origin import resolve_origin


def told(caplog: pytest.LogCaptureFixture, *, weights: bool = True) -> list[str]:
    caplog.clear()
    resolve_origin("builtin/words", weights=weights)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_once_for_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               caplog: pytest.LogCaptureFixture) -> None:
    embed(monkeypatch, tmp_path, "builtin/words", "bert")
    assert told(caplog, weights=False) == []  # fresh weights are under no terms
    assert told(caplog) == [f"builtin/words was trained on Words ({TERMS}); the terms: {builtin.LICENSES}"]
    assert told(caplog) == []
    embed(monkeypatch, tmp_path, "builtin/words", "bert", seed=1)
    assert len(told(caplog)) == 1


def test_a_process_that_may_not_speak_leaves_it_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    embed(monkeypatch, tmp_path, "builtin/words", "bert")
    logging.getLogger("tlhub").setLevel(logging.ERROR)
    assert told(caplog) == []
    logging.getLogger("tlhub").setLevel(logging.INFO)
    assert len(told(caplog)) == 1


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_each_time_where_nothing_can_be_remembered(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    embed(monkeypatch, tmp_path / "models", "builtin/words", "bert")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLHUB_CACHE", str(tmp_path / place))
    assert len(told(caplog)) == len(told(caplog)) == 1
