import numpy as np
import pytest
import torch

from tlhub.data.mixing import Mixing
from tlhub.data.sampling import class_sampling

COUNT = 3000
HEIGHT, WIDTH = 12, 20


def mixing(seed=0, count=COUNT, sampling=None, **alphas):
    return Mixing(seed, count, **{"mixup": 0.0, "cutmix": 0.0, **alphas}, size=(HEIGHT, WIDTH), sampling=sampling)


def test_a_mix_depends_on_seed_epoch_and_index_only():
    whole = mixing(mixup=0.4, cutmix=1.0).draw(2, np.arange(COUNT))
    drawn = mixing(mixup=0.4, cutmix=1.0)
    drawn.draw(5, np.array([1]))
    part = np.array([700, 3, 2999])
    again = drawn.draw(2, part)
    for name in ("partners", "kept", "boxes", "pasted"):
        assert np.array_equal(getattr(again, name), getattr(whole, name)[part])
    assert not np.array_equal(drawn.draw(3, part).partners, again.partners)
    assert not np.array_equal(mixing(1, mixup=0.4, cutmix=1.0).draw(2, part).partners, again.partners)


def test_every_example_is_the_partner_of_one_other():
    partners = mixing(mixup=1.0).draw(0, np.arange(COUNT)).partners
    assert np.array_equal(np.sort(partners), np.arange(COUNT))
    assert (partners != np.arange(COUNT)).all()
    assert mixing(count=1, mixup=1.0).draw(0, np.array([0])).partners.tolist() == [0]


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_shares_of_mixup_have_the_beta_distribution(alpha):
    mix = mixing(mixup=alpha).draw(0, np.arange(COUNT))
    assert not mix.pasted.any()
    assert (mix.boxes == 0).all()
    assert abs(mix.kept.mean() - 0.5) < 0.03
    assert mix.kept.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
    later = mixing(mixup=alpha).draw(1, np.arange(COUNT))
    assert abs(np.corrcoef(mix.kept, later.kept)[0, 1]) < 0.08


def test_shares_of_cutmix_are_the_areas_that_are_left():
    mix = mixing(cutmix=1.0).draw(0, np.arange(COUNT))
    assert mix.pasted.all()
    blended = mix.blend(torch.ones(COUNT, 1, HEIGHT, WIDTH), torch.zeros(COUNT, 1, HEIGHT, WIDTH))
    assert np.allclose(blended.mean(dim=(1, 2, 3)), mix.kept, atol=1e-6)
    left, top, right, bottom = mix.boxes.T
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, WIDTH, HEIGHT)
    inner = (left > 0) & (top > 0) & (right < WIDTH) & (bottom < HEIGHT) & (bottom - top > 3)
    assert np.abs((right - left)[inner] / (bottom - top)[inner] - WIDTH / HEIGHT).max() < 0.5
    assert 0.5 < mix.kept.mean() < 0.75  # a uniform share, and what is cut off the box comes on top
    middle = blended[:, 0, HEIGHT // 2, WIDTH // 2].mean()
    assert middle < blended[:, 0, 0, 0].mean() < 0.9  # every place is pasted over at times


def test_of_both_kinds_each_example_has_one_evenly():
    mix = mixing(mixup=1.0, cutmix=1.0).draw(0, np.arange(COUNT))
    assert 0.46 < mix.pasted.mean() < 0.54
    images, others = torch.full((COUNT, 1, HEIGHT, WIDTH), 3.0), torch.full((COUNT, 1, HEIGHT, WIDTH), 1.0)
    blended = mix.blend(images, others)
    assert np.allclose((blended.mean(dim=(1, 2, 3)) - 1) / 2, mix.kept, atol=1e-5)
    spread = (blended.amax(dim=(1, 2, 3)) - blended.amin(dim=(1, 2, 3))).numpy()
    assert set(spread[mix.pasted].round(4).tolist()) <= {0.0, 2.0}
    assert spread[~mix.pasted].max() == 0


def test_blending_does_not_depend_on_the_batch():
    drawn = mixing(mixup=1.0, cutmix=1.0)
    images, others = torch.rand(2, 50, 3, HEIGHT, WIDTH)
    whole = drawn.draw(0, np.arange(50)).blend(images, others)
    for part in np.split(np.random.default_rng(0).permutation(50), [1, 2, 9]):
        assert torch.equal(drawn.draw(0, part).blend(images[part], others[part]), whole[part])


def test_partners_are_of_what_the_epoch_draws():
    labels = (np.arange(COUNT) < 20).astype(np.int64)
    sampling = class_sampling(labels, "balanced", seed=0)
    drawn = sampling.drawn(4)
    mix = mixing(mixup=1.0, sampling=sampling).draw(4, drawn)
    assert np.array_equal(np.sort(mix.partners), drawn)
    assert labels[mix.partners % COUNT].mean() == 0.5
    again = drawn % COUNT == 7
    assert again.sum() == 75
    assert len(np.unique(mix.partners[again])) == len(np.unique(mix.kept[again])) == 75
    skipped = np.setdiff1d(np.arange(COUNT), drawn)
    assert len(mixing(mixup=1.0, sampling=sampling).draw(4, skipped).partners) == len(skipped)  # the sheet shows them
