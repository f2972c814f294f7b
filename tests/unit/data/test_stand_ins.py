"""Examples that are lost after they were checked: what stands in for them, and when too many are lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor, Wav2Vec2FeatureExtractor

from tests.sounds import tone, write_sound
from tlhub.config import DataConfig
from tlhub.data.audio import AudioInputs
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import Examples
from tlhub.data.stand_ins import StandIns
from tlhub.errors import LostDataError

CPU = torch.device("cpu")


def examples(labels: object, *, spare: int | None, inputs: list[str] | None = None) -> Examples:
    found = np.asarray(labels)
    return Examples(inputs or [f"{row}.png" for row in range(len(found))], found,
                    [f"train/{row}.png" for row in range(len(found))], spare=spare)


def reader(gone: set[int]):
    def decode(index: int) -> int:
        if index in gone:
            raise LostDataError(f"image '{index}.png' cannot be read (gone); check the file", f"{index}.png",
                                "cannot be read (gone)")
        return index
    return decode


@pytest.mark.parametrize(("labels", "gone", "index", "wanted"), [
    ([0, 1, 0, 1, 0], {0}, 0, 2), ([0, 1, 0, 1, 0], {0, 2}, 0, 4), ([0, 1, 0, 1, 0], {4}, 4, 0),
    ([0, 1, 2, 1, 0], {2}, 2, 3), ([[0.0], [5.0], [0.4], [4.0], [0.3]], {0}, 0, 4),
    ([[True, False], [True, True], [False, True]], {2}, 2, 1),
])
def test_the_next_of_the_same_target_or_the_nearest_stands_in(labels: object, gone: set[int], index: int,
                                                              wanted: int) -> None:
    assert StandIns(examples(labels, spare=3), reader(gone)).decode(index) == wanted


def test_what_stands_in_does_not_depend_on_the_order_of_the_losses() -> None:
    found = []
    for order in ([0, 2, 5], [5, 2, 0]):
        stand_ins = StandIns(examples([0, 1] * 4, spare=3), reader({0, 2, 5}))
        for index in order:
            stand_ins.decode(index)
        found.append([stand_ins.decode(index) for index in range(8)])
    assert found[0] == found[1] == [4, 1, 4, 3, 4, 7, 6, 7]


def test_as_many_as_are_allowed_are_lost_and_not_one_more(caplog: pytest.LogCaptureFixture) -> None:
    stand_ins = StandIns(examples([0] * 6, spare=2), reader({1, 2, 3}))
    with caplog.at_level(logging.WARNING):
        assert [stand_ins.decode(index) for index in (0, 2, 2)] == [0, 4, 4]
    assert len(caplog.messages) == 2  # 2, and 3 that was to stand in for it
    assert stand_ins.lost == {2: "cannot be read (gone)", 3: "cannot be read (gone)"}
    with pytest.raises(LostDataError, match=r"^3 of 6 training examples.*'train/1.png': cannot be read.*put them back"):
        stand_ins.decode(1)


def test_every_example_may_be_lost_but_the_last() -> None:
    stand_ins = StandIns(examples([0] * 3, spare=3), reader({0, 1, 2}))
    with pytest.raises(LostDataError, match=r"^3 of 3"):
        stand_ins.decode(0)


def test_none_stands_in_where_examples_are_scored_or_predicted() -> None:
    with pytest.raises(LostDataError, match=r"'1.png' cannot be read \(gone\); it was checked when the run began: put"):
        StandIns(examples([0, 0], spare=0), reader({1})).decode(1)
    with pytest.raises(LostDataError, match=r"^image '1.png' cannot be read \(gone\); check the file$"):
        StandIns(examples([0, 0], spare=None), reader({1})).decode(1)


def written(folder: Path, ending: str, missing: int, write: Callable[[Path, int], None]) -> tuple[Examples, str]:
    """Write eight files but the missing one; return the examples that they are, and a folder for a cache."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{row}.{ending}" for row in range(8)]
    for row, file in enumerate(files):
        if row != missing:
            write(file, row)
    return examples(np.arange(8) % 2, spare=2, inputs=[str(file) for file in files]), str(folder / "cache")


def pictures(folder: Path, limit: float, missing: int = -1) -> ImageInputs:
    found, cache = written(folder, "png", missing, lambda file, row: Image.fromarray(
        np.full((8, 8, 3), 10 * row, np.uint8)).save(file))
    return ImageInputs(found, ViTImageProcessor(size={"height": 8, "width": 8}), fingerprint="f", seed=0, workers=2,
                       data=DataConfig(cache_dir=cache, cache_limit_gib=limit))


def sounds(folder: Path, limit: float, missing: int = -1) -> AudioInputs:
    found, cache = written(folder, "wav", missing, lambda file, row: write_sound(file, tone(300.0 + 100 * row, 0.2)))
    return AudioInputs(found, Wav2Vec2FeatureExtractor(return_attention_mask=True), fingerprint="f", seed=0, workers=2,
                       data=DataConfig(cache_dir=cache, cache_limit_gib=limit, max_seconds=0.2))


@pytest.mark.parametrize(("make", "ending"), [(pictures, "png"), (sounds, "wav")])
def test_a_file_that_vanishes_or_rots_is_replaced_in_batches(make, ending: str, tmp_path: Path) -> None:
    made = make(tmp_path / "data", 0.0)
    whole = next(iter(made.batch(np.array([3, 4, 6]), None, CPU).values()))
    (tmp_path / "data" / f"1.{ending}").unlink()
    (tmp_path / "data" / f"2.{ending}").write_bytes(b"rotten")
    found = next(iter(made.batch(np.array([1, 2, 6]), None, CPU).values()))
    assert torch.equal(found, whole)
    assert sorted(made.stand_ins.lost) == [1, 2]
    assert "cannot be read (No such file or directory)" in made.stand_ins.lost[1]
    (tmp_path / "data" / f"5.{ending}").unlink()
    with pytest.raises(LostDataError, match=r"^3 of 8 training examples"):
        made.batch(np.array([5]), None, CPU)


@pytest.mark.parametrize(("make", "ending"), [(pictures, "png"), (sounds, "wav")])
def test_a_file_that_vanishes_before_the_cache_is_filled_is_named(make, ending: str, tmp_path: Path) -> None:
    assert make(tmp_path / "whole", 4.0).stand_ins is None
    gone = tmp_path / "data" / f"5.{ending}"
    with pytest.raises(LostDataError) as caught:
        make(tmp_path / "data", 4.0, missing=5)
    assert (caught.value.path, caught.value.reason) == (str(gone), "cannot be read (No such file or directory)")
