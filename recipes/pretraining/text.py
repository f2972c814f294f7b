"""Texts to pretrain a small language model on, and the tokenizer learned from them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

ARCHITECTURE = Path(__file__).parents[1] / "pretrain" / "text"
VOCABULARY = 4096
END, UNKNOWN = "<|endoftext|>", "<unk>"
LONGEST = 256
"""Tokens that the model reads at a time."""
PIECE = 850
"""Characters of a piece of a text, at most, where a sentence is no longer."""
SPLITS: dict[str, int | None] = {"train": None, "validation": 200_000}
"""Splits, and the characters kept of each of the two sources; None for all."""
AS_TOKENISED = 6
"""One article of so many stays in WikiText's tokenised form, in lower case, as many small sets of sentences are."""
_TITLE = re.compile(r"^ = [^=].* = $")
_JOINED = (
    (r" @([-,.])@ ", r"\1"), (r" +([,;:.!?%)\]\u2019\u2026])", r"\1"), (r"([(\[$\u00a3\u20ac#\u2018]) +", r"\1"),
    (r"(\w) '(s|t|re|ll|ve|d|m|S)\b", r"\1'\2"), (r"\b([A-Z]) '(?=[A-Z])", r"\1'"), (r"(\w) '(?= |$)", r"\1'"),
    (r"(\d) \u2013 (?=\d)", "\\1\u2013"), (r" ?\u2014 ?", "\u2014"), (r" / ", "/"), (r"\u201c ", "\u201c"),
    (r" \u201d", "\u201d"))
"""What to find and what to put there, one after the other: signs go back to the words that they stood at."""


def prepare(data: Path, work: Path) -> dict[str, Any]:
    """Write the corpus, and return where it lies, as the section `data` of the runs.

    Args:
        data: Folder that holds `classic_books` and `wikitext2`.
        work: Where it is written.
    """
    corpus = work / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for split, most in SPLITS.items():
        rows = [json.dumps({"text": piece}) + "\n" for source in (books, articles)
                for text in shortened(source(data, split), most) for piece in pieces(text)]
        (corpus / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    return {"source": str(corpus)}


def architecture(work: Path) -> Path:
    """Write the settings of the model beside a tokenizer learned from the corpus, and return their folder."""
    folder = work / "architecture"
    learn_tokenizer(work / "corpus" / "train.jsonl").save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        shutil.copyfile(ARCHITECTURE / name, folder / name)
    return folder


def pieces(text: str) -> Iterator[str]:
    """Give a text in pieces of about what the model reads at a time, of whole sentences.

    So each begins behind the token for the beginning of a text, as what the model is given later does.
    """
    piece = ""
    for part in re.findall(r".*?[.!?][\"')]* |\n+|.+?(?= ?\n|$)", text):
        if len(piece) + len(part) > PIECE and piece.strip():
            yield piece.strip()
            piece = ""
        piece += part
    if piece.strip():
        yield piece.strip()


def shortened(texts: Iterator[str], most: int | None) -> Iterator[str]:
    """Give texts until they have so many characters together."""
    left = most
    for text in texts:
        yield text[:left]
        left = None if left is None else left - len(text)
        if left is not None and left <= 0:
            return


def books(data: Path, split: str) -> Iterator[str]:
    """Give the books of a split whole."""
    for path in sorted((data / "classic_books" / split).glob("*.txt")):
        yield path.read_text(encoding="utf-8")


def articles(data: Path, split: str) -> Iterator[str]:
    """Give the articles of WikiText-2 as they were before they were tokenised, but for rare words (`<unk>`)."""
    article: list[str] = []
    number = 0
    for line in (data / "wikitext2" / f"{split}.txt").read_text(encoding="utf-8").splitlines():
        if _TITLE.match(line) and article:
            yield "\n\n".join(article)
            article, number = [], number + 1
        if line.strip():
            tokenised = split == "train" and number % AS_TOKENISED == AS_TOKENISED - 1
            article.append(line.strip().lower() if tokenised else plain(line))
    yield "\n\n".join(article)


def plain(line: str) -> str:
    """Return a line of WikiText without the spaces that tokenising put in, and without the signs of a heading.

    `The " 24 @-@ team " league 's record ( 1 @,@ 000 ) .` becomes `The "24-team" league's record (1,000).`
    """
    line = re.sub(r"^( =)+ (.*?)( =)+ ?$", r"\2", line).strip()
    for pattern, replacement in _JOINED:
        line = re.sub(pattern, replacement, line)
    pieces = [piece.strip() if number % 2 else piece for number, piece in enumerate(line.split('"'))]
    return re.sub(r'" +(?=[,;:.!?%)\]])', '"', '"'.join(pieces))


def learn_tokenizer(corpus: Path) -> transformers.PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that puts one token before a text, which also ends it."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END, UNKNOWN], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    with corpus.open(encoding="utf-8") as lines:
        tokenizer.train_from_iterator((json.loads(line)["text"].replace(UNKNOWN, "") for line in lines), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", pair=f"{END} $A {END} $B",
                                                             special_tokens=[(END, tokenizer.token_to_id(END))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END,
                                                pad_token=END, unk_token=UNKNOWN, model_max_length=LONGEST)
