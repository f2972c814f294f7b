from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tlhub.data.prepare import Examples
from tlhub.data.text import TextInputs
from tlhub.errors import CheckpointError

TEXTS = ["a b c", "a", "", "c c c c c c", "b a"]
CPU = torch.device("cpu")


def tokenizer(**options):
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"])}
    core = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=core, **{"pad_token": "[PAD]", **options})


def inputs(tok, max_length=None):
    return TextInputs(Examples(TEXTS, np.arange(5), [str(n) for n in range(5)]), tok, max_length=max_length)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_batches_are_what_the_tokenizer_makes(side, names):
    tok = tokenizer(padding_side=side, model_input_names=names)
    made = inputs(tok)
    assert made.lengths.tolist() == [5, 3, 2, 8, 4]
    for indices in ([0, 3, 1], [2, 4], [1]):
        batch = made.batch(np.array(indices), 0, CPU)
        expected = tok([TEXTS[index] for index in indices], padding=True, return_tensors="pt")
        if len(indices) == 1:
            assert "attention_mask" not in batch
            del expected["attention_mask"]
        assert set(batch) == set(expected)
        for name, tensor in expected.items():
            assert torch.equal(batch[name], tensor)


def test_limits():
    assert inputs(tokenizer(), max_length=4).lengths.tolist() == [4, 3, 2, 4, 4]
    assert inputs(tokenizer(model_max_length=5)).lengths.max() == 5
    assert inputs(tokenizer(model_max_length=5)).truncated == 2


def test_padding_token_is_needed_only_for_padding():
    with pytest.raises(CheckpointError, match="no padding token"):
        inputs(tokenizer(pad_token=None))
    one = TextInputs(Examples(["a b"], np.zeros(1, np.int64), ["0"]), tokenizer(pad_token=None), max_length=None)
    assert one.batch(np.array([0]), None, CPU)["input_ids"].tolist() == [[2, 4, 5, 3]]
