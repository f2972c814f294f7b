"""The files of a head of tlhub's own: beside its backbone, or alone with the name of the base that it belongs to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tlhub.models.bounds import bounded
from tlhub.models.heads import HeadForm
from tlhub.models.inspection import brought_by, read_description
from tlhub.models.loading import damage
from tlhub.models.origin import HEAD_SETTINGS, HEAD_WEIGHTS, Origin


@dataclass(frozen=True)
class Base:
    """The checkpoint under a head that is kept alone.

    Attributes:
        name: Its Hub id, its folder, or the name of an embedded checkpoint.
        revision: The commit of a Hub checkpoint.
        weight_hash: SHA-256 over its safetensors files.
    """

    name: str
    revision: str | None
    weight_hash: str

    @classmethod
    def of(cls, origin: Origin) -> Base:
        """Return what is kept of a checkpoint's origin."""
        return cls(origin.lasting_name, origin.revision, origin.weight_hash)


@dataclass(frozen=True)
class HeadRecord:
    """What `head.json` says.

    Attributes:
        kind: What the head reads: `native`, or one of `pooling.pooled_kinds`.
        form: What the head looks like.
        in_features: Width of the features.
        bias: Whether the output layer has a bias.
        label_names: Names of the outputs.
        problem_type: Kind of target, by transformers' name; None where the model did not say.
        base: The checkpoint under it, where that is not kept beside it.
    """

    kind: str
    form: HeadForm
    in_features: int
    bias: bool
    label_names: tuple[str, ...]
    problem_type: str | None
    base: Base | None


def write_head(folder: Path, head: nn.Sequential, record: HeadRecord) -> None:
    """Write `head.json` and `head.safetensors`."""
    values = asdict(record)
    values |= values.pop("form")
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / HEAD_SETTINGS).write_text(text, encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(weights, folder / HEAD_WEIGHTS, metadata={"format": "pt"})


def read_head(folder: Path) -> tuple[nn.Sequential, HeadRecord]:
    """Read what `write_head` wrote.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    name = str(folder)
    with damage(f"the head in {name!r} cannot be loaded", "make the run again"):
        values = read_description(folder / HEAD_SETTINGS, name)
        form = HeadForm(tuple(values.pop("widths")), values.pop("activation"), values.pop("dropout"))
        names, base = tuple(map(str, values.pop("label_names"))), values.pop("base")
        record = HeadRecord(**values, form=form, label_names=names, base=Base(**base) if base else None)
        with torch.random.fork_rng(devices=[]), bounded(name, brought_by([folder / HEAD_WEIGHTS], name)):
            head = form.build(record.in_features, len(names), bias=record.bias)
        head.load_state_dict(load_file(folder / HEAD_WEIGHTS))
    return head, record
