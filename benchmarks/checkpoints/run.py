r"""Two small checkpoints made by tlhub itself, which the benchmarks of sound and of generation start from.

    python benchmarks/checkpoints/run.py audio --data FOLDER --out checkpoints/audio
    python benchmarks/checkpoints/run.py text --data FOLDER --out checkpoints/text

`audio`: the encoder of a small Whisper over log-mel features (1.1 million parameters), trained on the 35 words that are
spoken in the clips of `speech_commands_v2_testset`, and on silence: from fresh weights with a window of 1 s, and then,
by `--strategy full`, with one of 3 s in which words are put anywhere (`--data.delay`) and rare ones are drawn more
often. `text`: a GPT-2 (2.6 million parameters) with a byte-level tokenizer of 4,096, both trained on `classic_books`.
FOLDER holds these data sets. Fresh weights are `--strategy scratch`: it takes the architecture from the folder that is
written here first, and draws all weights from the seed.
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
RATE, HOP, BANDS = 16_000, 160, 64
SHORT, LONG = 1, 3
"""Seconds of the windows."""
AUDIO_DATA: dict[str, Any] = {"shift": 0.1, "gain": 6.0, "noise": 5.0, "time_masks": 2, "frequency_masks": 2,
                              "label_column": "word"}
AUDIO_TRAINING: dict[str, Any] = {"batch_size": 64, "label_smoothing": 0.1, "precision": "bf16"}
TEXT_WIDTH, TEXT_BLOCKS, VOCABULARY, POSITIONS = 192, 4, 4096, 256
TEXT_TRAINING: dict[str, Any] = {"train": {"batch_size": 32, "learning_rate": 2e-3, "precision": "bf16"}}


def audio_architecture(folder: Path, seconds: int) -> transformers.WhisperConfig:
    """Write the configuration and the feature extractor of a small Whisper; its decoder is not used."""
    transformers.WhisperFeatureExtractor(feature_size=BANDS, sampling_rate=RATE, hop_length=HOP,
                                         chunk_length=seconds).save_pretrained(folder)
    settings = transformers.WhisperConfig(
        num_mel_bins=BANDS, max_source_positions=seconds * RATE // HOP // 2, d_model=WIDTH, encoder_layers=BLOCKS,
        encoder_attention_heads=HEADS, encoder_ffn_dim=4 * WIDTH, classifier_proj_size=WIDTH, dropout=0.1,
        attention_dropout=0.0, activation_dropout=0.0, decoder_layers=1, decoder_attention_heads=HEADS,
        decoder_ffn_dim=4 * WIDTH, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, begin_suppress_tokens=None, suppress_tokens=None)
    settings.save_pretrained(folder)
    return settings


def lengthen(trained: Path, folder: Path) -> None:
    """Write a trained model with a longer window: its positions are sinusoids, which go on by themselves."""
    old = transformers.WhisperForAudioClassification.from_pretrained(trained)
    settings = audio_architecture(folder, LONG)
    settings.id2label, settings.label2id = old.config.id2label, old.config.label2id
    new = transformers.WhisperForAudioClassification(settings)
    positions = "encoder.embed_positions.weight"
    new.load_state_dict({**old.state_dict(), positions: new.state_dict()[positions]})
    new.save_pretrained(folder)


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
    """Train on the words, in short windows and then in long ones."""
    corpus, architecture, short, longer = data / "speech_commands_v2_testset", *(
        beside(out, what) for what in ("architecture", "short", "longer"))
    audio_architecture(architecture, SHORT)
    given = {"source": str(corpus), "metadata": str(words_table(corpus, beside(out, "words.csv"))), **AUDIO_DATA}
    tlhub.finetune("audio-classification", model=str(architecture), strategy="scratch", out=str(short), data=given,
                   train={**AUDIO_TRAINING, "epochs": 30, "learning_rate": 1e-3})
    lengthen(short / "model", longer)
    return tlhub.finetune("audio-classification", model=str(longer), strategy="full", out=str(out),
                          data={**given, "delay": 2.0},
                          train={**AUDIO_TRAINING, "epochs": 10, "learning_rate": 7e-4, "sampling": "sqrt"})


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
