"""Readers of others' files under contents that nobody thought of: refused by an error of tlhub's, or read.

For a bounded time; `tests/fuzz/run.py` goes on for as long as one likes. What it found lies in `tests/fuzz/found`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, WORDS, judge, mutated

FOUND = sorted(path for path in (Path(__file__).parents[1] / "fuzz" / "found").rglob("*") if path.is_file())
READERS, FINDS = 23, 2
BOUNDED: Any = settings(max_examples=40, deadline=None, derandomize=True, database=None,
                        suppress_health_check=list(HealthCheck))


def test_the_number_of_readers_and_finds() -> None:
    assert len(TARGETS) == READERS
    assert len(FOUND) == FINDS


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once(path: Path) -> None:
    assert judge(path.parent.name, path.read_bytes()) == ""


@pytest.mark.parametrize("name", TARGETS)
def test_contents_to_begin_with_are_read(name: str) -> None:
    read, contents = TARGETS[name]
    for content in contents():
        if name not in ("run", "status", "command-line", "yaml"):
            read(content)
        assert judge(name, content) == ""


@pytest.mark.parametrize("name", TARGETS)
def test_changed_contents(name: str) -> None:
    contents = TARGETS[name][1]()
    tried = []

    @BOUNDED
    @given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, len(contents) - 1))
    def check(seed: int, which: int) -> None:
        content = mutated(contents[which], np.random.default_rng(seed), contents)
        tried.append(content)
        assert judge(name, content) == "", content

    check()
    assert len(tried) >= 40


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
                  st.sampled_from([word.decode("utf-8", "replace") for word in WORDS]))
VALUES = st.recursive(PLAIN, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)), max_leaves=8)
NAMES = st.sampled_from(["text", "label", "messages", "role", "content", "from", "value", "prompt", "completion",
                         "split", "group", "file_name", "model_type", "hidden_size", "id2label", "num_labels", "model",
                         "data", "strategy", "train", "record", "widths", "label_names"])


@pytest.mark.parametrize("name", ["records", "chat", "config", "labels", "head", "status", "state", "manifest", "yaml",
                                  "run", "preprocessor", "tokenizer-config"])
def test_values_of_every_kind(name: str) -> None:
    import json

    tried = []

    @BOUNDED
    @given(values=st.lists(st.dictionaries(NAMES | st.text(max_size=5), VALUES, max_size=5), min_size=1, max_size=4))
    def check(values: list[dict[str, Any]]) -> None:
        lines = [json.dumps(value) for value in values]
        content = "\n".join(lines if name in ("records", "chat") else lines[:1]).encode("utf-8", "surrogatepass")
        tried.append(content)
        assert judge(name, content) == "", content

    check()
    assert len(tried) >= 40
