"""Stand-ins of the checkpoints that the recipes name: tiny ones, of the same architecture and laid out alike."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

from tests import tiny

KINDS = {"google-bert/bert-base-cased": "bert", "sentence-transformers/all-MiniLM-L6-v2": "bert",
         "google/vit-base-patch16-224-in21k": "vit", "timm/resnet18.tv_in1k": "timm_resnet",
         "timm/resnet50.tv_in1k": "timm_resnet", "timm/vgg16.tv_in1k": "timm_vgg",
         "timm/inception_v3.tv_in1k": "timm_efficientnet", "facebook/wav2vec2-base": "wav2vec2",
         "facebook/wav2vec2-base-960h": "recogniser", "openai/whisper-small": "whisper",
         "openai-community/gpt2": "gpt2", "TinyLlama/TinyLlama-1.1B-Chat-v1.0": "chat", "Qwen/Qwen2.5-0.5B": "qwen"}
"""The architecture of each checkpoint that the recipes name; for Inception another convolutional one of timm, for
Qwen 2.5 the one after it."""
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"EATOINSHRDLU")
TEMPLATE = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
"""As TinyLlama writes conversations, less the line breaks."""


def make(folder: Path, kind: str) -> None:
    """Save a checkpoint of a kind of `KINDS`."""
    if kind == "recogniser":
        _recogniser(folder)
    elif kind == "chat":
        tiny.generator(folder, "llama", max_position_embeddings=2048)
        tokenizer = tiny.processor("llama")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder)
    elif kind in tiny.GENERATION_KINDS:
        tiny.generator(folder, kind)
    else:
        tiny.checkpoint(folder, kind)


def _recogniser(folder: Path) -> None:
    """Save wav2vec2 with the layer that CTC has trained, and its processor, which has a tokenizer of letters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = tiny.configuration("wav2vec2", vocab_size=len(LETTERS))
        transformers.Wav2Vec2ForCTC(settings).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    transformers.Wav2Vec2Processor(tiny.processor("wav2vec2"), tokenizer).save_pretrained(folder)
