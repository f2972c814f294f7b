"""Run recipe scripts one after the other in one process, as `python SCRIPT ARGUMENTS` would, and write how they ended.

    python tests/recipes/drive.py REPORT '[["recipes/text_classification.py", "--model", "m", "--data", "d"]]' [WORD...]

Each process of a group writes `REPORT.<rank>`: the exit codes, and the number of processes that accelerate knows of.
Plots take most of a tiny run's time; they are drawn for the commands in which one of the words occurs.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from tlhub import results


def ended(script, arguments):
    """Return the exit code of a script."""
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exit_:
        return exit_.code
    return None  # a recipe always leaves by an exit code


def without_plots(*_):
    """Draw nothing."""


if __name__ == "__main__":
    report, commands, words = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
    draw, codes = results._draw, []
    for script, *arguments in commands:
        results._draw = draw if set(words) & set(arguments) else without_plots
        codes.append(ended(script, arguments))
    from accelerate import PartialState

    path = Path(f"{report}.{os.environ.get('RANK', '0')}")
    path.write_text(json.dumps({"codes": codes, "processes": PartialState().num_processes}))
