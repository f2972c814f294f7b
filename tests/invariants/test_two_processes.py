"""Two real processes: one group, one exit code, the same logits on both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from tests.invariants.two_processes import numbers_of_two, save_where_the_disk_is_full

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


def test_two_processes_give_what_one_gives_with_the_first_one_s_statistics(tmp_path: Path) -> None:
    counts = (1, 13)
    torch.multiprocessing.spawn(numbers_of_two, (str(tmp_path), counts), nprocs=2)
    for count in counts:
        first, second = (np.load(tmp_path / f"{count}-{rank}.npy") for rank in (0, 1))
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, np.load(tmp_path / f"{count}-alone.npy"), atol=1e-6)
        assert first.shape == (count, 3)


def test_what_keeps_the_first_process_from_saving_ends_both_and_both_go_on_from_one_checkpoint(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(save_where_the_disk_is_full, (str(tmp_path),), nprocs=2)
    first, second = ((tmp_path / f"said-{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert "MiB are free; free some space on that disk" in first
    assert [(tmp_path / f"step-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-000000001",
                                                                            "damaged-step-000000002"}


@pytest.mark.parametrize(("seed", "code", "error"), [(0, 0, ""), (4, 4, "tlhub: as asked\n")])
def test_two_processes_form_one_group_and_their_exit_code_survives(tmp_path: Path, seed: int, code: int,
                                                                   error: str) -> None:
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
