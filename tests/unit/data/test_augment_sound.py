import numpy as np
import pytest
import torch

from tlhub.config import DataConfig
from tlhub.data.augment_sound import Blank, SoundAugmentation
from tlhub.seeding import uniforms

RATE, LONGEST = 8000, 9000
LENGTHS = torch.tensor([LONGEST, 5000, 1, 8000, 2, 7999, 400, 3333, 64, 6000])
COUNT = len(LENGTHS)
EVERYTHING = {"shift": 0.1, "gain": 6.0, "noise": 5.0, "time_masks": 2, "frequency_masks": 3}
CASES = {**{name: {name: value} for name, value in EVERYTHING.items()}, "everything": EVERYTHING}


def clips(indices=None, longest=LONGEST):
    """Return noise of different lengths, padded with zeros."""
    waves = 0.1 * torch.randn(COUNT, LONGEST, generator=torch.Generator().manual_seed(0))
    waves *= torch.arange(LONGEST) < LENGTHS[:, None]
    waves = torch.nn.functional.pad(waves, (0, max(0, longest - LONGEST)))[:, :longest]
    return waves if indices is None else waves[indices]


def augmented(fields, indices=None, epoch=0, seed=0, longest=LONGEST):
    augmentation = SoundAugmentation.of(DataConfig(**fields), RATE)
    indices = np.arange(COUNT) if indices is None else np.array(indices)
    draws = uniforms(seed, epoch, indices, augmentation.draws)
    waves = augmentation.apply(clips(indices, longest), LENGTHS[indices], draws)
    blank = augmentation.blank(draws)
    return waves if blank is None else blank.waves(waves, LENGTHS[indices])


def valid(longest=LONGEST):
    return torch.arange(longest) < LENGTHS[:, None]


@pytest.mark.parametrize("name", CASES)
def test_a_clip_is_the_same_in_any_batch_with_any_padding(name):
    whole = augmented(CASES[name])
    assert whole.shape == clips().shape
    assert whole.dtype == torch.float32
    assert not whole[~valid()].any()
    order = np.random.default_rng(0).permutation(COUNT)
    tolerance = 1e-6 if "frequency" in name or name == "everything" else 0  # the sums of Fourier transforms
    for part in np.split(order, [1, 4, 7]):
        longest = int(LENGTHS[part].max())
        for padding in (0, 777):
            result = augmented(CASES[name], part, longest=longest + padding)
            assert torch.allclose(result[:, :longest], whole[part, :longest], rtol=0, atol=tolerance)
    assert not torch.equal(augmented(CASES[name], epoch=1), whole)
    assert not torch.equal(augmented(CASES[name], seed=1), whole)


def test_nothing_is_done_where_nothing_is_asked():
    assert not SoundAugmentation.of(DataConfig(), RATE).active
    assert not SoundAugmentation.of(DataConfig(shift=0.0), RATE).active
    assert all(SoundAugmentation.of(DataConfig(**fields), RATE).active for fields in CASES.values())
    assert SoundAugmentation.of(DataConfig(noise=0.0), RATE).active
    assert torch.equal(augmented({}), clips())
    draws = np.zeros((COUNT, SoundAugmentation.of(DataConfig(), RATE).draws))
    assert SoundAugmentation.of(DataConfig(), RATE).blank(draws) is None


def test_one_step_draws_the_same_whatever_else_is_on():
    widest = uniforms(0, 0, np.arange(COUNT), SoundAugmentation.of(DataConfig(**EVERYTHING), RATE).draws)
    for fields in CASES.values():
        augmentation = SoundAugmentation.of(DataConfig(**fields), RATE)
        draws = uniforms(0, 0, np.arange(COUNT), augmentation.draws)
        assert np.array_equal(draws, widest[:, :augmentation.draws])
    every = SoundAugmentation.of(DataConfig(**EVERYTHING), RATE).blank(widest)
    one = SoundAugmentation.of(DataConfig(frequency_masks=2), RATE)
    assert np.array_equal(one.blank(uniforms(0, 0, np.arange(COUNT), one.draws)).bands, every.bands[:, :2])


