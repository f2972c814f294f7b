"""Processors: what turns raw inputs into a model's arguments."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from tlhub.errors import CheckpointError
from tlhub.models.loading import damage, quiet
from tlhub.models.origin import Origin


def load_processor(origin: Origin, auto_processor: str) -> Any:
    """Load a checkpoint's tokenizer, image processor or feature extractor.

    Args:
        origin: Where the checkpoint lies.
        auto_processor: transformers' class, such as `"AutoTokenizer"`.

    Raises:
        CheckpointError: The checkpoint has none, or it is damaged.
    """
    with quiet(), damage(f"{auto_processor} finds nothing usable in {origin.name!r}",
                         "give a checkpoint with all its files"):
        processor = getattr(transformers, auto_processor).from_pretrained(origin.folder, trust_remote_code=False)
    _check_vocabulary(processor, origin)
    return processor


def _check_vocabulary(processor: Any, origin: Origin) -> None:
    """Refuse a tokenizer that transformers made without any file: every word would be unknown to it."""
    if not isinstance(processor, PreTrainedTokenizerBase):
        return
    files = set(processor.vocab_files_names.values())
    if files and not any((origin.folder / name).exists() for name in files):
        raise CheckpointError(f"model.name {origin.name!r} has no tokenizer (none of {', '.join(sorted(files))}); "
                              "give a checkpoint with all its files")


def match_padding(settings: PreTrainedConfig, processor: Any, name: str) -> None:
    """Give tokenizer and model one padding token: that of the tokenizer, or else its end of text.

    Padding goes to the right, since positions of decoders count from the left.

    Raises:
        CheckpointError: The tokenizer has neither token.
    """
    if not isinstance(processor, PreTrainedTokenizerBase):
        return
    if processor.pad_token is None:
        if processor.eos_token is None:
            raise CheckpointError(f"the tokenizer of {name!r} has no padding token and no end of text; take another")
        processor.pad_token = processor.eos_token
        processor.padding_side = "right"
    settings.pad_token_id = processor.pad_token_id
