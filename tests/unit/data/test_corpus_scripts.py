from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from tokenizers import AddedToken, decoders

from tests import tiny
from tests.unit.data.test_corpus_blocks import all_of, llama, make  # noqa: F401 (make is a fixture)
from tlhub.data.scripts import make_scripts, turn_end
from tlhub.errors import DataError

TURNS = ("{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|endoftext|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|assistant|>{% endif %}")
LLAMA_TURNS = ("<s>{% for m in messages %}{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
               "{% if add_generation_prompt %}assistant {% endif %}")
TALK = [{"role": "system", "content": "be good"}, {"role": "user", "content": "the cat?"},
        {"role": "assistant", "content": "runs é"}, {"role": "user", "content": "and the dog?"},
        {"role": "assistant", "content": "sleeps"}]


def byte_pairs():
    """Return the tokenizer with what makes text of its tokens again."""
    made = tiny.byte_pairs()
    made.backend_tokenizer.decoder = decoders.ByteLevel()
    return made


def with_template(template, tokenizer=None):
    made = tokenizer or byte_pairs()
    made.chat_template = template
    return made


def learned(inputs, tokenizer):
    """Return the text of what is learned, example by example."""
    inputs.packing = False
    return [tokenizer.decode(row[row >= 0]) for row in all_of(inputs)["targets"]]


def read(inputs, tokenizer):
    """Return the text of what is read, example by example."""
    inputs.packing = False
    batch = all_of(inputs)
    return [tokenizer.decode(row[:length]) for row, length in zip(batch["input_ids"], inputs.lengths, strict=True)]


@pytest.mark.parametrize(("prompt", "completion", "between"), [
    ("the cat", "runs", "\n"), ("the cat ", "runs", ""), ("the cat", " runs", ""), ("é 😀", "😀 é", "\n"),
])
def test_only_the_completion_and_its_end_are_learned(make, prompt, completion, between):  # noqa: F811
    tokenizer = byte_pairs()
    inputs = make([(prompt, completion)], tokenizer, block_size=64)
    assert learned(inputs, tokenizer) == [f"{between}{completion}<|endoftext|>"]
    assert read(inputs, tokenizer) == [f"<|endoftext|>{prompt}{between}{completion}"]
    assert inputs.labels[0, 1] == len((between + completion).encode())
    # As a model is asked to go on: the prompt's own tokens come first.
    first = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
    assert all_of(inputs)["input_ids"][0, :len(first)].tolist() == first


@pytest.mark.parametrize("maker", [llama, transformers.ByT5Tokenizer])
def test_completions_of_other_tokenizers(make, maker):  # noqa: F811
    tokenizer = maker()
    inputs = make([("the cat", "runs far"), ("a", "b")], tokenizer, block_size=64)
    assert [text.removeprefix("\n").strip() for text in learned(inputs, tokenizer)] == ["runs far</s>", "b</s>"]
    assert inputs.labels[:, 1].tolist() == [9, 2]
    row = all_of(inputs)["input_ids"][0].tolist()
    assert row.count(1) == (1 if maker is transformers.ByT5Tokenizer else row[:1].count(1))


def test_long_prompts_lose_their_beginning(make, caplog):  # noqa: F811
    tokenizer = byte_pairs()
    prompt, completion = " ".join(str(number) for number in range(40)), " the good cat runs"
    caplog.set_level("INFO")
    inputs = make([(prompt, completion), ("the", " cat")], tokenizer, block_size=24)
    assert inputs.truncated == 1
    assert "1 of 2 records are longer than data.block_size 24" in caplog.text
    assert learned(inputs, tokenizer) == [f"{completion}<|endoftext|>", " cat<|endoftext|>"]
    assert inputs.lengths[0] == 24
    assert (prompt + completion).endswith(read(inputs, tokenizer)[0])


def test_completions_longer_than_a_block_follow_in_several(make):  # noqa: F811
    tokenizer = byte_pairs()
    completion = " " + " ".join(str(number) for number in range(60))
    inputs = make([("the cat", completion)], tokenizer, block_size=16)
    assert "".join(learned(inputs, tokenizer)) == f"{completion}<|endoftext|>"
    assert inputs.labels[:, 1].sum() == len(completion)
    assert inputs.lengths.max() == 16
    assert all((row[:6] < 0).all() for row in all_of(inputs)["targets"][1:])


def test_only_the_assistants_turns_are_learned(make):  # noqa: F811
    tokenizer = with_template(TURNS)
    inputs = make([TALK], tokenizer, block_size=200)
    assert learned(inputs, tokenizer) == ["runs é<|endoftext|>sleeps<|endoftext|>"]
    assert inputs.labels[0, 1] == len("runs ésleeps".encode())
    expected = tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=False)
    found = all_of(inputs)["input_ids"][0].tolist()
    assert found == expected[:len(found)]
    assert make([TALK, TALK[:3]], tokenizer, block_size=200).labels[1, 1] == len("runs é".encode())


def test_tokens_that_end_turns_are_no_text(make):  # noqa: F811
    tokenizer = with_template("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<end_of_turn>\n{% endfor %}"
                              "{% if add_generation_prompt %}assistant: {% endif %}")
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=True)])  # as Gemma's, beside its own end of text
    inputs = make([TALK], tokenizer, block_size=256)
    assert learned(inputs, tokenizer) == ["runs é<end_of_turn>sleeps<end_of_turn>"]
    assert inputs.labels[:, 1].tolist() == [len("runs ésleeps".encode())]


