"""Every form of `model/`: loaded by tlhub, and in a process without it."""

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
from tlhub.config import REGRESSION
from tlhub.errors import CheckpointError
from tlhub.models.adapters import load_adapter
from tlhub.models.heads import HeadForm, pooled_classifier
from tlhub.models.saving import load_saved, save_model

STANDINS = Path(__file__).parents[2] / "standins.py"
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


@pytest.mark.parametrize(("kind", "feature"), [("bert", "native"), ("bert", "layer_mean"), ("roberta", "mean"),
                                               ("vit", "mean"), ("resnet", "native")])
@pytest.mark.parametrize("widths", [(), (8, 6)])
def test_heads_of_our_own(kind: str, feature: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", kind), kind)
    model = trained(pooled_classifier(checkpoint.model, feature, HeadForm(widths), seed=0), kind, audit=False)
    batch = tiny.inputs(kind)
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS)
    assert json.loads((tmp_path / "out" / "head.json").read_text()) == {
        "kind": feature, "widths": list(widths), "activation": "relu", "dropout": 0.0, "in_features": tiny.HIDDEN,
        "bias": True, "label_names": list(LABELS), "problem_type": "single_label_classification", "base": None}
    assert {"head.json", "head.safetensors", "config.json", "model.safetensors"} <= {
        path.name for path in (tmp_path / "out").iterdir()}
    again, _ = load_saved(tmp_path / "out", *tiny.auto_names(kind))
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-6)
    assert load(tmp_path / "out", kind).model(**batch).logits.shape == (4, 3)


def test_adapters_under_a_head_of_our_own_are_merged(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "bert"), "bert")
    checkpoint.model = pooled_classifier(checkpoint.model, "native", HeadForm((8,)), seed=0)  # type: ignore[assignment] (a head of tlhub's own)
    model = trained(adapted(checkpoint), "bert")
    batch = tiny.inputs("bert")
    expected = model(**batch).logits
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS)
    again, _ = load_saved(tmp_path / "out", *tiny.auto_names("bert"))
    assert torch.allclose(again(**batch).logits, expected, atol=1e-5)
    assert torch.equal(model(**batch).logits, expected)


def test_batch_norm_statistics_are_saved(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "resnet"), "resnet")
    checkpoint.model.train()(**tiny.inputs("resnet"))
    save_model(checkpoint.model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS)
    again, _ = load_saved(tmp_path / "out", *tiny.auto_names("resnet"))
    state, now = again.state_dict(), checkpoint.model.state_dict()
    assert all(torch.equal(state[name], now[name]) for name in now)


def test_a_base_left_out_is_found_again_and_checked(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "bert"), "bert")
    model = trained(adapted(checkpoint), "bert")
    batch = tiny.inputs("bert")
    out = tmp_path / "out"
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS, save_base=False)
    assert not (out / "config.json").exists()
    assert not (out / "model.safetensors").exists()
    again = load_adapter(out, auto_model="AutoModelForSequenceClassification")
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-6)
    tiny.checkpoint(tmp_path / "base", "bert", seed=5)
    with pytest.raises(CheckpointError, match="has other weights than those it was trained on"):
        load_adapter(out, auto_model="AutoModelForSequenceClassification")
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"/out' was saved without its base '.*/base', which is not there any mo"):
        load_adapter(out, auto_model="AutoModelForSequenceClassification")


