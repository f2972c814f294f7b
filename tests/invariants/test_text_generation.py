"""Text generation as a user meets it: a run, what it leaves, and what it makes of prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tlhub
from tests import tiny
from tests.generated import write_texts
from tlhub import cli, results
from tlhub.config import SamplingConfig
from tlhub.errors import CheckpointError, DataError, UsageError
from tlhub.evaluation.baselines import unigram
from tlhub.evaluation.metrics import METRICS, compute
from tlhub.finished import Run
from tlhub.limits import check_sampling
from tlhub.training import callbacks
from tlhub.training.objectives import TokenLoss

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}" \
       "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots, which take most of a tiny run's time."""
    monkeypatch.setattr(results, "_draw", lambda bench, outputs, content: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data") / "texts", {"train": 24, "validation": 6, "test": 6})


def fit(model: Path, data: Path, out: Path, strategy: str = "full", **options: Any) -> Run:
    train = {"max_steps": 4, "batch_size": 8, "learning_rate": 5e-3, **options.pop("train", {})}
    given = {"source": str(data), "block_size": 24, "cache_dir": str(out.parent / "cache"), **options.pop("rows", {})}
    return tlhub.finetune("text-generation", model=str(model), data=given, strategy=strategy, train=train, out=str(out),
                          evaluate={"resamples": 10}, log={"every": 1}, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_draw", lambda bench, outputs, content: None)
        return fit(tiny.generator(folder / "model", "llama"), data, folder / "run",
                   task_options={"sample_tokens": 4, "prompts": ["the good", "rain"]})


def test_what_a_run_leaves(run: Run, data: Path) -> None:
    found = run.metrics
    assert set(found["test"]) == {"perplexity", "bits_per_byte", "token_accuracy", "loss"} == \
        set(found["intervals"]["test"])
    assert found["test"]["perplexity"] == pytest.approx(np.exp(found["test"]["loss"]))
    assert set(found["baselines"]) == {"checkpoint", "unigram"}
    assert found["test"]["loss"] < found["baselines"]["checkpoint"]["loss"]
    assert found["data"]["train_tokens"] > 24 * 3
    assert "classes" not in found["data"]
    assert list(found["throughput"]) == ["tokens_per_s"]
    assert found["problem_type"] == "next_token"
    assert [sample["prompt"] for sample in found["samples"]] == ["the good", "rain"]
    assert all(sample["before"] is not None and sample["before"] != sample["after"] for sample in found["samples"])
    report = (run.folder / "report.md").read_text()
    assert "## Samples" in report
    assert "Prompt: `the good`" in report
    lines = callbacks.read_history(run.folder / "history.jsonl")
    assert {"tokens_per_s", "token_accuracy"} <= lines[0].keys()
    assert 0 <= lines[0]["token_accuracy"] <= 1
    scores = run.evaluate(str(data))["metrics"]
    assert scores == pytest.approx(found["test"], rel=1e-5)
    assert found["groups"] == {}


def test_intervals_draw_the_blocks_of_a_group_together(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"the {split} cat {number} " * 12, "group": f"{split} author {number % 4}"}
                for number in range(24)]
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = fit(tiny.generator(tmp_path / "model", "llama"), tmp_path / "data", tmp_path / "run")
    assert run.metrics["data"]["test"] > 24
    assert run.metrics["groups"] == {split: {"all": 4, "fewest": 4} for split in ("validation", "test")}
    low, high = run.metrics["intervals"]["test"]["bits_per_byte"]
    assert low <= run.metrics["test"]["bits_per_byte"] <= high
    assert low < high
    assert run.evaluate(str(tmp_path / "data"))["groups"] == {"all": 4, "fewest": 4}


def test_a_run_loads_in_plain_transformers(run: Run) -> None:
    folder = run.folder / "model"
    assert not (folder / "labels.json").exists()
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token is None
    assert "token" not in plain.config.id2label.values()
    prompt = torch.tensor([[0, *tokenizer("the good")["input_ids"]]])
    found = plain.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False,
                           pad_token_id=0)
    text = tokenizer.decode(found[0], skip_special_tokens=True)
    assert text.endswith(run.metrics["samples"][0]["after"])
    assert run.predict(["the good"], max_new_tokens=4) == [
        {"input": "the good", "text": run.metrics["samples"][0]["after"]}]


