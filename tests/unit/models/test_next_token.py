"""The loss of language models in pieces, and what cannot be trained to go on with texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import transformers

from tests import tiny
from tlhub.config import NEXT_TOKEN, ModelConfig, SamplingConfig, StrategyConfig
from tlhub.errors import CheckpointError, TlhubError, UsageError
from tlhub.models import next_token as module
from tlhub.models.adapters import add_adapter
from tlhub.models.blocks import blocks
from tlhub.models.checkpoints import Checkpoint, load_checkpoint
from tlhub.models.freezing import freeze_all_but
from tlhub.models.generation import generate
from tlhub.models.heads import output_layer
from tlhub.models.memory import recompute_blocks
from tlhub.models.next_token import NextToken, check_language_model, keeps_documents_apart, next_token
from tlhub.models.saving import load_saved, save_model

TINY: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                        "vocab_size": 300, "max_position_embeddings": 70, "bos_token_id": 0, "eos_token_id": 0}


def decoder(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(tiny.configuration(kind, **changes)).eval()


def made(settings: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(settings).eval()


def rows(lengths: tuple[int, ...] = (9, 12), seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch with a text in each row, of which the first three places have no target."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, 300, (len(lengths), width + 1), generator=generator)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    targets = torch.where(mask & (torch.arange(width)[None] > 2), ids[:, 1:], -100)
    owners = torch.arange(len(lengths))[:, None].expand(-1, width).contiguous()
    return {"input_ids": ids[:, :-1].contiguous(), "targets": targets, "owners": owners,
            "slots": torch.zeros(len(lengths)), "places": with_target(targets), "attention_mask": mask.long()}


def with_target(targets: torch.Tensor) -> torch.Tensor:
    return (targets >= 0).flatten().nonzero()[:, 0]


def packed(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the texts of a batch in a single row."""
    keep = batch["attention_mask"].bool()
    positions = torch.arange(keep.shape[1])[None].expand_as(keep)
    return {"slots": batch["slots"], "places": with_target(batch["targets"][keep]),
            "position_ids": positions[keep][None],
            **{name: batch[name][keep][None] for name in ("input_ids", "targets", "owners")}}


