"""What is wrong with the examples: those that cannot be decoded, and those that lie in two splits."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import stat
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import soundfile

from tlhub.data.cache import write_atomically
from tlhub.data.decode import open_image
from tlhub.data.sound import check_header, look
from tlhub.errors import DataError

_PRIORITY = ("test", "validation", "train")
_FORMAT = 3
_MOST_BYTES = 2**30
"""Largest file that is read into memory."""
_LARGE = 2**24
"""Size from which a file's header is looked at before its content is read."""


@dataclass(frozen=True)
class BadExample:
    """An example that is left out, and why."""

    split: str
    id: str
    reason: str


@dataclass
class Checked:
    """The result of looking at every example once.

    Attributes:
        digests: Hash of each example's content.
        reasons: Why an example cannot be used; None where it can.
        facts: What else was seen of each; nothing for texts.
    """

    digests: list[str]
    reasons: list[str | None]
    facts: list[dict[str, Any]] = field(default_factory=list)


def check_texts(texts: Sequence[str | None]) -> Checked:
    """Hash texts, and find those that are missing or empty."""
    digests = [_digest((text or "").strip().encode()) for text in texts]
    return Checked(digests, [None if (text or "").strip() else "no text" for text in texts])


def check_pairs(pairs: Sequence[tuple[str, str]]) -> Checked:
    """Hash pairs of texts, and find those of which a text is missing or empty."""
    both = [[text.strip() for text in pair] for pair in pairs]
    digests = [_digest(json.dumps(pair).encode()) for pair in both]
    return Checked(digests, ["no text" if not first else "no second text" if not second else None
                             for first, second in both])


@dataclass(frozen=True)
class Decoder:
    """What looks at the content of a file.

    Attributes:
        noun: What messages begin with.
        version: What has to stay the same for its outcome to hold.
        look: Returns what it saw as plain values; raises `DataError` for a content that cannot be used.
        glance: Raises `DataError` where a file's header tells that it cannot be used: a large one is not read then.
    """

    noun: str
    version: str
    look: Callable[[bytes], dict[str, Any]]
    glance: Callable[[str], None]


def _look_at_image(content: bytes) -> dict[str, Any]:
    open_image(content)
    return {}


DECODERS = {
    "image": Decoder("image", PIL.__version__, _look_at_image, lambda path: None),
    "audio": Decoder("sound", soundfile.__libsndfile_version__, lambda content: dataclasses.asdict(look(content)),
                     check_header),
}
"""By modality."""


@dataclass
class FileAuditor:
    """Decodes every file once, and remembers the outcome between runs.

    What is known of a file holds while it is the same one, of the same size and times: the time of its content can be
    set by a copy or an archive, that of its entry cannot. What is known of a content holds for good.

    Args:
        memory: The JSON file that remembers; one for each data source.
        decoder: What looks at a file.
    """

    memory: Path
    decoder: Decoder
    _files: dict[str, list[Any]] = field(default_factory=dict)
    _outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _learned: bool = False

    def __post_init__(self) -> None:
        """Read what earlier runs found."""
        try:
            known = json.loads(self.memory.read_text(encoding="utf-8"))
            if known["decoder"] == self._version:
                self._files, self._outcomes = dict(known["files"]), dict(known["outcomes"])
        except (OSError, ValueError, KeyError, TypeError):
            return  # no memory, or a damaged one: everything is decoded again

    @property
    def _version(self) -> str:
        return f"{self.decoder.noun} {self.decoder.version} format {_FORMAT}"

    def check(self, inputs: Sequence[str | bytes], lost: Mapping[str, str] | None = None) -> Checked:
        """Return hash and outcome of each file.

        Args:
            inputs: Paths, or contents.
            lost: Paths that are known to be unusable whatever is remembered, with the reason.
        """
        with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
            warnings.simplefilter("ignore")  # decoders warn about odd metadata, and about sizes that are refused here
            results = list(pool.map(self._look, inputs))
        if lost:
            results = [(digest, {"reason": lost[str(source)]} if source in lost else outcome)
                       for source, (digest, outcome) in zip(inputs, results, strict=True)]
        if self._learned:
            content = {"decoder": self._version, "files": self._files, "outcomes": self._outcomes}
            write_atomically(self.memory, json.dumps(content).encode())
            self._learned = False
        return Checked([digest for digest, _ in results], [outcome.get("reason") for _, outcome in results],
                       [{name: value for name, value in outcome.items() if name != "reason"} for _, outcome in results])

    def _look(self, source: str | bytes) -> tuple[str, dict[str, Any]]:
        if isinstance(source, bytes):
            return self._decode(source)
        try:
            facts = os.stat(source)
            if not stat.S_ISREG(facts.st_mode):
                return _digest(source.encode()), {"reason": "is no file"}
            seen = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
            known = self._files.get(source)
            if known and known[:-1] == seen and known[-1] in self._outcomes:
                return known[-1], self._outcomes[known[-1]]
            if facts.st_size > _MOST_BYTES:
                return _digest(source.encode()), {"reason": f"is {facts.st_size / 2**20:.0f} MiB large, the limit is "
                                                            f"{_MOST_BYTES / 2**20:.0f}"}
            if facts.st_size > _LARGE:
                self.decoder.glance(source)
            content = Path(source).read_bytes()
        except DataError as error:
            return _digest(source.encode()), {"reason": self._reason(error, source)}
        except OSError as error:
            return _digest(source.encode()), {"reason": f"cannot be read ({error.strerror})"}
        digest, outcome = self._decode(content)
        self._files[source], self._learned = [*seen, digest], True
        return digest, outcome

    def _decode(self, content: bytes) -> tuple[str, dict[str, Any]]:
        digest = _digest(content)
        if digest not in self._outcomes:
            self._learned = True
            try:
                self._outcomes[digest] = self.decoder.look(content)
            except DataError as error:
                self._outcomes[digest] = {"reason": self._reason(error)}
        return digest, self._outcomes[digest]

    def _reason(self, error: DataError, path: str = "") -> str:
        """Return what is wrong, without the file's name and what to do."""
        words = str(error).removeprefix(f"{self.decoder.noun} ").removeprefix(f"'{path}' ")
        return words.partition(";")[0]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def keep_apart(values: Mapping[str, Sequence[str] | np.ndarray]) -> dict[str, np.ndarray]:
    """Find what lies in two splits, and leave it only in the one that is not trained on.

    Args:
        values: For each split what must not be shared: hashes of examples, or groups.

    Returns:
        For each split the indices that stay, ascending: all of `test`; of `validation` what is not in `test`; of
        `train` what is in neither.
    """
    seen: set[str] = set()
    kept: dict[str, np.ndarray] = {}
    for split in _PRIORITY:
        if split in values:
            kept[split] = np.array([index for index, value in enumerate(values[split]) if value not in seen], np.int64)
            seen.update(values[split])
    return kept


def write_quarantine(path: Path, bad: Sequence[BadExample]) -> None:
    """Write `quarantine.csv`: one line for each example that was left out, with the reason."""
    with io.StringIO(newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["split", "id", "reason"])
        writer.writerows([example.split, _inert(example.id), example.reason] for example in bad)
        write_atomically(path, text.getvalue().encode())


def _inert(name: str) -> str:
    """Return a file's name so that a spreadsheet does not take it for a formula; `./=a` is the file `=a`."""
    return f"./{name}" if name.startswith(("=", "+", "-", "@")) else name
