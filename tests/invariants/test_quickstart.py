"""The quickstart with real processes and runs: stopped on the way, gone on with, and nothing asked of the network."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path

import pytest

from tests import tiny
from tests.generated import write_corpus, write_images, write_sounds, write_texts
from tlhub.errors import StoppedError
from tlhub.finished import Run
from tlhub.quickstart.quickstart import quickstart
from tlhub.quickstart.shows import Show

COUNTS = {"train": 24, "validation": 8, "test": 8}
FORBIDDEN = """
import socket
from pathlib import Path

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        Path({path!r}).write_text(str(address))
        raise OSError("no network here")
    return connect(self, address)

connect, socket.socket.connect = socket.socket.connect, refuse
"""


@pytest.fixture
def shows(tmp_path: Path) -> tuple[Show, ...]:
    """Every task, on tiny checkpoints and a few examples."""
    write_images(tmp_path / "images", COUNTS)
    write_texts(tmp_path / "texts", COUNTS)
    write_sounds(tmp_path / "sounds", COUNTS)
    write_corpus(tmp_path / "corpus", {**COUNTS, "train": 60})
    for kind in ("resnet", "bert", "whisper"):
        tiny.checkpoint(tmp_path / kind, kind)
    tiny.generator(tmp_path / "gpt2", "gpt2")

    def show(task: str, model: str, data: str, metric: str, strategies: tuple[str, ...],
             **options: dict[str, object]) -> Show:
        return Show(task, task.title(), "What is it?", str(tmp_path / model), str(tmp_path / data), metric, options,
                    {"train": {"max_steps": 2, "batch_size": 4}}, {"full": {"train": {"learning_rate": 1e-3}}},
                    strategies)

    return (show("image-classification", "resnet", "images", "accuracy", ("scratch", "linear_probe", "full")),
            show("text-classification", "bert", "texts", "accuracy", ("scratch", "linear_probe")),
            show("wake-word", "whisper", "sounds", "average_precision", ("scratch", "full"),
                 task_options={"keyword": ["high"]}),
            show("text-generation", "gpt2", "corpus", "bits_per_byte", ("scratch", "lora")))


class _Asker(logging.Handler):
    """Asks this process to stop when the second run has ended."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("[ 2/9]"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_quickstart_that_is_stopped_is_gone_on_with(shows: tuple[Show, ...], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """The finished runs stay as they are, and the page shows every task."""
    reached = tmp_path / "reached"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FORBIDDEN.format(path=str(reached)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{Path(__file__).parents[2]}")
    out, asker = tmp_path / "out", _Asker()
    logger = logging.getLogger("tlhub.quickstart.quickstart")
    logger.addHandler(asker)
    monkeypatch.setattr(logger, "isEnabledFor", lambda level: True)
    try:
        with pytest.raises(StoppedError):
            quickstart(str(out), shows=shows)
    finally:
        logger.removeHandler(asker)
    finished = [path for path in out.glob("*/*/status.json") if json.loads(path.read_text())["state"] == "finished"]
    kept = {path: path.stat().st_mtime_ns for path in finished}
    assert 2 <= len(kept) < 9
    assert json.loads((out / "quickstart.json").read_text())["state"] == "stopped"

    outcome = quickstart(str(out), shows=shows)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not reached.exists()
    runs = [Run(show.run_folder(strategy, out)) for show in shows for strategy in show.strategies]
    assert len(runs) == 9
    for show, found in zip(shows, outcome.findings, strict=True):
        assert [row["strategy"] for row in found["rows"]] == list(show.strategies)
        for row in found["rows"]:
            metrics = Run(show.run_folder(row["strategy"], out)).metrics
            assert row["score"] == metrics["test"][show.metric]
            assert bool(row["curve"]) == (row["strategy"] != "linear_probe")
            assert (row["gain_interval"] is None) == (row["strategy"] == "scratch")
        _check_exhibit(show, found, out)
    page = outcome.page.read_text(encoding="utf-8")
    assert page.count("<section") == 5
    assert page.count("<audio") == page.count("data:audio/wav;base64,") > 0


def _check_exhibit(show: Show, found: dict[str, object], out: Path) -> None:
    """Check that the answers shown are those of the saved models."""
    exhibit = found["exhibit"]
    assert isinstance(exhibit, dict)
    if exhibit["kind"] == "corpus":
        assert len(exhibit["drawn"]) > 0
        assert all(item["before"] and set(item["after"]) == set(show.strategies) for item in exhibit["drawn"])
        assert found["untouched"] > 0
        return
    assert len(exhibit["drawn"]) >= 6
    folder = Path(show.data) / "test"
    strategy = show.strategies[-1]
    run = Run(show.run_folder(strategy, out))
    for item in exhibit["drawn"][:3]:
        value = item["text"] if "text" in item else str(_file(folder, item["id"]))
        (answer,) = run.predict([value])
        shown = item["answers"][strategy]
        assert (shown["label"], shown["right"]) == (answer["label"], answer["label"] == item["label"])
        assert shown["score"] == pytest.approx(answer["scores"].get("high", answer["score"]), abs=1e-4)


def _file(folder: Path, name: str) -> Path:
    return next(path for path in folder.glob("*/*") if name.endswith(f"{path.parent.name}/{path.name}"))
