"""Faults on one of two processes: both do the same about them, and train as one process does."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
import torch.multiprocessing

from tests.invariants.faulty_processes import BATCH, STEPS, fault_on_two, features, trained
from tlhub.data.batches import training_batches

CASES = ["none", "sgd", "memory forward", "memory backward", "NaN", "memory forward and NaN", "meanwhile",
         "meanwhile and NaN"]
"""The last ones leave the processes as they would be on GPUs."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Return for each case what one process saw, and what each of two did."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(fault_on_two, (str(folder), 21000 + os.getpid() % 20000, CASES), nprocs=2)
    return {case: [trained(case), *(json.loads((folder / f"{case}-{rank}.json").read_text()) for rank in (0, 1))]
            for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(case: str, found: dict[str, list[dict[str, Any]]]) -> None:
    one, *two = found[case]
    assert len(one["losses"]) == STEPS
    assert len(one["weights"]) == 8
    for other in two:
        np.testing.assert_allclose(other["losses"], one["losses"], atol=1e-6)
        assert other["weights"].keys() == one["weights"].keys()
        for name, values in one["weights"].items():
            np.testing.assert_allclose(other["weights"][name], values, atol=1e-6, err_msg=name)
        assert (other["steps"], other["bad_steps"]) == (STEPS, one["bad_steps"])
        # After the first step there is less memory than before it, so only the second tells what fits.
        assert other["sent"] == (STEPS - 2 if "meanwhile" in case else 0)
        assert (other["micro_batch"] is None) == ("memory" not in case)
    assert two[0]["weights"] == two[1]["weights"]
    assert 1 <= (features()[:, 0] > 1.5).sum() < STEPS  # a part that few examples use


@pytest.mark.parametrize("case", [case for case in CASES if "memory" in case])
def test_both_take_the_size_that_fits_one_of_them(case: str, found: dict[str, list[dict[str, Any]]]) -> None:
    _, first, second = found[case]
    assert (first["micro_batch"], second["micro_batch"]) == (2, 2)
    assert first["sizes"][:4] == second["sizes"][:4] == [4, 2, 2, 2]  # one attempt, then in twos
    assert max(first["sizes"][1:]) == 2


@pytest.mark.parametrize("case", [case for case in CASES if "NaN" in case])
def test_a_sample_of_one_process_stops_the_step_of_both(case: str, found: dict[str, list[dict[str, Any]]]) -> None:
    where = {step + 1: 7 in batch[1::2] for step, batch in enumerate(
        [batch for epoch in (0, 1) for batch in training_batches(45, None, BATCH, seed=3, epoch=epoch)])
        if 7 in batch and step < STEPS}
    assert len(where) == 2
    _, first, second = found[case]
    assert first["still"] == second["still"] == sorted(where)
    assert first["bad"] == second["bad"]
    assert [step for step, _ in first["bad"]] == sorted(where)
    for _, examples in first["bad"]:
        assert "row7" in examples
        assert len(examples) <= (2 if "memory" in case else 4)  # of one process, and of the pass that failed
