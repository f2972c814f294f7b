from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessor, ViTImageProcessor
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from tests.data_files import png, write
from tlhub.config import DataConfig
from tlhub.data.decode import open_image
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import Examples
from tlhub.errors import CheckpointError, DataError
from tlhub.seeding import uniforms

CPU = torch.device("cpu")
SIZES = [(20, 30), (40, 24), (16, 16), (33, 21), (64, 48), (20, 30)]
EXAMPLES = Examples([png(number, size) for number, size in enumerate(SIZES)], np.arange(6) % 2,
                    [f"row:{number}" for number in range(6)])
TIMM = {"input_size": [3, 16, 16], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25]}
PROCESSORS = {
    "vit": lambda: ViTImageProcessor(size={"height": 16, "width": 16}),
    "crop": lambda: BitImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
    "rescale only": lambda: ViTImageProcessor(size={"height": 16, "width": 12}, do_normalize=False),
    "raw": lambda: ViTImageProcessor(size={"height": 16, "width": 12}, do_normalize=False, do_rescale=False),
    "timm": lambda: TimmWrapperImageProcessor(TIMM),
}


def smooth(images, return_tensors):
    """Stand in for a processor that resizes to values that are not whole numbers."""
    arrays = [np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1) / 255 for image in images]
    blurred = [torch.nn.functional.avg_pool2d(torch.from_numpy(array), 2) for array in arrays]
    return {"pixel_values": torch.stack(blurred)}


def inputs(tmp_path, processor, examples=EXAMPLES, **fields):
    data = DataConfig(cache_dir=str(tmp_path / "cache"), **fields)
    return ImageInputs(examples, processor, fingerprint="f", data=data, seed=0, workers=2)


def expected(processor, examples=EXAMPLES):
    return torch.cat([processor([open_image(source)], return_tensors="pt")["pixel_values"]
                      for source in examples.inputs]).to(torch.float32)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("limit", [4.0, 0.0])
def test_pixel_values_equal_the_processors(tmp_path, name, limit):
    processor = PROCESSORS[name]()
    made = inputs(tmp_path, processor, cache_limit_gib=limit)
    order = np.array([4, 0, 5, 1, 2, 3])
    values = made.batch(order, None, CPU)["pixel_values"]
    assert values.dtype == torch.float32
    assert (values - expected(processor)[order]).abs().max() <= 1e-6
    tables = list((tmp_path / "cache").rglob("*.npy"))
    assert [np.load(table).dtype for table in tables] == ([np.uint8] if limit else [])


def test_processor_without_whole_numbers_is_stored_as_it_is(tmp_path):
    made = inputs(tmp_path, smooth)
    assert torch.equal(made.batch(np.arange(6), None, CPU)["pixel_values"], expected(smooth))


def test_table_is_shared_by_runs_and_changes_with_the_processor(tmp_path, monkeypatch):
    first = inputs(tmp_path, PROCESSORS["vit"]()).batch(np.arange(6), None, CPU)["pixel_values"]
    monkeypatch.setattr("tlhub.data.image.open_image", lambda source: pytest.fail("decoded again"))
    assert torch.equal(first, inputs(tmp_path, PROCESSORS["vit"]()).batch(np.arange(6), None, CPU)["pixel_values"])
    monkeypatch.undo()
    inputs(tmp_path, ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1] * 3))
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2


def test_processor_with_varying_sizes(tmp_path):
    loose = BitImageProcessor(size={"shortest_edge": 16}, do_center_crop=False)
    with pytest.raises(CheckpointError, match="size"):
        inputs(tmp_path, loose)


def test_damaged_image_is_named(tmp_path):
    path = write(tmp_path / "bad.png", b"nothing")
    with pytest.raises(DataError, match=r"bad.png' is no image"):
        inputs(tmp_path, PROCESSORS["vit"](), Examples([str(path)], np.zeros(1, np.int64), ["bad.png"]))
    with pytest.raises(DataError, match="row:7: image is empty"):
        inputs(tmp_path, PROCESSORS["vit"](), Examples([b""], np.zeros(1, np.int64), ["row:7"]))


def test_augmentation_depends_on_seed_epoch_and_index_only(tmp_path):
    made = inputs(tmp_path, PROCESSORS["vit"](), crop="resized", flip=True)
    whole = made.batch(np.arange(6), 3, CPU)["pixel_values"]
    for part in ([5, 2], [0], [4, 3, 1]):
        assert torch.equal(made.batch(np.array(part), 3, CPU)["pixel_values"], whole[part])
    assert not torch.equal(made.batch(np.arange(6), 4, CPU)["pixel_values"], whole)
    plain = made.batch(np.arange(6), None, CPU)["pixel_values"]
    assert (plain - whole).abs().amax(dim=(1, 2, 3)).min() > 0
    assert whole.min() >= plain.min()
    assert whole.max() <= plain.max()


