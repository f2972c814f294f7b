from __future__ import annotations

import pytest

from tlhub.errors import CheckpointError, StoppedError
from tlhub.proving.proof import FAILS, HOLDS, attempt, judged, listed


def fail(error):
    raise error


def test_a_proof_that_breaks_off_has_failed_with_its_message():
    proof = attempt("reload", lambda: fail(CheckpointError("no model\nhere")))
    assert (proof.name, proof.finding.outcome, proof.finding.words) == ("reload", FAILS, "no model here")
    assert attempt("x", lambda: fail(KeyError("k"))).finding.words == "KeyError: 'k'"
    assert attempt("x", lambda: judged(True, "fine", steps=3)).finding.figures == {"steps": 3}
    assert attempt("x", lambda: judged(True, "fine")).finding.outcome == HOLDS


@pytest.mark.parametrize("error", [StoppedError("stop"), KeyboardInterrupt()])
def test_a_user_s_wish_to_stop_is_no_failed_proof(error):
    with pytest.raises(type(error)):
        attempt("reload", lambda: fail(error))


def test_names_are_cut_after_the_first():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
