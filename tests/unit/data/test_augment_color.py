"""What the comparison with torchvision in test_augment_random.py does not reach."""

import pytest
import torch
from torchvision.transforms.v2 import functional

from tlhub.data import augment_color as color

FACTORS = torch.tensor([0.0, 0.7, 1.0, 1.6])[:, None, None, None]


@pytest.fixture
def images():
    return torch.rand(4, 3, 9, 11, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize(("function", "reference"), [
    (color.brightness, functional.adjust_brightness), (color.contrast, functional.adjust_contrast),
    (color.saturation, functional.adjust_saturation), (color.sharpness, functional.adjust_sharpness)])
def test_each_picture_has_its_own_factor(images, function, reference):
    pairs = zip(images / 255, FACTORS.flatten().tolist(), strict=True)
    expected = torch.stack([reference(image, factor) for image, factor in pairs]) * 255
    assert (function(images, FACTORS) - expected).abs().max() < 1.0  # the mean grey is of whole numbers
    assert torch.equal(function(images, FACTORS)[2], images[2])


def test_pictures_of_one_value_stay(images):
    flat = torch.full_like(images, 100.0)
    assert torch.equal(color.autocontrast(flat), flat)
    assert torch.equal(color.equalize(flat), flat)
    assert torch.allclose(color.contrast(flat, FACTORS), flat, atol=1.01)


def test_autocontrast_uses_the_whole_range(images):
    narrow = images / 4 + 100
    result = color.autocontrast(narrow)
    assert torch.allclose(result.amin(dim=(2, 3)), torch.tensor(0.0))
    assert torch.allclose(result.amax(dim=(2, 3)), torch.tensor(255.0))


def test_tiny_pictures_are_not_smoothed():
    tiny = torch.rand(4, 3, 2, 5)
    assert torch.equal(color.sharpness(tiny, FACTORS), tiny)


def test_grey_of_other_than_three_channels_is_their_mean():
    assert torch.equal(color.grey(torch.full((1, 1, 2, 2), 7.0)), torch.full((1, 1, 2, 2), 7.0))
