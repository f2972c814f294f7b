"""What a run keeps to go on from: all of it, once, and nothing that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.test_callbacks import make_job
from tlhub.errors import CheckpointError
from tlhub.training import checkpointing
from tlhub.training.checkpointing import Snapshot
from tlhub.training.loop import Job, Progress, train
from tlhub.training.store import CheckpointStore

NAME = "step-000000003"


def trained(folder: Path) -> tuple[Job, Progress, CheckpointStore]:
    job = make_job(max_steps=3)
    store = CheckpointStore(folder, job.model)
    progress = train(job, Progress(), [])
    store.keep_best()
    store.save(job, progress)
    return job, progress, store


def change(folder: Path, group: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Write the checkpoint anew with other content: to its manifest it is whole."""
    found = checkpointing.load(folder / NAME)
    content = {"tensors": {name: dict(tensors) for name, tensors in found.tensors.items()}, "state": dict(found.state)}
    edit(content["state"] if group == "state" else content["tensors"] if group == "all" else content["tensors"][group])
    checkpointing.save(folder, NAME, Snapshot(content["tensors"], content["state"]))


FOREIGN: dict[str, tuple[str, Callable[[dict[str, Any]], object], str]] = {
    "no model": ("all", lambda groups: groups.pop("model"), "KeyError"),
    "a tensor too few": ("model", lambda tensors: tensors.pop("head.bias"), "'head.bias' is missing"),
    "a tensor too many": ("model", lambda tensors: tensors.update(more=torch.ones(1)), "not trained"),
    "another shape": ("model", lambda tensors: tensors.update({"head.bias": torch.ones(1)}), r"Size\(\[1\]\)"),
    "another type": ("model", lambda tensors: tensors.update({"head.bias": torch.ones(3).half()}), "float16"),
    "moments of another shape": ("optimizer", lambda tensors: tensors.update({"0.exp_avg": torch.ones(1)}),
                                 r"0\.exp_avg is of shape \(1,\)"),
    "moments of nothing": ("optimizer", lambda tensors: tensors.update({"x.exp_avg": torch.ones(1)}), "invalid"),
    "no step": ("state", lambda state: state.update(step="many"), "not supported between"),
    "a step beyond the last": ("state", lambda state: state.update(step=4), "step 4 of 3"),
    "no threads": ("state", lambda state: state.pop("threads"), "KeyError"),
    "too many threads": ("state", lambda state: state.update(threads=10**9), "1000000000 threads"),
    "no window": ("state", lambda state: state.update(window=7), "TypeError"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_whole_checkpoint_that_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    group, edit, words = FOREIGN[case]
    trained(tmp_path)
    change(tmp_path, group, edit)
    again = make_job(max_steps=3)
    with pytest.raises(CheckpointError, match=rf"{NAME}' was not written by this run \(.*{words}.*remove it"):
        CheckpointStore(tmp_path, again.model).resume(again)


def test_content_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for number, (name, content) in enumerate({"state.json": b"[1]", "model.safetensors": b"\xff" * 9,
                                              "best.safetensors": b""}.items()):
        folder = tmp_path / str(number)
        trained(folder)
        (folder / NAME / name).write_bytes(content)
        digests = {path.name: checkpointing._digest(path) for path in (folder / NAME).iterdir()
                   if path.name != "manifest.json"}
        (folder / NAME / "manifest.json").write_bytes(checkpointing._manifest(digests))
        again = make_job(max_steps=3)
        with pytest.raises(CheckpointError, match="was not written by this run"):
            CheckpointStore(folder, again.model).resume(again)


def test_after_the_last_step_only_the_weights_are_kept(tmp_path: Path) -> None:
    job, progress, store = trained(tmp_path)
    with torch.no_grad():
        job.model.head.weight.add_(1)
    last = job.model.head.weight.clone()
    store.load_best()
    best = job.model.head.weight.clone()
    assert not torch.equal(last, best)
    store.finish(job, progress)
    names = sorted(path.name for path in (tmp_path / f"{NAME}-final").iterdir())
    assert names == ["manifest.json", "model.safetensors", "state.json"]
    again = make_job(max_steps=3)
    store = CheckpointStore(tmp_path, again.model)
    resumed = store.resume(again)
    assert resumed.step == 3
    store.load_best()
    assert torch.equal(again.model.head.weight, best)
    before = (tmp_path / f"{NAME}-final" / "state.json").stat().st_ino
    store.finish(again, resumed)
    assert (tmp_path / f"{NAME}-final" / "state.json").stat().st_ino == before


def test_the_state_is_plain(tmp_path: Path) -> None:
    trained(tmp_path)
    state = json.loads((tmp_path / NAME / "state.json").read_text())
    assert {"step", "best", "stale", "seconds", "threads", "scaler"} <= set(state)


def test_what_was_being_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / ".writing-step-000000009").mkdir()
    again = make_job(max_steps=3)
    assert CheckpointStore(tmp_path, again.model).resume(again).step == 3
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("processes", [1, 4])
def test_threads_are_those_of_the_beginning_where_as_many_processes_share_the_cores(
        tmp_path: Path, processes: int) -> None:
    job, progress, store = trained(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        store.save(job, progress)
        change(tmp_path, "state", lambda state: state.update(processes=processes))
        torch.set_num_threads(before)
        store.resume(job)
        assert torch.get_num_threads() == (before + 1 if processes == 1 else before)
    finally:
        torch.set_num_threads(before)
