"""The code blocks of the documentation: found, run in the order of the page, and what they print compared.

    python -m tests.docs.blocks docs/data.md            # run a page; 1 where a block fails or prints otherwise
    python -m tests.docs.blocks --write docs/data.md    # the same, and put what was printed into the page
    python -m tests.docs.blocks --printed quickstart.log README.md    # compare what an installation printed

Every page has a folder of its own with a link to the recipes, in which its blocks run one after the other:

- `bash`: as one script, that stops at the first command that fails. With one of the titles in `APART` only its `tlhub`
  commands are parsed, and blocks that begin with `pip install` are left to `.ci/run`, with the output behind them.
- `python`: in one interpreter for the whole page.
- a block whose title is the name of a file: written to that file.
- `yaml` without a title: a run's configuration, which is checked.
- `text` right behind a block that ran: what that printed, both streams. Numbers may differ, and so may the width of
  columns; a line `...` stands for any lines. With a title it is an example, which is written and not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.docs.commands import Commands
from tlhub import options

REPOSITORY = Path(__file__).parents[2]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
APART = ("needs the Hub", "needs several GPUs", "needs several machines", "takes three minutes", "needs Chromium")
"""Titles of `bash` blocks that cannot run in every test, which are the reasons."""
CHANGING = ("writing-a-task.md",)
"""Pages that change the package, each a copy of its own."""
LANGUAGES = ("bash", "python", "yaml", "text", "csv", "json")
_FENCE = re.compile(r'^```(?P<language>[a-z]*)(?: title="(?P<title>[^"]*)")?(?P<rest>[^\n]*)\n(?P<text>.*?)^```$',
                    re.DOTALL | re.MULTILINE)
_ELLIPSIS = "..."


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: What follows the fence.
        title: Of the block; empty where it has none.
        text: Its lines.
        line: Number of the fence's line in the page.
        follows: Whether nothing stands between it and the block before.
        span: Where its text begins and ends in the page.
    """

    language: str
    title: str
    text: str
    line: int
    follows: bool
    span: tuple[int, int]

    @property
    def kind(self) -> str:
        """What is done with it: `run`, `apart`, `install`, `file`, `configuration`, `output` or `example`."""
        if re.fullmatch(r"[\w/-]+\.(?:py|yaml|csv|jsonl|txt)", self.title):
            return "file"
        if self.language == "text":
            return "example" if self.title else "output"
        if self.language == "bash" and (self.title in APART or self.text.startswith("pip install")):
            return "apart" if self.title else "install"
        return "configuration" if self.language == "yaml" else "run" if not self.title else "unknown"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in _FENCE.finditer(content):
        assert not match["rest"], f"{page.name}: a fence with {match['rest']!r} behind the language"
        found.append(Block(match["language"], match["title"] or "", match["text"],
                           content.count("\n", 0, match.start()) + 1, not content[end:match.start()].strip(),
                           match.span("text")))
        end = match.end()
    return found


def commands(text: str) -> list[str]:
    """Return the commands of a script that belong to the project, one a line, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    starts = ("tlhub ", "python recipes/", "accelerate-launch ")
    return [line.strip() for line in lines if line.strip().startswith(starts)]


class PageError(Exception):
    """A block failed, or printed something else than the page shows."""


def run_page(page: Path, folder: Path, programs: Commands, *, rewrite: bool = False) -> str:
    """Run the blocks of a page in a folder and return the page with what they printed.

    Args:
        page: The page.
        folder: Where to run them.
        programs: The commands.
        rewrite: Put all that was printed in where it does not look as the page shows it.

    Raises:
        PageError: One of them failed, or printed what does not look as the page shows it.
    """
    content = Content(page)
    environment = {**programs.environment, "TLHUB_CACHE": str(folder / ".cache")}
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    _furnish(folder, page)
    for before, block in zip([None, *content.blocks], content.blocks, strict=False):
        where = f"{page.name}:{block.line}"
        if block.kind == "output":
            if before is None or not block.follows or before.kind not in ("run", "install"):
                raise PageError(f"{where}: output that follows no block which is run")
            if before.kind == "run":
                content.replace(block, _fitted(block.text, printed or "", where, rewrite=rewrite))
        elif block.kind == "example" and block.follows and printed is not None and rewrite:
            content.replace(block, printed)
        elif block.kind == "file":
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "configuration":
            options.from_kwargs(**yaml.safe_load(block.text))
        elif block.kind == "run":
            printed = (_python(block.text, folder, names, where) if block.language == "python"
                       else _bash(block.text, folder, environment, where))
    return content.text


def compare(page: Path, printed: str) -> str:
    """Return a page with the output of its first installation as it was printed.

    Raises:
        PageError: It does not look as the page shows it, or the page shows none.
    """
    content = Content(page)
    for before, block in itertools.pairwise(content.blocks):
        if before.kind == "install" and block.kind == "output" and block.follows:
            content.replace(block, _fitted(block.text, _as_seen(printed), f"{page.name}:{block.line}"))
            return content.text
    raise PageError(f"{page.name} shows no output of an installation")


class Content:
    """A page's text, whose blocks may be replaced from the first to the last.

    Args:
        page: The page.
    """

    def __init__(self, page: Path) -> None:
        self.text = page.read_text(encoding="utf-8")
        self.blocks = blocks(page)
        self._shift = 0

    def replace(self, block: Block, new: str) -> None:
        """Put other lines into a block."""
        start, end = (place + self._shift for place in block.span)
        self.text = self.text[:start] + new + self.text[end:]
        self._shift += len(new) - len(block.text)


def _furnish(folder: Path, page: Path) -> None:
    """Put what a checkout has into a page's folder: the recipes, and the package where the page changes it."""
    (folder / "recipes").symlink_to(REPOSITORY / "recipes")
    if page.name in CHANGING:
        shutil.copytree(REPOSITORY / "tlhub", folder / "tlhub", ignore=shutil.ignore_patterns("__pycache__"))


