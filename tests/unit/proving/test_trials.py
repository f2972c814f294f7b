from __future__ import annotations

import logging
import subprocess

import pytest

from tests import tiny
from tests.generated import write_corpus, write_texts
from tlhub import options
from tlhub.errors import StoppedError, TlhubError
from tlhub.parsers import FINETUNE
from tlhub.proving import trials
from tlhub.proving.trials import BLOCK, EXAMPLES, SCORED, STEPS, apart, examine, launched, without_notes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_texts(folder / "texts", {"train": 48, "validation": 12})
    write_corpus(folder / "corpus", {"train": 300, "validation": 40})
    tiny.checkpoint(folder / "bert", "bert")
    tiny.generator(folder / "gpt2", "gpt2", n_positions=300)
    return folder


def subject(made, task="text-classification", model="bert", data="texts", **choices):
    section = {"source": str(made / data), **choices.pop("section", {})}
    return examine(options.from_kwargs(task, model=str(made / model), data=section, **choices))


def test_runs_are_small_and_otherwise_the_user_s(made):
    found = subject(made, epochs=9, batch_size=64, learning_rate=0.01, log={"trackers": ["tensorboard"]})
    train = found.config.train
    assert (train.epochs, train.max_steps, train.batch_size, train.learning_rate) == (None, STEPS, 8, 0.01)
    assert found.config.log.trackers == []
    assert {split: len(examples) for split, examples in found.data.splits.items()} == {
        "train": EXAMPLES, "validation": SCORED}
    assert len(found.start) > 30


def test_blocks_of_texts_are_no_longer_than_needed(made):
    found = subject(made, "text-generation", "gpt2", "corpus", task_options={"prompts": ["a"]})
    assert found.config.data.block_size == BLOCK
    assert found.config.task_options == {"prompts": ["a"], "sample_tokens": 4}
    assert subject(made, "text-generation", "gpt2", "corpus", section={"block_size": 32}).config.data.block_size == 32


@pytest.mark.parametrize(("code", "error", "words"), [
    (1, TlhubError, "ended with code 1: tlhub: it broke"), (75, StoppedError, "stopped on request")])
def test_a_command_that_fails_is_told_by_its_last_line(made, tmp_path, monkeypatch, code, error, words):
    seen = []

    def run(command, **choices):
        seen.append(command)
        return subprocess.CompletedProcess(command, code, "", "a note\ntlhub: it broke\n\n")

    monkeypatch.setattr(trials.subprocess, "run", run)
    config = subject(made)
    with pytest.raises(error, match=words):
        launched(config, tmp_path / "two", {"launch.num_processes": 2})
    choices = FINETUNE.arguments(seen[0][4:])
    choices.pop("debug", None)
    again = options.from_kwargs(**choices)
    assert (again.launch.num_processes, again.train.max_steps, again.out) == (2, STEPS, str(tmp_path / "two"))


def test_numbers_are_compared_by_their_size():
    assert apart(100.0, 100.1) == pytest.approx(0.1 / 100.1)
    assert apart(0.1, 0.2) == pytest.approx(0.1)
    for one, other in ((float("nan"), 1.0), (1.0, float("nan")), (float("nan"), float("nan"))):
        assert apart(one, other) == float("inf")


def test_runs_keep_still_and_proofs_do_not():
    logger = logging.getLogger("tlhub")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        with without_notes():
            assert not logging.getLogger("tlhub.run").isEnabledFor(logging.INFO)
            assert logging.getLogger("tlhub.proving.prove").isEnabledFor(logging.INFO)
        assert logging.getLogger("tlhub.run").isEnabledFor(logging.INFO)
    finally:
        logger.setLevel(before)
