"""That what a run leaves is the model which it trained: reloaded by another process, and by the names of its labels."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tlhub
from tlhub import environment
from tlhub.config import MULTI_LABEL, REGRESSION
from tlhub.data.decode import open_image
from tlhub.data.prepare import Examples
from tlhub.errors import TlhubError
from tlhub.finished import Run
from tlhub.models.checkpoints import load_checkpoint
from tlhub.models.heads import output_parameters
from tlhub.models.origin import HEAD_SETTINGS
from tlhub.parsers import one_line
from tlhub.proving import fresh
from tlhub.proving.proof import NOT_APPLICABLE, Finding, judged, listed
from tlhub.proving.trials import Subject, Trial, apart

RELOADED = 4
"""Validation examples that are predicted again."""
SAME = 1e-5
"""How far predictions may be apart, as a share of the largest where that is above 1."""
PROCESSED = 1e-4
"""How far pixels may be apart after the plain processor."""
_OF_TEXTS = ("input_ids", "attention_mask", "position_ids")
"""What a language model reads of a batch; the rest of it serves the loss."""


@dataclass(frozen=True)
class Reloaded:
    """What a fresh process found, beside what was expected.

    Attributes:
        examples: The examples that were predicted.
        expected: What the model in memory gives for each.
        found: What the saved one gives in a process of its own.
        how: By what it was loaded there.
        names: Of its outputs, as the saved files have them.
        inputs: How far inputs by the plain processor are from tlhub's, of each example; none where not compared.
    """

    examples: Examples
    expected: Sequence[np.ndarray]
    found: Sequence[np.ndarray]
    how: str
    names: Sequence[str]
    inputs: Sequence[float]


def reload(subject: Subject, trial: Trial, folder: Path) -> Reloaded:
    """Predict a few examples with the model in memory, and with the saved one in a fresh process.

    Raises:
        TlhubError: The saved model cannot be loaded or run there.
    """
    model = trial.witness.model
    assert model is not None
    examples = _first(subject.data.splits["validation"], RELOADED)
    batches = _batches(subject, trial.finished, examples)
    plain: nn.Module = model.cpu().eval()
    with torch.no_grad():
        expected = [plain(**batch).logits.float().numpy() for batch in batches]
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: str((folder / name).resolve()) for name in ("inputs", "outputs", "result")}
    save_file({f"{number}/{name}": value.contiguous() for number, batch in enumerate(batches)
               for name, value in batch.items()}, files["inputs"])
    spec = {**files, "model": str((trial.finished.folder / "model").resolve()), "examples": len(batches),
            "auto_model": subject.task.auto_model, "auto_processor": subject.task.auto_processor,
            "modality": subject.task.modality, "max_length": trial.finished.config.data.max_length,
            "values": _values(subject, examples, folder), "environment": environment.__file__,
            "root": str(Path(str(tlhub.__file__)).parents[1])}
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    ended = subprocess.run([sys.executable, fresh.__file__, str(folder / "spec.json")], capture_output=True, text=True,
                           check=False)
    if ended.returncode:
        said = ([line for line in ended.stderr.splitlines() if line.strip()] or ["without a word"])[-1]
        raise TlhubError(f"the saved model cannot be used in a fresh process: {one_line(said)}")
    result = json.loads(Path(files["result"]).read_text(encoding="utf-8"))
    outputs = load_file(files["outputs"])
    found = [outputs[str(number)].numpy() for number in range(len(batches))]
    return Reloaded(examples, expected, found, result["how"], result["names"], result["inputs"])


def prove_reload(subject: Subject, reloaded: Reloaded) -> Finding:
    """Compare the predictions of the fresh process with those of the model in memory."""
    shapes = [one.shape == other.shape for one, other in zip(reloaded.found, reloaded.expected, strict=True)]
    if not all(shapes):
        return judged(False, f"the saved model gives outputs of shape {reloaded.found[0].shape}, the trained one "
                             f"{reloaded.expected[0].shape}")
    far, largest = (float(np.concatenate([np.abs(values).ravel() for values in rows]).max()) for rows in (
        [one - other for one, other in zip(reloaded.found, reloaded.expected, strict=True)], reloaded.expected))
    far /= max(1.0, largest)
    limit = 0.0 if subject.task.modality == "text" else PROCESSED
    inputs = max(reloaded.inputs, default=0.0)
    words = (f"in a fresh process, by {reloaded.how}: outputs of {len(shapes)} examples differ by {far:.1e} "
             "at most")
    words += f"; the plain processor's inputs by {inputs:.1e}" if reloaded.inputs else ""
    return judged(bool(far <= SAME and inputs <= limit), words, loaded_by=reloaded.how, largest_difference=far,
                  processor_difference=inputs if reloaded.inputs else None, tolerance=SAME)


def prove_labels(subject: Subject, trial: Trial, reloaded: Reloaded) -> Finding:
    """Follow labels by their names: from the data through numbers and files to predictions, and into the next run."""
    if subject.generates:
        return Finding(NOT_APPLICABLE, "texts that go on have no labels")
    names = list(subject.data.target.names)
    wrong, examples = _misread(subject)
    told = [f"{len(wrong)} of {examples} labels are not those of the data, the first is {wrong[0]}"] if wrong else []
    if list(reloaded.names) != names:
        told.append(f"the saved model's outputs are named {listed(list(reloaded.names))}, the data's {listed(names)}")
    told += _mispredicted(trial.finished, reloaded, names)
    permuted = _permuted(subject, trial.finished, names)
    if permuted is not None and not permuted <= SAME:
        told.append("a run that starts from the saved model with its labels in another order mixes their outputs up")
    words = (f"{len(names)} names are the same in {examples} examples of the data, the saved model and its "
             f"predictions{', and in another order' if permuted is not None else ''}")
    return judged(not told, "; ".join(told) or words, names=names, saved_names=list(reloaded.names), examples=examples,
                  wrong=wrong, permuted_difference=permuted)


def _first(examples: Examples, count: int) -> Examples:
    """Return the first examples of a split."""
    count = min(count, len(examples))
    most = None if examples.most is None else RELOADED
    return Examples([examples.inputs[index] for index in range(count)], examples.labels[:count], examples.ids[:count],
                    most=most)


def _batches(subject: Subject, finished: Run, examples: Examples) -> list[dict[str, torch.Tensor]]:
    """Return the model's arguments, one example at a time."""
    inputs = finished.inputs(examples)
    batches = [inputs.batch(np.array([index]), None, torch.device("cpu"))
               for index in range(min(len(inputs), RELOADED))]
    if subject.generates:
        return [{name: value for name, value in batch.items() if name in _OF_TEXTS} for batch in batches]
    return batches