def test_a_shift_moves_whole_samples_and_is_silent_behind():
    waves = 1 + torch.arange(1000, dtype=torch.float32).repeat(2000, 1)
    waves[:, 800:] = 0
    augmentation = SoundAugmentation.of(DataConfig(shift=0.01), RATE)
    draws = uniforms(0, 0, np.arange(2000), augmentation.draws)
    moved = augmentation.apply(waves, torch.full((2000,), 800), draws)
    left = torch.where(moved[:, 0] > 0, moved[:, 0] - 1, -(moved[:, :200] == 0).sum(dim=1))
    assert left.min() == -80
    assert left.max() == 80
    assert left.unique().numel() == 161
    for row, offset in zip(moved[:100], left[:100].int().tolist(), strict=True):
        start, end = max(0, -offset), min(800, 800 - offset)
        assert torch.equal(row[start:end], waves[0, start + offset:end + offset])
        assert not row[:start].any()
        assert not row[end:].any()


def test_a_short_clip_is_moved_by_a_quarter_at_most():
    waves = torch.zeros(500, 100)
    waves[:, :40] = 1
    augmentation = SoundAugmentation.of(DataConfig(shift=5.0), RATE)
    moved = augmentation.apply(waves, torch.full((500,), 40), uniforms(0, 0, np.arange(500), augmentation.draws))
    assert moved.sum(dim=1).min() == 30
    assert (moved.sum(dim=1) == 30).float().mean() > 0.05


def test_a_delay_puts_silence_before_a_clip_and_loses_nothing():
    waves = 1 + torch.arange(1000, dtype=torch.float32).repeat(2000, 1)
    waves[:, 800:] = 0
    augmentation = SoundAugmentation.of(DataConfig(delay=0.1), RATE)
    draws = uniforms(0, 0, np.arange(2000), augmentation.draws)
    for window, latest in ((1000, 200), (10_000, 800), (700, 0)):
        moved, lengths = augmentation.delayed(waves, torch.full((2000,), 800), draws, window)
        offsets = lengths - 800
        assert (offsets.min(), offsets.max()) == (0, latest)
        assert offsets.unique().numel() > 0.8 * latest
        for row, offset in zip(moved[:100], offsets[:100].tolist(), strict=True):
            assert torch.equal(row[offset:offset + 800], waves[0, :800])
            assert not row[:offset].any()
            assert not row[offset + 800:].any()
    alone, _ = augmentation.delayed(waves[7:8, :800], torch.full((1,), 800), draws[7:8], 10_000)
    together, lengths = augmentation.delayed(waves, torch.full((2000,), 800), draws, 10_000)
    assert torch.equal(alone[0], together[7, :lengths[7]])


def test_gain_is_within_its_decibels():
    augmentation = SoundAugmentation.of(DataConfig(gain=6.0), RATE)
    loud = augmentation.apply(torch.ones(1000, 3), torch.full((1000,), 3),
                              uniforms(0, 0, np.arange(1000), augmentation.draws))
    decibels = 20 * loud[:, 0].log10()
    assert -6 < decibels.min() < -5.9
    assert 5.9 < decibels.max() < 6
    assert decibels.mean().abs() < 0.3
    assert torch.equal(loud[:, 0], loud[:, 2])


