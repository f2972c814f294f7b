"""Checkpoints of timm, compared with timm itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TimmWrapperImageProcessor

from tests import tiny
from tests.unit.models.test_checkpoints import load
from tests.unit.models.test_origin import COMMIT, hub_cache
from tlhub.config import DataConfig
from tlhub.data.image import ImageInputs
from tlhub.data.prepare import Examples
from tlhub.errors import CheckpointError
from tlhub.models.features import FeatureExtractor, available_features
from tlhub.models.heads import HeadForm, output_layer, pooled_classifier
from tlhub.models.saving import load_saved, save_model

IDLE = {"timm_resnet": {"fc"}, "timm_vit": {"head"}, "timm_convnext": {"head"}, "timm_efficientnet": {"classifier"},
        "timm_vgg": {"head", "pre_logits"}}
SHUFFLED = tuple(reversed(tiny.TIMM_LABELS))


def original(folder: Path, kind: str) -> Any:
    """Return the checkpoint as timm itself reads it."""
    name, arguments = tiny.TIMM_MODELS[kind]
    model = timm.create_model(name, num_classes=len(tiny.TIMM_LABELS), **arguments)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def describe(folder: Path, architecture: str, **model_args: Any) -> Path:
    """Lay out a checkpoint that is a configuration only."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"architecture": architecture, "num_classes": 5, "model_args": model_args,
                "pretrained_cfg": {"input_size": [3, 75, 75], "label_names": []}}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", tiny.TIMM_KINDS)
def test_outputs_and_features_are_those_of_timm(kind: str, tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path, kind)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    checkpoint, theirs, pixels = load(folder, kind, SHUFFLED), original(folder, kind), tiny.inputs(kind)["pixel_values"]
    assert checkpoint.new_parameters == frozenset()
    kinds = available_features(checkpoint.model, checkpoint.new_parameters)
    assert kinds == (("native", "first", "mean") if kind == "timm_vit" else ("native", "mean"))
    with torch.no_grad():
        assert torch.allclose(checkpoint.model(pixels).logits, theirs(pixels).flip(1), atol=1e-5)
        features = FeatureExtractor(checkpoint.model, (*kinds, "flatten"))({"pixel_values": pixels})
        states, before_last = theirs.forward_features(pixels), theirs.forward_head(
            theirs.forward_features(pixels), pre_logits=True)
    expected = {"native": before_last, "mean": states[:, 1:].mean(1) if kind == "timm_vit" else states.mean((2, 3)),
                "flatten": (states[:, 1:] if kind == "timm_vit" else states).flatten(1), "first": states[:, 0]}
    for name, values in features.items():
        assert torch.allclose(values, expected[name], atol=1e-5), name
    assert "forward_features" not in vars(checkpoint.model.timm_model)


def test_maps_with_channels_last_are_turned(tmp_path: Path) -> None:
    model = timm.create_model("test_mambaout", num_classes=3)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    checkpoint, pixels = load(tmp_path, "timm_vit"), tiny.inputs("timm_vit")["pixel_values"]
    with torch.no_grad():
        found = FeatureExtractor(checkpoint.model, ("native", "mean", "flatten"))({"pixel_values": pixels})
        states = model.eval().forward_features(pixels)
    assert torch.allclose(found["mean"], states.mean((1, 2)), atol=1e-5)
    assert torch.allclose(found["flatten"], states.permute(0, 3, 1, 2).flatten(1), atol=1e-5)
    assert found["native"].shape == (4, output_layer(checkpoint.model)[1].in_features)


