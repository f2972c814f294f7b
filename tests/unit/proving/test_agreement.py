from __future__ import annotations

from types import SimpleNamespace

import pytest

from tlhub.proving import agreement
from tlhub.proving.agreement import _compared, prove_accumulation
from tlhub.proving.proof import FAILS, HOLDS

REFERENCE = {step: (1.0 + step, 2.0) for step in range(1, 5)}


@pytest.mark.parametrize(("change", "outcome"), [
    ({}, HOLDS),
    ({3: (4.0 + 3e-6, 2.0)}, HOLDS),  # three millionths of four
    ({3: (4.0 + 5e-6, 2.0)}, FAILS),
    ({3: (4.0, 2.001)}, FAILS),
    ({3: (float("nan"), 2.0)}, FAILS),
    ({5: (4.0, 2.0)}, FAILS),
])
def test_losses_and_norms_have_to_agree_in_every_step(change, outcome):
    assert _compared({**REFERENCE, **change}, REFERENCE, "one and two").outcome == outcome


def test_steps_that_are_lacking_are_told():
    found = _compared({1: (1.0, 2.0)}, REFERENCE, "one and two")
    assert (found.outcome, found.words) == (FAILS, "one and two: steps [1] and [1, 2, 3, 4]")
    assert _compared({}, {}, "one and two").outcome == FAILS


@pytest.mark.parametrize(("examples", "passes", "outcome"), [
    (20, 8, HOLDS), (20, 7, FAILS), (20, 1, FAILS), (7, 7, HOLDS), (7, 6, FAILS), (1, 8, HOLDS)])
def test_batches_are_as_large_as_the_data_let_them_be(examples, passes, outcome, monkeypatch, tmp_path):
    subject = SimpleNamespace(config=SimpleNamespace(strategy=SimpleNamespace(name="full")),
                              data=SimpleNamespace(splits={"train": range(examples)}))
    trial = SimpleNamespace(witness=SimpleNamespace(passes={1: passes, 2: min(passes, 4)}))
    monkeypatch.setattr(agreement, "carry_out", lambda *args: trial)
    monkeypatch.setattr(agreement, "losses", lambda folder: dict.fromkeys(range(1, 5), (1.0, 1.0)))
    found = prove_accumulation(subject, tmp_path)
    assert found.outcome == outcome
    assert f"{passes} forward passes" in found.words or f"1x{passes} and {passes}x1" in found.words
