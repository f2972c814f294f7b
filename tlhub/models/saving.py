"""Saving models and loading what was saved, in every form that a run's `model/` folder takes."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from tlhub.errors import CheckpointError
from tlhub.models.adapters import is_adapted, load_adapter, merge, save_adapter
from tlhub.models.heads import HeadForm, PooledClassifier, feature_width, number_of_labels
from tlhub.models.loading import LOADING_ERRORS, first_line, quiet, read_settings, seeded, set_labels
from tlhub.models.origin import Origin
from tlhub.models.processors import load_processor
from tlhub.seeding import derive

HEAD_SETTINGS = "head.json"
HEAD_WEIGHTS = "head.safetensors"


def save_model(
    model: nn.Module, processor: Any, folder: Path, *, origin: Origin, label_names: tuple[str, ...],
    save_base: bool = True,
) -> None:
    """Save a trained model with its processor, in the form that fits its class.

    Args:
        model: A model of transformers, one with adapters, or a `PooledClassifier`; adapters over the latter are merged
            into a copy.
        processor: Its processor.
        folder: Where to save; made if need be.
        origin: The checkpoint that training started from.
        label_names: The labels by class index.
        save_base: Whether a local base is kept beside adapters.
    """
    if is_adapted(model):
        if not any(isinstance(module, PooledClassifier) for module in model.modules()):
            save_adapter(model, processor, folder, origin=origin, save_base=save_base, label_names=label_names)
            return
        model = merge(copy.deepcopy(model))
    if isinstance(model, PooledClassifier):
        save_pooled(model, processor, folder, label_names=label_names)
    else:
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
    linear = next(module for module in model.head.modules() if isinstance(module, nn.Linear))
    settings = {"kind": model.kind, "in_features": linear.in_features, **asdict(model.form),
                "label_names": list(label_names)}
    (folder / HEAD_SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    save_file(weights, folder / HEAD_WEIGHTS, metadata={"format": "pt"})


def pooled_classifier(model: PreTrainedModel, kind: str, form: HeadForm, *, seed: int,
                      sample: Mapping[str, torch.Tensor] | None = None) -> PooledClassifier:
    """Return the model with a fresh head of tlhub's own over one kind of features.

    Args:
        model: The model with transformers' head, which is taken off; it lives on inside the returned one.
        kind: One of `features.available_features`.
        form: What the head looks like.
        seed: The run's seed.
        sample: Keyword arguments for one example; needed for `flatten`.
    """
    with seeded(derive(seed, "head")):
        head = form.build(feature_width(model, kind, sample), number_of_labels(model))
    return PooledClassifier(model, kind, head, form).eval()


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
    origin = Origin(str(folder), "local", None, "", folder)
    processor = load_processor(origin, auto_processor)
    if (folder / "adapter_config.json").exists():
        return load_adapter(folder, auto_model=auto_model), processor
    settings = read_settings(origin, auto_model)
    pooled = (folder / HEAD_SETTINGS).exists()
    with quiet(), seeded(0):
        try:
            model, info = getattr(transformers, auto_model).from_pretrained(
                folder, config=settings, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                trust_remote_code=False, output_loading_info=True,
            )
            if pooled:
                return _with_head(model, folder), processor
        except LOADING_ERRORS as error:
            raise CheckpointError(f"the model in {str(folder)!r} cannot be loaded: {first_line(error)}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise CheckpointError(f"the model in {str(folder)!r} lacks {missing!r}; it was never trained for this task")
    return model.eval(), processor


def _with_head(model: PreTrainedModel, folder: Path) -> PooledClassifier:
    settings = json.loads((folder / HEAD_SETTINGS).read_text(encoding="utf-8"))
    form = HeadForm(tuple(settings["widths"]), settings["activation"], settings["dropout"])
    head = form.build(settings["in_features"], len(settings["label_names"]))
    head.load_state_dict(load_file(folder / HEAD_WEIGHTS))
    return PooledClassifier(model, settings["kind"], head, form).eval()
