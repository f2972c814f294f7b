"""The runs that are tortured: small models of several kinds on real texts, pictures and recordings."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import tlhub  # noqa: F401  (its stand-ins let image processors import where torchvision does not fit torch)

# isort: split
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

STEPS, CHECKPOINT_EVERY, EVALUATE_EVERY = 60, 2, 10
TEXTS, PICTURES, RECORDINGS = "trec6", "hymenoptera", "spoken_digits"
"""Data sets."""


@dataclass(frozen=True)
class Setup:
    """A run without its folder.

    Attributes:
        name: What it is called here.
        task: What is predicted.
        options: Of `tlhub finetune`, without the folders of the run and of the cache.
    """

    name: str
    task: str
    options: tuple[str, ...]

    @property
    def alone(self) -> bool:
        """Whether it is one process."""
        return "--num_processes" not in self.options

    def words(self, run: Path, cache: Path) -> list[str]:
        """Return the words of the command, without `tlhub`.

        Args:
            run: The run's folder.
            cache: Where prepared data are kept.
        """
        return ["finetune", self.task, *self.options, "--out", str(run), "--data.cache_dir", str(cache)]


def setups(data: Path, models_folder: Path) -> dict[str, Setup]:
    """Return the runs by name: dropout, BatchNorm with augmentation, adapters, and two processes.

    Args:
        data: Folder of the data sets.
        models_folder: Where the small models are kept.
    """
    texts, pictures = data / TEXTS, data / PICTURES
    encoder, network = text_model(models_folder / "texts", texts), picture_model(models_folder / "pictures")
    often = ("--max_steps", str(STEPS), "--batch_size", "16", "--log.every", "1", "--train.checkpoint_every",
             str(CHECKPOINT_EVERY), "--train.evaluate_every", str(EVALUATE_EVERY))
    questions = ("--model", str(encoder), "--data", str(texts), "--max_train_examples", "500", "--data.max_length",
                 "16", *often)
    photos = ("--model", str(network), "--data", str(pictures), *often)
    found = [
        Setup("texts", "text-classification", ("--strategy", "full", *questions)),
        Setup("pictures", "image-classification", ("--strategy", "full", *photos)),
        Setup("adapters", "text-classification", ("--strategy", "lora", "--strategy.adapter_dropout", "0.1",
                                                  *questions)),
        Setup("two processes", "text-classification", ("--strategy", "full", *questions, "--num_processes", "2"))]
    return {setup.name: setup for setup in found}


def text_model(folder: Path, corpus: Path) -> Path:
    """Save a small BERT with a tokenizer learned from the training questions, and return its folder."""
    if not (folder / "config.json").exists():
        with (corpus / "train.csv").open(newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special,
                                                                       show_progress=False))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(name, tokenizer.token_to_id(name)) for name in special[2:4]])
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
            mask_token="[MASK]", model_max_length=64)
        torch.manual_seed(0)
        model = transformers.BertModel(transformers.BertConfig(
            vocab_size=len(fast), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512,
            max_position_embeddings=64))
        fast.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def picture_model(folder: Path) -> Path:
    """Save a small residual network of 32 pixels, and return its folder."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        transformers.ResNetModel(transformers.ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1],
            layer_type="basic")).save_pretrained(folder)
    return folder


def sound_model(folder: Path) -> Path:
    """Save a small transformer over spectrograms, and return its folder."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
        transformers.ASTModel(transformers.ASTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_mel_bins=32,
            max_length=64, patch_size=16, frequency_stride=16, time_stride=16)).save_pretrained(folder)
    return folder
