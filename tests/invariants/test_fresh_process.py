"""Audio and vision work in a process of its own that imports tlhub first, or what stands for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_environment import REPOSITORY, USES


@pytest.mark.parametrize(
    "start", ["import tlhub", f"import runpy; runpy.run_path({str(REPOSITORY / 'tests/standins.py')!r})"])
def test_audio_and_vision_work_in_a_fresh_process(start: str, tmp_path: Path) -> None:
    blocked = "" if start == "import tlhub" else "\nassert 'tlhub' not in __import__('sys').modules"
    uses = f"{start}{USES}{blocked}\nprint('works')"
    ended = subprocess.run([sys.executable, "-c", uses], capture_output=True, text=True, check=False,
                           cwd=REPOSITORY if start == "import tlhub" else tmp_path)
    assert ended.stdout.endswith("works\n"), ended.stderr
