import os
import signal
import sys
import time

import pytest

from tlhub.errors import CheckpointError, DataError, StoppedError, TlhubError, UsageError
from tlhub.quickstart import crew
from tlhub.stopping import listening

WORKER = """
import json, os, signal, sys, time
sys.stderr.write("here\\n")
for line in sys.stdin:
    job = json.loads(line)
    if "sleep" in job:
        time.sleep(job["sleep"])
    if job.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if "says" in job:
        print(job["says"], flush=True)
    print(json.dumps({"code": job.get("code", 0), "reason": job.get("reason", "")}), flush=True)
"""


@pytest.fixture
def team(monkeypatch, tmp_path):
    """Carry out jobs in processes that need no library."""
    (tmp_path / "stand_in.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(crew, "_MODULE", "stand_in")
    ended = []

    def work(jobs, processes=2, after=lambda job: []):
        def done(job):
            ended.append(job)
            return after(job)

        crew.carry_out(jobs, done, processes=processes, log=tmp_path / "log.txt")
        return ended

    work.ended = ended
    work.log = tmp_path / "log.txt"
    return work


def test_all_jobs_are_done_and_what_follows_them(team):
    jobs = [{"name": name} for name in "abcd"]
    ended = team(jobs, after=lambda job: [{"name": job["name"] * 2}] if job["name"] == "b" else [])
    assert sorted(job["name"] for job in ended) == ["a", "b", "bb", "c", "d"]
    assert team.log.read_text() == "here\n" * 2


def test_one_process_keeps_the_order(team):
    ended = team([{"name": name} for name in "abcd"], processes=1,
                 after=lambda job: [{"name": "next"}] if job["name"] == "b" else [])
    assert [job["name"] for job in ended] == ["a", "b", "next", "c", "d"]
    assert team.log.read_text() == "here\n"


@pytest.mark.parametrize(("code", "kind"), [(3, DataError), (4, CheckpointError), (1, TlhubError)])
def test_a_failure_is_raised_as_what_it_is_and_ends_the_others(team, code, kind):
    started = time.monotonic()
    with pytest.raises(kind, match=r"^it is wrong \(more in '.*log\.txt'\)$") as error:
        team([{"code": code, "reason": "it is wrong"}, {"sleep": 60}, {}])
    assert error.type is kind
    assert team.ended == []
    assert time.monotonic() - started < 30


def test_a_process_that_dies_is_told(team):
    with pytest.raises(TlhubError, match=r"was killed \(SIGKILL\); the same command goes on"):
        team([{"dies": True}], processes=1)


def test_words_that_are_no_answer_end_it(team):
    with pytest.raises(TlhubError, match="said 'hello', which is no answer"):
        team([{"says": "hello"}, {"sleep": 60}])


def test_the_worker_loads_nothing_of_the_users_and_answers_alone(monkeypatch, tmp_path):
    """A file with the name of a library is common in projects."""
    (tmp_path / "evaluate.py").write_text("print('mine')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    show = {"task": "none", "title": "", "question": "", "model": "builtin/none", "data": "none", "metric": "accuracy",
            "strategies": ["scratch"]}
    job = {"show": show, "strategy": "scratch", "folder": str(tmp_path / "out"), "seed": 0}
    with pytest.raises(UsageError, match=r"^none, scratch: task 'none'"):
        crew.carry_out([job], lambda job: [], processes=1, log=tmp_path / "log.txt")
    assert "mine" not in (tmp_path / "log.txt").read_text()


def test_a_request_to_stop_reaches_the_processes(team):
    def ask(job):
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    started = time.monotonic()
    with listening() as stop, stop.interrupting(), pytest.raises(StoppedError, match="the same command goes on"):
        team([{}, {"sleep": 60}, {"sleep": 60}], after=ask)
    assert team.ended == [{}]
    assert time.monotonic() - started < 30