def test_pictures_are_prepared_as_timm_does(tmp_path: Path) -> None:
    checkpoint = load(tiny.checkpoint(tmp_path / "base", "timm_resnet"), "timm_resnet")
    assert isinstance(checkpoint.processor, TimmWrapperImageProcessor)
    random = np.random.default_rng(0)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, size in zip(files, [(50, 70), (33, 32), (90, 41)], strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    examples = Examples(files, np.zeros(3, np.int64), [str(file) for file in files])
    inputs = ImageInputs(examples, checkpoint.processor, fingerprint="f", seed=0, workers=1,
                         data=DataConfig(cache_dir=str(tmp_path / "cache")))
    theirs = timm.data.create_transform(
        input_size=(3, tiny.SIZE, tiny.SIZE), interpolation="bilinear", crop_pct=0.8, mean=tiny.MEAN,
        std=tiny.DEVIATION)
    expected = torch.stack([theirs(Image.open(file)) for file in files])
    assert torch.allclose(inputs.batch(np.arange(3), None, torch.device("cpu"))["pixel_values"], expected, atol=1e-5)


def test_by_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.checkpoint(hub_cache(tmp_path, "timm/tiny.in1k", monkeypatch), "timm_resnet")
    checkpoint, pixels = load(Path("timm/tiny.in1k"), "timm_resnet", tiny.TIMM_LABELS), tiny.inputs("timm_resnet")
    assert (checkpoint.origin.kind, checkpoint.origin.revision) == ("hub", COMMIT)
    expected = original(folder, "timm_resnet")(pixels["pixel_values"])
    assert torch.allclose(checkpoint.model(**pixels).logits, expected, atol=1e-5)
    assert checkpoint.processor.data_config["crop_pct"] == tiny.timm_preprocessing()["crop_pct"]


@pytest.mark.parametrize("kind", tiny.TIMM_KINDS)
@pytest.mark.parametrize("feature", ["mean", "flatten"])
def test_what_features_do_not_read_is_neither_trained_nor_saved(kind: str, feature: str, tmp_path: Path) -> None:
    checkpoint, batch = load(tiny.checkpoint(tmp_path / "base", kind), kind), tiny.inputs(kind)
    everything = {name.split(".")[1] for name, _ in checkpoint.model.named_parameters()}
    checkpoint.model.requires_grad_(False)
    model = pooled_classifier(checkpoint.model, feature, HeadForm((4,), "gelu"), seed=0, sample=tiny.inputs(kind, 1))
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    left = {name.split(".")[2] for name, _ in model.named_parameters() if name.startswith("backbone.")}
    assert everything - left == IDLE[kind]
    assert {type(getattr(model.backbone.timm_model, name)) for name in IDLE[kind]} == {torch.nn.Identity}
    model.requires_grad_(True)
    model(**batch).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=("x", "y", "z"))
    assert {name.split(".")[0] for name in load_file(tmp_path / "out" / "model.safetensors")}.isdisjoint(IDLE[kind])
    again, processor = load_saved(tmp_path / "out", *tiny.auto_names(kind))
    assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-6)
    assert processor.data_config == checkpoint.processor.data_config


def test_scratch_starts_as_timm_does(tmp_path: Path) -> None:
    """A ResNet's convolutions have a deviation by their width; transformers draws all of them with 0.02."""
    folder = tiny.checkpoint(tmp_path, "timm_resnet")
    model = load(folder, "timm_resnet", pretrained=False).model
    again = load(folder, "timm_resnet", pretrained=False).model
    spread = model.timm_model.layer2[0].conv2.weight.std().item()
    assert spread == pytest.approx((2 / (9 * 8)) ** 0.5, rel=0.2)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_inception_comes_without_its_second_classifier(tmp_path: Path) -> None:
    folder = describe(tmp_path, "inception_v3", aux_logits=True)
    model = load(folder, "timm_resnet", pretrained=False).model
    assert not [name for name, _ in model.named_modules() if "Aux" in name]
    assert model.train()(torch.zeros(2, 3, 75, 75)).logits.shape == (2, 3)


def test_a_model_with_two_classifiers(tmp_path: Path) -> None:
    folder = describe(tmp_path, "deit_tiny_distilled_patch16_224", depth=1, embed_dim=12)
    with pytest.raises(CheckpointError, match="does not end in one linear layer"):
        load(folder, "timm_resnet", pretrained=False)


@pytest.mark.parametrize(("name", "close"), [("resnet81", "resnet51"), ("eficientnet_b0", "efficientnet_b0")])
def test_a_name_that_timm_does_not_know(name: str, close: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=f"no model '{name}', its nearest are .*{close}") as caught:
        load(describe(tmp_path / "base", name), "timm_resnet", pretrained=False)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=f"no model '{name}.in1k', its nearest are .*{close}"):
        load(Path(f"timm/{name}.in1k"), "timm_resnet")


def test_without_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = describe(tmp_path, "resnet18")
    monkeypatch.setattr("transformers.utils.import_utils.is_timm_available", lambda: False)
    monkeypatch.setattr("transformers.models.timm_wrapper.configuration_timm_wrapper.requires_backends", refuse)
    with pytest.raises(CheckpointError, match=r"library that is not installed.*pip install 'tlhub\[timm\]'"):
        load(folder, "timm_resnet", pretrained=False)


def refuse(*_: Any) -> None:
    raise ImportError("TimmWrapperConfig requires the timm library")