def expected(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    losses = F.cross_entropy(logits.transpose(1, 2), batch["targets"], reduction="none")
    return torch.stack([losses.sum(1), (logits.argmax(-1) == batch["targets"]).sum(1).float()], dim=1)


@pytest.mark.parametrize("kind", tiny.GENERATION_KINDS)
def test_loss_and_gradient_are_those_of_the_whole_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    model, batch, said = decoder(kind), rows(), list[str]()
    scorer = next_token(model, batch, said.append)
    assert (scorer.whole, said) == (False, [])
    sums = scorer(**batch).logits
    whole = expected(model, batch)
    torch.testing.assert_close(sums, whole, rtol=1e-6, atol=1e-5)
    found = torch.autograd.grad(sums[:, 0].sum(), list(model.parameters()))
    wanted = torch.autograd.grad(whole[:, 0].sum(), list(model.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scorer(**packed(batch)).logits, whole, rtol=1e-5, atol=1e-4)


def test_logits_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    model, seen = decoder("llama"), list[int]()
    output_layer(model)[1].register_forward_hook(lambda layer, args, output: seen.append(len(output)))
    batch = rows()
    NextToken(model, whole=False)(**batch).logits[:, 0].sum().backward()
    assert max(seen) == 5
    assert sum(seen) == 2 * int((batch["targets"] >= 0).sum()) == 30


def test_an_example_without_targets_costs_nothing() -> None:
    batch = rows()
    batch["targets"][0] = -100
    sums = NextToken(decoder("gpt2"), whole=False)(**batch).logits
    assert sums[0].tolist() == [0, 0]
    assert float(sums[1, 0].detach()) > 1


@pytest.mark.parametrize(("settings", "reason"), [
    (transformers.Gemma2Config(**TINY, num_key_value_heads=1, head_dim=8), "scaled, capped or cut"),
    (transformers.GraniteConfig(**TINY, num_key_value_heads=1, logits_scaling=4.0), "scaled, capped or cut"),
    (transformers.CohereConfig(**TINY, num_key_value_heads=1), "scaled, capped or cut"),
    (transformers.BertConfig(**TINY, is_decoder=True), "what its last layer reads"),
], ids=lambda value: getattr(value, "model_type", ""))
def test_another_loss_than_the_models_own_is_given_up(settings: Any, reason: str) -> None:
    model, batch, said = made(settings), rows(), list[str]()
    scorer = next_token(model, batch, said.append)
    assert scorer.whole
    assert len(said) == 1
    assert reason in said[0]
    torch.testing.assert_close(scorer(**batch).logits, expected(model, batch), rtol=1e-6, atol=1e-5)
    assert not model.training


@pytest.mark.parametrize(("settings", "apart"), [
    (tiny.configuration("gpt2"), True), (tiny.configuration("qwen"), True),
    (transformers.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=300), False),
    (transformers.OPTConfig(**TINY, ffn_dim=32, word_embed_proj_dim=16), False),
], ids=lambda value: getattr(value, "model_type", ""))
def test_which_models_keep_packed_documents_apart(settings: Any, apart: bool) -> None:
    assert keeps_documents_apart(made(settings)) == apart


def test_what_is_no_decoder_is_refused() -> None:
    for settings in (transformers.BertConfig(**TINY), transformers.RobertaConfig(**TINY)):
        with pytest.raises(CheckpointError, match=r"is an encoder here \(\w+\).*differ by .*take a decoder"):
            check_language_model(made(settings), tiny.byte_pairs(), "some/encoder")
    with pytest.raises(CheckpointError, match="'small' has 300 tokens, and the model reads 290"):
        check_language_model(decoder("gpt2", vocab_size=290), tiny.byte_pairs(), "small")
    with pytest.raises(TlhubError, match="no language model"):
        next_token(tiny.model("bert"), rows(), print)


def load(folder: Path, *, pretrained: bool = True) -> Checkpoint:
    return load_checkpoint(ModelConfig(name=str(folder)), auto_model="AutoModelForCausalLM",
                           auto_processor="AutoTokenizer", label_names=("token",), problem_type=NEXT_TOKEN,
                           pretrained=pretrained, seed=0)


@pytest.mark.parametrize("kind", tiny.GENERATION_KINDS)
def test_loading_keeps_the_last_layer(kind: str, tmp_path: Path) -> None:
    folder = tiny.generator(tmp_path / kind, kind)
    checkpoint = load(folder)
    own = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    batch = rows()
    torch.testing.assert_close(checkpoint.model(batch["input_ids"]).logits, own(batch["input_ids"]).logits)
    assert not checkpoint.new_parameters
    assert checkpoint.model.config.pad_token_id == own.config.pad_token_id
    tied = kind != "llama"
    name, layer = output_layer(checkpoint.model)
    assert (name, layer.weight is checkpoint.model.get_input_embeddings().weight) == ("lm_head", tied)
    assert ("head" in [block.name for block in blocks(checkpoint.model)]) == (not tied)
    fresh = load(folder, pretrained=False)
    assert not torch.equal(output_layer(fresh.model)[1].weight, layer.weight)


def test_a_checkpoint_without_its_last_layer_is_refused(tmp_path: Path) -> None:
    folder = tiny.checkpoint(tmp_path / "base", "llama")
    with pytest.raises(CheckpointError, match=r"no weights for the last layer of Llama\w+ \('lm_head.weight'\)"):
        load(folder)
    assert load(folder, pretrained=False).model is not None
    with pytest.raises(CheckpointError, match="no CausalLM class"):
        load(tiny.checkpoint(tmp_path / "vit", "vit"))


@pytest.mark.parametrize("kind", tiny.GENERATION_KINDS)
def test_adapters_are_on_every_linear_layer_of_the_blocks(kind: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.generator(tmp_path / kind, kind))
    linear = {name for name, layer in checkpoint.model.named_modules()
              if type(layer).__name__ in ("Linear", "Conv1D") and name != "lm_head"}
    adapted = add_adapter(checkpoint.model, StrategyConfig(name="lora", rank=2), seed=0)
    assert set(adapted.peft_config["default"].target_modules) == linear
    assert len(linear) == (8 if kind == "gpt2" else 14)
    assert all("lora_" in name for name, value in adapted.named_parameters() if value.requires_grad)
    batch = rows()
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.5)
    assert not next_token(adapted, batch, print).whole
    torch.testing.assert_close(NextToken(adapted, whole=False)(**batch).logits, expected(adapted, batch), rtol=1e-5,
                               atol=1e-4)
    save_model(adapted, checkpoint.processor, tmp_path / "saved", origin=checkpoint.origin, label_names=())
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    loaded, _ = load_saved(tmp_path / "saved", "AutoModelForCausalLM", "AutoTokenizer")
    logits = adapted(input_ids=batch["input_ids"]).logits
    for other in (plain, loaded):
        torch.testing.assert_close(other(input_ids=batch["input_ids"]).logits, logits, rtol=1e-5, atol=1e-5)
    assert plain.config.id2label == transformers.GPT2Config().id2label
    assert "trained head" not in (tmp_path / "saved" / "README.md").read_text()
    assert (tmp_path / "saved" / "generation_config.json").exists()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "vit"])
