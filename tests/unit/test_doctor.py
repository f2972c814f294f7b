import socket

from tlhub import cli, doctor, environment
from tlhub.doctor import Finding


def test_nothing_that_matters_is_broken_here(capsys):
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for topic in ("versions", "imports", "compiled parts", "cpu", "precision", "processes", "cache", "Hub"):
        assert f"\n{topic} " in f"\n{text}"
    assert f"torch {environment.built_version('torch')}" in text
    assert ("stand-ins are used" in text) == environment.mismatched("torchvision")


def test_a_broken_part_is_exit_code_1(monkeypatch, capsys):
    def broken():
        raise ImportError("no peft")

    assert doctor._guarded(broken) == [Finding("broken", "ImportError: no peft", fatal=True)]
    monkeypatch.setattr(doctor, "examine", lambda: doctor._guarded(broken))
    assert cli.main(["doctor"]) == 1
    assert "tlhub cannot work here: broken" in capsys.readouterr().err


def test_whether_the_hub_answers_is_tried_and_not_assumed(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert doctor.hub_reachable()
    assert not doctor.hub_reachable(timeout=0.5)
