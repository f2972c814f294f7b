import numpy as np
import pytest

from tests.features import example
from tlhub.models.axes import principal_axes


@pytest.mark.parametrize(("count", "size"), [(60, 10), (25, 60)])
def test_coordinates_are_a_rotation_of_standardised_features(count, size):
    features, _ = example(count, size)
    axes, coordinates = principal_axes(features)
    standard = (features - features.mean(0, dtype=np.float64)) / axes.scale.numpy()
    assert axes.scale.numpy() == pytest.approx(features.std(0, dtype=np.float64), rel=1e-4)
    assert coordinates.shape == (count, min(size, count - 1))
    assert (coordinates @ coordinates.T).numpy() == pytest.approx(standard @ standard.T, abs=1e-8)
    assert (coordinates.T @ coordinates).numpy() == pytest.approx(np.diag(axes.energies.numpy()), abs=1e-8)