def test_blocks_computed_again_give_the_same_gradients(kind: str) -> None:
    model = decoder(kind) if kind in tiny.GENERATION_KINDS else tiny.model(kind, ("a", "b"))
    model.train()
    scorer = NextToken(model, whole=False) if kind in tiny.GENERATION_KINDS else model
    batch = rows() if kind in tiny.GENERATION_KINDS else tiny.inputs(kind)
    calls: list[int] = []
    first = next(block for block in blocks(model) if block.name not in ("stem", "head"))
    inside = first.prefixes[0].rpartition(".")[0]

    def gradients() -> list[torch.Tensor | None]:
        calls.clear()
        torch.manual_seed(0)
        scorer(**batch).logits[:, 0].sum().backward()
        found = [value.grad for value in model.parameters()]
        model.zero_grad()
        return found

    model.get_submodule(inside).register_forward_pre_hook(lambda *_: calls.append(1))
    before, passes = gradients(), len(calls)
    recompute_blocks(model)
    after = gradients()
    assert (passes, len(calls)) == (1, 2)
    if model.main_input_name == "input_ids":
        embedded = model.get_input_embeddings().requires_grad_(False)(batch["input_ids"])
        assert not embedded.requires_grad
    assert any(value is not None and bool(value.any()) for value in before)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_blocks_that_cannot_be_computed_again_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder("gpt2")
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match="gradient_checkpointing True cannot be had with GPT2LMHeadModel"):
        recompute_blocks(model)


def test_frozen_weights_below_and_a_shared_last_layer_get_no_gradient() -> None:
    model = decoder("qwen")
    top = set(blocks(model)[-1].prefixes)
    freeze_all_but(model, top.__contains__)
    NextToken(model, whole=False)(**rows()).logits[:, 0].sum().backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == top


def test_going_on_with_a_prompt() -> None:
    model, tokenizer = decoder("llama"), tiny.byte_pairs()
    prompt = tokenizer("the good")["input_ids"]
    greedy = generate(model, tokenizer, prompt, SamplingConfig(max_new_tokens=6), seed=0)
    with torch.no_grad():
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert greedy == [tokenizer.decode(ids)[len(tokenizer.decode(prompt)):]]
    several = SamplingConfig(max_new_tokens=6, num_return_sequences=3)
    drawn = generate(model, tokenizer, prompt, several, seed=1)
    assert len(set(drawn)) == 3
    state = torch.random.get_rng_state()
    assert generate(model, tokenizer, prompt, several, seed=1) == drawn
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generate(model, tokenizer, prompt, several, seed=2) != drawn
    assert len(generate(model, tokenizer, prompt, SamplingConfig(max_new_tokens=6, num_beams=2), seed=0)) == 1
    with pytest.raises(UsageError, match="--max_new_tokens 90 after a prompt of 4 tokens is more than the 70"):
        generate(model, tokenizer, prompt[:4], SamplingConfig(max_new_tokens=90), seed=0)
