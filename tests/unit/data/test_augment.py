import numpy as np
import pytest
import torch

from tlhub.config import DataConfig
from tlhub.data.augment import Augmentation, erased_boxes
from tlhub.seeding import uniforms

COUNT, HEIGHT, WIDTH = 40, 17, 13
EVERYTHING = {"crop": "resized", "flip": True, "randaugment": 3, "color": 0.4, "erasing": 0.5}
CASES = {**{name: {name: value} for name, value in EVERYTHING.items()}, "padded": {"crop": "padded"},
         "padded and random": {"crop": "padded", "randaugment": 2}, "everything": EVERYTHING}
ERASED = torch.tensor([120.0, 110.0, 100.0])[:, None, None]


def images(count=COUNT):
    return torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) * 255


def augmented(fields, indices=None, epoch=0, seed=0):
    augmentation = Augmentation.of(DataConfig(**fields))
    indices = np.arange(COUNT) if indices is None else np.array(indices)
    draws = uniforms(seed, epoch, indices, augmentation.draws)
    return augmentation.apply(images()[indices], draws, ERASED)


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_the_same_to_the_bit_in_any_batch(name):
    whole = augmented(CASES[name])
    assert whole.shape == images().shape
    assert 0 <= whole.min() <= whole.max() <= 255
    order = np.random.default_rng(0).permutation(COUNT)
    for part in np.split(order, [1, 4, 11, 28]):
        assert torch.equal(augmented(CASES[name], part), whole[part])
    assert not torch.equal(augmented(CASES[name], epoch=1), whole)
    assert not torch.equal(augmented(CASES[name], seed=1), whole)


@pytest.mark.parametrize("name", CASES)
def test_most_pictures_are_changed(name):
    changed = (augmented(CASES[name]) - images()).abs().amax(dim=(1, 2, 3)) > 1
    assert changed.float().mean() > (0.2 if name in ("flip", "erasing") else 0.8)


def test_nothing_is_done_where_nothing_is_asked():
    assert not Augmentation.of(DataConfig()).active
    assert not Augmentation.of(DataConfig(flip=False, crop="none")).active
    assert all(Augmentation.of(DataConfig(**fields)).active for fields in CASES.values())
    assert torch.equal(augmented({}), images())


def test_the_erased_part_has_the_given_value_and_the_rest_stays():
    result, before = augmented({"erasing": 1.0}), images()
    erased = (result == ERASED).all(dim=1)
    assert torch.equal(torch.where(erased[:, None], before, result), before)
    share = erased.float().mean(dim=(1, 2))
    assert 0.0 < share.min() < 0.1
    assert 0.25 < share.max() < 0.4


def test_erased_boxes():
    draws = np.random.default_rng(0).random((4000, 5))
    boxes = erased_boxes(draws, 0.3, 60, 90)
    wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    some = wide > 0
    assert 0.27 < some.mean() < 0.33
    assert (boxes[~some] == 0).all()
    assert boxes.min() >= 0
    assert (boxes.max(axis=0) == [89, 59, 90, 60]).all() or (boxes.max(axis=0) <= [90, 60, 90, 60]).all()
    area, ratio = (wide * tall)[some] / 5400, (tall[some] / wide[some])[tall[some] < 60]
    assert 0.018 < area.min() < 0.03
    assert 0.3 < area.max() < 0.34
    assert 0.27 < ratio.min() < 0.35
    assert 2.9 < ratio.max() < 3.6


def test_one_step_draws_the_same_whatever_else_is_on():
    draws = uniforms(0, 0, np.arange(COUNT), Augmentation.of(DataConfig(**EVERYTHING)).draws)
    flips = torch.from_numpy(draws[:, 4] < 0.5)
    flipped = augmented({"flip": True})
    assert torch.equal(flipped, torch.where(flips[:, None, None, None], images().flip(-1), images()))
    erased = (augmented({"erasing": 0.5}) == ERASED).all(dim=1)
    assert torch.equal((augmented({"erasing": 0.5, "randaugment": 2}) == ERASED).all(dim=1), erased)


def test_color_is_within_its_range():
    flat = torch.full((500, 3, 4, 4), 100.0)
    augmentation = Augmentation.of(DataConfig(color=0.2))
    values = augmentation.apply(flat, uniforms(0, 0, np.arange(500), augmentation.draws), ERASED)[:, 0, 0, 0]
    assert 79 < values.min() < 82
    assert 118 < values.max() < 121
    assert 98 < values.mean() < 102
