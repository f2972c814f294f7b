import errno
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlhub import cli
from tlhub.errors import CheckpointError, DataError, StoppedError, UsageError
from tlhub.launching import Ending

REPOSITORY = Path(__file__).parents[2]
HELP = [["--help"], *[[*command.name.split(), "--help"] for command, _ in cli._COMMANDS]]


@pytest.fixture(autouse=True)
def _restore_sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def fail(error):
    raise error


def test_help_needs_no_torch():
    code = (
        "import sys; from tlhub.cli import main; "
        "[print(main(words.split()), '|', {'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules), '|end') "
        "for words in sys.argv[1:]]"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(" ".join, HELP)], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    *outputs, rest = ended.stdout.split("|end\n")
    assert (len(outputs), rest) == (len(HELP), "")
    for words, output in zip(HELP, outputs, strict=True):
        assert f"usage: {' '.join(['tlhub', *words[:-1]])}" in output
        assert output.endswith("\n0 | set() ")


def test_every_promised_command_is_there():
    assert [command.name for command, _ in cli._COMMANDS] == [
        "finetune", "plan", "prove", "evaluate", "predict", "data check", "quickstart", "models", "doctor"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("use x"), 2, "use x"),
        (DataError("bad\nrow"), 3, "bad row"),
        (CheckpointError("no model"), 4, "no model"),
        (StoppedError("after step 3"), 75, "after step 3"),
        (KeyboardInterrupt(), 75, "stopped on request"),
        (RuntimeError("boom\n at x"), 1, "RuntimeError: boom at x (--debug shows where)"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "the disk is full ([Errno 28] No space left"),
    ],
)
def test_failures_are_one_line_and_a_code(capsys, error, code, words):
    assert cli.guarded(lambda: fail(error), debug=False) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("tlhub: ")
    assert words in output.err


def test_a_traceback_is_shown_on_request(capsys):
    assert cli.guarded(lambda: fail(DataError("bad")), debug=True) == 3
    assert "Traceback" in capsys.readouterr().err


def test_success_says_nothing(capsys):
    assert cli.guarded(lambda: Ending(0), debug=False) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fintune"], "command 'fintune' is not known; did you mean 'finetune'"),
        (["data", "chek"], "'data chek' is not known"),
        (["finetune", "text-classification", "--model", "m"], "no data is given"),
        (["evaluate", "runs/x"], "no data is given"),
        (["predict", "runs/x"], "required"),
        (["predict", "r", "x", "--batch_size", "no"], "'--batch_size' is 'no'"),
        (["data", "check", "text-clasification", "--data", "d"], "did you mean 'text-classification'"),
        (["doctor", "--fast"], "'--fast' is not known"),
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, words, message):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_recipes_get_the_options_as_keyword_arguments():
    seen = []
    with pytest.raises(SystemExit) as ended:
        cli.recipe(
            seen.append,
            task="text-classification",
            argv=["--model", "m", "--data", "d", "--epochs", "2", "--overwrite"],
        )
    assert ended.value.code == 0
    assert seen == [{"model": {"name": "m"}, "data": {"source": "d"}, "train": {"epochs": 2.0}, "overwrite": True}]


def test_recipes_have_the_exit_codes_of_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.recipe(
            lambda options: fail(DataError("bad")), task="text-classification", argv=["--model", "m", "--data", "d"]
        )
    assert ended.value.code == 3
    with pytest.raises(SystemExit) as ended:
        cli.recipe(print, task="text-classification", argv=["--model", "m", "--data", "d", "--epoch", "2"])
    assert ended.value.code == 2
    assert "did you mean '--epochs'" in capsys.readouterr().err


def test_a_signal_before_training_is_a_stop():
    code = (
        "import os, signal, sys, time; from tlhub import cli\n"
        "def body():\n    os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)\n"
        "sys.exit(cli.guarded(body, debug=False))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 75
    assert ended.stderr == ("tlhub: SIGTERM: stopping now; another Ctrl-C ends at once\n"
                            "tlhub: stopped on request; the same command goes on\n")


def test_lines_of_standard_input_are_inputs(monkeypatch):
    read, write = os.pipe()
    os.write(write, b"one\n\ntwo\r\n")
    os.close(write)
    with os.fdopen(read) as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert cli._batches(["zero", "-"], 1) == [["zero", "one", "two"]]


def test_predictions_are_json_lines(monkeypatch, capsys):
    class Finished:
        def predict(self, values, **sampling):
            assert not sampling
            return [{"input": value, "label": "ü", "score": 0.5} for value in values]

    pytest.importorskip("tlhub.run")
    monkeypatch.setattr("tlhub.run.load", lambda folder: Finished())
    assert cli.main(["predict", "runs/x", "a", "b"]) == 0
    assert [json.loads(line)["input"] for line in capsys.readouterr().out.splitlines()] == ["a", "b"]


def test_what_is_printed_holds_nothing_that_a_terminal_obeys():
    record = logging.LogRecord("tlhub", logging.INFO, "", 0, "column %s", ("a\x1b[2J\nb\u202e",), None)
    assert cli._OneLine("%(message)s").format(record) == "column a\\x1b[2J b\\u202e"
    row = {"input": "a\x7f\x9b\u202eb", "label": "Łódź", "text": "one\ntwo \ud800 \U0001f600"}
    line = cli._json_line(row)
    assert line == '{"input": "a\\u007f\\u009b\\u202eb", "label": "Łódź", "text": "one\\ntwo \\ud800 \U0001f600"}'
    assert json.loads(line) == row
