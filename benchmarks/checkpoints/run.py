r"""Two small checkpoints made by tlhub itself, which the benchmarks of sound and of generation start from.

    python benchmarks/checkpoints/run.py audio --data FOLDER --out checkpoints/audio
    python benchmarks/checkpoints/run.py text --data FOLDER --out checkpoints/text

`audio`: a conformer over log-mel features (transformers' Wav2Vec2-BERT, 2.0 million parameters), trained on the clips
of `speech_commands_v2_testset`: from fresh weights on its 12 classes, and then, by `--strategy full`, on the 36 words
that are spoken in them (36 from the start are not learned: the network settles on one answer for all). `text`: a GPT-2
(2.6 million parameters) with a byte-level tokenizer of 4,096, both trained on `classic_books`. FOLDER holds these data
sets. Fresh weights are `--strategy scratch`: it takes the architecture from the folder that is written here first, and
draws all weights from the seed.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import transformers
from tokenizers import ByteLevelBPETokenizer

import tlhub
from tlhub.finished import Run

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


def words_table(corpus: Path, path: Path) -> Path:
    """Write which word each clip holds, also where the class is `_unknown_`, and return the table."""
    with (corpus / "clips.csv").open(newline="") as file, path.open("w", newline="") as copy:
        writer = csv.writer(copy)
        writer.writerow(["file", "word", "speaker", "split"])
        for row in csv.DictReader(file):
            speaker = row["speaker"] or row["file"]
            writer.writerow([row["file"], row["word"] or row["label"], speaker, row["split"]])
    return path


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


def audio(data: Path, out: Path) -> Run:
    """Train on the classes, then on the words."""
    corpus, architecture = data / "speech_commands_v2_testset", beside(out, "architecture")
    audio_architecture(architecture)
    classes = beside(out, "classes")
    tlhub.finetune("audio-classification", model=str(architecture), strategy="scratch", out=str(classes),
                   data={"source": str(corpus), **AUDIO_TRAINING["data"]},
                   train={**AUDIO_TRAINING["train"], "epochs": 40})
    table = words_table(corpus, beside(out, "words.csv"))
    return tlhub.finetune(
        "audio-classification", model=str(classes), strategy="full", out=str(out),
        data={"source": str(corpus), "metadata": str(table), "label_column": "word", **AUDIO_TRAINING["data"]},
        train={**AUDIO_TRAINING["train"], "learning_rate": 1e-3, "epochs": 20})


def text(data: Path, out: Path) -> Run:
    """Train on the novels."""
    architecture, books = beside(out, "architecture"), data / "classic_books"
    text_architecture(architecture, books)
    return tlhub.finetune("text-generation", model=str(architecture), data=str(books), strategy="scratch",
                          train={**TEXT_TRAINING["train"], "epochs": 2}, out=str(out))


def beside(out: Path, what: str) -> Path:
    """Return where something that belongs to a run lies."""
    return out.with_name(f"{out.name}-{what}")


def main() -> None:
    """Make one checkpoint, and print its scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("audio", "text"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    run = {"audio": audio, "text": text}[given.kind](given.data, given.out)
    print(json.dumps({split: run.metrics[split] for split in ("validation", "test") if split in run.metrics}, indent=2))


if __name__ == "__main__":
    main()
