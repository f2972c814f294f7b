"""Tiny random checkpoints, laid out in a folder as real ones are, with processors made in memory."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tlhub  # noqa: F401  (its stand-ins let image processors import where torchvision does not fit torch)

# isort: split
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

SIZE = 32
HIDDEN = 16
SENTENCE = (
    "a the good bad fine poor great awful film book day night sun rain is was very not red green blue cat dog runs "
    "sleeps what who where when how many city name number person of in and"
)
WORDS = tuple(SENTENCE.split())
TEXT_KINDS = ("bert", "roberta", "distilbert", "gpt2")
GENERATION_KINDS = ("gpt2", "llama", "qwen")
"""Decoders; the last layer of Llama's is its own, the others' have the embedding's weights."""
IMAGE_KINDS = ("vit", "resnet", "convnextv2", "swin")
AUDIO_KINDS = ("wav2vec2", "hubert", "wavlm", "whisper", "ast")
"""wav2vec2 normalises groups and reads no mask, as the first ones do; HuBERT and WavLM are masked; the last two read
log-mel features of a fixed length: Whisper of one second, AST of 32 frames."""
WAVE_KINDS = AUDIO_KINDS[:3]
RATE = 16000
TIMM_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "timm_resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, HIDDEN], "output_stride": 8}),
    "timm_vit": ("test_vit", {"img_size": SIZE, "patch_size": 8, "embed_dim": HIDDEN, "depth": 2, "num_heads": 2}),
    "timm_convnext": ("test_convnext", {}),
    "timm_efficientnet": ("test_efficientnet", {}),
    "timm_vgg": ("vgg11", {"mlp_ratio": 0.01}),
}
"""Kinds of timm: the architecture, and what makes it small. VGG, 9.5 million numbers, is the one that is not."""
TIMM_KINDS = tuple(TIMM_MODELS)
TIMM_LABELS = ("1", "2", "3", "4", "5")
"""What a checkpoint of timm tells apart by itself: they all come with a head."""
MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def word_pieces() -> transformers.PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer over a few words and every letter, with BERT's special tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[1:], *letters, *("##" + letter for letter in letters)]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_pairs() -> transformers.PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with an end of text and no padding token, as GPT-2's is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>", unk_token="<|endoftext|>",
        model_max_length=64, model_input_names=["input_ids", "attention_mask"],
    )


def image_processor(kind: str = "vit") -> Any:
    """Return an image processor for 32 pixels, of the class that the architecture comes with."""
    if kind in ("vit", "swin"):
        return transformers.ViTImageProcessor(
            size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=DEVIATION
        )
    if kind in TIMM_KINDS:
        return transformers.TimmWrapperImageProcessor(timm_preprocessing())
    return transformers.ConvNextImageProcessor(
        size={"shortest_edge": SIZE}, crop_pct=0.875, image_mean=MEAN, image_std=DEVIATION
    )


def timm_preprocessing() -> dict[str, Any]:
    """Return how pictures are prepared for the models of timm: with values that are nobody's defaults."""
    return {"input_size": (3, SIZE, SIZE), "interpolation": "bilinear", "crop_pct": 0.8, "mean": MEAN,
            "std": DEVIATION}


def feature_extractor(kind: str) -> Any:
    """Return the feature extractor of an audio model, at 16 kHz."""
    if kind == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1, sampling_rate=RATE)
    if kind == "ast":
        return transformers.ASTFeatureExtractor(num_mel_bins=16, max_length=32, sampling_rate=RATE)
    return transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=kind != "wav2vec2")


