r"""Two small checkpoints made by tlhub itself, which the benchmarks of sound and of generation start from.

    python benchmarks/checkpoints/run.py audio --data FOLDER --out checkpoints/audio
    python benchmarks/checkpoints/run.py text --data FOLDER --out checkpoints/text

`audio`: a conformer over log-mel features (transformers' Wav2Vec2-BERT, 2.0 million parameters), trained on the words
of `speech_commands_v2_testset`. `text`: a GPT-2 (2.6 million parameters) with a byte-level tokenizer of 4,096, both
trained on `classic_books`. FOLDER holds these data sets. Both are ordinary runs with `--strategy scratch`, which takes
the architecture from the folder that is written here first and draws all weights from the seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import ByteLevelBPETokenizer

import tlhub

WIDTH, BLOCKS, HEADS = 144, 4, 4
AUDIO_TRAINING: dict[str, Any] = {
    "data": {"shift": 0.1, "gain": 6.0, "noise": 5.0, "time_masks": 2, "frequency_masks": 2},
    "train": {"batch_size": 64, "learning_rate": 2e-3, "label_smoothing": 0.1, "precision": "bf16"}}
TEXT_WIDTH, TEXT_BLOCKS, VOCABULARY, POSITIONS = 192, 4, 4096, 256
TEXT_TRAINING: dict[str, Any] = {"train": {"batch_size": 32, "learning_rate": 2e-3, "precision": "bf16"}}


def audio_architecture(folder: Path) -> None:
    """Write the configuration and the feature extractor of a small conformer."""
    transformers.Wav2Vec2BertConfig(
        hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        feature_projection_input_dim=160, classifier_proj_size=WIDTH, conv_depthwise_kernel_size=15, layerdrop=0.0,
        apply_spec_augment=False, position_embeddings_type="relative_key", left_max_position_embeddings=32,
        right_max_position_embeddings=32, hidden_dropout=0.1, attention_dropout=0.0, activation_dropout=0.0,
        feat_proj_dropout=0.0, conformer_conv_dropout=0.1, final_dropout=0.0).save_pretrained(folder)
    transformers.SeamlessM4TFeatureExtractor(
        feature_size=80, num_mel_bins=80, sampling_rate=16000, stride=2).save_pretrained(folder)


def text_architecture(folder: Path, books: Path) -> None:
    """Write the configuration of a small GPT-2, and a tokenizer learned from the training books."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(path) for path in sorted((books / "train").glob("*.txt"))], vocab_size=VOCABULARY,
                    special_tokens=["<|endoftext|>"], show_progress=False)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>",
        unk_token="<|endoftext|>", model_max_length=POSITIONS)
    fast.save_pretrained(folder)
    transformers.GPT2Config(
        vocab_size=len(fast), n_positions=POSITIONS, n_embd=TEXT_WIDTH, n_layer=TEXT_BLOCKS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id).save_pretrained(folder)


def main() -> None:
    """Write the architecture, train it, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("audio", "text"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=float)
    given = parser.parse_args()
    architecture = given.out.with_name(given.out.name + "-architecture")
    if given.kind == "audio":
        audio_architecture(architecture)
        task, source, options = "audio-classification", given.data / "speech_commands_v2_testset", AUDIO_TRAINING
    else:
        text_architecture(architecture, given.data / "classic_books")
        task, source, options = "text-generation", given.data / "classic_books", TEXT_TRAINING
    run = tlhub.finetune(
        task, model=str(architecture), data={"source": str(source), **options.get("data", {})}, strategy="scratch",
        train={**options["train"], "epochs": given.epochs or (60 if given.kind == "audio" else 3)}, out=str(given.out))
    print(json.dumps({split: run.metrics[split] for split in ("validation", "test") if split in run.metrics}, indent=2))


if __name__ == "__main__":
    main()