def test_long_conversations(make):  # noqa: F811
    tokenizer = with_template(TURNS)
    talk = [message for number in range(12) for message in (
        {"role": "user", "content": f"cat {number}?"}, {"role": "assistant", "content": f"dog {number}!"})]
    inputs = make([talk], tokenizer, block_size=64)
    assert "".join(learned(inputs, tokenizer)) == "".join(f"dog {number}!<|endoftext|>" for number in range(12))
    assert (len(inputs) > 1, inputs.truncated) == (True, 1)


@pytest.mark.parametrize("maker", [llama, transformers.ByT5Tokenizer])
def test_templates_bring_their_own_beginning(make, maker):  # noqa: F811
    tokenizer = with_template(LLAMA_TURNS if maker is llama else LLAMA_TURNS.removeprefix("<s>"), maker())
    inputs = make([TALK[1:]], tokenizer, block_size=400)
    text = learned(inputs, tokenizer)[0].replace("▁", " ")
    assert text.replace(" ", "") == "runsé</s>sleeps</s>"
    found = all_of(inputs)["input_ids"][0].tolist()
    assert found == tokenizer.apply_chat_template(TALK[1:], tokenize=True, return_dict=False)[:-1]


@pytest.mark.parametrize(("template", "words"), [
    (None, "tokenizer '' has no chat template"),
    ("{{ messages | length }}{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
     r"r0: the chat template .* writes message 3 \(assistant\) otherwise than it is"),
    ("{{ raise_exception('no system messages') }}", r"r0: .* cannot write the conversation \(no system messages\)"),
    ("{% for m in messages %}{{ m['content'].wrong() }}{% endfor %}", "r0: .* cannot write the conversation"),
])
def test_conversations_that_cannot_be_written(make, template, words):  # noqa: F811
    with pytest.raises(DataError, match=words):
        make([TALK], with_template(template))


def test_a_template_that_drops_earlier_thoughts(make, caplog):  # noqa: F811
    thoughts = ("{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' and loop.last %}(thought)"
                "{% endif %}{{ m['content'] }}<|endoftext|>{% endfor %}"
                "{% if add_generation_prompt %}<assistant>{% endif %}")
    tokenizer = with_template(thoughts)
    with caplog.at_level("INFO"):
        inputs = make([TALK, TALK[:3]], tokenizer, block_size=200)
    assert "each of the 3 answers is learned by itself" in caplog.text
    assert learned(inputs, tokenizer) == ["(thought)runs é<|endoftext|>", "(thought)sleeps<|endoftext|>",
                                          "(thought)runs é<|endoftext|>"]
    shown = [tokenizer.apply_chat_template(TALK[:number], tokenize=False, add_generation_prompt=True)
             for number in (2, 4, 2)]
    assert [text.startswith(start) for text, start in zip(read(inputs, tokenizer), shown, strict=True)] == [True] * 3


@pytest.mark.parametrize(("template", "asked"), [
    # As Mistral's: what the system says is left out once there is an answer.
    ("{% for m in messages if m['role'] != 'system' or messages[-1]['role'] == 'user' %}[{{ m['content'] }}]"
     "{% if m['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}", "[be brief][cat?]"),
    # As R1's: the answer is asked for with words that are not there in the whole.
    ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}<|endoftext|>"
     "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>(thinks){% endif %}",
     "<system>be brief<user>cat?<assistant>(thinks)"),
])
def test_answers_are_learned_behind_what_asks_for_them(make, template, asked):  # noqa: F811
    tokenizer = with_template(template)
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "cat?"},
            {"role": "assistant", "content": "runs"}]
    inputs = make([talk], tokenizer, block_size=200)
    assert learned(inputs, tokenizer)[0].removesuffix("]<|endoftext|>").removesuffix("<|endoftext|>") == "runs"
    assert read(inputs, tokenizer)[0].startswith(asked)
    shown = tokenizer.apply_chat_template(talk[:2], tokenize=False, add_generation_prompt=True)
    assert shown == asked


def test_turns_that_end_otherwise_than_texts(make):  # noqa: F811
    tokenizer = with_template("{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|stop|>\n"
                              "{% endfor %}"
                              "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|stop|>"]})
    assert turn_end(tokenizer) == "<|stop|>"
    assert turn_end(with_template(TURNS)) == "<|endoftext|>"
    assert learned(make([TALK], tokenizer, block_size=200), tokenizer) == ["runs é<|stop|>sleeps<|stop|>"]


def test_a_template_that_writes_nothing_to_learn(make):  # noqa: F811
    inputs = make([TALK], with_template("{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"))
    with pytest.raises(DataError, match="no token to learn"):
        inputs.check_length()


def test_segments():
    script, = make_scripts(("a", "b"), "r0", byte_pairs())
    assert (script.text, script.segments, script.whole) == ("a\nb", [(0, 1, False), (1, 3, True)], False)
    script, = make_scripts(TALK, "r0", with_template(TURNS))
    assert [script.text[start:end] for start, end, learned in script.segments if learned] == [
        "runs é<|endoftext|>", "sleeps<|endoftext|>"]
    assert "".join(script.text[start:end] for start, end, _ in script.segments) == script.text
    assert torch.tensor(np.array(script.spans)).shape == (2, 2)
