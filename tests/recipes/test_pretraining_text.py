"""What the embedded language model is pretrained on."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import transformers

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def text(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("pretraining.text")


PLAIN = {
    " = = Early life = = ": "Early life",
    ' The " 24 @-@ team " league \'s record ( 1 @,@ 000 @.@ 5 ) , " he said . ':
        'The "24-team" league\'s record (1,000.5), "he said.',
    " O 'Neill does n't win 4 \u2013 0 ; the players ' wages — £ 5 % ":
        "O'Neill does n't win 4\u20130; the players' wages—£5%",
    ' A " <unk> " , and / or [ 2 ] : fine ! ': 'A "<unk>", and/or [2]: fine!',
}


def test_wikitext_becomes_plain_text_again(text):
    assert {line: text.plain(line) for line in PLAIN} == PLAIN


def test_pieces_hold_the_whole_text_in_whole_sentences(text):
    paragraphs = ["Chapter 1", '"Is it?" she asked. "It is." He left! Then rain, and more of it.', "So long. " * 300]
    whole = "\n\n".join(paragraphs)
    pieces = list(text.pieces(whole))
    assert len(pieces) > 3
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", whole)
    assert all(len(piece) <= text.PIECE and piece.endswith(".") for piece in pieces)
    assert list(text.pieces("x" * 2000)) == ["x" * 2000]


def test_corpus_and_tokenizer(text, tmp_path):
    (tmp_path / "wikitext2").mkdir()
    for split in ("train", "validation"):
        books = tmp_path / "classic_books" / split
        books.mkdir(parents=True)
        (books / "a.txt").write_text("The sea was calm. Then it was not.\n\nThe End.")
        articles = [f" = Place {number} = \n \n It 's a <unk> place , they say . \n" for number in range(7)]
        (tmp_path / "wikitext2" / f"{split}.txt").write_text("".join(articles))
    source = Path(text.prepare(tmp_path, tmp_path / "work")["source"])
    train, validation = ([json.loads(line)["text"] for line in (source / f"{split}.jsonl").open()]
                         for split in ("train", "validation"))
    assert len(train) == len(validation) == 8
    assert train[6] == "= place 5 =\n\nit 's a <unk> place , they say ."
    assert validation[6] == "Place 5\n\nIt's a <unk> place, they say."
    tokenizer = transformers.AutoTokenizer.from_pretrained(text.architecture(tmp_path / "work"))
    for written in (*validation, "Ünknown: 1234 \N{SNOWMAN}", " two  spaces "):
        tokens = tokenizer(written)["input_ids"]
        assert tokens[0] == tokenizer.bos_token_id
        assert tokenizer.decode(tokens[1:]) == written
    assert tokenizer.unk_token_id in tokenizer(validation[6])["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("1\N{SNOWMAN}")["input_ids"]
