"""Every form of `model/` is loaded in a process without tlhub, as its README says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.unit.models.test_adapters import adapted, trained
from tests.unit.models.test_checkpoints import LABELS, load
from tests.unit.models.test_origin import COMMIT, hub_cache
from tlhub.models.saving import load_saved, save_model

STANDINS = Path(__file__).parents[1] / "standins.py"
LOADING = """
import json, os, runpy, sys
sys.modules["tlhub"] = None
runpy.run_path(sys.argv[1])
import torch, transformers
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
for folder, auto_model, auto_processor in json.load(open(sys.argv[2])):
    os.chdir(folder)
    scope = {}
    if os.path.exists("README.md"):
        exec(open("README.md").read().split("```python")[1].split("```")[0], scope)
    else:
        scope["model"] = getattr(transformers, auto_model).from_pretrained(".")
        scope["processor"] = getattr(transformers, auto_processor).from_pretrained(".")
    model, batch = scope["model"].eval(), load_file("../inputs.safetensors")
    with torch.no_grad():
        save_file({"logits": model(**batch).logits}, "../logits.safetensors")
    json.dump([model.config.id2label[index] for index in range(len(model.config.id2label))], open("../names.json", "w"))
    if auto_processor == "AutoTokenizer":
        assert scope["processor"](["rain"])["input_ids"][0]
    else:
        from PIL import Image
        assert scope["processor"](Image.new("RGB", (40, 50)), return_tensors="pt")["pixel_values"].shape[2:] == (32, 32)
"""


def without_tlhub(folders: list[tuple[Path, str]], tmp_path: Path, **environment: str) -> None:
    """Load every folder in one fresh process that cannot import tlhub, and have it write its logits beside it."""
    jobs = [(str(folder), *tiny.auto_names(kind)) for folder, kind in folders]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    (tmp_path / "loading.py").write_text(textwrap.dedent(LOADING))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "loading.py"), str(STANDINS), str(tmp_path / "jobs.json")], cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", **environment}, capture_output=True, text=True,
        check=False, timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def keep(folder: Path, kind: str, model: Any) -> torch.Tensor:
    """Store the inputs beside a saved model and return the logits that it gave before."""
    batch = tiny.inputs(kind)
    save_file(batch, folder.parent / "inputs.safetensors")
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**batch).logits
    return logits


def agree(folder: Path, expected: torch.Tensor) -> None:
    found = load_file(folder.parent / "logits.safetensors")["logits"]
    assert torch.allclose(found, expected, atol=1e-6, rtol=1e-6)
    assert json.loads((folder.parent / "names.json").read_text()) == list(LABELS)


def test_every_form_loads_without_tlhub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected: dict[Path, torch.Tensor] = {}
    folders: list[tuple[Path, str]] = []
    for kind in ("bert", "gpt2", "resnet", "vit", "timm_resnet"):
        for form in ("full", "adapter"):
            checkpoint = load(tiny.checkpoint(tmp_path / kind / form / "base", kind), kind)
            model = adapted(checkpoint) if form == "adapter" else checkpoint.model
            trained(model, kind, audit=False)
            folder = tmp_path / kind / form / "model"
            save_model(model, checkpoint.processor, folder, origin=checkpoint.origin, label_names=LABELS)
            expected[folder] = keep(folder, kind, model)
            folders.append((folder, kind))
            if form == "adapter":
                assert (folder / "config.json").exists()
                assert json.loads((folder / "labels.json").read_text())["base_weight_hash"] in (
                    folder / "README.md").read_text()
    for kind in ("roberta", "gpt2", "vit"):
        name = f"someone/tiny-{kind}"
        tiny.checkpoint(hub_cache(tmp_path / "hub", name, monkeypatch), kind)
        checkpoint = load(Path(name), kind)
        assert checkpoint.origin.revision == COMMIT
        model = trained(adapted(checkpoint), kind)
        folder = tmp_path / f"hub-{kind}" / "model"
        save_model(model, checkpoint.processor, folder, origin=checkpoint.origin, label_names=LABELS)
        assert not (folder / "config.json").exists()
        expected[folder] = keep(folder, kind, model)
        folders.append((folder, kind))
        again, _ = load_saved(folder, *tiny.auto_names(kind))
        assert torch.allclose(again(**tiny.inputs(kind)).logits, expected[folder], atol=1e-6)
    without_tlhub(folders, tmp_path, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert len(expected) == 13
    for folder, logits in expected.items():
        agree(folder, logits)
