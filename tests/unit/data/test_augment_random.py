"""RandAugment against torchvision's, operation by operation."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment as Reference

from tlhub.data.augment_geometry import resample
from tlhub.data.augment_random import OPERATIONS, RandAugment

HEIGHT, WIDTH = 21, 30
GEOMETRIC = OPERATIONS[1:6]
NAMES = {name: "".join(part.title() for part in name.split("_")) for name in OPERATIONS} | {
    "autocontrast": "AutoContrast"}


def drawn(*turns):
    """Return the draws of one picture that gets these operations, each a name and a sign."""
    return np.array([[value for name, sign in turns
                      for value in ((OPERATIONS.index(name) + 0.5) / len(OPERATIONS), 0.25 if sign < 0 else 0.75)]])


def pictures(count, seed=0):
    """Return smooth pictures that use a part of the range, uint8."""
    small = torch.rand(count, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    return (20 + 200 * large).round().to(torch.uint8)


def reference(images, name, sign, magnitude):
    """Return what torchvision makes of images, and the magnitude it takes from its table."""
    transform = Reference(interpolation=InterpolationMode.BILINEAR)
    ranges, signed = transform._AUGMENTATION_SPACE[NAMES[name]]
    table = ranges(31, HEIGHT, WIDTH)
    amount = 0.0 if table is None else float(table[magnitude]) * (sign if signed else 1)
    return transform._apply_image_or_video_transform(
        images, NAMES[name], amount, interpolation=transform.interpolation, fill=transform._fill)


def test_the_operations_are_torchvisions():
    assert {NAMES[name] for name in OPERATIONS} == set(Reference._AUGMENTATION_SPACE)
    assert len(OPERATIONS) == 14


@pytest.mark.parametrize("magnitude", [0, 5, 9, 30])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_torchvision_does(name, sign, magnitude):
    images = pictures(2)
    random = RandAugment(1, magnitude)
    draws = np.repeat(drawn((name, sign)), 2, axis=0)
    assert random.moved(draws).tolist() == [name in GEOMETRIC] * 2
    if name in GEOMETRIC:
        result = resample(images.float(), random.maps(draws, HEIGHT, WIDTH), black=random.moved(draws))
        assert (result - reference(images.float(), name, sign, magnitude)).abs().max() < 0.02
        assert np.array_equal(random.recolor(images.float(), draws), images)
        return
    assert np.array_equal(random.maps(draws, HEIGHT, WIDTH), np.tile(np.eye(3), (2, 1, 1)))
    difference = random.recolor(images.float(), draws) - reference(images, name, sign, magnitude)
    if name in ("identity", "posterize", "solarize", "equalize"):
        assert difference.abs().max() == 0
    else:  # torchvision keeps whole numbers only: of the result, of grey and of the smoothed picture
        assert -1 < difference.min() <= difference.max() < 2
        assert magnitude == 0 or (difference != 0).any()


def test_strengths_between_two_bins_are_between_their_results():
    draws = drawn(("brightness", 1))
    low, middle, high = (RandAugment(1, value).recolor(pictures(1).float(), draws).sum() for value in (4, 4.5, 5))
    assert low < middle < high


def test_geometric_operations_follow_each_other_in_one_map():
    turns = ("rotate", 1), ("translate_x", -1), ("shear_y", 1)
    random, one = RandAugment(3, 9), RandAugment(1, 9)
    down, across = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    images = torch.stack([across, down, across + 3 * down])[None]  # bilinear sampling is exact on these
    apart = images
    for turn in turns:
        apart = resample(apart, one.maps(drawn(turn), HEIGHT, WIDTH))
    together = resample(images, random.maps(drawn(*turns), HEIGHT, WIDTH))
    assert torch.allclose(together[..., 8:13, 10:20], apart[..., 8:13, 10:20], atol=1e-3)
    other = resample(images, random.maps(drawn(*turns[::-1]), HEIGHT, WIDTH))
    assert (together - other)[..., 8:13, 10:20].abs().max() > 0.1


def test_colors_follow_each_other_in_the_order_drawn():
    def both(*turns):
        return RandAugment(len(turns), 20).recolor(pictures(1).float(), drawn(*turns))

    first, second = ("solarize", 1), ("brightness", 1)
    expected = RandAugment(1, 20).recolor(both(first), drawn(second))
    assert torch.equal(both(first, second), expected)
    assert not torch.equal(both(second, first), expected)


def test_each_picture_gets_what_it_drew():
    names = [name for name in OPERATIONS if name not in GEOMETRIC] * 2
    draws = np.concatenate([drawn((name, 1 if place < len(names) // 2 else -1)) for place, name in enumerate(names)])
    images = pictures(len(names))
    together = RandAugment(1, 12).recolor(images.float(), draws)
    for place, picture in enumerate(images):
        alone = RandAugment(1, 12).recolor(picture[None].float(), draws[[place]])
        assert torch.equal(alone[0], together[place]), names[place]


def test_operations_are_drawn_alike_and_turns_apart():
    draws = np.random.default_rng(0).random((14_000, 4))
    names = RandAugment(2, 9)._names(draws)
    for turn in (0, 1):
        assert min(np.unique(names[:, turn], return_counts=True)[1]) > 880
    assert 0.05 < (names[:, 0] == names[:, 1]).mean() < 0.1
    assert 0.48 < (RandAugment(2, 9)._signs(draws) > 0).mean() < 0.52
