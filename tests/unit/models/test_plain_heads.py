"""Linear heads on averaged frames, saved so that plain transformers gives the same; speech recognisers as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import tiny
from tests.unit.models.test_adapters import adapted, trained
from tests.unit.models.test_checkpoints import LABELS, load
from tlhub.config import ModelConfig
from tlhub.errors import CheckpointError, UsageError
from tlhub.models.adapter_targets import choose_targets, match_targets
from tlhub.models.assembly import with_head, with_linear_head
from tlhub.models.features import FeatureExtractor, available_features, check_kind
from tlhub.models.heads import PooledClassifier
from tlhub.models.outputs import one_sigmoid
from tlhub.models.plain_heads import plain_classifier
from tlhub.models.saving import load_saved, save_model

AUTO = tiny.auto_names("whisper")


def recogniser(folder: Path, kind: str) -> Path:
    """Save a tiny speech recogniser with its processor, as transformers does."""
    made: Any = {"wav2vec2": transformers.Wav2Vec2ForCTC, "hubert": transformers.HubertForCTC,
                 "whisper": transformers.WhisperForConditionalGeneration}[kind](tiny.configuration(kind))
    made.save_pretrained(folder)
    if kind == "whisper":
        words = transformers.WhisperTokenizer(tokenizer_object=tiny.byte_pairs().backend_tokenizer)
        transformers.WhisperProcessor(tiny.feature_extractor(kind), words).save_pretrained(folder)
        return folder
    letters = {letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFG"])}
    (folder / "letters.json").write_text(json.dumps(letters))
    words = transformers.Wav2Vec2CTCTokenizer(str(folder / "letters.json"))
    transformers.Wav2Vec2Processor(tiny.feature_extractor(kind), words).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "whisper"])
def test_a_recogniser_is_a_checkpoint_without_its_last_layer(kind: str, tmp_path: Path) -> None:
    checkpoint = load(recogniser(tmp_path, kind), kind)
    assert type(checkpoint.processor) is type(tiny.feature_extractor(kind))
    assert {name.partition(".")[0] for name in checkpoint.new_parameters} == {"projector", "classifier"}
    assert available_features(checkpoint.model, checkpoint.new_parameters) == ("mean", "layer_mean")
    with pytest.raises(CheckpointError, match=r"'native' is not offered .* features are: mean$"):
        check_kind(checkpoint.model, checkpoint.new_parameters, "native")
    assert checkpoint.model.config.apply_spec_augment is False
    names = {name for name, _ in checkpoint.model.named_parameters()}
    assert not any("masked_spec_embed" in name or "embed_positions" in name for name in names)


@pytest.mark.parametrize(("kind", "feature"), [("wav2vec2", "layer_mean"), ("hubert", "mean"), ("wavlm", "layer_mean"),
                                               ("whisper", "mean"), ("whisper", "layer_mean")])
def test_a_probe_is_a_plain_classifier(kind: str, feature: str, tmp_path: Path) -> None:
    checkpoint, batch = load(tiny.checkpoint(tmp_path / "base", kind), kind), tiny.inputs(kind)
    features = FeatureExtractor(checkpoint.model, (feature,))(batch)[feature]
    weight, bias = torch.randn(3, tiny.HIDDEN), torch.randn(3)
    model = with_linear_head(checkpoint, feature, weight, bias)
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"config.json", "model.safetensors", "preprocessor_config.json"}
    plain = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        for made in (model, plain, load_saved(tmp_path / "out", *AUTO)[0]):
            torch.testing.assert_close(made(**batch).logits, features @ weight.T + bias, atol=1e-5, rtol=1e-5)
    assert plain.config.id2label == dict(enumerate(LABELS))
    assert plain.config.use_weighted_layer_sum == (feature == "layer_mean")
    again = load(tmp_path / "out", kind)
    assert again.new_parameters == frozenset(), "the head is taken over by the next run"
    save_model(model, checkpoint.processor, tmp_path / "alone", origin=checkpoint.origin, label_names=LABELS,
               save_base=False)
    alone = load_saved(tmp_path / "alone", *AUTO)[0]
    with torch.no_grad():
        torch.testing.assert_close(alone(**batch).logits, model(**batch).logits)


def test_what_transformers_has_no_class_for_keeps_its_own_files(tmp_path: Path) -> None:
    cases = [("ast", ModelConfig(pool="mean")), ("whisper", ModelConfig(pool="mean", head="5")),
             ("hubert", ModelConfig(pool="native", head="5"))]
    for kind, options in cases:
        checkpoint, batch = load(tiny.checkpoint(tmp_path / kind / "base", kind), kind), tiny.inputs(kind)
        model: Any = with_head(checkpoint, options, seed=0, sample=tiny.inputs(kind, 1))
        assert plain_classifier(model) is None
        save_model(model, checkpoint.processor, tmp_path / kind / "out", origin=checkpoint.origin, label_names=LABELS)
        assert (tmp_path / kind / "out" / "head.json").exists()
        again = load_saved(tmp_path / kind / "out", *AUTO)[0]
        with torch.no_grad():
            torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
        assert load(tmp_path / kind / "out", kind).model(**batch).logits.shape == (4, 3)


def test_a_trained_model_whose_sigmoid_became_two_outputs(tmp_path: Path) -> None:
    checkpoint, batch = load(tiny.checkpoint(tmp_path / "base", "hubert"), "hubert", ("yes",)), tiny.inputs("hubert")
    model: Any = with_head(checkpoint, ModelConfig(pool="mean"), seed=0, sample=tiny.inputs("hubert", 1))
    one_sigmoid().fold(model)
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=("no", "yes"))
    plain = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)


def test_adapters_below_averaged_frames_are_merged_into_a_plain_classifier(tmp_path: Path) -> None:
    """The copy that they are merged into has the weight norm of the position embedding still."""
    checkpoint, batch = load(tiny.checkpoint(tmp_path / "base", "wav2vec2"), "wav2vec2"), tiny.inputs("wav2vec2")
    checkpoint.model = with_head(checkpoint, ModelConfig(pool="mean"), seed=0, sample=batch)  # type: ignore[assignment] (a head of tlhub's own)
    assert isinstance(checkpoint.model, PooledClassifier)
    model = trained(adapted(checkpoint), "wav2vec2")
    save_model(model, checkpoint.processor, tmp_path / "out", origin=checkpoint.origin, label_names=LABELS)
    plain = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-4)
    assert any("pos_conv_embed.conv.parametrizations" in name for name in plain.state_dict())


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper"])
def test_adapters_load_by_the_lines_beside_them(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, batch = load(tiny.checkpoint(tmp_path / "base", kind), kind), tiny.inputs(kind)
    model, out = trained(adapted(checkpoint), kind), tmp_path / "out"
    save_model(model, checkpoint.processor, out, origin=checkpoint.origin, label_names=LABELS)
    assert (out / "base" / "config.json").exists() == (kind == "wav2vec2")
    monkeypatch.chdir(out)
    scope: dict[str, Any] = {}
    exec((out / "README.md").read_text().split("```python")[1].split("```")[0], scope)
    with torch.no_grad():
        for made in (scope["model"].eval(), load_saved(out, *AUTO)[0], load(out, kind).model):
            torch.testing.assert_close(made(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-4)
    assert type(scope["processor"]) is type(checkpoint.processor)


def test_layers_that_are_never_called_get_no_adapters(tmp_path: Path) -> None:
    """WavLM gives its projections' weights to a function, so that an adapter on them would never be run."""
    model = load(tiny.checkpoint(tmp_path, "wavlm"), "wavlm").model
    endings = {name.rpartition(".")[2] for name in choose_targets(model, "lora", ())}
    assert endings == {"intermediate_dense", "output_dense", "gru_rel_pos_linear"}
    with pytest.raises(UsageError, match=r"'q_proj' is read by WavLM.* and never called"):
        match_targets(model, "lora", ["q_proj"])
