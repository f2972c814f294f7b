"""A process of the quickstart: carries out what it is told on its standard input, one JSON object a line.

    python -m tlhub.quickstart.worker PARENT

For each line it writes one to its standard output: the exit code that a command would have, and why. PARENT is the
process that it ends with.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from tlhub import environment, launching
from tlhub.errors import StoppedError, TlhubError
from tlhub.parsers import one_line
from tlhub.quickstart.shows import Show
from tlhub.stopping import listening

_OUTPUT = 1
answers = os.fdopen(os.dup(_OUTPUT), "w", encoding="utf-8")
os.dup2(2, _OUTPUT)  # what a library prints, when it is loaded or later, is no answer

with environment.loading():
    from tlhub.quickstart.findings import find
    from tlhub.quickstart.runs import carry_out


def main(parent: int) -> None:
    """Do what is asked until the input ends, or until one thing fails."""
    launching.follow(parent)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    logging.getLogger("tlhub").setLevel(logging.INFO)
    with listening() as stop:
        code, what = 0, ""
        while code == 0:
            try:
                with stop.interrupting():
                    line = sys.stdin.readline()
                    if not line:
                        return
                    job = json.loads(line)
                    what = f"{job['show']['task']}, {job['strategy'] or 'its comparison'}: "
                    _carry_out(job)
                reason = ""
            except TlhubError as error:
                code, reason = error.exit_code, f"{what}{error}"
            except BaseException as error:  # whoever waits for the answer has to get one
                code, reason = 1, f"{what}{type(error).__name__}: {error}"
                if stop.requested:
                    code, reason = StoppedError.exit_code, "stopped on request"
                logging.getLogger(__name__).info("failed", exc_info=True)
            answers.write(json.dumps({"code": code, "reason": one_line(reason)}) + "\n")
            answers.flush()


def _carry_out(job: dict[str, Any]) -> None:
    show, folder = Show.from_plain(job["show"]), Path(job["folder"])
    if job["strategy"] is None:
        find(show, folder, job["seed"])
    else:
        carry_out(show, job["strategy"], folder, job["seed"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