def _bash(script: str, folder: Path, environment: dict[str, str], where: str) -> str:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode:
        raise PageError(f"{where}: exit code {done.returncode}\n{done.stdout}")
    return _as_seen(done.stdout)


def _python(code: str, folder: Path, names: dict[str, Any], where: str) -> str:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), _working_in(folder):
        try:
            exec(compile(code, where, "exec"), names)
        except Exception as error:
            raise PageError(f"{where}: {type(error).__name__}: {error}\n{stream.getvalue()}") from error
    return stream.getvalue()


def _as_seen(output: str) -> str:
    """Return what a terminal shows in the end: of lines that are written over the last state, and no bars."""
    lines = [line.rpartition("\r")[2] for line in output.rstrip("\n").replace("\r\n", "\n").split("\n")]
    return "".join(f"{line.rstrip()}\n" for line in lines if not re.search(r"\d+%\|", line))


def _fitted(shown: str, printed: str, where: str, *, rewrite: bool = False) -> str:
    """Return the lines that are shown as they were printed now.

    Raises:
        PageError: They were not.
    """
    wanted, there = shown.splitlines(), printed.splitlines()
    if not wanted:
        return printed
    parts: list[list[str]] = [[]]
    for line in wanted:
        if line == _ELLIPSIS:
            parts.append([])
        else:
            parts[-1].append(line)
    result: list[str] = []
    position = 0
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        places = range(position, len(there) - len(part) + 1)
        if number == 0:
            places = range(1)
        if last and (part or number == 0):
            places = range(max(position, len(there) - len(part)), len(there) - len(part) + 1)
        at = next((at for at in places if _alike(part, there[at:at + len(part)])), None)
        if at is None or (number == 0 and last and len(part) != len(there)):
            if rewrite:
                return printed
            raise PageError(f"{where}: shown is\n{shown}\nprinted was\n{printed}")
        result += [*([_ELLIPSIS] if number else []), *there[at:at + len(part)]]
        position = at + len(part)
    return "".join(f"{line}\n" for line in result)


def _alike(shown: Sequence[str], printed: Sequence[str]) -> bool:
    return list(map(_shape, shown)) == list(map(_shape, printed))


def _shape(line: str) -> str:
    """Return a line with every number alike, every hash, and every run of blanks and of dashes."""
    line = re.sub(r"\b[0-9a-f]{16}\b", "0", line)
    line = re.sub(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?", "0", line)
    return re.sub(r"[-─━]{2,}", "--", re.sub(r"\s+", " ", line)).strip()


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before, cache = Path.cwd(), os.environ.get("TLHUB_CACHE")
    os.chdir(folder)
    os.environ["TLHUB_CACHE"] = str(folder / ".cache")
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.pop("TLHUB_CACHE")
        if cache is not None:
            os.environ["TLHUB_CACHE"] = cache


def main(argv: Sequence[str] | None = None) -> int:
    """Run pages, and write what they print into them if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="put what is printed into the page")
    parser.add_argument("--printed", type=Path, help="file with what an installation printed, instead of running")
    given = parser.parse_args(argv)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    failed = 0
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tlhub-docs-")))
        programs = None if given.printed else held.enter_context(Commands(folder))
        for page in given.pages:
            (own := folder / page.stem).mkdir()
            try:
                content = (compare(page, given.printed.read_text()) if programs is None
                           else run_page(page, own, programs, rewrite=given.write))
            except PageError as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
            else:
                if given.write:
                    page.write_text(content, encoding="utf-8")
                print(f"{page}: {len(blocks(page))} blocks", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
