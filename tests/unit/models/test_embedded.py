"""Runs over embedded checkpoints: stored in half precision, used in single, found again under their name."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.embedded import embed
from tests.unit.models.test_adapters import adapted, trained
from tests.unit.models.test_checkpoints import LABELS, load
from tests.wrong import working_in
from tlhub.errors import CheckpointError
from tlhub.models.origin import resolve_origin
from tlhub.models.saving import load_saved, save_model

NAME = "builtin/words"


def test_the_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embed(monkeypatch, tmp_path / "models", NAME, "bert")
    tiny.checkpoint(tmp_path / NAME, "bert", seed=3)
    with working_in(tmp_path):
        origin = resolve_origin(NAME)
    assert (origin.name, origin.kind, origin.revision, origin.folder) == (NAME, "builtin", None, folder)
    assert origin.lasting_name == NAME
    with pytest.raises(CheckpointError, match=r"revision 'main' was given, but 'builtin/words' comes with tlhub; "):
        resolve_origin(NAME, "main")
    with pytest.raises(CheckpointError, match=r"'builtin/wrods' is no checkpoint .*; valid: builtin/words$"):
        resolve_origin("builtin/wrods")


@pytest.mark.parametrize(("kind", "form"), [("bert", "whole"), ("resnet", "whole"), ("resnet", "adapter"),
                                            ("gpt2", "adapter"), ("whisper", "adapter")])
def test_what_is_saved_is_in_single_precision(kind: str, form: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain transformers computes the same, in float32, which is several times faster on CPUs than float16."""
    base = embed(monkeypatch, tmp_path, NAME, kind)
    assert torch.float16 in {tensor.dtype for tensor in load_file(base / "model.safetensors").values()}
    checkpoint = load(Path(NAME), kind)
    model: Any = adapted(checkpoint) if form == "adapter" else checkpoint.model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model = trained(model, kind, audit=False)
    out = tmp_path / "out"
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS)
    base.rename(tmp_path / "elsewhere")  # it is kept beside the adapter
    plain = tiny.auto_model(kind).from_pretrained(out).eval()
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}
    batch = tiny.inputs(kind)
    assert torch.allclose(plain(**batch).logits, model(**batch).logits, atol=1e-5)


@pytest.mark.parametrize("form", ["adapter", "head"])
def test_a_base_left_out_is_found_in_another_installation(form: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    embed(monkeypatch, tmp_path / "here", NAME, "bert")
    checkpoint = load(Path(NAME), "bert")
    model = trained(adapted(checkpoint), "bert", audit=False) if form == "adapter" else checkpoint.model
    out, batch = tmp_path / "out", tiny.inputs("bert")
    expected = model(**batch).logits
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS, save_base=False)
    (tmp_path / "here").rename(tmp_path / "gone")
    embed(monkeypatch, tmp_path / "there", NAME, "bert")
    again, _ = load_saved(out, *tiny.auto_names("bert"))
    assert torch.allclose(again(**batch).logits, expected, atol=1e-6)
    if form == "adapter":
        code = (out / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        (out / "load.py").write_text(code)
        with working_in(out):
            assert torch.allclose(runpy.run_path("load.py")["model"](**batch).logits, expected, atol=1e-6)
    embed(monkeypatch, tmp_path / "there", NAME, "bert", seed=1)
    with pytest.raises(CheckpointError, match=r"has other weights .* install the version of tlhub that made it"):
        load_saved(out, *tiny.auto_names("bert"))
