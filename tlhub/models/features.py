"""Features: what a frozen checkpoint makes of each example, in one forward pass over the data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from tlhub.config import POOLS
from tlhub.data.batches import micro_batches
from tlhub.data.portions import Portions
from tlhub.errors import CheckpointError
from tlhub.models.heads import native_features_possible, output_layer, output_parameters
from tlhub.models.pooling import backbone_name, backbone_of, evaluating, pool, pooled_kinds, run
from tlhub.models.timm_models import heard_features, is_timm

FEATURES = ("native", "first", "mean", "layer_mean")
"""Kinds of features that a probe chooses from."""


class FeatureInputs(Protocol):
    """What features are extracted from; `data.batches.Inputs` is one."""

    @property
    def lengths(self) -> np.ndarray | None:
        """Tokens of each example, shape (n,); None where all are equal."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the model's keyword arguments for the examples at `indices`."""


class FeatureStore(Protocol):
    """Where features are kept between runs; `data.cache.ArrayCache` is one."""

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays stored under `key`."""

    def put(self, key: str, arrays: dict[str, np.ndarray]) -> Any:
        """Store arrays under `key`."""


def available_features(model: PreTrainedModel, new_parameters: Collection[str]) -> tuple[str, ...]:
    """Return the kinds of features that this model has, in the order of `FEATURES`.

    `native` is the input of the output layer, where nothing new stands before it; the others are `pooled_kinds`.
    Flattened features are left out, since they are much larger: `check_kind` allows them where they are asked for.

    Args:
        model: The model with its head.
        new_parameters: Names of the parameters that the checkpoint did not bring.
    """
    return tuple(kind for kind in _offered(model, new_parameters) if kind in FEATURES)


def check_kind(model: PreTrainedModel, new_parameters: Collection[str], kind: str) -> None:
    """Check that a kind of features can be had from the checkpoint's own weights.

    Args:
        model: The model with its head.
        new_parameters: Names of the parameters that the checkpoint did not bring.
        kind: One of `FEATURES`, or `flatten`.

    Raises:
        CheckpointError: The checkpoint does not offer it.
    """
    offered = _offered(model, new_parameters)
    if kind not in offered:
        raise CheckpointError(f"--model.pool {kind!r} is not offered by a checkpoint of type "
                              f"{model.config.model_type!r}, whose features are: "
                              f"{', '.join(kind for kind in offered if kind in POOLS) or 'none'}")


def _offered(model: PreTrainedModel, new_parameters: Collection[str]) -> tuple[str, ...]:
    native = ("native",) if native_features_possible(model, new_parameters) else ()
    prefix = backbone_name(model) + "."
    new = {name for name in set(new_parameters) - output_parameters(model) if ".pooler." not in name}
    return native if any(name.startswith(prefix) for name in new) else (*native, *pooled_kinds(model))


class FeatureExtractor:
    """One forward pass that gives every kind of feature asked for, without dropout or gradient.

    Args:
        model: The model with its head; it is left as it was.
        kinds: Some of `available_features`.
    """

    def __init__(self, model: PreTrainedModel, kinds: Sequence[str]) -> None:
        self.model = model
        self.kinds = tuple(kinds)
        self._outputs: Any = None

    def __call__(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return for each kind the features (B, D) of a batch of the model's keyword arguments."""
        pooled = [kind for kind in self.kinds if kind != "native"]
        layers, backbone = "layer_mean" in pooled, backbone_of(self.model)
        with torch.no_grad(), evaluating(self.model):
            if "native" not in self.kinds:
                outputs, features = run(backbone, inputs, layers=layers), {}
            else:
                deep = {"output_hidden_states": True} if layers else {}
                with _without_output_layer(self.model), _listening(backbone, pooled) as heard:
                    features = {"native": self.model(**inputs, **deep).logits}
                outputs = heard[0] if heard else None
            for kind in pooled:
                features[kind] = pool(backbone, outputs, kind, inputs.get("attention_mask"))
        return {kind: features[kind] for kind in self.kinds}


