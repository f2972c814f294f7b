from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tlhub.data.prepare import Examples
from tlhub.data.text import TextInputs, given_texts, read_pair
from tlhub.errors import CheckpointError, DataError

TEXTS = ["a b c", "a", "", "c c c c c c", "b a"]
CPU = torch.device("cpu")


def tokenizer(**options):
    vocabulary = {name: number for number, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"])}
    core = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
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


@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_pairs_are_what_the_tokenizer_makes(names):
    tok = tokenizer(model_input_names=names)
    pairs = [("a b c", "a"), ("a", "b c a c"), ("b", "b")]
    made = TextInputs(Examples(pairs, np.arange(3), ["0", "1", "2"]), tok, max_length=None)
    assert made.lengths.tolist() == [7, 8, 5]
    batch = made.batch(np.arange(3), 0, CPU)
    expected = tok([first for first, _ in pairs], [second for _, second in pairs], padding=True, return_tensors="pt")
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())
    if "token_type_ids" in names:
        assert batch["token_type_ids"][1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]


def test_the_longer_text_of_a_pair_is_cut_first():
    made = TextInputs(Examples([("a b", "c c c c c c")], np.zeros(1), ["0"]), tokenizer(), max_length=7)
    assert made.batch(np.array([0]), None, CPU)["input_ids"].tolist() == [[2, 4, 5, 3, 6, 6, 3]]
    assert made.truncated == 1


def test_a_line_as_a_pair():
    assert read_pair("one text \t another") == ("one text", "another")
    for line in ("no tab", "two\ttabs\tin it", "half\t ", ""):
        with pytest.raises(DataError, match="one tab between"):
            read_pair(line)


@pytest.mark.parametrize("text", ["the cat " * 60, "a\nb", "a/b " * 2000, "", "what is it?.txt or not"])
def test_texts_longer_than_a_name_of_a_file_are_texts(text):
    assert given_texts(text) == [text]
