"""Activations inside a model as inputs: computed once for every example, kept in the cache, read as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tlhub.data.batches import Inputs, evaluation_batches
from tlhub.data.cache import ArrayCache
from tlhub.data.portions import Portions
from tlhub.data.tensors import to_device

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """How the activations of a split lie in one table of float32.

    Attributes:
        shape: Of a row.
        ragged: Whether a row is a token, the tokens of all examples laid end to end without padding; else a row is an
            example.
        channels_last: Whether the channels of a feature map (channels, height, width) are the last axis of a row.
    """

    shape: tuple[int, ...]
    ragged: bool = False
    channels_last: bool = False

    @classmethod
    def of(cls, activations: torch.Tensor, batch: Batch, lengths: np.ndarray | None) -> Layout | None:
        """Return the layout for activations (b, ...) like these; None where they do not belong to the examples.

        Args:
            activations: Those of a batch.
            batch: The model's keyword arguments that they come from.
            lengths: Tokens of each example of the split; None where all are equal.
        """
        if lengths is not None:
            fits = "input_ids" in batch and activations.shape[:2] == batch["input_ids"].shape
            return cls(tuple(activations.shape[2:]), ragged=True) if fits else None
        if "attention_mask" in batch:
            return None  # it would have to be kept beside the activations
        if activations.shape[0] != len(next(iter(batch.values()))):
            return None
        if not activations.is_contiguous() and activations.movedim(1, -1).is_contiguous():
            return cls(tuple(activations.movedim(1, -1).shape[1:]), channels_last=True)
        return cls(tuple(activations.shape[1:]))

    def rows(self, inputs: Inputs) -> int:
        """Return the number of rows that a split takes."""
        return len(inputs) if not self.ragged or inputs.lengths is None else int(inputs.lengths.sum())

    def size(self, inputs: Inputs) -> int:
        """Return the bytes that a split takes."""
        return 4 * self.rows(inputs) * int(np.prod(self.shape))

    def packed(self, activations: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the activations of a batch as rows, in its order."""
        if self.ragged:
            return activations[_mask(batch).bool()]
        return activations.movedim(1, -1) if self.channels_last else activations

    def arguments(self, activations: torch.Tensor, batch: Batch, name: str) -> dict[str, torch.Tensor]:
        """Return the entered model's keyword arguments for a batch.

        Args:
            activations: Shape (b, ...), as in the model.
            batch: The whole model's arguments. Texts keep them, as masks and last tokens depend on them; of pictures
                one black one is kept, for its shape.
            name: The argument that the activations are given as.
        """
        rest = dict(batch) if self.ragged else {key: torch.zeros_like(value[:1]) for key, value in batch.items()}
        return {**rest, name: activations}


class ActivationInputs:
    """A split whose examples are given by their activations inside a model, as `tlhub.data.batches.Inputs`.

    Args:
        inputs: The split.
        rows: Its activations, shape (rows, *layout.shape).
        layout: How they lie there.
        name: The argument that they are given as.

    Attributes:
        labels: Those of `inputs`.
        lengths: Those of `inputs`.
    """

    def __init__(self, inputs: Inputs, rows: np.ndarray, layout: Layout, name: str) -> None:
        self.labels = inputs.labels
        self.lengths = inputs.lengths
        self._inputs, self._rows, self._layout, self._name = inputs, rows, layout, name
        self._starts = _starts(inputs)
        # Decoded once: every batch of pictures comes with the same black one.
        self._first = {} if layout.ragged else inputs.batch(np.arange(1), None, torch.device("cpu"))

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        """Return the entered model's keyword arguments for some examples.

        Args:
            indices: Which examples, shape (b,), modulo n.
            epoch: Has no effect: what is cached is not augmented.
            device: Where the tensors go.
        """
        indices = indices % len(self)
        if not self._layout.ragged:
            rows = to_device(np.ascontiguousarray(self._rows[indices]), device)
            first = {name: value.to(device) for name, value in self._first.items()}
            states = rows.movedim(-1, 1) if self._layout.channels_last else rows
            return self._layout.arguments(states, first, self._name)
        batch = self._inputs.batch(indices, None, torch.device("cpu"))
        mask = _mask(batch).numpy().astype(bool)
        table = np.zeros((*mask.shape, *self._layout.shape), np.float32)
        table[mask] = np.concatenate([self._rows[self._starts[index]:self._starts[index + 1]] for index in indices])
        moved = {name: to_device(value.numpy(), device) for name, value in batch.items()}
        return self._layout.arguments(to_device(table, device), moved, self._name)


def cached_activations(inputs: Inputs, compute: Callable[[Batch], torch.Tensor], layout: Layout, *, cache: ArrayCache,
                       key: str, device: torch.device, batch_size: int) -> np.ndarray:
    """Return the activations of a split as rows of a memory map, computed where the cache does not hold them.

    Args:
        inputs: The split, in the view for evaluation.
        compute: Returns the activations (b, ...) for a batch of the model's keyword arguments.
        layout: How they are laid out.
        cache: Where they are kept.
        key: What they depend on: weights, processor, data, place in the model.
        device: Where the model computes.
        batch_size: Examples of one forward pass.

    Raises:
        DiskFullError: The disk has too little room.
        OSError: The cache cannot be read back.
        TlhubError: Memory does not suffice for one example at a time.
    """
    found = cache.get(key)
    if found is None:
        with cache.create(key, {"rows": ((layout.rows(inputs), *layout.shape), np.dtype(np.float32))}) as maps:
            for places, rows in _computed(inputs, compute, layout, device, batch_size):
                maps["rows"][places] = rows
        found = cache.get(key)
    if found is None:
        raise OSError(f"cached activations cannot be read back from '{cache.folder(key)}'")
    return found["rows"]


def _computed(inputs: Inputs, compute: Callable[[Batch], torch.Tensor], layout: Layout, device: torch.device,
              batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places in the table, and the rows that belong there."""
    def rows_of(indices: np.ndarray) -> np.ndarray:
        batch = inputs.batch(indices, None, device)
        rows: np.ndarray = layout.packed(compute(batch), batch).float().cpu().numpy()
        return rows

    starts, portions = _starts(inputs), Portions()
    for indices in evaluation_batches(len(inputs), inputs.lengths, batch_size):
        for part, rows in portions.run(indices, rows_of):
            places = [np.arange(starts[index], starts[index + 1]) for index in part]
            yield np.concatenate(places) if layout.ragged else part, rows


def _starts(inputs: Inputs) -> np.ndarray:
    """Return where each example's tokens start, and the end of the last, shape (n + 1,)."""
    lengths = np.ones(len(inputs), np.int64) if inputs.lengths is None else inputs.lengths
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _mask(batch: Batch) -> torch.Tensor:
    """Return which tokens of a batch are the examples' own, shape (b, t)."""
    return batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"])
