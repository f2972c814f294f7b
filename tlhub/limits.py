"""The accepted values of the configuration's fields, beyond their types."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tlhub.config import SECTIONS, TASK_OPTIONS, RunConfig, SamplingConfig, task_options
from tlhub.errors import UsageError, nearest

NUMBERS: dict[str, tuple[float, float, str]] = {
    "model.dropout": (0, 1, "[)"),
    "model.head_dropout": (0, 1, "[)"),
    "data.validation_fraction": (0, 1, "[)"),
    "data.test_fraction": (0, 1, "[)"),
    "data.max_train_examples": (1, math.inf, "[)"),
    "data.max_evaluation_examples": (1, math.inf, "[)"),
    "data.max_bad_fraction": (0, 1, "[]"),
    "data.max_length": (1, math.inf, "[)"),
    "data.max_seconds": (0.1, math.inf, "[)"),
    "data.block_size": (2, math.inf, "[)"),
    "data.shift": (0, math.inf, "[)"),
    "data.delay": (0, math.inf, "[)"),
    "data.gain": (0, 60, "[]"),
    "data.noise": (-60, 120, "[]"),
    "data.time_masks": (0, 100, "[]"),
    "data.time_mask_share": (0, 1, "(]"),
    "data.frequency_masks": (0, 100, "[]"),
    "data.frequency_mask_share": (0, 1, "(]"),
    "data.randaugment": (0, 14, "[]"),
    "data.randaugment_magnitude": (0, 30, "[]"),
    "data.color": (0, 1, "[]"),
    "data.erasing": (0, 1, "[]"),
    "data.mixup": (0, math.inf, "[)"),
    "data.cutmix": (0, math.inf, "[)"),
    "data.cache_limit_gib": (0, math.inf, "[)"),
    "strategy.rank": (1, math.inf, "[)"),
    "strategy.alpha": (0, math.inf, "()"),
    "strategy.adapter_dropout": (0, 1, "[)"),
    "strategy.layer_decay": (0, 1, "(]"),
    "strategy.k": (1, math.inf, "[)"),
    "strategy.unfreeze_fraction": (0, 1, "[]"),
    "train.epochs": (0, math.inf, "()"),
    "train.max_steps": (1, math.inf, "[)"),
    "train.batch_size": (1, math.inf, "[)"),
    "train.micro_batch_size": (1, math.inf, "[)"),
    "train.learning_rate": (0, math.inf, "()"),
    "train.weight_decay": (0, math.inf, "[)"),
    "train.warmup_fraction": (0, 1, "[]"),
    "train.average": (0, 1, "[)"),
    "train.clip_norm": (0, math.inf, "[)"),
    "train.momentum": (0, 1, "[)"),
    "train.focal_gamma": (0, math.inf, "[)"),
    "train.huber_delta": (0, math.inf, "()"),
    "train.logit_adjustment": (0, math.inf, "[)"),
    "train.label_smoothing": (0, 1, "[)"),
    "train.evaluate_every": (1, math.inf, "[)"),
    "train.patience": (1, math.inf, "[)"),
    "train.checkpoint_every": (1, math.inf, "[)"),
    "train.keep_last": (1, math.inf, "[)"),
    "train.max_bad_steps": (1, math.inf, "[)"),
    "evaluate.resamples": (1, math.inf, "[)"),
    "log.every": (1, math.inf, "[)"),
    "launch.num_processes": (1, math.inf, "[)"),
    "launch.workers": (0, math.inf, "[)"),
    "task_options.false_accept_rate": (0, 1, "()"),
    "task_options.sample_tokens": (1, math.inf, "[)"),
    "seed": (0, 2**63, "[)"),
}
"""Lowest value, highest value, and as in mathematics whether each end is included (`[`, `]`) or not (`(`, `)`)."""
OF_SAMPLING: dict[str, tuple[float, float, str]] = {
    "max_new_tokens": (1, math.inf, "[)"),
    "num_return_sequences": (1, 1000, "[]"),
    "temperature": (0, math.inf, "()"),
    "top_k": (0, math.inf, "[)"),
    "top_p": (0, 1, "(]"),
    "repetition_penalty": (0, math.inf, "()"),
    "num_beams": (1, 1000, "[]"),
    "seed": NUMBERS["seed"],
}
"""The same for the fields of `SamplingConfig`."""


def head_widths(head: str) -> tuple[int, ...]:
    """Return the hidden widths that `model.head` asks for: none for `linear`, (1024, 512) for `1024,512`.

    Raises:
        UsageError: It is neither.
    """
    if head == "linear":
        return ()
    try:
        widths = tuple(int(width) for width in head.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1:
        raise UsageError(f"--model.head {head!r} is neither 'linear' nor positive widths such as '1024,512'")
    return widths


def check_values(config: RunConfig) -> None:
    """Check every number against `NUMBERS` and every choice against its field's choices.

    Raises:
        UsageError: A value is not accepted.
    """
    _check_number("seed", config.seed)
    own = {"task_options": TASK_OPTIONS[config.task]} if config.task in TASK_OPTIONS else {}
    for section, cls in {**SECTIONS, **own}.items():
        values = vars(task_options(config) if section == "task_options" else getattr(config, section))
        for field in dataclasses.fields(cls):
            name, value = f"{section}.{field.name}", values[field.name]
            choices = field.metadata["choices"]
            if choices and value is not None and value not in choices:
                raise UsageError(f"option {name!r} is {value!r}; {nearest(str(value), choices)}")
            if name in NUMBERS and value is not None:
                _check_number(name, value)
    head_widths(config.model.head)
    if config.data.validation_fraction + config.data.test_fraction >= 1:
        raise UsageError(f"options 'data.validation_fraction' ({config.data.validation_fraction:g}) and "
                         f"'data.test_fraction' ({config.data.test_fraction:g}) leave nothing to train on; lower them")


def check_sampling(sampling: SamplingConfig) -> None:
    """Check how a text is to be gone on with.

    Raises:
        UsageError: A value is not accepted, or has no effect beside the others.
    """
    for field in dataclasses.fields(sampling):
        value = getattr(sampling, field.name)
        if field.name in OF_SAMPLING and value is not None:
            _check_number(field.name, value, OF_SAMPLING)
    drawing = [name for name in ("temperature", "top_k", "top_p") if getattr(sampling, name) is not None]
    if sampling.do_sample is False and drawing:
        raise UsageError(f"option {drawing[0]!r} (given: {getattr(sampling, drawing[0])!r}) has no effect with "
                         "do_sample False; leave one of them out")
    searched = sampling.num_beams > 1 or sampling.do_sample is False
    if searched and sampling.num_return_sequences > sampling.num_beams:
        raise UsageError(f"option 'num_return_sequences' is {sampling.num_return_sequences}, and a search gives at "
                         f"most as many texts as it has beams (num_beams {sampling.num_beams}); raise num_beams, or "
                         "draw the tokens (do_sample true, num_beams 1)")


def _check_number(name: str, value: Any, limits: Mapping[str, tuple[float, float, str]] = NUMBERS) -> None:
    low, high, ends = limits[name]
    above = value >= low if ends[0] == "[" else value > low
    below = value <= high if ends[1] == "]" else value < high
    if above and below:
        return
    words = f"{'at least' if ends[0] == '[' else 'more than'} {low:g}"
    if math.isfinite(high):
        words += f" and {'at most' if ends[1] == ']' else 'less than'} {high:g}"
    raise UsageError(f"option {name!r} is {value!r}; it has to be {words}")
