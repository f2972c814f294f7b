from __future__ import annotations

import pytest

from tlhub.proving.agreement import _compared
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
