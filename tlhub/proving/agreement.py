"""That runs which should be the same are so: interrupted or not, on one process or two, divided in any way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from tlhub.proving.proof import NOT_APPLICABLE, Finding, judged, listed
from tlhub.proving.trials import (
    BATCH,
    COMPARED,
    PLAIN,
    SAVED,
    STOPPED,
    Subject,
    Trial,
    apart,
    carry_out,
    interrupted,
    launched,
    losses,
    scores,
)
from tlhub.proving.witness import Witness, digests, named_tensors

ALIKE, NORMS_ALIKE = 1e-6, 1e-4
"""How far losses, and gradients' norms, may be apart where only the order of sums differs: as a share, above 1."""
ON_DEVICE = 1e-5
"""The same for losses of a run and its repetition on an accelerator, whose sums have no fixed order."""
NO_STEPS = "linear_probe fits its head in closed form: there are no steps"


def prove_resume(subject: Subject, whole: Trial, folder: Path) -> Finding:
    """Stop a run between two checkpoints, go on with it, and compare it with one that was left alone."""
    if whole.witness.first_step is None:
        return Finding(NOT_APPLICABLE, NO_STEPS)
    first = interrupted(subject, folder, STOPPED)
    second = carry_out(subject, folder, {})
    began = second.witness.first_step
    told = f"stopped after step {STOPPED}, continued after {began}"
    if began != SAVED:
        return judged(False, f"{told}; the checkpoint was of step {SAVED}", continued_after=began)
    if whole.witness.device != "cpu":
        return _alike_on_device(whole.witness, first, second.witness, told)
    wrong = _differences(whole, first, second)
    count = len(whole.witness.steps)
    tensors, states = len(named_tensors(_model(whole))), len(whole.witness.optimizer)
    words = (f"{told}: {count} losses and gradient norms, {tensors} tensors, {states} of the optimizer and all scores "
             "are the same to the bit")
    return judged(not wrong, words if not wrong else f"{told}; different: {listed(wrong)}", continued_after=began,
                  steps=count, tensors=tensors, optimizer_states=states, different=wrong)


def _differences(whole: Trial, first: Witness, second: Trial) -> list[str]:
    """Return what is not the same to the bit in two sittings as in one."""
    reference = whole.witness
    wrong = [f"step {step}" for sitting in (first, second.witness) for step, values in sitting.steps.items()
             if str(reference.steps.get(step)) != str(values)]  # a NaN is not equal to itself
    if {**first.steps, **second.witness.steps}.keys() != reference.steps.keys():
        wrong.append("the steps themselves")
    expected, found = (digests(named_tensors(_model(trial))) for trial in (whole, second))
    wrong += [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
    before, after = reference.optimizer, second.witness.optimizer
    wrong += [f"optimizer {name}" for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return wrong + (["scores"] if scores(whole.finished.folder) != scores(second.finished.folder) else [])


def _alike_on_device(reference: Witness, first: Witness, second: Witness, told: str) -> Finding:
    far = max(apart(values[0], reference.steps[step][0]) for sitting in (first, second)
              for step, values in sitting.steps.items())
    words = f"{told}: losses differ by {far:.1e} at most (on {reference.device}, where bits are not promised)"
    return judged(far <= ON_DEVICE, words, largest_difference=far)


def _model(trial: Trial) -> torch.nn.Module:
    assert trial.witness.model is not None
    return trial.witness.model


def prove_processes(subject: Subject, folder: Path) -> Finding:
    """Compare one process with two."""
    if subject.config.strategy.name == "linear_probe":
        return Finding(NOT_APPLICABLE, NO_STEPS)
    devices = torch.accelerator.device_count() if torch.accelerator.is_available() else 0
    if devices == 1:
        return Finding(NOT_APPLICABLE, "two processes need two accelerators, and this machine has one")
    launched(subject, folder / "two-processes", {**PLAIN, "launch.num_processes": 2})
    reference = _in_one_pass(subject, folder)
    return _compared(losses(folder / "two-processes"), reference, "one process and two")


def prove_accumulation(subject: Subject, folder: Path) -> Finding:
    """Compare a batch in one forward pass with the same one in as many as it has examples."""
    if subject.config.strategy.name == "linear_probe":
        return Finding(NOT_APPLICABLE, NO_STEPS)
    divided = carry_out(subject, folder / "one-by-one", {**PLAIN, "train.micro_batch_size": 1}).witness
    size = min(BATCH, len(subject.data.splits["train"]))  # long texts are cut, and are more examples then
    if (most := max(divided.passes.values())) < size:
        return judged(False, f"{size} examples one by one took {most} forward passes", passes=divided.passes)
    reference = _in_one_pass(subject, folder)
    return _compared(losses(folder / "one-by-one"), reference, f"1x{most} and {most}x1")


def _in_one_pass(subject: Subject, folder: Path) -> dict[int, tuple[float, float]]:
    """Return the losses of a run with a whole batch in one forward pass, carried out once."""
    place = folder / "at-once"
    if not (place / "metrics.json").exists():
        carry_out(subject, place, {**PLAIN, "train.micro_batch_size": BATCH})
    return losses(place)


def _compared(found: Mapping[int, tuple[float, float]], reference: Mapping[int, tuple[float, float]],
              told: str) -> Finding:
    if found.keys() != reference.keys() or len(found) != COMPARED:
        return judged(False, f"{told}: steps {sorted(found)} and {sorted(reference)}")
    loss, norm = (max(apart(found[step][part], reference[step][part]) for step in found) for part in (0, 1))
    words = f"{told}: over {len(found)} steps losses differ by {loss:.1e}, gradient norms by {norm:.1e} at most"
    return judged(loss <= ALIKE and norm <= NORMS_ALIKE, f"{words} (dropout off, BatchNorm's statistics kept)",
                  largest_loss_difference=loss, largest_norm_difference=norm, tolerance=ALIKE,
                  losses={str(step): [values[0], reference[step][0]] for step, values in sorted(found.items())})