def test_predict_on_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(run.folder), "the good", "--max_new_tokens", "5", "--num_return_sequences", "3"]

    def said(*more: str) -> list[dict[str, str]]:
        assert cli.main([*words, *more]) == 0, capsys.readouterr().err
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    drawn = said()
    assert [set(line) for line in drawn] == [{"input", "text"}] * 3
    assert len({line["text"] for line in drawn}) == 3
    assert said() == drawn
    assert said("--seed", "5") != drawn
    assert said("--do_sample", "--temperature", "0.7", "--top_k", "5", "--top_p=0.9") != drawn
    assert len(said("--num_beams", "3", "--repetition_penalty", "1.2")) == 3
    for wrong, message in ((["--temperature", "warm"], "'temperature' is 'warm', but needs a number"),
                           (["--top_p", "2"], "'top_p' is 2"), (["--do_sample", "false"], "at most as many texts"),
                           (["--max_new_tokens", "0"], "'max_new_tokens' is 0"),
                           (["--batch_size", "2"], "'batch_size' has no effect"),
                           (["--max_new_tokens", "500"], "more than the 70 that the model reads")):
        assert cli.main([*words, *wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("choices", "words"), [
    ({"temperature": 0.0}, "more than 0"), ({"num_return_sequences": 0}, "at least 1"),
    ({"num_beams": 2, "num_return_sequences": 3}, "at most as many texts as it has beams"),
    ({"do_sample": False, "top_k": 4}, "has no effect with do_sample False"),
])
def test_how_a_text_is_gone_on_with_is_checked(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_sampling(SamplingConfig(**choices))
    check_sampling(SamplingConfig(num_return_sequences=3))


def test_options_of_generation_are_refused_elsewhere(tmp_path: Path, data: Path) -> None:
    other = tlhub.finetune("text-classification", model=str(tiny.checkpoint(tmp_path / "bert", "bert")), data=str(data),
                           strategy="full", train={"max_steps": 1, "batch_size": 8}, out=str(tmp_path / "run"),
                           evaluate={"resamples": 1})
    with pytest.raises(UsageError, match=r"'max_new_tokens' has no effect with .*a run of text-class"):
        other.predict(["the good"], max_new_tokens=3)


@pytest.mark.parametrize(("kind", "strategy"), [("gpt2", "lora"), ("gpt2", "last_k"), ("qwen", "gradual_unfreezing"),
                                                ("gpt2", "scratch")])
def test_strategies_on_shared_last_layers(kind: str, strategy: str, tmp_path: Path, data: Path) -> None:
    model = tiny.generator(tmp_path / "model", kind)
    choice: Any = {"name": strategy, "k": 1} if strategy == "last_k" else strategy
    found = fit(model, data, tmp_path / "run", choice)
    before = transformers.AutoModelForCausalLM.from_pretrained(model)
    after = transformers.AutoModelForCausalLM.from_pretrained(found.folder / "model")
    assert after.get_output_embeddings().weight is after.get_input_embeddings().weight
    moved = not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    assert moved == (strategy in ("gradual_unfreezing", "scratch"))
    assert ("checkpoint" in found.metrics["baselines"]) == (strategy != "scratch")
    assert (found.metrics["samples"][0]["before"] is None) == (strategy == "scratch")


def test_packing_and_gradient_checkpointing_change_nothing(tmp_path: Path, data: Path) -> None:
    model = tiny.generator(tmp_path / "model", "gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    variants: dict[str, dict[str, Any]] = {
        "packed": {}, "unpacked": {"rows": {"packing": False}}, "again": {"train": {"gradient_checkpointing": True}},
        "divided": {"train": {"micro_batch_size": 3}}}
    found = {}
    for name, options in variants.items():
        folder = fit(model, data, tmp_path / name, **options).folder
        found[name] = [line["loss"] for line in callbacks.read_history(folder / "history.jsonl") if "loss" in line]
    assert len(found["packed"]) == 4
    for name in variants:
        np.testing.assert_allclose(found[name], found["packed"], atol=2e-6, err_msg=name)


def test_models_that_cannot_be_packed_are_told(tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    settings = transformers.OPTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32,
                                      vocab_size=300, max_position_embeddings=70, word_embed_proj_dim=16)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(tmp_path / "opt")
    tiny.byte_pairs().save_pretrained(tmp_path / "opt")
    with caplog.at_level("INFO", logger="tlhub"):
        fit(tmp_path / "opt", data, tmp_path / "run", "lora")
    said = [line for line in caplog.messages if "does not keep documents in one row apart" in line]
    assert len(said) == 1


def test_conversations_are_gone_on_with_through_the_chat_template(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]}
            for word in tiny.WORDS[:20]]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = tiny.generator(tmp_path / "model", "qwen")
    with pytest.raises(DataError, match="no chat template"):
        fit(model, tmp_path / "train.jsonl", tmp_path / "bare")
    tokenizer = tiny.byte_pairs()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(model)
    found = fit(model, tmp_path / "train.jsonl", tmp_path / "run")
    assert found.metrics["samples"][0]["prompt"].startswith("say ")
    (answer,) = found.predict(["say sun"], max_new_tokens=3)
    plain = transformers.AutoModelForCausalLM.from_pretrained(found.folder / "model").eval()
    prompt = tokenizer("<user>say sun<assistant>", return_tensors="pt")
    made = plain.generate(**prompt, max_new_tokens=3, do_sample=False, pad_token_id=0)[0]
    assert tokenizer.decode(made, skip_special_tokens=True).endswith(answer["text"])
    asked = fit(model, tmp_path / "train.jsonl", tmp_path / "asked", task_options={"prompts": ["say sun"],
                                                                                   "sample_tokens": 3})
    assert asked.metrics["samples"][0]["prompt"] == "say sun"
    assert asked.metrics["samples"][0]["after"] == asked.predict(["say sun"], max_new_tokens=3)[0]["text"]


