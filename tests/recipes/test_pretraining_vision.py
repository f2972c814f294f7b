"""What the embedded network of pictures is pretrained on, and how it goes from one stage to the next."""

from __future__ import annotations

import importlib
import io
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image

from tests import tiny
from tlhub.errors import UsageError

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def vision(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("pretraining.vision")


def scene(number, size=(96, 96)):
    """Return a picture unlike any of another number: coarse patches of colour, enlarged."""
    coarse = np.random.default_rng(number).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image, quality=90):
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def write(path, images):
    table = pa.table({"image": [{"bytes": encoded(image), "path": None} for image in images],
                      "label": list(range(len(images)))})
    pq.write_table(table, path)


def test_pictures_that_stand_in_a_target_set_are_removed_and_counted(vision, tmp_path, caplog):
    data, work = tmp_path / "data", tmp_path / "work"
    (data / "tiny_imagenet").mkdir(parents=True)
    small = [scene(number).resize((64, 64)) for number in range(20)]
    write(data / "tiny_imagenet" / "train-0.parquet", small)
    write(data / "tiny_imagenet" / "validation-0.parquet", small[:3])
    wide = scene(2, (150, 100))
    seen = {"flowers5": scene(0), "hymenoptera": scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            "cats_vs_dogs": wide, "chest_xray": scene(100)}
    for name, image in seen.items():
        (data / name / "test" / "kind").mkdir(parents=True)
        (data / name / "test" / "kind" / "a.jpg").write_bytes(encoded(image, 60))
    # A square cut out of a wide picture of the target set.
    small[3] = wide.crop((25, 0, 125, 100)).resize((64, 64))
    write(data / "tiny_imagenet" / "train-1.parquet", small[3:5])
    with caplog.at_level(logging.INFO, logger="tlhub"):
        assert vision.prepare(data, work) == {"source": str(work)}
    kept = {path.name: pq.read_table(path)["label"].to_pylist() for path in sorted(work.glob("*.parquet"))}
    assert kept == {"train-0.parquet": list(range(3, 20)), "train-1.parquet": [1], "validation-0.parquet": [0, 1, 2]}
    assert "flowers5 1, hymenoptera 1, cats_vs_dogs 2, chest_xray 0" in caplog.text


def test_the_first_stage_sees_less_and_the_second_has_its_weights(vision, tmp_path):
    first = vision.architecture(tmp_path / "work")
    assert transformers.AutoImageProcessor.from_pretrained(first).size == {"shortest_edge": vision.FIRST_SIDE}
    kind = transformers.ResNetForImageClassification
    model = kind(transformers.AutoConfig.from_pretrained(first))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text((first / "preprocessor_config.json").read_text())
    second = vision.between(tmp_path / "model", tmp_path / "start")
    assert transformers.AutoImageProcessor.from_pretrained(second).size == {"shortest_edge": 64}
    assert json.loads((first / "config.json").read_text())["hidden_sizes"] == [48, 96, 160, 272]
    weights = kind.from_pretrained(second).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_nothing_but_a_checkpoint_is_written_over_and_a_stage_of_another_recipe_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(RECIPES))
    pretrain = importlib.import_module("pretrain")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="holds something that is no checkpoint"):
        pretrain.pretrain(RECIPES / "pretrain" / "vision.yaml", tmp_path, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    model = tiny.checkpoint(tmp_path / "model", "bert")
    stage = {"task": "text-classification", "model": str(model), "strategy": "scratch",
             "train": {"max_steps": 2, "batch_size": 4, "evaluate_every": 2}, "seed": 0}
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"word {n},{n % 2}\n" for n in range(40)))
    prepared = {"source": str(tmp_path / "data.csv"), "cache_dir": str(tmp_path / "cache")}
    first = pretrain.carry_out(stage, prepared, tmp_path / "run", None)
    again = pretrain.carry_out(stage, prepared, tmp_path / "run", None)
    assert again.metrics["time"] == first.metrics["time"]
    with pytest.raises(UsageError, match=r"finished stage of another recipe \(.*max_steps"):
        pretrain.carry_out({**stage, "train": {**stage["train"], "max_steps": 3}}, prepared, tmp_path / "run", None)