@pytest.mark.parametrize("kind", ["gpt2", "vit", "timm_resnet"])
@pytest.mark.parametrize("form", ["linear", "fitted", "mlp"])
def test_new_layers_alone(kind: str, form: str, tmp_path: Path) -> None:
    """Of heads trained behind a frozen base only the heads are kept, and the base is found again and checked."""
    base, batch = tiny.checkpoint(tmp_path / "base", kind), tiny.inputs(kind)
    checkpoint = load(base, kind)
    model: Any = checkpoint.model
    if form != "linear":
        head = HeadForm((5,), "tanh", 0.1) if form == "mlp" else HeadForm()
        model = pooled_classifier(checkpoint.model, "mean", head, seed=0)
    out = tmp_path / "out"
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS, save_base=False)
    assert {path.name for path in out.glob("*.safetensors")} == {"head.safetensors"}
    assert sum(path.stat().st_size for path in out.glob("*.safetensors")) < 3000
    again, processor = load_saved(out, *tiny.auto_names(kind))
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-6)
    assert type(processor) is type(checkpoint.processor)
    assert again.config.id2label == dict(enumerate(LABELS))
    with pytest.raises(CheckpointError, match=r"new layers of a run alone .*; give their base '/"):
        load(out, kind)
    tiny.checkpoint(base, kind, seed=5)
    with pytest.raises(CheckpointError, match="has other weights than those it was trained on"):
        load_saved(out, *tiny.auto_names(kind))
    (base / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"/out' was saved without its base '.*/base', which cannot be used: "):
        load_saved(out, *tiny.auto_names(kind))
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"/out' was saved without its base '.*/base', which is not there any mo"):
        load_saved(out, *tiny.auto_names(kind))


def test_new_layers_over_a_base_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.checkpoint(hub_cache(tmp_path / "hub", "someone/tiny", monkeypatch), "vit")
    checkpoint, batch = load(Path("someone/tiny"), "vit"), tiny.inputs("vit")
    save_model(checkpoint.model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS,
               save_base=False)
    base = json.loads((tmp_path / "out" / "head.json").read_text())["base"]
    assert base == {"name": "someone/tiny", "revision": COMMIT, "weight_hash": checkpoint.origin.weight_hash}
    again, _ = load_saved(tmp_path / "out", *tiny.auto_names("vit"))
    assert torch.allclose(again(**batch).logits, checkpoint.model(**batch).logits, atol=1e-6)


def test_the_kind_of_target_is_kept(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "vit"), "vit", ("length",), problem_type=REGRESSION)
    forms: dict[str, Any] = {
        "full": lambda: checkpoint.model, "adapter": lambda: adapted(checkpoint),
        "head": lambda: pooled_classifier(load(tmp_path / "base", "vit", ("length",), problem_type=REGRESSION).model,
                                          "mean", HeadForm(), seed=0)}
    for form, make in forms.items():
        for save_base in (True, False) if form == "head" else (True,):
            out = tmp_path / f"{form}{save_base}"
            save_model(make(), checkpoint.processor, out, origin=checkpoint.origin, label_names=("length",),
                       save_base=save_base)
            again: Any = load_saved(out, *tiny.auto_names("vit"))[0]
            assert again.config.problem_type == REGRESSION
            assert json.loads((out / "config.json").read_text())["problem_type"] == REGRESSION
            assert again(**tiny.inputs("vit")).logits.shape == (4, 1)


def test_damaged_heads(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "vit"), "vit")
    model = pooled_classifier(checkpoint.model, "mean", HeadForm((5,)), seed=0)
    out = tmp_path / "out"
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS)
    state = load_file(out / "model.safetensors")
    whole = {name: tensor.clone() for name, tensor in state.items()}
    gone = next(name for name in state if "layernorm_before" in name)
    del state[gone]
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 'backbone\..*layernorm_before\.\w+'; a file is damaged"):
        load_saved(out, *tiny.auto_names("vit"))
    save_file(whole, out / "model.safetensors", metadata={"format": "pt"})
    save_file({"0.weight": torch.ones(2, 2)}, out / "head.safetensors")
    with pytest.raises(CheckpointError, match=r"the head in .* cannot be loaded: ") as caught:
        load_saved(out, *tiny.auto_names("vit"))
    assert "\n" not in str(caught.value)
    (out / "head.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the head in .* cannot be loaded: 'widths'"):
        load_saved(out, *tiny.auto_names("vit"))


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert")
    with pytest.raises(CheckpointError, match=r"lacks 'classifier\.bias'; it was never trained"):
        load_saved(folder, *tiny.auto_names("bert"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"without a readable labels\.json"):
        load_saved(folder, *tiny.auto_names("bert"))