def test_what_cannot_generate_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="keeps the checkpoint's own last layer"):
        fit(tmp_path, data, tmp_path / "a", "linear_probe")
    with pytest.raises(CheckpointError, match="is an encoder here"):
        fit(tiny.checkpoint(tmp_path / "bert", "bert"), data, tmp_path / "b")
    with pytest.raises(UsageError, match="block_size 500 is more than the 70 tokens"):
        fit(tiny.generator(tmp_path / "gpt2", "gpt2"), data, tmp_path / "c", rows={"block_size": 500})


def test_metrics_of_tokens() -> None:
    sums, labels = np.array([[6.0, 1.0], [2.0, 3.0]]), np.array([[3, 10], [5, 22]])
    found = compute(["loss", "perplexity", "bits_per_byte", "token_accuracy"], sums, labels)
    assert found == pytest.approx({"loss": 1.0, "perplexity": np.e, "bits_per_byte": 8 / np.log(2) / 32,
                                   "token_accuracy": 0.5})
    alone = METRICS["bits_per_byte"](keep_in_memory=True).compute(predictions=sums, references=labels)
    assert alone == pytest.approx({"bits_per_byte": found["bits_per_byte"]})
    with pytest.raises(UsageError, match="'accuracy' does not apply to predicted tokens; valid: bits_per_byte, loss"):
        compute(["accuracy"], sums, labels)
    with pytest.raises(UsageError, match="does not apply to predicted tokens"):
        compute(["bleu"], sums, labels)


class Texts:
    """Two examples by batch position, given as tokens to predict."""

    lengths = None

    def __init__(self, *texts: list[int]) -> None:
        self.texts = texts
        self.labels = np.array([[len(text), len(text)] for text in texts])

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, indices: np.ndarray, epoch: int | None, device: torch.device) -> dict[str, torch.Tensor]:
        flat = [token for index in indices for token in (*self.texts[index], -100)]
        owners = [place for place, index in enumerate(indices) for _ in (*self.texts[index], -100)]
        return {"targets": torch.tensor([flat]), "owners": torch.tensor([owners])}


def test_the_unigram_baseline_predicts_by_frequency() -> None:
    train, scored = Texts([1, 1, 2], [1]), Texts([1, 2], [3])
    found = unigram(train, scored, ["loss", "token_accuracy"])
    shares = np.array([1, 4, 2, 1]) / 8
    assert found == pytest.approx({"loss": -np.log(shares[[1, 2, 3]]).mean(), "token_accuracy": 1 / 3})


def test_every_token_of_a_batch_counts_alike() -> None:
    objective = TokenLoss(np.array([[3, 9], [5, 20], [0, 0]]))
    output = type("Output", (), {"logits": torch.tensor([[4.0, 1.0], [6.0, 2.0]])})
    assert objective.weight(np.array([0, 1]), 0) == 8 == objective.amount(np.array([3, 4]))
    assert float(objective.loss(output, np.array([0, 1]), 0)) == 10
    assert int(objective.right(output, np.array([0, 1]))) == 3
