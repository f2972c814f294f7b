"""Real pictures of every odd kind, read as they are; skipped where the data sets are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

import tlhub
from tests import tiny
from tlhub.config import DataConfig
from tlhub.data.prepare import prepare

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not (DATA / "hymenoptera").is_dir(), reason="no data sets beside the repository")


@pytest.mark.parametrize(("name", "classes"), [("hymenoptera", 2), ("flowers5", 5), ("chest_xray", 3)])
def test_real_folders_are_understood(name: str, classes: int) -> None:
    data = prepare(DataConfig(source=str(DATA / name)), "image", seed=0)
    assert len(data.label_names) == classes
    assert not data.quarantined
    assert min(len(split) for split in data.splits.values()) > 20
    assert set(data.splits) == {"train", "validation", "test"}


def test_a_tiny_network_learns_grey_pictures(tmp_path: Path) -> None:
    run = tlhub.finetune("image-classification", model=str(tiny.checkpoint(tmp_path / "model", "resnet")),
                         data={"source": str(DATA / "chest_xray"), "max_train_examples": 300}, strategy="full",
                         max_steps=60, batch_size=16, learning_rate=3e-3, out=str(tmp_path / "run"))
    assert run.metrics["test"]["accuracy"] > run.metrics["baselines"]["majority"]["accuracy"]
