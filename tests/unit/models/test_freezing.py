"""What is frozen stays frozen, and the audit notices when it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests import tiny
from tlhub.errors import TlhubError
from tlhub.models.blocks import block_index
from tlhub.models.freezing import TrainabilityAudit, freeze_all_but, freeze_batch_norm, trainable_report

LABELS = ("x", "y", "z")


def steps(model: nn.Module, kind: str, audit: TrainabilityAudit | None = None, count: int = 2) -> None:
    chosen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(chosen, lr=0.1)
    for _ in range(count):
        loss = nn.functional.cross_entropy(model(**tiny.inputs(kind)).logits, torch.tensor([0, 1, 2, 0]))
        loss.backward()
        if audit is not None:
            audit.observe(model)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["bert", "gpt2", "vit", "resnet", "swin"])
@pytest.mark.parametrize("wrap", [lambda model: model, copy.deepcopy, nn.DataParallel])
def test_a_frozen_backbone_is_deterministic(kind: str, wrap: Callable[[Any], nn.Module]) -> None:
    model = tiny.model(kind, LABELS, hidden_dropout_prob=0.5) if kind in ("bert", "vit") else tiny.model(kind, LABELS)
    model.config.pad_token_id = 0
    freeze_all_but(model, lambda name: name.startswith(("classifier", "score")))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wrapped = wrap(model).train()
    inner: Any = wrapped.module if isinstance(wrapped, nn.DataParallel) else wrapped
    batch = tiny.inputs(kind)
    assert torch.equal(inner(**batch).logits, inner(**batch).logits)
    steps(inner, kind)
    moved = {name for name, tensor in inner.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith(("classifier", "score"))}


def test_only_the_frozen_prefix_evaluates() -> None:
    model = tiny.model("bert", LABELS)
    index = block_index(model)
    freeze_all_but(model, lambda name: index[name] >= 2)
    model.train()
    model.bert.encoder.layer[0].train()
    modes = {name: module.training for name, module in model.named_modules()}
    assert not modes["bert.embeddings.dropout"]
    assert not modes["bert.encoder.layer.0.output.dropout"]
    assert modes["bert.encoder.layer.1.output.dropout"]
    assert modes["dropout"]
    model.eval()
    assert not any(module.training for module in model.modules())
    freeze_all_but(model, lambda name: True)
    assert all(module.training for module in model.train().modules())


def test_frozen_batch_norms_above_a_trained_layer_evaluate() -> None:
    model = tiny.model("resnet", LABELS)
    freeze_all_but(model, lambda name: "convolution" in name)
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_batch_norms_that_are_trained_can_keep_their_statistics() -> None:
    model = tiny.model("resnet", LABELS)
    freeze_batch_norm(model)
    freeze_all_but(model, lambda name: True)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    steps(model.train(), "resnet", TrainabilityAudit(model))
    assert len(before) > 10
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_report_counts() -> None:
    model = tiny.model("bert", LABELS)
    freeze_all_but(model, lambda name: name.startswith("classifier"))
    report = trainable_report(model)
    assert [share.trainable for share in report] == [0, 0, 0, 3 * tiny.HIDDEN + 3]
    assert sum(share.total for share in report) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_an_honest_training_passes_the_audit(kind: str) -> None:
    for trainable in ("classifier", ""):
        model = tiny.model(kind, LABELS)
        freeze_all_but(model, lambda name, start=trainable: name.startswith(start))
        audit = TrainabilityAudit(model.train())
        steps(model, kind, audit)
        assert audit.check(model) == ()


def test_the_audit_names_what_went_wrong() -> None:
    model = tiny.model("resnet", LABELS)
    freeze_all_but(model, lambda name: name.startswith("classifier"))
    audit = TrainabilityAudit(model.train())
    steps(model, "resnet", audit)
    with torch.no_grad():
        model.resnet.embedder.embedder.normalization.running_mean[0] += 1e-4
    with pytest.raises(TlhubError, match=r"moved 'resnet.+running_mean', declared frozen"):
        audit.check(model)
    model = tiny.model("bert", LABELS)
    audit = TrainabilityAudit(model.train())
    model(**tiny.inputs("bert")).logits.square().sum().backward()
    audit.observe(model)
    with pytest.raises(TlhubError, match=r"did not move 'bert.* more tensors, declared trainable"):
        audit.check(model)


def test_tensors_without_gradient_are_told() -> None:
    model = tiny.model("bert", LABELS)
    audit = TrainabilityAudit(model.train())
    states = model.bert(**tiny.inputs("bert")).last_hidden_state
    states.square().sum().backward()
    audit.observe(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    idle = audit.check(model)
    assert {"classifier.weight", "bert.pooler.dense.bias"} <= set(idle)
    assert "bert.embeddings.word_embeddings.weight" not in idle


def test_moves_that_cancel_each_other_are_seen() -> None:
    seen = 0
    for seed in range(50):  # two classes: one bias goes up by what the other goes down
        torch.manual_seed(seed)
        model, labels = nn.Linear(64, 2), torch.arange(16) % 2
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=0.0)
        audit = TrainabilityAudit(model)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(16, 64)), labels).backward()
            audit.observe(model)
            optimizer.step()
        audit.check(model, dict.fromkeys(("weight", "bias"), 5e-4))
        seen += 1
    assert seen == 50


def test_moves_in_large_frozen_tensors_are_seen() -> None:
    table = nn.Embedding(2**18 + 9, 2)
    with torch.no_grad():
        table.weight.fill_(1.0)
    table.requires_grad_(False)
    audit = TrainabilityAudit(table)
    audit.check(table)
    with torch.no_grad():  # one step of rounding up, and one down
        table.weight[3, 1] += 2**-23
        table.weight[-1, 0] -= 2**-24
    with pytest.raises(TlhubError, match="training moved 'weight', declared frozen"):
        audit.check(table)
