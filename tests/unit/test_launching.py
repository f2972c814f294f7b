import pytest

from tlhub import launching
from tlhub.errors import UsageError
from tlhub.launching import Ending, _decisive


@pytest.mark.parametrize(
    ("codes", "expected"), [([0, 0], 0), ([1, 3], 3), ([75, 75], 75), ([1, 75], 1), ([4, 75], 4), ([-9, 0], -9)]
)
def test_the_ending_that_counts(codes, expected):
    assert _decisive([Ending(code) for code in codes], 2, Ending(1)).code == expected


def test_processes_that_vanish_are_a_failure():
    assert _decisive([Ending(0)], 2, Ending(0)).code == 1
    assert _decisive([], 2, Ending(1, "the launcher failed")).reason == "the launcher failed"


def test_several_processes_need_a_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launching.require_group(1)
    with pytest.raises(UsageError, match="num_processes is 2, but this script runs in one process"):
        launching.require_group(2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    launching.require_group(2)