def configuration(kind: str, **changes: Any) -> Any:
    """Return the configuration of a tiny model.

    Args:
        kind: One of `TEXT_KINDS`, `IMAGE_KINDS`, `TIMM_KINDS` or `AUDIO_KINDS`.
        changes: Fields to set otherwise.
    """
    if kind in TIMM_KINDS:
        name, arguments = TIMM_MODELS[kind]
        return transformers.TimmWrapperConfig(architecture=name, model_args=arguments | changes,
                                              pretrained_cfg=timm_preprocessing())
    encoder = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {"vocab_size": len(word_pieces()), "max_position_embeddings": 70, "pad_token_id": 0}
    decoder = {"vocab_size": 300, "num_key_value_heads": 1, "max_position_embeddings": 70, "bos_token_id": 0,
               "eos_token_id": 0}
    # Ten frames in a tenth of a second.
    wave = encoder | {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 4), "vocab_size": 12,
                      "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
                      "classifier_proj_size": 12, "pad_token_id": 0}
    stable = wave | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    makers: dict[str, tuple[Any, dict[str, Any]]] = {
        "bert": (transformers.BertConfig, encoder | text),
        "roberta": (transformers.RobertaConfig, encoder | text | {"type_vocab_size": 2, "bos_token_id": 2,
                                                                 "eos_token_id": 3}),
        "distilbert": (transformers.DistilBertConfig,
                       text | {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}),
        "gpt2": (transformers.GPT2Config, {"vocab_size": 300, "n_embd": HIDDEN, "n_layer": 2, "n_head": 2,
                                           "n_positions": 70, "bos_token_id": 0, "eos_token_id": 0}),
        "llama": (transformers.LlamaConfig, encoder | decoder),
        "qwen": (transformers.Qwen3Config, encoder | decoder | {"head_dim": 8, "tie_word_embeddings": True}),
        "vit": (transformers.ViTConfig, encoder | {"image_size": SIZE, "patch_size": 8}),
        "resnet": (transformers.ResNetConfig, {"embedding_size": 8, "hidden_sizes": [8, HIDDEN], "depths": [2, 1],
                                               "layer_type": "basic"}),
        "convnextv2": (transformers.ConvNextV2Config, {"hidden_sizes": [8, HIDDEN], "depths": [1, 2], "num_stages": 2,
                                                       "image_size": SIZE}),
        "swin": (transformers.SwinConfig, {"image_size": SIZE, "patch_size": 4, "embed_dim": 8, "depths": [1, 2],
                                           "num_heads": [1, 2], "window_size": 4}),
        "wav2vec2": (transformers.Wav2Vec2Config, wave),
        "hubert": (transformers.HubertConfig, stable),
        "wavlm": (transformers.WavLMConfig, stable | {"num_buckets": 8, "max_bucket_distance": 20}),
        "whisper": (transformers.WhisperConfig, {
            "d_model": HIDDEN, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 16,
            "max_source_positions": 50, "max_target_positions": 20, "vocab_size": 12, "classifier_proj_size": 12,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 2}),
        "ast": (transformers.ASTConfig, encoder | {"num_mel_bins": 16, "max_length": 32, "patch_size": 8,
                                                   "frequency_stride": 8, "time_stride": 8}),
    }
    make, fields = makers[kind]
    return make(**{**fields, **changes})


def processor(kind: str) -> Any:
    """Return the processor that goes with a kind of model."""
    if kind in IMAGE_KINDS + TIMM_KINDS:
        return image_processor(kind)
    if kind in AUDIO_KINDS:
        return feature_extractor(kind)
    return byte_pairs() if kind in GENERATION_KINDS else word_pieces()


