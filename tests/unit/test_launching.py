"""Several processes from one command: the ending that counts, and what says that another process is gone."""

from __future__ import annotations

import errno
import weakref
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tlhub import cli, launching
from tlhub.errors import DiskFullError, UsageError
from tlhub.launching import Ending, _decisive, is_loss_of_another, launch
from tlhub.options import from_kwargs
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
    monkeypatch.setenv("WORLD_SIZE", "1")  # as clusters set it
    with pytest.raises(UsageError, match="num_processes is 2, but this script runs in one process"):
        launching.require_group(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    launching.require_group(2)


@pytest.mark.parametrize(("size", "expected"), [(None, True), ("1", True), ("2", False)])
def test_a_command_launches_unless_it_is_in_a_group(size: str | None, expected: bool,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    config = from_kwargs("text-classification", model="-", data="-", launch={"num_processes": 2})
    assert cli._needs_launch(config) == expected


def test_a_process_that_cannot_leave_word_says_it_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capfd: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail() -> Ending:
        raise DiskFullError("the disk is full")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TLHUB_LAUNCH_REPORTS", str(tmp_path))
    monkeypatch.setattr(launching, "follow_launcher", lambda: None)
    assert cli.guarded(fail, debug=False) == 1
    assert capfd.readouterr().err == "", "the launcher says it"
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(Path, "write_text", full)
    assert cli.guarded(fail, debug=False) == 1
    assert capfd.readouterr().err == "tlhub: [process 1] the disk is full\n"


def test_models_of_a_group_are_freed_before_it_is_left(tmp_path: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    wrapped = DistributedDataParallel(torch.nn.Linear(2, 2))
    wrapped.itself = wrapped
    gone = weakref.ref(wrapped, lambda _: left.append(not distributed.is_initialized()))
    left: list[bool] = []
    del wrapped
    assert gone() is not None
    launching.leave_group()
    assert left == [False]
    assert not distributed.is_initialized()
