"""A run's folder: which one is taken, what is refused, and what is removed."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tlhub.config import RunConfig, replace
from tlhub.errors import UsageError
from tlhub.folder import RunFolder, open_folder, plain_identity, taken_folder
from tlhub.options import effective


def config(out: Path | None = None, **values: Any) -> RunConfig:
    base = RunConfig(task="text-classification", out=None if out is None else str(out))
    named = {name.replace("__", "."): value for name, value in values.items()}
    return replace(base, {"model.name": "m", "data.source": "d", **named})


def begun(run: RunConfig, state: str = "running") -> RunFolder:
    folder = open_folder(run, overwrite=False)
    folder.write_config(effective(run), {"given": plain_identity(run)})
    folder.write_status(state)
    return folder


def test_a_new_or_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/new"):
        assert open_folder(config(tmp_path / name), overwrite=False).path.is_dir()


@pytest.mark.parametrize("state", ["running", "stopped", "failed"])
def test_an_unfinished_run_of_the_same_configuration_goes_on(tmp_path: Path, state: str) -> None:
    folder = begun(config(tmp_path / "run"), state)
    (folder.path / "checkpoints").mkdir()
    same = replace(config(tmp_path / "run"), {"log.every": 3, "train.micro_batch_size": 2, "launch.num_processes": 2})
    assert open_folder(same, overwrite=False).path == folder.path
    assert (folder.path / "checkpoints").exists()


@pytest.mark.parametrize(("state", "seed", "words"), [
    ("finished", 0, "holds a finished run"), ("running", 1, "an unfinished run of another configuration"),
    ("stopped", 1, "an unfinished run of another configuration")])
def test_what_is_not_overwritten_unless_asked(tmp_path: Path, state: str, seed: int, words: str) -> None:
    folder = begun(config(tmp_path / "run"), state)
    (folder.path / "model").mkdir()
    again = config(tmp_path / "run", seed=seed)
    with pytest.raises(UsageError, match=words):
        open_folder(again, overwrite=False)
    assert (folder.path / "model").exists()
    open_folder(again, overwrite=True)
    assert list(folder.path.iterdir()) == []


def test_clearing_leaves_what_a_user_put_there(tmp_path: Path) -> None:
    folder = begun(config(tmp_path), "failed")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").write_text("text,label\n")
    open_folder(config(tmp_path, seed=1), overwrite=False)
    assert folder.status == {}
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]
    assert (tmp_path / "texts" / "train.csv").exists()


def test_a_folder_of_something_else_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no tlhub run"):
        open_folder(config(tmp_path), overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        open_folder(config(tmp_path / "notes.txt"), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_default_folder_is_the_latest_unfinished_one_or_the_next(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = begun(config())
    assert first.path == Path("runs/text-classification-1")
    assert open_folder(config(), overwrite=False).path == first.path
    second = begun(config(seed=1))
    assert second.path.name == "text-classification-2"
    first.write_status("finished")
    assert begun(config()).path.name == "text-classification-3"
    begun(config(seed=2), "finished")
    assert open_folder(config(seed=1), overwrite=False).path == second.path
    assert open_folder(config(seed=2), overwrite=False).path.name == "text-classification-5"


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(config(tmp_path / "run"))
    before = (folder.path / "config.yaml").read_text()

    def full(self: Path, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="Input/output"):
            folder.write_config({"task": "other"}, {})
    assert (folder.path / "config.yaml").read_text() == before
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.yaml", "status.json"]


def test_a_full_disk_still_gets_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(config(tmp_path / "run"))

    def full(self: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    folder.write_status("failed", 1, "two\nlines")
    assert json.loads((folder.path / "status.json").read_text()) == {
        "state": "failed", "exit_code": 1, "reason": "two lines"}


def test_damaged_files_read_as_none(tmp_path: Path) -> None:
    folder = begun(config(tmp_path / "run"))
    (folder.path / "status.json").write_text("{")
    (folder.path / "config.yaml").write_text("")
    assert (folder.status, folder.config) == ({}, {})


def test_a_folder_is_held_by_one_command(tmp_path: Path) -> None:
    run = config(tmp_path / "run")
    with taken_folder(run, overwrite=False) as folder:
        begun(run)
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=r"is in use by process \d+ on"), \
                    taken_folder(run, overwrite=overwrite, patience=0.0):
                pytest.fail("held twice")
        assert folder.status["state"] == "running"
    assert {path.name for path in folder.path.iterdir()} == {"config.yaml", "status.json"}
    with taken_folder(run, overwrite=False, patience=0.0) as again:
        assert again.path == folder.path


def test_commands_that_choose_at_the_same_time_get_folders_of_their_own(tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    together, found, refused = threading.Barrier(8), [], []

    def choose(seed: int) -> None:
        together.wait()
        try:
            with taken_folder(config(seed=seed), overwrite=False, patience=0.0) as folder:
                begun(replace(config(seed=seed), {"out": str(folder.path)}))
                found.append(folder.path.name)
                together.wait()
        except UsageError as error:
            refused.append(str(error))
            together.wait()

    threads = [threading.Thread(target=choose, args=(seed,)) for seed in (0, 0, 1, 2, 3, 4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found)) >= 7, "two of the same configuration may meet in a folder: one is refused"
    assert len(found) + len(refused) == 8


def test_what_a_killed_command_leaves_is_no_run(tmp_path: Path) -> None:
    for name in (".lock", ".status.json.tmp", ".config.yaml.tmp"):
        (tmp_path / name).write_text("{")
    with taken_folder(config(tmp_path), overwrite=False) as folder:
        assert folder.path == tmp_path
        begun(config(tmp_path), "failed")
    with taken_folder(config(tmp_path, seed=1), overwrite=False):
        assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_a_configuration_without_a_status_is_a_run_that_was_killed_at_its_beginning(tmp_path: Path) -> None:
    begun(config(tmp_path))
    (tmp_path / "status.json").unlink()
    assert open_folder(config(tmp_path), overwrite=False).path == tmp_path
    with pytest.raises(UsageError, match="holds no tlhub run"):
        open_folder(config(tmp_path, seed=1), overwrite=False)
