"""Random features that tell classes apart, as a frozen checkpoint's might."""

import numpy as np


def example(count, size, classes=3, seed=0, signal=1.0):
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
    centres = signal * random.normal(size=(classes, size))
    features = (random.normal(size=(count, size)) + centres[labels]) * random.uniform(0.1, 5, size) + 3
    return features.astype(np.float32), labels
