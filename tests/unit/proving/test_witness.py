from __future__ import annotations

import pytest
import torch

from tests import tiny
from tlhub.proving.witness import digest, digests, named_tensors


@pytest.mark.parametrize("value", [torch.zeros(()), torch.zeros(0, 3), torch.ones(2, dtype=torch.bool),
                                   torch.randn(3, 4).to(torch.bfloat16), torch.randn(2, 2, dtype=torch.complex64)])
def test_a_digest_tells_every_bit_type_and_shape(value):
    assert digest(value) == digest(value.clone())
    assert digest(value) != digest(value[None])
    if value.numel():
        assert digest(value) != digest(~value if value.dtype == torch.bool else value + 1)
    assert digest(torch.zeros(2)) != digest(torch.zeros(2, dtype=torch.int32))
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_the_layout_in_memory_does_not_count():
    picture = torch.randn(2, 3, 4, 4)
    assert digest(picture) == digest(picture.to(memory_format=torch.channels_last))


def test_all_tensors_of_a_model_are_seen():
    model = tiny.model("resnet", ("a", "b"))
    found = digests(named_tensors(model))
    assert len(found) == len(list(model.parameters())) + len(list(model.buffers()))
