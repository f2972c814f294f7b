import numpy as np

from tlhub.seeding import derive, generator, uniforms


def test_seeds_depend_on_every_part_of_the_purpose():
    seeds = {
        derive(0),
        derive(1),
        derive(0, "order"),
        derive(0, "order", 1),
        derive(0, "order", 2),
        derive(0, 1, "order"),
        derive(0, "1"),
        derive(0, 1),
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_version():
    assert derive(0, "order", 3) == 1619245521749398921


def test_generators_repeat():
    assert np.array_equal(generator(3, "split").random(5), generator(3, "split").random(5))
    assert not np.array_equal(generator(3, "split").random(5), generator(4, "split").random(5))


def test_uniforms_depend_on_the_example_and_not_on_its_batch():
    whole = uniforms(0, 2, np.arange(100), 3)
    part = uniforms(0, 2, np.array([70, 5]), 3)
    assert np.array_equal(part, whole[[70, 5]])
    assert not np.array_equal(whole, uniforms(0, 3, np.arange(100), 3))
    assert not np.array_equal(whole, uniforms(1, 2, np.arange(100), 3))


def test_the_first_draws_do_not_depend_on_how_many_are_asked_for():
    assert np.array_equal(uniforms(0, 0, np.arange(10), 5)[:, :2], uniforms(0, 0, np.arange(10), 2))


def test_uniforms_are_uniform_and_uncorrelated():
    draws = uniforms(7, 0, np.arange(50_000), 2)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.015
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.015
