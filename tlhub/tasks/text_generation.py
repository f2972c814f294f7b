"""Text generation: what comes next, in texts, in completions of prompts, or in the answers of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from tlhub.config import NEXT_TOKEN, RunConfig, SamplingConfig, task_options
from tlhub.data.batches import Inputs
from tlhub.data.blocks import GenerationInputs
from tlhub.data.prepare import Examples, PreparedData
from tlhub.data.prompts import Prompt, beginning, prompt_tokens, shown, spoken
from tlhub.data.scripts import turn_end
from tlhub.data.text import given_texts
from tlhub.errors import UsageError
from tlhub.models.checkpoints import Checkpoint
from tlhub.models.generation import generate, most_tokens
from tlhub.registry import TASKS
from tlhub.tasks.base import Task, unlabelled
from tlhub.training.defaults import Default

_BLOCK = 1024
"""Tokens of a block where the checkpoint reads more."""
_SAMPLES = 3
"""Validation texts whose beginnings the report goes on with."""


@TASKS.register("text-generation")
class TextGeneration(Task):
    """Texts to what follows in them, with any `AutoModelForCausalLM` checkpoint and its own last layer."""

    modality: ClassVar[str] = "corpus"
    problems: ClassVar[tuple[str, ...]] = (NEXT_TOKEN,)
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    auto_processor: ClassVar[str] = "AutoTokenizer"

    def own_defaults(self, config: RunConfig, data: PreparedData, checkpoint: Checkpoint) -> list[Default]:
        """Return how long a block is.

        Raises:
            UsageError: It is longer than what the checkpoint reads.
        """
        longest, given = most_tokens(checkpoint.model, checkpoint.processor), config.data.block_size
        if longest is not None and given is not None and given > longest:
            raise UsageError(f"--data.block_size {given} is more than the {longest} tokens that checkpoint "
                             f"{checkpoint.origin.name!r} reads at a time; lower it")
        if longest is not None and longest <= _BLOCK:
            return [Default("data.block_size", longest, "what the checkpoint reads")]
        return [Default("data.block_size", _BLOCK, "longer blocks take much memory")]

    def settle(self, checkpoint: Checkpoint, data: PreparedData) -> None:
        """Let generation end where the answers of conversations do, which may be before the end of a text."""
        model, tokenizer = checkpoint.model, checkpoint.processor
        conversations = isinstance(next(iter(data.splits["train"].inputs), None), list)
        mark = turn_end(tokenizer) if conversations and tokenizer.chat_template else None
        own = model.generation_config
        if mark is not None and own is not None:
            known = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
            ends = [*known, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(mark)]
            own.eos_token_id = list(dict.fromkeys(token for token in ends if token is not None))

    def amount(self, examples: Examples, processor: Any, config: RunConfig) -> int:
        """Return the number of blocks.

        Raises:
            DataError: The texts are shorter than one, all together.
        """
        inputs = GenerationInputs(examples, processor, data=config.data, seed=config.seed)
        inputs.check_length()
        return len(inputs)

    def samples(self, model: nn.Module, processor: Any, examples: Examples, config: RunConfig) -> list[tuple[str, str]]:
        """Return what a model makes of `task_options.prompts`, or of the beginnings of the first validation texts."""
        options = task_options(config)
        asked = [spoken(prompt) if _conversations(examples) else prompt for prompt in options.prompts]
        found: list[Prompt] = asked or [beginning(record) for record in examples.inputs[:_SAMPLES]]
        sampling = SamplingConfig(max_new_tokens=options.sample_tokens, do_sample=False)
        return [(shown(prompt), generate(model, processor, prompt_tokens(prompt, processor), sampling,
                                         seed=config.seed, cut=True)[0]) for prompt in found]

    def inputs(self, examples: Examples, processor: Any, config: RunConfig, *, fingerprint: str) -> Inputs:
        """Return texts as blocks of tokens, tokenised once."""
        return GenerationInputs(examples, processor, data=config.data, seed=config.seed)

    def read(self, values: Sequence[Any], *, pairs: bool) -> Examples:
        """Return the prompts; the name of a file stands for its lines.

        Raises:
            DataError: A file cannot be read, or what looks like one is not there.
        """
        texts = [text for value in values for text in given_texts(value)]
        return unlabelled(texts, texts)


def _conversations(examples: Examples) -> bool:
    return isinstance(examples.inputs[0], list)
