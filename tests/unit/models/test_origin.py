"""Finding a checkpoint's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tlhub.errors import CheckpointError
from tlhub.models.origin import resolve_origin, weight_hash

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_cache(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a checkpoint as huggingface_hub keeps it, and make that the cache."""
    repository = root / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    return snapshot


def test_a_folder(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "bert")
    origin = resolve_origin(str(folder))
    assert (origin.kind, origin.revision, origin.folder) == ("local", None, folder.resolve())
    assert origin.weight_hash == weight_hash(folder)
    assert origin.weight_hash != weight_hash(tiny.checkpoint(tmp_path / "other", "bert", seed=1))


def test_a_run_is_its_model(tmp_path: Path) -> None:
    tiny.checkpoint(tmp_path / "run" / "model", "bert")
    assert resolve_origin(str(tmp_path / "run")).folder == (tmp_path / "run" / "model").resolve()


@pytest.mark.parametrize(
    ("name", "words"),
    [("absent/folder/deep", "no folder that exists"), ("./absent", "no folder"), ("someone/absent", "not in the local"),
     ("bad name!", "not in the local"), ("", "no folder")],
)
def test_nothing_there(name: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        resolve_origin(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_usable_files(tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(CheckpointError, match=r"no config.json \(found: readme.md\)"):
        resolve_origin(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no weights"):
        resolve_origin(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_text("x")
    with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin"):
        resolve_origin(str(tmp_path))


def test_a_hub_id_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = hub_cache(tmp_path, "someone/tiny-bert", monkeypatch)
    tiny.checkpoint(snapshot, "bert")
    origin = resolve_origin("someone/tiny-bert")
    assert (origin.kind, origin.revision, origin.folder) == ("hub", COMMIT, snapshot)
    assert resolve_origin("someone/tiny-bert", COMMIT) == origin
    with pytest.raises(CheckpointError, match="at revision 'v2'"):
        resolve_origin("someone/tiny-bert", "v2")


def test_a_revision_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder"):
        resolve_origin(str(tmp_path), "main")
