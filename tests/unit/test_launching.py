import subprocess
import sys
from pathlib import Path

import pytest

from tlhub import launching
from tlhub.errors import UsageError
from tlhub.launching import Ending, _decisive

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import tlhub
from tlhub.cli import recipe
from tlhub.errors import CheckpointError

def main(options):
    import torch
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    total = accelerator.reduce(torch.tensor([accelerator.process_index + 1.0]), "sum").item()
    if accelerator.is_main_process:
        print("total", total, "of", accelerator.num_processes, flush=True)
    if options["seed"] == 4 and accelerator.process_index == 1:
        raise CheckpointError("as asked")

recipe(main, task="text-classification")
"""


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


@pytest.mark.parametrize(("seed", "code", "error"), [(0, 0, ""), (4, 4, "tlhub: as asked\n")])
def test_two_processes_form_one_group_and_their_exit_code_survives(tmp_path, seed, code, error):
    script = tmp_path / "recipe.py"
    script.write_text(SCRIPT.format(root=str(REPOSITORY)))
    ended = subprocess.run(
        [sys.executable, str(script), "--model", "m", "--data", "d", "--num_processes", "2", "--seed", str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "total 3.0 of 2\n" in ended.stdout
    assert ended.returncode == code
    assert ended.stderr == error
