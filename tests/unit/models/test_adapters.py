"""Adapters on every architecture and of every method."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.unit.models.test_checkpoints import LABELS, load
from tlhub.config import AUTO_METHODS, StrategyConfig
from tlhub.errors import UsageError
from tlhub.models.adapter_targets import LAYERS
from tlhub.models.adapters import add_adapter, load_adapter, merge, save_adapter
from tlhub.models.blocks import block_index, blocks
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.freezing import TrainabilityAudit, freeze_all_but

KINDS = tiny.TEXT_KINDS + tiny.IMAGE_KINDS
UNFIT = {("gpt2", "loha"), ("gpt2", "lokr"), ("gpt2", "oft"), ("gpt2", "boft"), ("resnet", "pissa"),
         ("resnet", "vera"), ("resnet", "oft"), ("resnet", "adalora"), ("resnet", "randlora"), ("convnextv2", "oft")}
MATRIX = [("bert", method) for method in AUTO_METHODS]
MATRIX += [(kind, method) for kind in ("gpt2", "resnet", "convnextv2") for method in ("dora", "ia3")]
MATRIX += [(kind, "lora") for kind in KINDS if kind != "bert"] + [("resnet", "lokr"), ("gpt2", "vera")]
MATRIX += [(kind, "lora") for kind in ("timm_resnet", "timm_vit", "timm_efficientnet")]


def adapted(checkpoint: Checkpoint, method: str = "lora", seed: int = 0, **choices: Any) -> Any:
    strategy = StrategyConfig(name="lora", method=method, rank=choices.pop("rank", 4), **choices)
    return add_adapter(checkpoint.model, strategy, seed=seed, new_parameters=checkpoint.new_parameters)


def trained(model: Any, kind: str, audit: bool = True) -> Any:
    """Take two steps, proving that adapters and head move and nothing else does."""
    chosen = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    freeze_all_but(model, lambda name: name in chosen)
    proof = TrainabilityAudit(model.train())
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=0.05 if kind == "resnet" else 0.3)
    for _ in range(2):
        torch.nn.functional.cross_entropy(model(**tiny.inputs(kind)).logits, torch.tensor([0, 1, 2, 0])).backward()
        proof.observe(model)
        optimizer.step()
        optimizer.zero_grad()
    if audit:
        proof.check(model)
    return model.eval()


@pytest.mark.parametrize(("kind", "method"), [pair for pair in MATRIX if pair not in UNFIT])
def test_training_saving_and_merging(kind: str, method: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", kind), kind)
    batch = tiny.inputs(kind)
    plain = checkpoint.model(**batch).logits
    torch.manual_seed(0)
    model = adapted(checkpoint, method)
    if method != "vera" and method != "randlora":
        assert torch.allclose(model(**batch).logits, plain, atol=2e-5)
    before = model.eval()(**batch).logits
    expected = trained(model, kind)(**batch).logits
    scale = float(expected.detach().abs().max())
    assert not torch.allclose(expected, before, atol=1e-3)
    save_adapter(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, save_base=True,
                 label_names=LABELS)
    again = load_adapter(tmp_path / "out", auto_model=tiny.auto_names(kind)[0])
    assert torch.allclose(again(**batch).logits, expected, atol=1e-6 * max(1.0, scale))
    native = tiny.auto_model(kind).from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(native(**batch).logits, expected, atol=1e-6 * max(1.0, scale))
    assert torch.allclose(merge(again)(**batch).logits, expected, atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize(("kind", "method"), sorted(UNFIT))
def test_a_method_that_does_not_fit(kind: str, method: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, kind), kind)
    with pytest.raises(UsageError, match=f"strategy.method '{method}' adapts no layer of") as caught:
        adapted(checkpoint, method)
    assert "\n" not in str(caught.value)


def test_every_method_has_its_layers() -> None:
    assert set(LAYERS) == set(AUTO_METHODS)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_get_adapters_and_the_head_is_trained_whole(kind: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path, kind), kind)
    model = adapted(checkpoint)
    index, last = block_index(model), len(blocks(model)) - 1
    chosen = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {index[name] for name in chosen if "lora_" in name} == set(range(1, last))
    assert {name for name in chosen if "lora_" not in name} == {
        name for name in index if index[name] == last and "modules_to_save" in name
    }
    saved = {name.replace("base_model.model.", "").replace("modules_to_save.default.", "") for name in chosen}
    assert checkpoint.new_parameters <= saved


def test_what_the_backbone_lacks_is_trained_and_saved(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "bert")
    weights = folder / "model.safetensors"
    # Masked language models are published without the pooler.
    state = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith("pooler")}
    save_file(state, weights, metadata={"format": "pt"})
    checkpoint = load(folder, "bert")
    assert "bert.pooler.dense.weight" in checkpoint.new_parameters
    model = trained(adapted(checkpoint), "bert")
    batch = tiny.inputs("bert")
    save_adapter(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, save_base=True,
                 label_names=LABELS)
    native = tiny.auto_model("bert").from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(native(**batch).logits, model(**batch).logits, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "vera", "oft", "pissa"])
def test_the_start_depends_on_the_seed_alone(method: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert")
    torch.manual_seed(1)
    first = adapted(load(folder, "bert"), method).state_dict()
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = adapted(load(folder, "bert"), method).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    if method in ("lora", "vera"):
        third = adapted(load(folder, "bert"), method, seed=1).state_dict()
        assert any(not torch.equal(first[name], third[name]) for name in first if "classifier" not in name)


def test_targets_of_the_user(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, "bert")
    model = adapted(load(folder, "bert"), targets=["query", "attention.output.dense"])
    layers = {name.split(".lora_")[0] for name, _ in model.named_parameters() if "lora_" in name}
    assert len(layers) == 4
    assert all(name.endswith(("query", "attention.output.dense")) for name in layers)
    with pytest.raises(UsageError, match=r"targets 'querry' is no layer of the model; did you mean 'query'\?"):
        adapted(load(folder, "bert"), targets=["querry"])
    with pytest.raises(UsageError, match="targets 'LayerNorm' is a LayerNorm, which method 'lora' does not adapt"):
        adapted(load(folder, "bert"), targets=["LayerNorm"])
    resnet = load(tiny.checkpoint(tmp_path / "resnet", "resnet"), "resnet")
    with pytest.raises(UsageError, match=r"'query' is no layer of the model; valid: classifier\.1, convolution$"):
        adapted(resnet, targets=["query"])
    timm = load(tiny.checkpoint(tmp_path / "timm", "timm_resnet"), "timm_resnet")
    with pytest.raises(UsageError, match=r"'layer4.0.conv2' is a grouped or dilated Conv2d"):
        adapted(timm, targets=["layer4.0.conv2"])


def test_grouped_convolutions_are_left_alone(tmp_path: Path) -> None:
    model = adapted(load(tiny.checkpoint(tmp_path, "convnextv2"), "convnextv2"))
    assert not [name for name, _ in model.named_parameters() if "dwconv" in name and "lora_" in name]


def test_the_base_is_linked_unless_its_head_is_in_the_way(tmp_path: Path) -> None:
    for labels, linked in ((None, True), (("a", "b", "c"), True), (("a", "b", "c", "d"), False)):
        base = tiny.checkpoint(tmp_path / f"base{labels}", "vit", labels)
        checkpoint = load(base, "vit")
        out = tmp_path / f"out{labels}"
        model = trained(adapted(checkpoint), "vit")
        save_adapter(model, checkpoint.processor, out, origin=checkpoint.origin, save_base=True, label_names=LABELS)
        assert os.path.samefile(base / "model.safetensors", out / "model.safetensors") == linked
        native = tiny.auto_model("vit").from_pretrained(out).eval()
        batch = tiny.inputs("vit")
        assert torch.allclose(native(**batch).logits, model(**batch).logits, atol=1e-6)


def test_an_adapter_over_a_run_with_an_adapter(tmp_path: Path) -> None:
    first = load(tiny.checkpoint(tmp_path / "base", "bert"), "bert")
    model = trained(adapted(first), "bert")
    save_adapter(model, first.processor, tmp_path / "run" / "model", origin=first.origin, save_base=True,
                 label_names=LABELS)
    batch = tiny.inputs("bert")
    second = load(tmp_path / "run", "bert", ("z", "y", "x"))
    assert torch.allclose(second.model(**batch).logits, model(**batch).logits[:, [2, 1, 0]], atol=1e-5)
    third = load(tmp_path / "run", "bert", ("p", "q"))
    assert third.new_parameters == {"classifier.weight", "classifier.bias"}
    upper = adapted(third)
    expected = upper.eval()(**batch).logits
    save_adapter(upper, third.processor, tmp_path / "out", origin=third.origin, save_base=True, label_names=("p", "q"))
    native = tiny.auto_model("bert").from_pretrained(tmp_path / "out").eval()
    assert torch.allclose(native(**batch).logits, expected, atol=1e-6)


def test_no_pickles_are_written(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "bert"), "bert")
    save_adapter(adapted(checkpoint), checkpoint.processor, tmp_path / "out", origin=checkpoint.origin,
                 save_base=True, label_names=LABELS)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [name for name in names if not name.endswith((".json", ".safetensors", ".md", ".txt"))] == []
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", "pt") as file:
        assert any("classifier" in name for name in file.keys())  # noqa: SIM118 (no mapping)
