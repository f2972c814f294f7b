"""`tlhub` for the documentation's commands: forked from one process that has the libraries loaded already.

Loading them is most of what a small command costs. What a command is given and what it gives are its own: arguments,
folder, environment, streams, signals and exit code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_CLIENT = """#!{python} -SE
import json, os, signal, socket, sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(asked)
    with server.makefile() as answers:
        process = int(answers.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: os.kill(process, number))
        code = answers.readline()
sys.exit(int(code) if code else 1)
"""


class Commands:
    """A folder with `tlhub` and `python` in it, and the process behind `tlhub`, which ends with the context.

    Args:
        folder: Where to put them.
    """

    def __init__(self, folder: Path) -> None:
        self._address = str(folder / "socket")
        programs = folder / "bin"
        programs.mkdir()
        (programs / "tlhub").write_text(_CLIENT.format(python=sys.executable, address=self._address))
        (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}
        self._server: subprocess.Popen[str] | None = None

    def __enter__(self) -> Commands:
        self._server = subprocess.Popen([sys.executable, "-m", "tests.docs.commands", self._address], text=True,
                                        cwd=REPOSITORY, env=self.environment, stdout=subprocess.PIPE)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.terminate()
        self._server.communicate(timeout=60)


def serve(address: str) -> None:
    """Carry out commands for ever, each in a process of its own."""
    import tlhub.run  # noqa: F401  (with everything that it needs)
    from tlhub import cli

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _carry_out(connection, cli)
            connection.close()


def _carry_out(connection: socket.socket, cli: Any) -> None:
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rwb") as file:
        words, folder, environment = json.loads(file.read(int.from_bytes(length, "big")))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[0] = folder
        sys.argv = ["tlhub", *words]
        code = cli.main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        file.write(f"{code}\n".encode())
        file.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
