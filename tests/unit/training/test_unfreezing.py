"""Gradual unfreezing: what trains when, what is kept, and that it can be stopped at any step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.bench import fit
from tests.workbench import make_workbench
from tlhub import workbench
from tlhub.errors import StoppedError, TlhubError
from tlhub.models.blocks import Block, blocks
from tlhub.models.freezing import freeze_all_but
from tlhub.training.callbacks import Audit, read_history
from tlhub.training.loop import Callback, Job, Progress
from tlhub.training.store import CheckpointStore
from tlhub.training.unfreezing import Schedule, Unfreezing
from tlhub.workbench import Workbench

PARTS = tuple(Block(name, (f"{name}.weight",)) for name in ("head", "upper", "lower", "stem"))


@pytest.mark.parametrize(("fraction", "total", "starts"), [
    (0.5, 60, (0, 10, 20, 30)), (1.0, 60, (0, 19, 39, 59)), (0.0, 60, (0, 0, 0, 0)), (0.5, 4, (0, 0, 1, 2)),
    (0.5, 1, (0, 0, 0, 0))])
def test_the_schedule_is_a_function_of_the_step(fraction: float, total: int, starts: tuple[int, ...]) -> None:
    schedule = Schedule(PARTS, fraction)
    assert schedule.starts(total) == starts
    for step in range(total):
        trained = schedule.trained(step, total)
        assert trained == {name for part, start in zip(PARTS, starts, strict=True) if start <= step
                           for name in part.prefixes}
    assert len(schedule.trained(total - 1, total)) == len(PARTS), "all of it is trained at the end"


class Watch(Callback):
    """Notes the weights after every step, and which modules of the frozen part are not evaluating."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.awake: list[set[str]] = []

    def on_start(self, job: Job, progress: Progress) -> None:
        self.states.append(state(job.model))

    def on_gradients(self, job: Job, progress: Progress) -> None:
        self.awake.append({name for name, module in job.model.named_modules() if module.training
                           and isinstance(module, (nn.Dropout, nn.BatchNorm2d))})

    def on_step(self, job: Job, progress: Progress) -> None:
        self.states.append(state(job.model))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Let a run be watched."""
    watch, train = Watch(), workbench.train

    def watching(job: Job, progress: Progress, callbacks: list[Callback]) -> Progress:
        return train(job, progress, [*callbacks, watch])

    monkeypatch.setattr(workbench, "train", watching)
    return watch


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Workbench]:
    """Return what makes the workbench of a gradual run of 12 steps."""
    def build(kind: str, **values: Any) -> Workbench:
        return make_workbench(tmp_path, "gradual_unfreezing", kind, **{
            "train__max_steps": 12, "strategy__layer_decay": 0.8, "strategy__unfreeze_fraction": 0.75,
            "train__warmup_fraction": 0.0, **values})

    return build


@pytest.mark.parametrize("kind", ["bert", "gpt2", "resnet", "swin", "timm_vit"])
def test_each_part_moves_from_its_step_on(kind: str, make: Any, watched: Watch) -> None:
    bench = make(kind, model__dropout=0.2 if kind == "bert" else None)
    model = fit(bench).model
    parts = tuple(reversed(blocks(model)))
    starts = Schedule(parts, 0.75).starts(12)
    assert starts[-1] == 9
    first_moves: dict[str, int] = {}
    for step, (before, after) in enumerate(zip(watched.states, watched.states[1:], strict=False)):
        for name, value in after.items():
            if not torch.equal(value, before[name]):
                first_moves.setdefault(name, step)
    places = {name: start for part, start in zip(parts, starts, strict=True) for name in part.prefixes}
    moved = {name: step for name, step in first_moves.items() if name in places}
    assert len(moved) > 0.8 * len(places)
    assert {name: step for name, step in moved.items() if step < places[name]} == {}
    assert {start for name, start in places.items() if moved.get(name) == start} == set(starts)
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_what_is_frozen_evaluates_at_every_stage(kind: str, make: Any, watched: Watch) -> None:
    bench = make(kind, **({"model__dropout": 0.2} if kind == "bert" else {}))
    model = fit(bench).model
    parts = tuple(reversed(blocks(model)))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    schedule, order = Schedule(parts, 0.75), list(dict(model.named_modules()))
    for step, awake in enumerate(watched.awake):
        trained = schedule.trained(step, 12)
        first = min(order.index(name.rpartition(".")[0]) for name in trained)
        assert {name for name in awake if order.index(name) < first} == set()
        assert {name for name in awake & norms if f"{name}.weight" not in trained} == set()
    assert len(watched.awake[-1]) > len(watched.awake[0])
    for before, after, step in zip(watched.states, watched.states[1:], range(12), strict=False):
        frozen = {name for name in norms if f"{name}.weight" not in schedule.trained(step, 12)}
        for name in frozen:
            assert torch.equal(before[f"{name}.running_mean"], after[f"{name}.running_mean"])


@pytest.mark.parametrize(("kind", "stop"), [("bert", 1), ("bert", 3), ("bert", 9), ("resnet", 4)])
def test_resuming_within_a_stage_is_exact(kind: str, stop: int, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dropout = {"model__dropout": 0.2} if kind == "bert" else {}
    straight = make(kind, out="straight", **dropout)
    expected = state(fit(straight).model)
    train = workbench.train

    class Stop(Callback):
        def on_step(self, job: Job, progress: Progress) -> None:
            if progress.step == stop:
                raise StoppedError("the test says so")

    def stopping(job: Job, progress: Progress, callbacks: list[Callback]) -> Progress:
        return train(job, progress, [*callbacks, Stop()] if progress.step == 0 else callbacks)

    monkeypatch.setattr(workbench, "train", stopping)
    with pytest.raises(StoppedError):
        fit(make(kind, out="stopped", train__checkpoint_every=1, **dropout))
    again = make(kind, out="stopped", train__checkpoint_every=1, **dropout)
    found = state(fit(again).model)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    losses = [[line["loss"] for line in read_history(bench.folder.path / "history.jsonl") if "loss" in line]
              for bench in (straight, again)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_the_best_weights_of_an_early_stage_are_put_back_whole(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    store = CheckpointStore(tmp_path, model)
    freeze_all_but(model, lambda name: name.startswith("1"))
    best = state(model)
    store.keep_best()
    freeze_all_but(model, lambda name: True)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    store.load_best()
    assert all(torch.equal(value, best[name]) for name, value in model.state_dict().items())


def test_the_best_of_a_run_is_one_moment_of_it(make: Any, watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third step is the best, long before the stem is unfrozen."""
    scores = iter([0.1, 0.2, 0.9, *[0.3] * 9])
    bench = make("bert", train__evaluate_every=1)
    monkeypatch.setattr(bench.problem, "score", lambda *_: {"accuracy": next(scores)})
    model = fit(bench).model
    assert all(torch.equal(value, watched.states[3][name]) for name, value in model.state_dict().items())
    assert not torch.equal(watched.states[-1]["bert.embeddings.word_embeddings.weight"],
                           watched.states[3]["bert.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("when", [0, 5])
def test_the_audit_begins_anew_with_each_stage(when: int, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lower block that is moved behind the schedule's back is noticed, also after the first stages."""
    train = workbench.train

    class Meddle(Callback):
        def on_gradients(self, job: Job, progress: Progress) -> None:
            if progress.step == when:
                with torch.no_grad():
                    job.model.bert.embeddings.word_embeddings.weight[0, 0] += 1.0

    monkeypatch.setattr(workbench, "train", lambda job, progress, callbacks: train(job, progress,
                                                                                   [Meddle(), *callbacks]))
    with pytest.raises(TlhubError, match=r"moved 'bert\.embeddings\.word_embeddings\.weight', declared frozen"):
        fit(make("bert"))


def test_lower_parts_move_less(make: Any, watched: Watch) -> None:
    bench = make("bert", strategy__layer_decay=0.1, strategy__unfreeze_fraction=0.0, train__weight_decay=0.0)
    fit(bench)
    distance = {name: float((watched.states[-1][name] - value).abs().max())
                for name, value in watched.states[0].items()}
    layers = [distance[f"bert.encoder.layer.{number}.output.dense.weight"] for number in (0, 1)]
    assert layers[0] < 0.3 * layers[1] < 0.3 * distance["classifier.weight"]


def test_unfreezing_leaves_the_model_declared_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    parts = (Block("head", ("1.weight", "1.bias")), Block("stem", ("0.weight", "0.bias")))
    callback = Unfreezing(model, Schedule(parts, 0.5), Audit(model))

    class Total:
        total_steps = 10

    callback.on_start(Total(), Progress())  # type: ignore[arg-type] (only the number of steps is read)
    assert [value.requires_grad for value in model.parameters()] == [False, False, True, True]
    callback.on_end(Total(), Progress())  # type: ignore[arg-type]
    assert all(value.requires_grad for value in model.parameters())