def test_noise_has_the_ratio_asked_for_and_three_colors():
    time = torch.arange(8000) / RATE
    waves = torch.zeros(300, 10_000)
    waves[:, :8000] = 0.3 * torch.sin(2 * torch.pi * 440 * time)
    augmentation = SoundAugmentation.of(DataConfig(noise=-3.0), RATE)
    draws = uniforms(0, 0, np.arange(300), augmentation.draws)
    noise = (augmentation.apply(waves, torch.full((300,), 8000), draws) - waves)[:, :8000].double()
    ratios = 10 * torch.log10(waves[0, :8000].double().square().mean() / noise.square().mean(dim=1))
    assert -3.01 < ratios.min() < -2
    assert 26 < ratios.max() < 27.01
    assert torch.allclose(ratios, -3 + 30 * torch.from_numpy(draws[:, 2]), atol=0.01)
    power = torch.fft.rfft(noise).abs().square()
    low = power[:, :400].sum(dim=1) / power.sum(dim=1)
    counts = [((low > a) & (low < b)).sum().item() for a, b in ((0.05, 0.2), (0.3, 0.8), (0.9, 1))]
    assert sum(counts) == 300
    assert min(counts) > 70
    assert np.abs(np.corrcoef(noise.numpy())[~np.eye(300, dtype=bool)]).mean() < 0.1


def test_silence_stays_silent_and_nothing_becomes_infinite():
    augmentation = SoundAugmentation.of(DataConfig(**EVERYTHING), RATE)
    draws = uniforms(0, 0, np.arange(3), augmentation.draws)
    lengths = torch.tensor([500, 1, 0])
    waves = torch.zeros(3, 500)
    assert torch.equal(augmentation.apply(waves, lengths, draws), waves)
    assert torch.equal(augmentation.blank(draws).waves(waves, lengths), waves)


def test_silent_stretches_lie_in_the_clip():
    draws = np.random.default_rng(0).random((3000, 1, 2))
    blank = Blank(draws, np.zeros((3000, 0, 2)), longest=0.2, widest=0.0)
    lengths = torch.full((3000,), 50)
    waves = torch.ones(3000, 70) * (torch.arange(70) < 50)
    silent = (blank.waves(waves, lengths) == 0)[:, :50]
    widths = silent.sum(dim=1)
    assert widths.unique().tolist() == list(range(11))
    assert (silent[:, 1:] != silent[:, :-1]).sum(dim=1).max() <= 2
    assert silent.any(dim=0).all()
    assert not blank.waves(waves, lengths)[:, 50:].any()


def test_bands_are_taken_out_of_the_spectrum_and_the_rest_stays():
    time = torch.arange(LONGEST) / RATE
    low, high = (torch.sin(2 * torch.pi * hertz * time) for hertz in (500, 3000))
    band = np.array([[[0.9999, 0.0]], [[0.9999, 0.9999]], [[0.0, 0.5]]])  # the lowest half, the highest, none
    blank = Blank(np.zeros((3, 0, 2)), band, longest=0.0, widest=0.5)
    lengths = torch.full((3,), LONGEST)
    result = blank.waves((low + high).repeat(3, 1), lengths)[:, 512:-512]
    for got, wanted in zip(result, (high, low, low + high), strict=True):
        assert (got - wanted[512:-512]).abs().max() < 5e-3
    whole = blank.waves((low + high).repeat(3, 1), lengths)[2]
    assert torch.allclose(whole, low + high, atol=1e-5)


def test_what_is_blanked_of_features_is_their_mean():
    values = torch.randn(200, 40, 16)
    frames = torch.randint(1, 41, (200,), generator=torch.Generator().manual_seed(0))
    draws = np.random.default_rng(0).random((2, 200, 2, 2))
    result = Blank(draws[0], draws[1], longest=0.3, widest=0.25).features(values, frames)
    changed = result != values
    inside = torch.arange(40) < frames[:, None]
    assert not changed[~inside].any()
    assert 0.2 < changed[inside].float().mean() < 0.6
    for row, count in enumerate(frames.tolist()):
        mean = values[row, :count].mean()
        assert (result[row][changed[row]] - mean).abs().max().item() < 1e-5 if changed[row].any() else True
    assert torch.equal(Blank(draws[0][:, :0], draws[1][:, :0], 0.3, 0.3).features(values, frames), values)
