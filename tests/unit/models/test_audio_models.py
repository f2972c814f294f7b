"""Models of sound: order, masks, what is random in training, and every kind that transformers classifies sound with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests import tiny
from tlhub.models.audio_models import in_order_of_computation, keep_constants, without_random_parts
from tlhub.models.blocks import block_index, blocks
from tlhub.models.features import FeatureExtractor
from tlhub.models.freezing import TrainabilityAudit, freeze_all_but, frozen_modules
from tlhub.models.heads import HeadForm, backbone_width, pooled_classifier
from tlhub.models.loading import override_dropout
from tlhub.models.plain_heads import plain_classifier
from tlhub.models.pooling import heeds_padding, pooled_kinds

WAVE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 4), "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 12, "vocab_size": 12}
SPECTRAL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "feature_projection_input_dim": 8, "classifier_proj_size": 12, "conv_depthwise_kernel_size": 3,
            "position_embeddings_type": "relative_key", "left_max_position_embeddings": 8,
            "right_max_position_embeddings": 4}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
RELATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2Config", WAVE), "hubert": ("HubertConfig", WAVE | STABLE),
    "wavlm": ("WavLMConfig", WAVE | STABLE | {"num_buckets": 8, "max_bucket_distance": 20}),
    "data2vec": ("Data2VecAudioConfig", WAVE | {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2}),
    "unispeech": ("UniSpeechConfig", WAVE | STABLE), "unispeech_sat": ("UniSpeechSatConfig", WAVE | STABLE),
    "sew": ("SEWConfig", WAVE | {"squeeze_factor": 2}),
    "conformer": ("Wav2Vec2ConformerConfig", WAVE | {"conv_depthwise_kernel_size": 3}),
    "bert": ("Wav2Vec2BertConfig", SPECTRAL)}
"""The types beside Whisper and AST, as checkpoints of them are: their layers' norms before or behind."""


def relative(kind: str, **changes: Any) -> Any:
    """Return a tiny classifier of one of `RELATIVES`, as it is trained."""
    name, fields = RELATIVES[kind]
    settings = getattr(transformers, name)(**{**fields, "num_labels": 3, **changes})
    without_random_parts(settings)
    override_dropout(settings, 0.0)
    torch.manual_seed(0)
    model = transformers.AutoModelForAudioClassification.from_config(settings).eval()
    in_order_of_computation(model)
    keep_constants(model)
    return model


def relative_inputs(kind: str) -> dict[str, torch.Tensor]:
    """Return a batch of three, of different lengths and masked."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([20, 14, 17]) if kind == "bert" else torch.tensor([2800, 1600, 2100])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if kind == "bert":
        return {"input_features": torch.randn(3, 20, 8, generator=generator) * mask[..., None], "attention_mask": mask}
    return {"input_values": torch.randn(3, 2800, generator=generator) * mask, "attention_mask": mask}


def calls(model: Any, batch: dict[str, torch.Tensor]) -> list[int]:
    """Return the blocks of the layers in the order in which they are called."""
    index, found = block_index(model), []
    hooks = []
    for path, module in model.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if own:
            place = index[own[0]]
            hooks.append(module.register_forward_pre_hook(lambda *_, place=place: found.append(place)))
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", RELATIVES)
def test_blocks_are_in_the_order_of_computation(kind: str) -> None:
    model = relative(kind)
    found = calls(model, relative_inputs(kind))
    assert found == sorted(found)
    names = [block.name for block in blocks(model)]
    assert [names[0], names[-1], len(names)] == ["stem", "head", 4]
    assert names[2].endswith("encoder.layers.1")
    assert {"projector.weight", "classifier.weight"} <= set(blocks(model)[-1].prefixes)
    freeze_all_but(model, lambda name: name.startswith(tuple(blocks(model)[2].prefixes + blocks(model)[3].prefixes)))
    assert model.get_submodule(names[1]) in frozen_modules(model)
    assert model.get_submodule(names[2]) not in frozen_modules(model)


@pytest.mark.parametrize("kind", RELATIVES)
def test_all_of_it_trains_on_clips_shorter_than_a_mask_and_nothing_is_random(kind: str) -> None:
    model, batch = relative(kind, layerdrop=0.9), relative_inputs(kind)
    state = np.random.get_state()[1].copy()
    audit = TrainabilityAudit(model.train())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        first, second = (model(**batch).logits for _ in range(2))
        assert torch.equal(first, second)
        torch.nn.functional.cross_entropy(first, torch.tensor([0, 1, 2])).backward()
        audit.observe(model)
        optimizer.step()
    idle = audit.check(model)
    assert all("pos_conv_embed" in name for name in idle) if kind == "conformer" else idle == ()
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize("kind", ["hubert", "wavlm", "unispeech", "unispeech_sat", "bert"])
def test_padding_is_left_out_of_the_mean(kind: str) -> None:
    model, batch = relative(kind), relative_inputs(kind)
    kinds = ("native", "mean", "layer_mean")
    together = FeatureExtractor(model, kinds)(batch)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        alone = FeatureExtractor(model, kinds)({name: value[row:row + 1, :length] for name, value in batch.items()})
        for name in kinds:
            torch.testing.assert_close(together[name][row], alone[name][0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", RELATIVES)
def test_heads_on_averaged_frames_are_classifiers_of_transformers(kind: str) -> None:
    """In SEW the layers have fewer frames than what it returns, and transformers' own weighted sum fails on masks."""
    batch, kinds = relative_inputs(kind), pooled_kinds(relative(kind))
    assert kinds == (("mean",) if kind == "sew" else ("mean", "layer_mean"))
    for feature in kinds:
        model = pooled_classifier(relative(kind), feature, HeadForm(), seed=0)
        plain = plain_classifier(model)
        assert plain is not None
        with torch.no_grad():
            torch.testing.assert_close(plain(**batch).logits, model(**batch).logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", RELATIVES)
def test_models_that_heed_padding_in_spite_of_the_mask_are_found(kind: str) -> None:
    batch = relative_inputs(kind)
    alone, padded = ({name: values[1:2, :longest] for name, values in batch.items()}
                     for longest in (int(batch["attention_mask"][1].sum()), None))
    # Norms over time, convolutions beside each other, frames taken together: as transformers has them.
    heeding = {"wav2vec2", "data2vec", "sew", "conformer"}
    assert heeds_padding(relative(kind), alone, padded) == (kind in heeding)


def test_the_width_is_that_of_the_backbone_not_of_the_projector() -> None:
    widths = {kind: backbone_width(tiny.model(kind, ("a", "b"))) for kind in tiny.AUDIO_KINDS}
    assert widths == dict.fromkeys(tiny.AUDIO_KINDS, tiny.HIDDEN)
