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
from tlhub.data.augment import crop_boxes, resample
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
    made = inputs(tmp_path, PROCESSORS["vit"](), crop=True, flip=True)
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
    flips = uniforms(0, 1, np.arange(6), 5)[:, 4] < 0.5
    assert 0 < flips.sum() < 6
    values = made.batch(np.arange(6), 1, CPU)["pixel_values"]
    for number, flipped in enumerate(flips):
        assert torch.equal(values[number], plain[number].flip(-1) if flipped else plain[number])
    off = inputs(tmp_path, PROCESSORS["vit"]())
    assert torch.equal(off.batch(np.arange(6), 1, CPU)["pixel_values"], plain)


def test_boxes_are_inside_and_of_the_right_size():
    boxes = crop_boxes(np.random.default_rng(0).random((2000, 4)), 20, 30)
    left, top, wide, tall = boxes.T
    assert min(left.min(), top.min()) >= 0
    assert max((left + wide).max(), (top + tall).max()) <= 1 + 1e-12
    assert 0.4 < (wide * tall).min() < 0.52
    assert (wide * tall).max() <= 1


def test_resampling_the_whole_image_changes_nothing_and_a_quarter_enlarges():
    images = torch.rand(2, 3, 8, 8)
    whole = np.tile([0.0, 0.0, 1.0, 1.0], (2, 1))
    result = resample(images, whole, np.array([False, True]))
    assert torch.allclose(result[0], images[0], atol=1e-6)
    assert torch.allclose(result[1], images[1].flip(-1), atol=1e-6)
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    right = resample(ramp, np.array([[0.5, 0.0, 0.5, 1.0]]), np.array([False]))
    assert torch.allclose(right[0, 0, 0], torch.linspace(3.75, 7.25, 8).clamp(max=7), atol=1e-5)


def test_pictures_of_one_pixel(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (1, 1), 7).save(stream, "PNG")
    one = Examples([stream.getvalue()], np.zeros(1, np.int64), ["0"])
    batch = inputs(tmp_path, PROCESSORS["vit"](), one).batch(np.array([0]), None, CPU)
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
