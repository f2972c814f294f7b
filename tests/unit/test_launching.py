"""Several processes from one command: the ending that counts, and what says that another process is gone."""

from __future__ import annotations

import pytest

from tlhub import launching
from tlhub.errors import UsageError
from tlhub.launching import Ending, _decisive, is_loss_of_another, launch
from tlhub.stopping import StopRequest


@pytest.mark.parametrize(("endings", "expected"), [
    ([Ending(0), Ending(0)], 0), ([Ending(1, at=2.0), Ending(3, at=1.0)], 3), ([Ending(75), Ending(75)], 75),
    ([Ending(1, lost=True, at=1.0), Ending(75, at=2.0)], 75), ([Ending(0), Ending(1, lost=True)], 1),
    ([Ending(75, at=3.0), Ending(1, at=2.0)], 1), ([Ending(75, at=1.0), Ending(1, at=2.0)], 75)])
def test_the_ending_that_counts_is_the_first_that_no_other_caused(endings: list[Ending], expected: int) -> None:
    assert _decisive(endings).code == expected
    assert _decisive(endings[::-1]).code == expected


def test_what_says_that_another_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = RuntimeError("[/pytorch/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:25821")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not is_loss_of_another(gone), "a process without a group"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_loss_of_another(gone)
    other = ValueError("odd")
    other.__cause__ = gone
    assert is_loss_of_another(other)
    assert not is_loss_of_another(RuntimeError("shapes do not match"))


def test_a_launch_that_was_stopped_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopRequest()
    stop.requested = True
    monkeypatch.setattr("tlhub.stopping._current", stop)
    with pytest.raises(KeyboardInterrupt):
        launch(["none.py"], 2)


def test_several_processes_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launching.require_group(1)
    with pytest.raises(UsageError, match="num_processes is 2, but this script runs in one process"):
        launching.require_group(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    launching.require_group(2)