def _values(subject: Subject, examples: Examples, folder: Path) -> list[Any]:
    """Return the examples as plain processors read them: texts, or pictures decoded; none of other kinds."""
    if subject.task.modality == "text":
        return [list(value) if isinstance(value, tuple) else value for value in examples.inputs]
    if subject.task.modality != "image":
        return []
    files = [str((folder / f"{number}.png").resolve()) for number in range(len(examples))]
    for file, value in zip(files, examples.inputs, strict=True):
        open_image(value).save(file)
    return files


def _misread(subject: Subject) -> tuple[list[str], int]:
    """Return the examples whose number does not stand for what the data say, and how many there are."""
    wrong, seen = [], 0
    for split, examples in subject.data.splits.items():
        rows = subject.draft.splits[split]
        for name, label, own, number in zip(rows.ids.tolist(), rows.labels, examples.ids, examples.labels, strict=True):
            seen += 1
            if name != own or not _stands_for(subject, number, label):
                wrong.append(str(name))
    return wrong, seen


def _stands_for(subject: Subject, number: Any, label: Any) -> bool:
    """Return whether an encoded label is the one in the data."""
    names, keywords = subject.data.target.names, subject.task.keywords(subject.config)
    if subject.data.target.problem_type == REGRESSION:
        return np.array_equal(np.asarray(label, dtype=np.float64), number)
    if subject.data.target.problem_type == MULTI_LABEL:
        return {name for name, has in zip(names, number, strict=True) if has} == set(label)
    return bool(names[number] == (label if not keywords or label in keywords else names[0]))


def _mispredicted(finished: Run, reloaded: Reloaded, names: Sequence[str]) -> list[str]:
    """Compare `tlhub predict` with the outputs of the model in memory, named as in the data."""
    if not all(isinstance(value, (str, tuple)) for value in reloaded.examples.inputs):
        return []
    expected = finished.problem.predictions(np.concatenate(reloaded.expected), tuple(names))
    found = finished.predict(list(reloaded.examples.inputs))
    wrong = [row["input"] for row, other in zip(found, expected, strict=True)
             if not _same_prediction({key: value for key, value in row.items() if key != "input"}, other)]
    return [f"predicted otherwise by name: {listed(wrong)}"] if wrong else []


def _same_prediction(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same_prediction(one[key], other[key]) for key in one)
    return apart(one, other) <= SAME if isinstance(one, float) else bool(one == other)


def _permuted(subject: Subject, finished: Run, names: Sequence[str]) -> float | None:
    """Load the saved model for the same labels in another order; return how far outputs of one name are apart.

    None where a run does not take the head over: one of tlhub's own, or a single output.
    """
    if len(names) < 2 or (finished.folder / "model" / HEAD_SETTINGS).exists():
        return None
    order = list(reversed(range(len(names))))
    models = []
    for chosen in (names, [names[index] for index in order]):
        checkpoint = load_checkpoint(
            dataclasses.replace(finished.config.model, name=str(finished.folder / "model"), revision=None),
            auto_model=subject.task.auto_model, auto_processor=subject.task.auto_processor, label_names=tuple(chosen),
            problem_type=subject.data.target.problem_type, pretrained=True, seed=0)
        if not output_parameters(checkpoint.model).isdisjoint(checkpoint.new_parameters):
            return None
        models.append(checkpoint.model.train(mode=False))
    batches = _batches(subject, finished, _first(subject.data.splits["validation"], 1))
    with torch.no_grad():
        plain, turned = (model(**batches[0]).logits.numpy() for model in models)
    return float(np.abs(plain - turned[:, np.argsort(order)]).max() / max(1.0, float(np.abs(plain).max())))