def model(kind: str, labels: Sequence[str] | None = None, *, seed: int = 0, **changes: Any) -> Any:
    """Return a tiny random model, larger in spread than a fresh one so that outputs differ between inputs.

    Args:
        kind: One of `TEXT_KINDS`, `IMAGE_KINDS`, `TIMM_KINDS` or `AUDIO_KINDS`.
        labels: Names for a classifier; None for the backbone alone.
        seed: Seed of the weights.
        changes: Fields of the configuration to set otherwise.
    """
    settings = configuration(kind, **changes)
    automatic = transformers.AutoModel
    labels = TIMM_LABELS if labels is None and kind in TIMM_KINDS else labels
    if labels is not None:
        settings.id2label = dict(enumerate(labels))
        settings.label2id = {name: index for index, name in enumerate(labels)}
        automatic = auto_model(kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = automatic.from_config(settings)
        with torch.no_grad():
            for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
                if name.endswith("weight.original0"):
                    continue  # the lengths of a weight norm, which belong to the directions beside them
                if tensor.is_floating_point() and tensor.dim() > 1:
                    # Models without norms, such as VGG, must not swell from layer to layer.
                    swell = 0.2 if kind not in TIMM_KINDS else min(0.2, (2 / tensor[0].numel()) ** 0.5)
                    tensor.normal_(0.0, swell)
                elif name.endswith("running_mean"):
                    tensor.normal_(0.0, 0.1)
    return made.eval()


def auto_model(kind: str) -> Any:
    """Return transformers' auto class for classifiers of this kind."""
    return getattr(transformers, auto_names(kind)[0])


def auto_names(kind: str) -> tuple[str, str]:
    """Return the names of the auto classes of model and processor."""
    if kind in IMAGE_KINDS + TIMM_KINDS:
        return "AutoModelForImageClassification", "AutoImageProcessor"
    if kind in AUDIO_KINDS:
        return "AutoModelForAudioClassification", "AutoFeatureExtractor"
    return "AutoModelForSequenceClassification", "AutoTokenizer"


def checkpoint(folder: Path, kind: str, labels: Sequence[str] | None = None, *, seed: int = 0, **changes: Any) -> Path:
    """Save a tiny model with its processor as a plain checkpoint, and return the folder.

    Args:
        folder: Where to save.
        kind: One of `TEXT_KINDS`, `IMAGE_KINDS`, `TIMM_KINDS` or `AUDIO_KINDS`.
        labels: Names for a classifier; None for the backbone alone.
        seed: Seed of the weights.
        changes: Fields of the configuration to set otherwise.
    """
    return _copied(folder, _save_checkpoint, kind, labels if labels is None else tuple(labels), seed, changes)


def _save_checkpoint(folder: Path, kind: str, labels: Sequence[str] | None, seed: int, changes: dict[str, Any]) -> None:
    made = model(kind, labels, seed=seed, **changes)
    if kind in TIMM_KINDS:
        from timm.models import save_for_hf  # importing it takes seconds, which tests of other kinds can save

        # As timm itself lays its repositories out: no file for the processor, and some arguments given twice.
        save_for_hf(made.timm_model, folder, safe_serialization=True, data_config=timm_preprocessing(),
                    model_config={"label_names": list(labels or TIMM_LABELS)})
        return
    made.save_pretrained(folder)
    processor(kind).save_pretrained(folder)


def generator(folder: Path, kind: str, *, seed: int = 0, **changes: Any) -> Path:
    """Save a tiny decoder with its last layer and its tokenizer, which has no padding token; return the folder.

    Args:
        folder: Where to save.
        kind: One of `GENERATION_KINDS`.
        seed: Seed of the weights.
        changes: Fields of the configuration to set otherwise.
    """
    return _copied(folder, _save_generator, kind, seed, changes)


def _save_generator(folder: Path, kind: str, seed: int, changes: dict[str, Any]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.AutoModelForCausalLM.from_config(configuration(kind, **changes)).save_pretrained(folder)
    processor(kind).save_pretrained(folder)


def _copied(folder: Path, save: Callable[..., None], *given: Any) -> Path:
    """Save a checkpoint, or copy the one that has been saved with the same arguments, and return the folder."""
    made = _shelf() / hashlib.sha256(repr((save.__name__, given)).encode()).hexdigest()
    if not made.exists():
        save(made, *given)
    # Every copy has times of its own, by which tlhub knows the files that it has read.
    shutil.copytree(made, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return folder


@functools.cache
def _shelf() -> Path:
    """Return a folder that lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="tlhub-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def clips(examples: int = 4, seed: int = 0) -> list[Any]:
    """Return waveforms of 0.1 s at 16 kHz and more, each 25 ms longer than the one before, float32 arrays (t,)."""
    generator = torch.Generator().manual_seed(seed)
    return [(0.1 * torch.randn(1600 + 400 * row, generator=generator)).numpy() for row in range(examples)]


def inputs(kind: str, examples: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch of a model's keyword arguments, texts and clips of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    if kind in AUDIO_KINDS:
        padding = {"padding": True} if kind in WAVE_KINDS else {}
        return dict(processor(kind)(clips(examples, seed), sampling_rate=RATE, return_tensors="pt", **padding))
    if kind in IMAGE_KINDS or kind.startswith("timm"):
        return {"pixel_values": torch.randn(examples, 3, SIZE, SIZE, generator=generator)}
    texts = [" ".join(WORDS[(3 * row + column) % len(WORDS)] for column in range(2 + row)) for row in range(examples)]
    tokenizer = processor(kind)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    if kind in ("roberta", "distilbert"):
        batch.pop("token_type_ids", None)
    return batch
