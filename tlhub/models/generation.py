"""Going on with a text: greedily, by drawing tokens, or by beam search."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from tlhub.config import SamplingConfig
from tlhub.errors import UsageError
from tlhub.models.heads import language_model
from tlhub.models.loading import quiet, seeded
from tlhub.models.pooling import evaluating
from tlhub.seeding import derive

_UNLIMITED = 100_000
"""Tokenizers without a limit of their own announce an astronomical one."""


def generate(model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: list[int], sampling: SamplingConfig, *,
             seed: int, cut: bool = False) -> list[str]:
    """Return what a language model makes of a prompt, without the prompt.

    Args:
        model: A language model of transformers, with adapters or without.
        tokenizer: Its tokenizer.
        prompt: Tokens.
        sampling: How to go on; checked.
        seed: What tokens are drawn from, together with nothing else: the same prompt is gone on with alike.
        cut: Leave out the beginning of a prompt that is too long, and make fewer new tokens, rather than refuse it.

    Returns:
        `sampling.num_return_sequences` texts.

    Raises:
        UsageError: The prompt and the new tokens are more than the model reads.
    """
    language: Any = language_model(model)
    longest = most_tokens(language, tokenizer)
    if cut and longest is not None:
        sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, max(1, longest // 2)))
        prompt = prompt[-(longest - sampling.max_new_tokens):]
    if longest is not None and len(prompt) + sampling.max_new_tokens > longest:
        raise UsageError(f"--max_new_tokens {sampling.max_new_tokens} after a prompt of {len(prompt)} tokens is more "
                         f"than the {longest} that the model reads; lower it, or shorten the prompt")
    given = torch.tensor([prompt], device=language.device)
    with torch.no_grad(), evaluating(model), seeded(derive(seed, "sampling")), quiet():
        found = language.generate(given, attention_mask=torch.ones_like(given),
                                  generation_config=_settings(language.generation_config, tokenizer, sampling))
    before = str(tokenizer.decode(prompt, skip_special_tokens=True))
    texts = [str(tokenizer.decode(row, skip_special_tokens=True)) for row in found.tolist()]
    # Decoded with what comes before, since some tokenizers write a word's leading space only inside of a text.
    return [text[len(before):] if text.startswith(before) else
            str(tokenizer.decode(row[len(prompt):], skip_special_tokens=True))
            for text, row in zip(texts, found.tolist(), strict=True)]


def most_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return how many tokens a model reads at a time, from its configuration, otherwise its tokenizer; None for any."""
    config: Any = model.config
    found = [getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len", "n_positions")]
    known = [value for value in found if isinstance(value, int) and value > 0]
    if known:
        return known[0]
    return tokenizer.model_max_length if tokenizer.model_max_length <= _UNLIMITED else None


def _settings(own: GenerationConfig, tokenizer: PreTrainedTokenizerBase, sampling: SamplingConfig) -> GenerationConfig:
    """Return the checkpoint's own settings with what is asked for; it ends where either of them has an end of text."""
    draw = sampling.do_sample
    if draw is None:
        several = sampling.num_return_sequences > 1 and sampling.num_beams == 1
        draw = several or any(value is not None for value in (sampling.temperature, sampling.top_k, sampling.top_p))
    settings = copy.deepcopy(own)
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    known = list(dict.fromkeys(token for token in (*ends, tokenizer.eos_token_id) if token is not None))
    padding = [tokenizer.pad_token_id, *known, 0]
    for name in ("temperature", "top_k", "top_p"):
        value = getattr(sampling, name) if getattr(sampling, name) is not None else getattr(own, name)
        setattr(settings, name, value if draw else None)
    if sampling.repetition_penalty is not None:
        settings.repetition_penalty = sampling.repetition_penalty
    settings.do_sample, settings.num_beams = draw, sampling.num_beams
    settings.num_return_sequences = sampling.num_return_sequences
    settings.max_new_tokens, settings.max_length = sampling.max_new_tokens, None
    settings.eos_token_id = known or None
    settings.pad_token_id = next(token for token in padding if token is not None)
    return settings
