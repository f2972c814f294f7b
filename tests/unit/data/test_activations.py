"""Activations as inputs: rows without padding, the layout of feature maps, the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tlhub.data.activations import ActivationInputs, Batch, Layout, cached_activations
from tlhub.data.batches import Inputs
from tlhub.data.cache import ArrayCache
from tlhub.data.prepare import Examples
from tlhub.data.text import TextInputs

CPU = torch.device("cpu")


class Pictures:
    """Pictures that tell their number."""

    def __init__(self, count: int) -> None:
        self.labels = np.arange(count)
        self.lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        numbers = torch.from_numpy(indices).float()[:, None, None, None]
        return {"pixel_values": (numbers + torch.arange(3.0)[:, None, None]).expand(-1, 3, 4, 5).contiguous()}


def texts(side: str = "right") -> TextInputs:
    tokenizer = tiny.word_pieces()
    tokenizer.padding_side = side
    words = [" ".join(tiny.WORDS[: 1 + (7 * number) % 5]) for number in range(11)]
    return TextInputs(Examples(words, np.arange(11) % 2, [str(number) for number in range(11)]), tokenizer,
                      max_length=None)


def cached(inputs: Inputs, compute: object, folder: Path, key: str = "key") -> tuple[ActivationInputs, Layout]:
    batch = inputs.batch(np.arange(3), None, CPU)
    layout = Layout.of(compute(batch), batch, inputs.lengths)
    assert layout is not None
    rows = cached_activations(inputs, compute, layout, cache=ArrayCache(folder), key=key, device=CPU, batch_size=4)
    return ActivationInputs(inputs, rows, layout, "states"), layout


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_take_no_room_for_padding(side: str, tmp_path: Path) -> None:
    def compute(batch: Batch) -> torch.Tensor:
        return batch["input_ids"].unsqueeze(-1) * torch.tensor([1.0, -2.0])

    inputs = texts(side)
    assert inputs.lengths is not None
    made, layout = cached(inputs, compute, tmp_path)
    assert layout == Layout((2,), ragged=True)
    assert layout.size(inputs) == 4 * 2 * inputs.lengths.sum()
    for indices in (np.array([7, 2, 4, 4]), np.array([5])):
        batch = made.batch(indices, 3, CPU)
        expected = inputs.batch(indices, None, CPU)
        mask = expected.get("attention_mask", torch.ones_like(expected["input_ids"]))
        torch.testing.assert_close(batch.pop("states"), compute(expected) * mask.unsqueeze(-1))
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], value) for name, value in expected.items())
    assert (len(made), made.lengths is inputs.lengths, made.labels is inputs.labels) == (11, True, True)


@pytest.mark.parametrize("channels_last", [True, False])
def test_pictures_come_back_in_the_layout_of_the_model(channels_last: bool, tmp_path: Path) -> None:
    layout_of_model = torch.channels_last if channels_last else torch.contiguous_format

    def compute(batch: Batch) -> torch.Tensor:
        return (batch["pixel_values"][..., :3] * 2.0).contiguous(memory_format=layout_of_model)

    inputs = Pictures(10)
    made, layout = cached(inputs, compute, tmp_path)
    assert layout == (Layout((4, 3, 3), channels_last=True) if channels_last else Layout((3, 4, 3)))
    batch = made.batch(np.array([8, 0, 3]), None, CPU)
    assert torch.equal(batch["states"], compute(inputs.batch(np.array([8, 0, 3]), None, CPU)))
    assert batch["states"].is_contiguous(memory_format=layout_of_model)
    assert torch.equal(batch["pixel_values"], torch.zeros(1, 3, 4, 5))


def test_they_are_computed_once(tmp_path: Path) -> None:
    seen: list[int] = []

    def compute(batch: Batch) -> torch.Tensor:
        seen.append(len(batch["pixel_values"]))
        return batch["pixel_values"]

    inputs = Pictures(10)
    for key, batches in (("one", [3, 4, 4, 2]), ("one", [3]), ("two", [3, 4, 4, 2])):
        seen.clear()
        cached(inputs, compute, tmp_path, key)
        assert seen == batches


def test_what_does_not_belong_to_the_examples_is_refused() -> None:
    batch = {"input_ids": torch.ones(3, 5, dtype=torch.int64)}
    assert Layout.of(torch.zeros(3, 2, 4), batch, np.array([5, 5, 5])) is None
    assert Layout.of(torch.zeros(3, 2), {"input_values": torch.ones(3, 5)}, np.array([5, 5, 5])) is None
    assert Layout.of(torch.zeros(6, 2), {"pixel_values": torch.ones(3, 5)}, None) is None
