from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests import tiny
from tlhub.config import DataConfig
from tlhub.data import tokens as tokens_module
from tlhub.data.blocks import GenerationInputs, first_fit
from tlhub.data.prepare import Examples
from tlhub.errors import DataError

CPU = torch.device("cpu")
TEXTS = ["the good cat runs " * 9, "été 😀 is\n\n night", "a", "  sun  \n", "dog " * 40, "rain"]
SIZES = [len(text.encode()) for text in TEXTS]


def llama():
    """Return a tokenizer as Llama's: a sign for spaces, one before the text, and a beginning put there by itself."""
    words = ["<unk>", "<s>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyzé\n😀", "▁cat", "ca", "at", "▁c"]
    core = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    core.decoder = decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>",
                                                unk_token="<unk>")


def without_beginning():
    made = tiny.byte_pairs()
    made.bos_token = None
    return made


TOKENIZERS = {"gpt2": tiny.byte_pairs, "llama": llama, "qwen": without_beginning, "slow": transformers.ByT5Tokenizer}


@pytest.fixture
def make(tmp_path):
    def inputs(records, tokenizer=None, *, block_size=16, packing=True, most=None, seed=0):
        data = DataConfig(block_size=block_size, packing=packing, cache_dir=str(tmp_path / "cache"))
        examples = Examples(records, np.zeros((len(records), 2), np.int64), [f"r{n}" for n in range(len(records))],
                            most=most)
        return GenerationInputs(examples, tokenizer or tiny.byte_pairs(), data=data, seed=seed)

    return inputs


def all_of(inputs):
    return inputs.batch(np.arange(len(inputs)), None, CPU)


def test_blocks_have_the_groups_of_their_texts(make):
    inputs = make(TEXTS)
    groups = np.array(["a", "b", "b", "c", "a", "d"], dtype=object)
    assert len(inputs) > len(TEXTS)
    assert inputs.spread(groups).tolist() == [groups[record] for record in inputs.records]
    assert inputs.spread(groups[:5]) is None  # not of these texts, as where one example has become several


