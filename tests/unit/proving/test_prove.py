from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.generated import write_texts
from tests.wrong import said, working_in
from tlhub import cli, options
from tlhub.errors import UsageError
from tlhub.proving import prove
from tlhub.proving.proof import FAILS, HOLDS, Finding, Proof


@pytest.fixture
def made(tmp_path):
    write_texts(tmp_path / "texts", {"train": 24, "validation": 6})
    tiny.checkpoint(tmp_path / "bert", "bert")
    with working_in(tmp_path):
        yield tmp_path


@pytest.mark.parametrize(("words", "code", "told"), [
    ("--data texts --model bert --strategy last_k --strategy.k 9", 2, "asks for more blocks than the 2"),
    ("--data texts --model bert --evaluate.metrics acuracy", 2, "acuracy"),
    ("--data texts --model bert --epoch 3", 2, "'--epoch' is not known to 'tlhub prove'"),
    ("--data texts --model bert --out texts", 2, "'texts' is not empty and holds more than proofs"),
    ("--data texts --model bert --out texts/train.csv", 2, "is a file"),
    ("--data texts --model bert --out of_mine", 2, "'of_mine' is not empty and holds more than proofs"),
    ("--data none --model bert", 3, "none"),
    ("--data texts --model none", 4, "none"),
])
def test_a_user_s_mistake_is_no_failed_proof(made, capsys, words, code, told):
    mine = Path("of_mine/runs/text-classification-1")  # where `tlhub finetune` puts runs
    mine.mkdir(parents=True)
    assert told in said(f"prove text-classification {words}", code, capsys)
    assert mine.exists()


def test_the_folder_that_a_file_names_is_the_run_s(made, monkeypatch):
    seen = []

    def noted(config, overwrite):
        seen.append((config.out, config.seed, overwrite))
        return prove.Report(Path("x"), ())

    monkeypatch.setattr(prove, "prove", noted)
    Path("run.yaml").write_text("task: text-classification\nmodel: bert\ndata: texts\nout: runs/x\nseed: 3\n")
    assert cli.main(["prove", "--config", "run.yaml"]) == 0
    assert cli.main(["prove", "--config", "run.yaml", "--out", "y", "--overwrite"]) == 0
    assert seen == [(None, 3, False), ("y", 3, True)]


def test_folders_are_numbered_and_results_written(made, monkeypatch):
    outcomes = [HOLDS]
    monkeypatch.setattr(prove, "examine", lambda config: None)

    def attempted(self):
        (self.runs / "whole").mkdir(parents=True)
        return (Proof("tensors", Finding(outcomes[-1], "seen", {"moved": ["a"]}), 0.5),)

    monkeypatch.setattr(prove._Proofs, "all", attempted)
    config = options.from_kwargs("text-classification", model="bert", data="texts")
    first = prove.prove(config)
    assert (first.folder, first.failed) == (Path("proofs/text-classification-1"), ())
    assert [path.name for path in first.folder.iterdir()] == ["proof.json"]
    found = json.loads((first.folder / "proof.json").read_text())
    assert found["holds"]
    assert found["proofs"] == [{"name": "tensors", "seconds": 0.5, "outcome": HOLDS, "words": "seen",
                                "figures": {"moved": ["a"]}}]
    outcomes.append(FAILS)
    second = prove.prove(config)
    assert (second.folder, second.failed) == (Path("proofs/text-classification-2"), ("tensors",))
    assert (second.folder / "proof-runs" / "whole").exists()
    named = options.from_kwargs("text-classification", model="bert", data="texts", out=str(second.folder))
    with pytest.raises(UsageError, match="holds proofs; name another folder, or pass --overwrite"):
        prove.prove(named)
    outcomes.append(HOLDS)
    assert prove.prove(named, overwrite=True).failed == ()
    assert not (second.folder / "proof-runs").exists()
    (second.folder / "proof.json").unlink()
    (second.folder / "proof-runs").mkdir()
    assert prove.prove(named).failed == ()
    foreign = options.from_kwargs("text-classification", model="bert", data="texts", out="texts")
    with pytest.raises(UsageError, match="'texts' is not empty and holds more than proofs"):
        prove.prove(foreign, overwrite=True)
