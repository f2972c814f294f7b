"""Saving models and loading what was saved, in every form that a run's `model/` folder takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from tlhub.config import SINGLE_LABEL
from tlhub.errors import CheckpointError
from tlhub.models.adapters import is_adapted, load_adapter, merge, save_adapter
from tlhub.models.bounds import bounded
from tlhub.models.checkpoints import load_origin
from tlhub.models.head_files import Base, HeadRecord, read_head, write_head
from tlhub.models.heads import HeadForm, PooledClassifier, drawn_parameters, output_layer
from tlhub.models.inspection import brought_by, inspect_checkpoint
from tlhub.models.loading import damage, quiet, read_settings, seeded, set_labels
from tlhub.models.origin import HEAD_SETTINGS, Origin, resolve_base
from tlhub.models.plain_heads import plain_classifier
from tlhub.models.pooling import pooled_kinds
from tlhub.models.processors import load_processor


def save_model(
    model: nn.Module, processor: Any, folder: Path, *, origin: Origin, label_names: tuple[str, ...],
    save_base: bool = True,
) -> None:
    """Save a trained model with its processor, in the form that fits its class.

    Args:
        model: A model of transformers, one with adapters, or a `PooledClassifier`, which is saved as a plain model
            where one computes the same; adapters over it are merged into a copy.
        processor: Its processor.
        folder: Where to save; made if need be.
        origin: The checkpoint that training started from.
        label_names: The labels by class index.
        save_base: Whether the base is kept beside what was trained. A base that the Hub has never is beside adapters,
            and always beside a trained backbone.
    """
    if is_adapted(model):
        if not any(isinstance(module, PooledClassifier) for module in model.modules()):
            save_adapter(model, processor, folder, origin=origin, save_base=save_base, label_names=label_names)
            return
        model = merge(copy.deepcopy(model))
    elif not save_base:
        save_new_layers(model, processor, folder, origin=origin, label_names=label_names)
        return
    if isinstance(model, PooledClassifier):
        plain = plain_classifier(model)
        if plain is None:
            save_pooled(model, processor, folder, label_names=label_names)
            return
        model = plain
    save_full(model, processor, folder, label_names=label_names)


def save_full(model: nn.Module, processor: Any, folder: Path, *, label_names: Sequence[str]) -> None:
    """Save a whole model of transformers as a plain checkpoint, buffers included.

    Args:
        model: The model.
        processor: Its processor.
        folder: Where to save; made if need be.
        label_names: The labels by class index.

    Raises:
        CheckpointError: The model is none of transformers'.
    """
    if not isinstance(model, PreTrainedModel):
        raise CheckpointError(f"{type(model).__name__} is no model of transformers and cannot be saved as one")
    set_labels(model.config, label_names)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)


def save_pooled(model: PooledClassifier, processor: Any, folder: Path, *, label_names: Sequence[str]) -> None:
    """Save a pooled classifier: its backbone as a plain checkpoint, its head in files of tlhub's own.

    Args:
        model: The model.
        processor: Its processor.
        folder: Where to save; made if need be.
        label_names: The labels by class index.
    """
    save_full(model.backbone, processor, folder, label_names=label_names)
    write_head(folder, model.head, _record(model, model.kind, model.head, model.form, label_names))


def save_new_layers(model: nn.Module, processor: Any, folder: Path, *, origin: Origin,
                    label_names: Sequence[str]) -> None:
    """Save the head alone, with what finds its base again, where nothing of the base was trained.

    Args:
        model: A model of transformers, whose last layer is kept, or a `PooledClassifier`.
        processor: Its processor.
        folder: Where to save; made if need be.
        origin: The base.
        label_names: The labels by class index.
    """
    if isinstance(model, PooledClassifier):
        kind, form, head = model.kind, model.form, model.head
    else:
        kind, form, head = "native", HeadForm(), nn.Sequential(output_layer(model)[1])
    config: Any = model.config
    set_labels(config, label_names)
    config.save_pretrained(folder)
    with quiet():
        processor.save_pretrained(folder)
    write_head(folder, head, _record(model, kind, head, form, label_names, Base.of(origin)))


def _record(model: nn.Module, kind: str, head: nn.Sequential, form: HeadForm, label_names: Sequence[str],
            base: Base | None = None) -> HeadRecord:
    first, last = (next(layer for layer in layers if isinstance(layer, nn.Linear)) for layers in (head, reversed(head)))
    config: Any = model.config
    return HeadRecord(kind, form, first.in_features, last.bias is not None, tuple(label_names), config.problem_type,
                      base)


def load_saved(folder: Path, auto_model: str, auto_processor: str) -> tuple[nn.Module, Any]:
    """Load what `save_model` wrote.

    Args:
        folder: A run's `model/`, or any plain checkpoint with its head.
        auto_model: transformers' class, such as `"AutoModelForImageClassification"`.
        auto_processor: transformers' class, such as `"AutoImageProcessor"`.

    Returns:
        The model in evaluation mode and its processor.

    Raises:
        CheckpointError: Something is missing or damaged.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{str(folder)!r} is no folder; the run has to be made again")
    origin = Origin(str(folder), "local", None, "", folder)
    inspect_checkpoint(folder, str(folder))
    processor = load_processor(origin, auto_processor)
    if (folder / "adapter_config.json").exists():
        return load_adapter(folder, auto_model=auto_model), processor
    if (folder / HEAD_SETTINGS).exists():
        return _load_headed(origin, auto_model, auto_processor), processor
    model, missing = _read(origin, auto_model)
    if missing:
        raise CheckpointError(f"the model in {str(folder)!r} lacks {min(missing)!r}; it was never trained for this "
                              "task")
    return model.train(mode=False), processor


def _load_headed(origin: Origin, auto_model: str, auto_processor: str) -> PooledClassifier:
    head, record = read_head(origin.folder)
    if record.base is None:
        model, missing = _read(origin, auto_model)
    else:
        base = resolve_base(record.base.name, record.base.revision, record.base.weight_hash, origin.name)
        checkpoint = load_origin(base, auto_model=auto_model, auto_processor=auto_processor,
                                 label_names=record.label_names, problem_type=record.problem_type or SINGLE_LABEL)
        model, missing = checkpoint.model, drawn_parameters(checkpoint.model, checkpoint.new_parameters)
    if record.kind not in ("native", *pooled_kinds(model)):
        raise CheckpointError(f"the head in {origin.name!r} reads {record.kind!r}, which {type(model).__name__} does "
                              "not give; make the run again")
    pooled = PooledClassifier(model, record.kind, head, record.form).eval()
    if lacking := {pooled.own_name(name) for name in missing} & pooled.state_dict().keys():
        raise CheckpointError(f"the model in {origin.name!r} lacks {min(lacking)!r}; a file is damaged or missing")
    return pooled


def _read(origin: Origin, auto_model: str) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the model as it lies in a folder, and the names of the tensors that it lacks there."""
    settings = read_settings(origin, auto_model)
    with quiet(), seeded(0), damage(f"the model in {origin.name!r} cannot be loaded", "the run has to be made again"), \
            bounded(origin.name, brought_by(origin.folder.glob("*.safetensors"), origin.name)):
        model, info = getattr(transformers, auto_model).from_pretrained(
            origin.folder, config=settings, dtype=torch.float32, use_safetensors=True, local_files_only=True,
            trust_remote_code=False, output_loading_info=True,
        )
    return model, frozenset(info["missing_keys"])