def pairs(batch, indices):
    """Return what each place with a target sees of its own example, and the target, by example."""
    found = collections.defaultdict(list)
    for row in range(len(batch["input_ids"])):
        context = collections.defaultdict(list)
        for token, target, owner in zip(*(batch[name][row].tolist() for name in ("input_ids", "targets", "owners")),
                                        strict=True):
            context[owner].append(token)
            if target >= 0:
                found[int(indices[owner])].append((tuple(context[owner]), target))
    return dict(found)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_token_is_a_target_once_and_every_byte_counted(make, name):
    tokenizer = TOKENIZERS[name]()
    inputs = make(TEXTS, tokenizer, block_size=7)
    begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    expected = [[begin, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
                for text in TEXTS]
    inputs.packing = False
    batch = all_of(inputs)
    found = [row[row >= 0].tolist() for row in batch["targets"]]
    assert [token for row in found for token in row] == [token for document in expected for token in document[1:]]
    assert batch["input_ids"][:, 0].tolist() == [document[start] for document in expected
                                                for start in range(0, len(document) - 1, 7)]
    assert inputs.labels[:, 0].tolist() == [len(row) for row in found] == inputs.lengths.tolist()
    assert inputs.labels[:, 1].sum() == sum(SIZES)
    by_text = np.repeat(np.arange(len(TEXTS)), [-(-(len(document) - 1) // 7) for document in expected])
    assert np.bincount(by_text, inputs.labels[:, 1]).tolist() == SIZES


def test_bytes_of_characters_divided_between_tokens(make):
    inputs = make(["é😀x"], block_size=1)
    assert inputs.labels.tolist() == [[1, 2], [1, 0], [1, 4], [1, 0], [1, 0], [1, 0], [1, 1], [1, 0]]


def test_packed_and_unpacked_batches_hold_the_same(make):
    inputs = make(TEXTS)
    indices = np.random.default_rng(0).permutation(len(inputs))
    packed = inputs.batch(indices, 0, CPU)
    inputs.packing = False
    plain = inputs.batch(indices, 0, CPU)
    assert set(packed) == {"input_ids", "targets", "owners", "slots", "places", "position_ids"}
    assert set(plain) == {"input_ids", "targets", "owners", "slots", "places", "attention_mask"}
    assert packed["input_ids"].shape[0] < plain["input_ids"].shape[0] == len(inputs)
    assert packed["input_ids"].shape[1] <= 16
    assert packed["slots"].shape == plain["slots"].shape == (len(inputs),)
    found = pairs(packed, indices)
    assert found == pairs(plain, indices)
    assert {index: len(places) for index, places in found.items()} == dict(enumerate(inputs.labels[:, 0].tolist()))
    assert torch.equal(plain["attention_mask"].bool(), plain["targets"] >= 0)
    assert not (plain["attention_mask"][:, :-1] < plain["attention_mask"][:, 1:]).any()
    starts = packed["position_ids"] == 0
    assert int(starts.sum()) == len(inputs) + int((packed["targets"][:, -1] < 0).sum())
    steps = packed["position_ids"][:, 1:] - packed["position_ids"][:, :-1]
    assert ((steps == 1) | starts[:, 1:]).all()
    assert (starts[:, 1:] == ((packed["owners"][:, 1:] != packed["owners"][:, :-1])
                              | ((packed["targets"][:, 1:] < 0) & (packed["targets"][:, :-1] >= 0)))).all()


def test_examples_do_not_depend_on_how_batches_are_cut(make):
    inputs = make(TEXTS)
    indices = np.random.default_rng(1).permutation(len(inputs))
    whole = pairs(inputs.batch(indices, 0, CPU), indices)
    for size in (1, 3, 5):
        cut = {}
        for start in range(0, len(indices), size):
            part = indices[start:start + size]
            cut |= pairs(inputs.batch(part + len(inputs), 0, CPU), part)
        assert cut == whole


def test_nothing_is_masked_without_padding(make):
    inputs = make(["the cat runs " * 100])
    full = np.flatnonzero(inputs.lengths == 16)
    assert set(inputs.batch(full, None, CPU)) == {"input_ids", "targets", "owners", "slots", "places"}
    assert inputs.batch(full[:0], None, CPU)["slots"].shape == (0,)


def test_first_fit():
    rows, columns = first_fit(np.array([3, 9, 4, 1, 6]), 10)
    assert (rows.tolist(), columns.tolist()) == ([2, 0, 1, 0, 1], [0, 0, 6, 9, 0])
    rows, columns = first_fit(np.array([3, 9]), 0)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [0, 0])


def test_drawn_blocks(make):
    whole, some, others = make(TEXTS), make(TEXTS, most=5), make(TEXTS, most=5, seed=1)
    assert len(some) == 5
    assert {tuple(row) for row in all_of(some)["input_ids"].tolist()} != {
        tuple(row) for row in all_of(others)["input_ids"].tolist()}
    assert some.labels.sum() < whole.labels.sum()
    assert len(make(TEXTS, most=1000)) == len(whole)


def test_too_little_text(make):
    make(TEXTS).check_length()
    with pytest.raises(DataError, match=r"have \d+ tokens all together, less than one block of data.block_size 9999"):
        make(TEXTS, block_size=9999).check_length()


def test_tokens_are_kept(make, monkeypatch):
    before = all_of(make(TEXTS))
    monkeypatch.setattr(tokens_module._Encoder, "encode", lambda *_: pytest.fail("encoded again"))
    inputs = make(TEXTS)
    assert isinstance(inputs._tokens.ids, np.memmap)
    assert all(torch.equal(tensor, before[name]) for name, tensor in all_of(inputs).items())
    with pytest.raises(pytest.fail.Exception):
        make([*TEXTS[:-1], "snow"])
    with pytest.raises(pytest.fail.Exception):
        make(TEXTS, without_beginning())


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_long_texts_are_encoded_in_pieces_as_if_whole(make, monkeypatch, name):
    tokenizer = TOKENIZERS[name]()
    text = "".join(f"the cat is {'good ' * (number % 7)}\n{chr(10) * (number % 3)} and é\n" for number in range(60))
    pieces = []
    monkeypatch.setattr(tokens_module, "_PIECE", 300)
    monkeypatch.setattr(tokens_module, "_AROUND", 40)
    original = tokens_module._Encoder._cuts
    monkeypatch.setattr(tokens_module._Encoder, "_cuts",
                        lambda self, text: pieces.append(original(self, text)) or pieces[-1])
    inputs = make([text], tokenizer)
    assert len(pieces[0]) > 4
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert inputs._tokens.ids.tolist() == [tokenizer.bos_token_id, *expected, tokenizer.eos_token_id]
    assert inputs.labels[:, 1].sum() == len(text.encode())
