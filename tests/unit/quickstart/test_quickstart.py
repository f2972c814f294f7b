import json
from pathlib import Path

import pytest

from tests.quickstart import findings
from tlhub import cli
from tlhub.builtin import CHECKPOINTS, DATASETS, read_card
from tlhub.errors import DataError, StoppedError, UsageError
from tlhub.options import from_kwargs
from tlhub.quickstart import crew, quickstart
from tlhub.quickstart.shows import SHOWS, STRATEGIES, Show


@pytest.fixture
def done(monkeypatch, tmp_path):
    """Let jobs leave at once what runs leave; `fails` is raised before the job of that number."""
    kinds = {"image-classification": "image", "wake-word": "audio", "text-classification": "text",
             "text-generation": "corpus"}
    state = {"jobs": [], "fails": {}}

    def carry_out(jobs, done, *, processes, log):
        waiting = list(jobs)
        while waiting:
            job = waiting.pop(0)
            if error := state["fails"].get(len(state["jobs"])):
                raise error
            state["jobs"].append(job)
            show = Show.from_plain(json.loads(json.dumps(job["show"])))
            place = Path(job["folder"]) / show.task
            if job["strategy"] is None:
                content = json.dumps({**findings(kinds[show.task]), "show": job["show"]})
                (place / "findings.json").write_text(content)
            else:
                (place / job["strategy"]).mkdir(parents=True, exist_ok=True)
                metrics = {"test": {show.metric: 0.5}, "time": {"train_s": 1.0}}
                (place / job["strategy"] / "metrics.json").write_text(json.dumps(metrics))
            waiting[:0] = done(job)

    monkeypatch.setattr(crew, "carry_out", carry_out)
    monkeypatch.chdir(tmp_path)
    return state


def test_every_run_is_made_and_each_task_compared_after_its_last(done):
    outcome = quickstart.quickstart("out")
    jobs = [(job["show"]["task"], job["strategy"]) for job in done["jobs"]]
    assert len(jobs) == 15 + 4
    assert jobs[:5] == [(SHOWS[0].task, strategy) for strategy in (*STRATEGIES, None)]
    assert outcome.page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert len(outcome.findings) == 4
    assert json.loads(Path("out/quickstart.json").read_text())["state"] == "finished"


def test_folders_are_numbered_and_an_unfinished_one_is_gone_on_with(done):
    assert quickstart.quickstart().folder == Path("runs/quickstart-1")
    done["fails"] = {25: StoppedError("stopped")}
    with pytest.raises(StoppedError):
        quickstart.quickstart()
    assert json.loads(Path("runs/quickstart-2/quickstart.json").read_text())["state"] == "stopped"
    done["fails"] = {}
    assert quickstart.quickstart(seed=1).folder == Path("runs/quickstart-3")
    assert quickstart.quickstart().folder == Path("runs/quickstart-2")
    assert quickstart.quickstart().folder == Path("runs/quickstart-4")


def test_what_is_in_a_folder_is_kept_unless_it_may_be_replaced(done):
    quickstart.quickstart("out")
    Path("out/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="'out' holds a finished quickstart; name another folder, or pass --overwrite"):
        quickstart.quickstart("out")
    old = Path("out/wake-word/lora/old")
    old.touch()
    quickstart.quickstart("out", overwrite=True)
    assert not old.exists()
    assert Path("out/notes.txt").read_text() == "mine"
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no quickstart"):
        quickstart.quickstart("other", overwrite=True)


def test_a_stopped_one_of_another_seed_is_not_gone_on_with(done):
    done["fails"] = {3: DataError("none left")}
    with pytest.raises(DataError):
        quickstart.quickstart("out")
    assert json.loads(Path("out/quickstart.json").read_text())["state"] == "failed"
    with pytest.raises(UsageError, match="a quickstart of another kind"):
        quickstart.quickstart("out", seed=1)
    done["fails"] = {}
    before = Path("out/wake-word/old")
    before.mkdir(parents=True)
    spent = json.loads(Path("out/quickstart.json").read_text())["seconds"]
    assert quickstart.quickstart("out").seconds > spent > 0
    assert before.exists()


def test_an_unfinished_one_can_be_begun_again(done):
    done["fails"] = {3: DataError("none left")}
    with pytest.raises(DataError):
        quickstart.quickstart("out")
    before = Path("out/image-classification/scratch")
    assert before.exists()
    done["fails"] = {3: DataError("none left"), 4: DataError("none left")}
    with pytest.raises(DataError):
        quickstart.quickstart("out", overwrite=True)
    assert len(done["jobs"]) == 3
    assert not before.exists()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(done, capsys):
    Path("file").touch()
    assert cli.main(["quickstart", "--out", "file"]) == 2
    assert "--out 'file' cannot be written" in capsys.readouterr().err


def test_the_command_prints_the_table_and_what_to_type_next(done, capsys, caplog):
    assert cli.main(["quickstart", "--out", "out"]) == 0
    for name in CHECKPOINTS:
        assert f"{name} was trained on {read_card(name).terms}; the terms: " in caplog.text
    printed = capsys.readouterr().out
    assert "wake-word: builtin/audio on builtin/wake_word" in printed
    assert "the page: out/index.html" in printed
    assert printed.count("    tlhub finetune ") == 4
    assert cli.main(["quickstart", "wrong"]) == 2


def test_every_run_of_the_quickstart_is_a_valid_one_of_what_is_embedded():
    requests = [show.request(strategy, Path("out"), 3) for show in SHOWS for strategy in show.strategies]
    assert len(requests) == 15
    configs = [from_kwargs(**request) for request in requests]
    assert len({config.out for config in configs}) == 15
    assert {config.seed for config in configs} == {3}
    assert {config.model.name for config in configs} <= set(CHECKPOINTS)
    assert {config.data.source for config in configs} == set(DATASETS)


def test_strategies_of_a_task_share_their_budget():
    for show in SHOWS:
        assert show.strategies[0] == "scratch"
        own = [name for sections in show.own.values() for values in sections.values() for name in values]
        assert set(own) <= {"learning_rate"}
        assert {"epochs", "max_steps"} & set(show.training["train"])


def test_later_options_of_a_show_win_and_a_probe_has_none_of_training():
    show = Show("text-classification", "", "", "model", "data", "accuracy", {"data": {"max_length": 9}},
                {"train": {"epochs": 2.0, "learning_rate": 1e-3}, "data": {"max_length": 8}},
                {"full": {"train": {"learning_rate": 1e-4}}})
    requests = {name: show.request(name, Path("out"), 3) for name in ("full", "lora", "linear_probe")}
    assert requests["full"] == {
        "task": "text-classification", "model": {"name": "model"}, "strategy": "full", "seed": 3,
        "out": "out/text-classification/full", "data": {"source": "data", "max_length": 8},
        "train": {"epochs": 2.0, "learning_rate": 1e-4}}
    assert requests["lora"]["train"]["learning_rate"] == 1e-3
    assert requests["linear_probe"]["data"] == {"source": "data", "max_length": 9}
    assert "train" not in requests["linear_probe"]
