"""Strategies broken on purpose: the audit stops their runs, and names what they do wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.workbench import make_workbench
from tlhub.errors import TlhubError
from tlhub.models.assembly import head_module, head_parameters, with_head
from tlhub.models.blocks import known_blocks
from tlhub.models.freezing import BatchNorm, freeze_all_but
from tlhub.strategies.base import FeatureHead, feature_inputs
from tlhub.training.unfreezing import Schedule
from tlhub.workbench import Workbench

LAST = 2
"""The parts that train, as the last block and the head do."""


def plain(bench: Workbench) -> nn.Module:
    """Return the checkpoint's model with the head of the run."""
    return with_head(bench.checkpoint, bench.config.model, seed=0, sample=bench.sample())


def last_parts(model: nn.Module) -> Callable[[str], bool]:
    """Return what `last_k` trains."""
    return frozenset(name for part in known_blocks(model, "last_k")[-LAST:] for name in part.prefixes).__contains__


def first_block(model: nn.Module) -> nn.Module:
    """Return a module in the first block, with parameters of its own."""
    return model.get_submodule(known_blocks(model, "last_k")[1].prefixes[0].rpartition(".")[0])


def gradients_alone_are_switched_off(bench: Workbench) -> None:
    """Freeze without leaving training mode: BatchNorm goes on gathering statistics."""
    model = plain(bench)
    chosen = head_parameters(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(chosen(name))
    bench.train(model, bench.inputs)


def norms_are_put_back_to_training(bench: Workbench) -> None:
    """Freeze, and lose it again in what is done to the model afterwards."""
    model = plain(bench)
    freeze_all_but(model, last_parts(model))
    for module in model.modules():
        vars(module).pop("train", None)
    bench.train(model, bench.inputs)


def norms_gather_by_hand(bench: Workbench) -> None:
    """Adapt the statistics of evaluating norms in a hook."""
    model = plain(bench)
    freeze_all_but(model, head_parameters(model))
    norm: Any = next(module for module in model.modules() if isinstance(module, BatchNorm))

    @torch.no_grad()
    def gather(*_: Any) -> None:
        norm.running_mean.add_(0.1)

    model.register_forward_pre_hook(gather)
    bench.train(model, bench.inputs)


def a_frozen_block_has_a_step_of_its_own(bench: Workbench) -> None:
    """Move a frozen block behind the optimizer's back."""
    model = plain(bench)
    freeze_all_but(model, last_parts(model))
    block: Any = first_block(model)

    @torch.no_grad()
    def move(*_: Any) -> None:
        block.weight.mul_(0.999)

    model.register_forward_hook(move)
    bench.train(model, bench.inputs)


def a_frozen_block_shares_memory_with_a_trained_one(bench: Workbench) -> None:
    """Tie weights by their memory, so that the one moves with the other."""
    model: Any = plain(bench)
    freeze_all_but(model, last_parts(model))
    layers = model.bert.encoder.layer
    layers[0].output.dense.weight.data = layers[1].output.dense.weight.data
    bench.train(model, bench.inputs)


def the_schedule_is_undone(bench: Workbench) -> None:
    """Unfreeze everything in each forward pass: the optimizer of gradual unfreezing holds it all."""
    model = plain(bench)
    parts = tuple(reversed(known_blocks(model, "gradual_unfreezing")))
    model.register_forward_pre_hook(lambda module, _: module.requires_grad_(True) and None)
    bench.train(model, bench.inputs, schedule=Schedule(parts, 0.9))


def the_head_is_frozen(bench: Workbench) -> None:
    """Train the backbone under a head that stays random."""
    model = plain(bench)
    chosen = head_parameters(model)
    freeze_all_but(model, lambda name: not chosen(name))
    bench.train(model, bench.inputs)


def half_of_the_head_is_frozen(bench: Workbench) -> None:
    """Train the last layer behind a new layer that stays random."""
    model = plain(bench)
    freeze_all_but(model, head_parameters(model))
    bench.train(model, bench.inputs)


def the_head_is_never_unfrozen(bench: Workbench) -> None:
    """Leave the head out of the schedule."""
    model = plain(bench)
    parts = tuple(reversed(known_blocks(model, "gradual_unfreezing")))
    bench.train(model, bench.inputs, schedule=Schedule(parts[1:], 0.5))


def a_copy_of_the_head_is_trained(bench: Workbench) -> None:
    """Train a head that is no part of the model that is kept."""
    model = plain(bench)
    freeze_all_but(model, head_parameters(model))
    values = bench.features(("native",))["native"]
    bench.train(FeatureHead(copy.deepcopy(head_module(model))), feature_inputs(bench, values), whole=model)


NORM = r"training moved '\S*(running_mean|num_batches_tracked)'.*, declared frozen"
BLOCK = r"training moved '\S*(0|1)\S*weight'.*, declared frozen"
HEAD = r"training leaves out '\S*(classifier|fc|score|head)\S*'"
CASES: list[tuple[Callable[[Workbench], None], str, str]] = [
    *((broken, kind, NORM) for broken in (gradients_alone_are_switched_off, norms_are_put_back_to_training,
                                          norms_gather_by_hand) for kind in ("resnet", "timm_resnet")),
    *((a_frozen_block_has_a_step_of_its_own, kind, BLOCK) for kind in ("bert", "vit", "resnet")),
    (a_frozen_block_shares_memory_with_a_trained_one, "bert", BLOCK),
    *((the_schedule_is_undone, kind, r"training moved .*, declared frozen") for kind in ("bert", "convnextv2")),
    *((broken, kind, HEAD) for broken in (the_head_is_frozen, the_head_is_never_unfrozen)
      for kind in ("bert", "gpt2", "vit", "timm_vit")),
    (half_of_the_head_is_frozen, "roberta", r"training leaves out 'classifier\.dense\.bias', "),
    (half_of_the_head_is_frozen, "distilbert", r"training leaves out 'pre_classifier\.bias', "),
    (a_copy_of_the_head_is_trained, "bert", HEAD),
]


@pytest.mark.parametrize(("broken", "kind", "words"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_a_broken_strategy_is_stopped(broken: Callable[[Workbench], None], kind: str, words: str,
                                      tmp_path: Path) -> None:
    bench = make_workbench(tmp_path, "full", kind, train__warmup_fraction=0.0)
    with pytest.raises(TlhubError, match=words):
        broken(bench)
    scores = [line for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines() if "validation" in line]
    assert len(scores) <= 1, "it is stopped in the first steps"


def test_number_of_cases() -> None:
    assert len(CASES) == 23