@contextmanager
def _without_output_layer(model: PreTrainedModel) -> Iterator[None]:
    name, layer = output_layer(model)
    model.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        model.set_submodule(name, layer)


@contextmanager
def _listening(backbone: nn.Module, pooled: Sequence[str]) -> Iterator[list[Any]]:
    """Note what the backbone returns while the whole model runs."""
    heard: list[Any] = []
    if pooled and is_timm(backbone):
        with heard_features(backbone) as maps:
            yield maps
        return
    handle = backbone.register_forward_hook(lambda _module, _args, outputs: heard.append(outputs)) if pooled else None
    try:
        yield heard
    finally:
        if handle is not None:
            handle.remove()


def extract_features(
    model: PreTrainedModel, inputs: FeatureInputs, kinds: Sequence[str], *, device: torch.device, batch_size: int,
    cache: FeatureStore | None = None, key: str | None = None, accelerator: Any = None,
) -> dict[str, np.ndarray]:
    """Run the model once over the data and return its features.

    Args:
        model: The model with its head, on `device`.
        inputs: The examples, in the view for evaluation.
        kinds: Some of `available_features`.
        device: Where the model computes.
        batch_size: Examples in one forward pass of one process.
        cache: Where finished features are kept; None for nowhere.
        key: Their key: the fingerprint of weights, processor and data. The kinds are added to it.
        accelerator: accelerate's, where several processes share the work; each gets everything.

    Returns:
        For each kind float32 features, shape (n, D), in the order of the data.

    Raises:
        TlhubError: Memory does not suffice for one example at a time.
    """
    full_key = None if cache is None or key is None else f"{key}-{'-'.join(sorted(kinds))}"
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    found = cache.get(full_key) if cache is not None and full_key is not None else None
    # Processes may look at different disks, or at different moments.
    everywhere = found is not None if world == 1 else _all_agree(found is not None, device, accelerator)
    if found is not None and everywhere:
        return found
    order = np.arange(len(inputs)) if inputs.lengths is None else np.argsort(inputs.lengths, kind="stable")
    share = np.resize(order, -(-len(order) // world) * world)[rank::world]
    features = _forward(FeatureExtractor(model, kinds), inputs, share, batch_size, device)
    if world > 1:
        features = {kind: _gathered(values, order, device, accelerator) for kind, values in features.items()}
    result = {kind: np.empty_like(values) for kind, values in features.items()}
    for kind, values in features.items():
        result[kind][order] = values
    if cache is not None and full_key is not None and rank == 0:
        cache.put(full_key, result)
    return result


def _all_agree(answer: bool, device: torch.device, accelerator: Any) -> bool:
    """Return whether every process says yes."""
    return bool(accelerator.gather(torch.tensor([answer], device=device)).all())


def _forward(
    extractor: FeatureExtractor, inputs: FeatureInputs, order: np.ndarray, batch_size: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Return features in the given order. A batch is copied to the host while the next one is being computed."""
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in extractor.kinds}
    waiting: dict[str, torch.Tensor] = {}
    portions = Portions()
    for batch in micro_batches(order, batch_size):
        for _, computed in portions.run(batch, lambda part: extractor(inputs.batch(part, None, device))):
            _store(waiting, found)
            waiting = computed
    _store(waiting, found)
    return {kind: np.concatenate(parts) for kind, parts in found.items()}


def _store(batch: dict[str, torch.Tensor], found: dict[str, list[np.ndarray]]) -> None:
    for kind, values in batch.items():
        found[kind].append(values.float().cpu().numpy())


def _gathered(values: np.ndarray, order: np.ndarray, device: torch.device, accelerator: Any) -> np.ndarray:
    """Return every process's rows in the order that `share` took them from, without the repeated ones at the end."""
    everything = accelerator.gather(torch.from_numpy(values).to(device)).cpu().numpy()
    rows = everything.reshape(accelerator.num_processes, len(values), -1).swapaxes(0, 1)
    joined: np.ndarray = rows.reshape(-1, values.shape[-1])[: len(order)]
    return joined