def test_flip_alone_mirrors_about_half(tmp_path):
    made = inputs(tmp_path, PROCESSORS["vit"](), flip=True)
    plain = made.batch(np.arange(6), None, CPU)["pixel_values"]
    flips = uniforms(0, 1, np.arange(6), 5)[:, 4] < 0.5  # the fifth draw is the flip
    assert 0 < flips.sum() < 6
    values = made.batch(np.arange(6), 1, CPU)["pixel_values"]
    for number, flipped in enumerate(flips):
        assert torch.equal(values[number], plain[number].flip(-1) if flipped else plain[number])
    off = inputs(tmp_path, PROCESSORS["vit"]())
    assert torch.equal(off.batch(np.arange(6), 1, CPU)["pixel_values"], plain)


@pytest.mark.parametrize("options", [
    {"randaugment": 2, "color": 0.3, "erasing": 0.5}, {"mixup": 1.0}, {"crop": "padded", "mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("limit", [4.0, 0.0])
def test_every_batch_gives_the_same_pictures(tmp_path, options, limit):
    made = inputs(tmp_path, PROCESSORS["crop"](), cache_limit_gib=limit, **options)
    assert made.augmented
    whole = made.batch(np.arange(6), 1, CPU)["pixel_values"]
    for part in ([5, 2], [0], [4, 3, 1]):
        assert torch.equal(made.batch(np.array(part), 1, CPU)["pixel_values"], whole[part])
    assert not torch.equal(made.batch(np.arange(6), 2, CPU)["pixel_values"], whole)


def test_pixels_that_are_kept_or_decoded_are_augmented_alike(tmp_path):
    options = {"crop": "resized", "randaugment": 1, "erasing": 0.5, "cutmix": 1.0}
    kept, decoded = (inputs(tmp_path, PROCESSORS["timm"](), cache_limit_gib=limit, **options)
                     .batch(np.arange(6), 1, CPU)["pixel_values"] for limit in (4.0, 0.0))
    assert (kept - decoded).abs().max() < 1e-3


def test_mixed_pictures_are_blended_from_augmented_ones(tmp_path):
    alone = inputs(tmp_path, PROCESSORS["vit"](), flip=True, crop="resized")
    assert alone.mixing is None
    values = alone.batch(np.arange(6), 1, CPU)["pixel_values"]
    mixed = inputs(tmp_path, PROCESSORS["vit"](), flip=True, crop="resized", mixup=1.0)
    mix = mixed.mixing.draw(1, np.arange(6))
    kept = torch.from_numpy(mix.kept).float()[:, None, None, None]
    expected = kept * values + (1 - kept) * values[mix.partners]
    assert torch.allclose(mixed.batch(np.arange(6), 1, CPU)["pixel_values"], expected, atol=1e-5)
    assert torch.equal(mixed.batch(np.arange(6), None, CPU)["pixel_values"],
                       alone.batch(np.arange(6), None, CPU)["pixel_values"])


def test_erased_pixels_are_zero_when_normalised(tmp_path):
    made = inputs(tmp_path, PROCESSORS["timm"](), erasing=1.0)
    values = made.batch(np.arange(6), 1, CPU)["pixel_values"]
    assert (values.abs().amax(dim=1) < 1e-6).sum(dim=(1, 2)).min() > 0


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("limit", [4.0, 0.0])
def test_pictures_to_look_at_are_not_normalised(tmp_path, name, limit):
    processor = PROCESSORS[name]()
    made = inputs(tmp_path, processor, cache_limit_gib=limit, color=0.2)
    shown = made.pictures(np.array([3, 1]), None)
    assert shown.dtype == np.uint8
    assert shown.shape == (2, 16, expected(processor).shape[3], 3)
    if name == "raw":
        assert np.array_equal(shown.transpose(0, 3, 1, 2), expected(processor)[[3, 1]].numpy())
    if name == "rescale only":
        assert np.abs(shown.transpose(0, 3, 1, 2) - 255 * expected(processor)[[3, 1]].numpy()).max() < 0.01
    assert not np.array_equal(made.pictures(np.array([3, 1]), 0), shown)


def test_what_is_augmented(tmp_path):
    for options, augmented in (({}, False), ({"crop": "none", "flip": False}, False), ({"flip": True}, True),
                               ({"crop": "padded"}, True), ({"mixup": 0.1}, True), ({"color": 0.1}, True)):
        assert inputs(tmp_path, PROCESSORS["vit"](), **options).augmented == augmented


def test_pictures_of_one_pixel(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (1, 1), 7).save(stream, "PNG")
    one = Examples([stream.getvalue()], np.zeros(1, np.int64), ["0"])
    batch = inputs(tmp_path, PROCESSORS["vit"](), one).batch(np.array([0]), None, CPU)
    assert batch["pixel_values"].shape == (1, 3, 16, 16)


def test_what_an_epoch_draws_again_has_another_view(tmp_path):
    made = inputs(tmp_path, PROCESSORS["vit"](), crop="resized", flip=True)
    first, again, later = (made.batch(np.array([4 + turn * 6]), 0, CPU)["pixel_values"] for turn in range(3))
    assert not torch.equal(first, again)
    assert not torch.equal(again, later)
    plain = [made.batch(np.array([index]), None, CPU)["pixel_values"] for index in (4, 10)]
    assert torch.equal(*plain)
