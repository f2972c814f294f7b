"""Every form of `model/`, loaded by tlhub; tests/invariants/test_saved_forms.py loads them in a process without it."""

from __future__ import annotations

import json
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
    with pytest.raises(CheckpointError, match=r"the head in .* cannot be loaded \(Error") as caught:
        load_saved(out, *tiny.auto_names("vit"))
    assert "\n" not in str(caught.value)
    (out / "head.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"the head in .* cannot be loaded \('widths'\)"):
        load_saved(out, *tiny.auto_names("vit"))


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert")
    with pytest.raises(CheckpointError, match=r"lacks 'classifier\.bias'; it was never trained"):
        load_saved(folder, *tiny.auto_names("bert"))
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"adapters without 'adapter_model\.safetensors'"):
        load_saved(folder, *tiny.auto_names("bert"))
    save_file({"a": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"an adapter without labels\.json"):
        load_saved(folder, *tiny.auto_names("bert"))
    (folder / "labels.json").write_text('{"label_names": ["a"], "base": 5}')
    with pytest.raises(CheckpointError, match=r"labels\.json of .* cannot be used"):
        load_saved(folder, *tiny.auto_names("bert"))
