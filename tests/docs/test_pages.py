"""Every code block of README and docs runs, in the order of its page, and prints what the page shows."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import blocks as documentation
from tests.docs.blocks import LANGUAGES, PAGES, PageError, blocks, run_page
from tests.docs.commands import Commands

BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with Commands(tmp_path_factory.mktemp("programs")) as found:
        yield found


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.kind != "example" for block in blocks(page))],
                         ids=lambda page: page.stem)
def test_a_page(page: Path, tmp_path: Path, programs: Commands) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    run_page(page, folder, programs)


def test_every_block_is_one_that_is_known() -> None:
    strange = [f"{page.name}:{block.line}" for page, block in BLOCKS
               if block.kind == "unknown" or block.language not in LANGUAGES]
    assert strange == []
    fences = sum(len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)


def test_the_blocks_are_counted() -> None:
    counts = Counter(block.kind for _, block in BLOCKS)
    assert len(PAGES) == 23
    assert counts == {"apart": 14, "example": 2, "file": 10, "install": 3, "output": 50, "run": 63}
    assert Counter(block.title for _, block in BLOCKS if block.kind == "apart") == {
        "needs the Hub": 10,
        "needs several GPUs": 1,
        "needs several machines": 1,
        "takes three minutes": 1,
        "needs Chromium": 1}
    assert [page.name for page, block in BLOCKS if block.kind == "install"] == ["README.md", "README.md", "index.md"]


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


@pytest.mark.parametrize(("shown", "fits"), [
    ("one 1\ntwo 2.5\n", True), ("one 7\ntwo -0.1\n", True), ("one  1\ntwo 2\n", True), ("", True),
    ("...\ntwo 2\n", True), ("one 1\n...\n", True), ("...\n", True),
    ("one 1\n", False), ("two 2\n", False), ("two 2\none 1\n", False), ("...\none 1\n", False),
    ("one 1\ntwo b\n", False), ("one 1\n...\ntwo 2\nthree\n", False)])
def test_output_is_compared(shown: str, fits: bool, tmp_path: Path, programs: Commands) -> None:
    page = page_of(tmp_path, f"```bash\necho one 1\necho two 2\n```\n```text\n{shown}```\n")
    if fits:
        written = run_page(page, tmp_path, programs)
        assert written.endswith(("two 2\n```\n", "...\n```\n"))
    else:
        with pytest.raises(PageError, match="shown is"):
            run_page(page, tmp_path, programs)


@pytest.mark.parametrize(("text", "words"), [
    ("```bash\ntrue\nfalse\n```\n", "exit code 1"),
    ("```bash\ntlhub predict\n```\n", "exit code 2"),
    ("```python\n1 / 0\n```\n", "page.md:1: ZeroDivisionError"),
    ("```text\nno\n```\n", "follows no block"),
    ("```bash\ntrue\n```\nwords\n```text\nno\n```\n", "follows no block")])
def test_a_page_that_is_wrong_fails(text: str, words: str, tmp_path: Path, programs: Commands) -> None:
    with pytest.raises(PageError, match=words):
        run_page(page_of(tmp_path, text), tmp_path, programs)


def test_a_configuration_that_is_wrong_fails(tmp_path: Path, programs: Commands) -> None:
    with pytest.raises(Exception, match="did you mean 'learning_rate'"):
        run_page(page_of(tmp_path, "```yaml\ntask: wake-word\nlearning_rat: 1\n```\n"), tmp_path, programs)


def test_blocks_share_a_folder_and_an_interpreter(tmp_path: Path, programs: Commands) -> None:
    page = page_of(tmp_path, '```python\nx = 1\n```\n```csv title="a.csv"\nb\n```\n```python\nprint(x, open("a.csv")'
                             '.read())\n```\n```text\n```\n')
    assert run_page(page, tmp_path, programs).endswith("```text\n1 b\n\n```\n")


def test_what_an_installation_printed_is_compared(tmp_path: Path) -> None:
    page = page_of(tmp_path, "```bash\npip install x\n```\n```text\n...\nscore 0.5\n```\n")
    assert "score 0.9\n" in documentation.compare(page, "before\nscore 0.9\n")
    with pytest.raises(PageError):
        documentation.compare(page, "before\nno score\n")
    with pytest.raises(PageError):
        documentation.compare(page_of(tmp_path, "nothing\n"), "score 0.9\n")


def test_a_forked_command_has_its_own_streams_and_exit_code(programs: Commands, tmp_path: Path) -> None:
    done = subprocess.run(["tlhub", "predict", "nothing", "-"], env=programs.environment, input="a\n", text=True,
                          capture_output=True, cwd=tmp_path, executable=str(Path(
                              programs.environment["PATH"].partition(":")[0]) / "tlhub"))
    assert (done.returncode, done.stdout) == (4, "")
    assert "'nothing' holds no finished run" in done.stderr
