import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from tlhub.data.augment_geometry import crop_boxes, mirrors, rectangles, resample, shifts, zooms

HEIGHT, WIDTH = 20, 30


def ramps(count=1):
    """Return images whose values rise linearly, across, down and both: bilinear sampling is exact on them."""
    down, across = torch.meshgrid(torch.arange(float(HEIGHT)), torch.arange(float(WIDTH)), indexing="ij")
    return torch.stack([across, down, 2 * down + across])[None].repeat(count, 1, 1, 1)


def test_boxes_are_inside_and_of_the_right_size():
    boxes = crop_boxes(np.random.default_rng(0).random((2000, 4)), HEIGHT, WIDTH)
    left, top, wide, tall = boxes.T
    assert min(left.min(), top.min()) >= 0
    assert max((left + wide).max(), (top + tall).max()) <= 1 + 1e-12
    assert 0.4 < (wide * tall).min() < 0.52
    assert (wide * tall).max() <= 1


def test_resampling_the_whole_image_changes_nothing_and_a_quarter_enlarges():
    images = torch.rand(2, 3, 8, 8)
    whole = zooms(np.tile([0.0, 0.0, 1.0, 1.0], (2, 1)))
    result = resample(images, whole @ mirrors(np.array([False, True])))
    assert torch.allclose(result[0], images[0], atol=1e-6)
    assert torch.allclose(result[1], images[1].flip(-1), atol=1e-6)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    right = resample(ramp, zooms(np.array([[0.5, 0.0, 0.5, 1.0]])))
    assert torch.allclose(right[0, 0, 0], torch.linspace(3.75, 7.25, 8).clamp(max=7), atol=1e-5)


def test_a_zoom_is_a_resized_crop():
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    expected = functional.resized_crop(images, 4, 6, 10, 15, [HEIGHT, WIDTH], antialias=False)
    result = resample(images, zooms(np.array([[6 / WIDTH, 4 / HEIGHT, 0.5, 0.5]])))
    # torchvision repeats the edge of the part, here the picture goes on beyond it.
    assert torch.allclose(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize(("draw", "right", "down"), [((0.0, 0.0), 3, 2), ((0.999, 0.999), -3, -2), ((0.5, 0.1), 0, 2)])
def test_shifts_cut_a_padded_image(draw, right, down):
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    padded = functional.pad(images, [WIDTH // 8, HEIGHT // 8])
    expected = functional.crop(padded, HEIGHT // 8 - down, WIDTH // 8 - right, HEIGHT, WIDTH)
    assert torch.allclose(resample(images, shifts(np.array([draw]), HEIGHT, WIDTH), black=True), expected, atol=1e-4)


def test_all_shifts_are_equally_frequent():
    draws = np.random.default_rng(0).random((9000, 2))
    pixels, counts = np.unique(np.rint(shifts(draws, 32, 32)[:, 0, 2] * 16), return_counts=True)
    assert pixels.tolist() == list(range(-4, 5))
    assert counts.min() > 850


def test_maps_are_done_from_left_to_right():
    images = ramps()
    first, second = zooms(np.array([[0.3, 0.2, 0.5, 0.6]])), mirrors(np.array([True]))
    together = resample(images, first @ second)
    apart = resample(resample(images, first), second)
    assert torch.allclose(together, apart, atol=1e-3)
    assert not torch.allclose(together, resample(images, second @ first), atol=1.0)


def test_beyond_the_edge_each_image_is_as_asked():
    images = torch.full((2, 1, 8, 8), 7.0)
    half = np.tile(np.eye(3), (2, 1, 1))
    half[:, 0, 2] = 1.0
    result = resample(images, half, black=np.array([True, False]))
    assert torch.allclose(result[0, 0, :, :4], torch.tensor(7.0))
    assert torch.allclose(result[0, 0, :, 4:], torch.tensor(0.0))
    assert torch.allclose(result[1], torch.tensor(7.0))
    assert torch.allclose(resample(images, half)[0], torch.tensor(7.0))


def test_rectangles():
    inside = rectangles(np.array([[1, 0, 3, 2], [0, 0, 0, 0]]), 3, 4, torch.device("cpu"))
    assert inside[0, 0].int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert not inside[1].any()
