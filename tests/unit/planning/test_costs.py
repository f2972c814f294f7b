import dataclasses

import numpy as np
import pytest
import torch

from tests.workbench import make_workbench
from tlhub.planning import costs
from tlhub.planning.costs import DoesNotFitError, MeasuringBench, Steps, Trial, steps_and_validations
from tlhub.planning.memory import PeakMemory
from tlhub.registry import STRATEGIES

MIB = 2**20


class Told:
    """Stands for the memory of a machine: what is held, and the limit."""

    def __init__(self, held, limit):
        self.held, self._limit = held, limit

    def reset(self, collect=False):
        pass

    def peak(self):
        return self.held

    def limit(self):
        return self._limit


class MadeUp(Trial):
    """Steps that take 100 MiB and 1 s, and 10 MiB and 0.1 s more for each example."""

    def _run(self, size, *, last):
        self.tried = [*getattr(self, "tried", []), (size, last)]
        work = np.mean([self._work(batch[-size:]) for batch in self._batches])
        self._points.append(Steps(size, float(work), 1 + 0.1 * work, (100 + 10 * size) * MIB))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    bench = make_workbench(tmp_path_factory.mktemp("costs"), "full", "resnet")
    return bench._job(bench.checkpoint.model, bench.inputs["train"])


def trial(job, *, limit=1000, held=90, patience=4.0, batch_size=24, micro=None):
    train = dataclasses.replace(job.train, batch_size=batch_size, micro_batch_size=micro)
    return MadeUp(dataclasses.replace(job, train=train), Told(held * MIB, limit * MIB), patience)


def test_sizes_grow_until_the_batch(job):
    made = trial(job)
    found = made.measure()
    assert made.tried == [(2, False), (8, False), (24, True)]
    assert found.step_seconds == pytest.approx(3.4)
    assert (found.peak, found.micro_batch, found.largest) == (340 * MIB, None, 24)


def test_what_takes_long_is_extrapolated(job):
    made = trial(job, patience=2.0)
    found = made.measure()
    assert made.tried == [(2, False), (8, False)]
    assert found.step_seconds == pytest.approx(3.4)
    assert (found.peak, found.largest) == (340 * MIB, 8)


def test_a_batch_larger_than_the_examples_at_hand_is_extrapolated(job):
    found = trial(job, batch_size=48).measure()
    assert found.step_seconds == pytest.approx(1 + 0.1 * 48)
    assert (found.peak, found.largest) == (580 * MIB, 24)


def test_what_does_not_fit_is_not_tried(job):
    made = trial(job, limit=200)
    found = made.measure()
    assert made.tried == [(2, False), (8, False)]  # 24 would take 340
    assert (found.micro_batch, found.peak) == (6, 180 * MIB)
    assert trial(job, limit=200, micro=8).measure().micro_batch is None
    with pytest.raises(DoesNotFitError, match="one example"):
        trial(job, limit=105).measure()
    with pytest.raises(DoesNotFitError, match=r"gradients and moments take 0\.0 GiB, and 0\.0"):
        trial(job, held=90, limit=90).measure()


@pytest.mark.parametrize(("strategy", "kind"), [("full", "bert"), ("head", "resnet"), ("linear_probe", "resnet")])
def test_real_steps_are_measured_and_change_no_file(tmp_path, monkeypatch, strategy, kind):
    monkeypatch.setattr(costs, "_ENOUGH_S", 0.0)
    made = make_workbench(tmp_path, strategy, kind)
    known = {}
    for _ in range(2):
        fields = {item.name: getattr(made, item.name) for item in dataclasses.fields(made) if item.init}
        bench = MeasuringBench(**fields, memory=PeakMemory(torch.device("cpu")), known=known)
        fitted = STRATEGIES.get(strategy)().fit(bench)
        assert fitted.model is not None
        if strategy == "linear_probe":
            assert (bench.measured, known) == (None, {})
            return
        trained = sum(value.numel() for value in fitted.model.parameters() if value.requires_grad)
        assert bench.trained == trained > 0
        assert len(known) == 1
        assert bench.measured is not None
        assert bench.measured.largest == made.config.train.batch_size
        assert 0 < bench.measured.step_seconds < 10
        assert bench.scoring > 0
        assert bench.measured.peak is None or 50 * MIB < bench.measured.peak < 10_000 * MIB
        if strategy != "full":
            return
        made = make_workbench(tmp_path, strategy, kind)  # the same again: nothing is tried
    assert list(made.folder.path.iterdir()) == []


def test_the_peak_is_that_since_the_reset():
    memory = PeakMemory(torch.device("cpu"))
    memory.reset()
    before = memory.peak()
    if before is None:
        pytest.skip("this system does not tell")
    block = np.ones(64 * MIB // 8)
    assert memory.peak() - before > 50 * MIB
    del block
    memory.reset(collect=True)
    assert abs(memory.peak() - before) < 20 * MIB
    assert memory.peak() < memory.limit()


@pytest.mark.parametrize(("values", "expected"), [
    ((100, 10, 3.0, None, None), (30, 3)), ((95, 10, 0.55, None, None), (6, 1)), ((100, 10, None, 7, 2), (7, 4)),
    ((100, 10, 3.0, 12, None), (12, 2)), ((5, 10, 0.01, None, None), (1, 1))])
def test_steps_and_validations_are_those_of_the_loop(values, expected):
    assert steps_and_validations(*values) == expected
