"""A finished run: its results, predictions with its model, and scores on other data."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from torch import nn

from tlhub import results
from tlhub.config import GENERATION_TASKS, DataConfig, RunConfig, SamplingConfig, problem_type
from tlhub.data.batches import Inputs
from tlhub.data.prepare import prepare_evaluation
from tlhub.data.prompts import prompt_tokens, spoken
from tlhub.data.sources import place_of
from tlhub.data.targets import Target
from tlhub.errors import CheckpointError, UsageError
from tlhub.folder import RunFolder
from tlhub.limits import check_sampling
from tlhub.models.assembly import lay_out
from tlhub.models.generation import generate
from tlhub.models.saving import load_saved
from tlhub.options import from_kwargs
from tlhub.problems import Problem
from tlhub.registry import TASKS
from tlhub.tasks.base import Task
from tlhub.training.inference import predict_logits
from tlhub.training.processes import make_accelerator

logger = logging.getLogger(__name__)

_LAYOUT = ("text_column", "text_pair_column", "prompt_column", "completion_column", "messages_column", "label_column",
           "target_columns", "label_separator", "file_column", "metadata", "cache_dir", "max_bad_fraction")
"""Options of the section `data` that hold for other data of the same kind too."""
_OF_TABLE = ("metadata", "file_column", "label_column", "target_columns", "label_separator")
"""Those of them that say where a table beside files is, and what its columns hold."""


class Run:
    """A finished run.

    Args:
        folder: Its folder.

    Raises:
        CheckpointError: The folder holds no finished run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._files = RunFolder(Path(folder))
        if self._files.status.get("state") != "finished":
            state = self._files.status.get("state")
            found = f"found one that is {state}); finish it with the command that began it" if state else \
                "nothing by tlhub); give the folder that 'tlhub finetune' named at its end"
            raise CheckpointError(f"{str(folder)!r} holds no finished run ({found}")
        try:
            stored = self._files.config
            self.record: dict[str, Any] = self._files.record
            if "config" in stored:
                raise ValueError("names another file")
            self.config: RunConfig = from_kwargs(**{name: value for name, value in stored.items() if name != "record"})
            self._names = tuple(map(str, self.record["label_names"]))
            self._pairs = bool(self.record["pairs"])
        except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
            raise CheckpointError(f"the config.yaml of {str(folder)!r} is not what a run wrote ({error}); put it back, "
                                  "or make the run again") from error
        self._loaded: tuple[nn.Module, Any] | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._files.path

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`.

        Raises:
            CheckpointError: It cannot be read.
        """
        try:
            content = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8"))
            wrong = None if isinstance(content, dict) else "no values by name"
        except (OSError, ValueError, RecursionError) as error:
            content, wrong = {}, str(error)
        if wrong is not None:
            raise CheckpointError(f"the metrics.json of {str(self.folder)!r} is not what a run wrote ({wrong}); put it "
                                  "back, or make the run again")
        values: dict[str, Any] = content
        return values

    @property
    def target(self) -> Target:
        """What is predicted: the kind of target, and the names of its outputs in their order."""
        return Target(problem_type(self.config) or self.task.problems[0], self._names)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes, labels or targets, in the order of the outputs."""
        return self.target.names

    @property
    def problem(self) -> Problem:
        """How the kind of target is scored and told."""
        return self.task.problem(self.target.problem_type, self.metrics)

    @property
    def task(self) -> Task:
        """The run's task."""
        task: Task = TASKS.get(self.config.task)()
        return task

    def predict(self, values: Sequence[str | tuple[str, str]], *, batch_size: int | None = None,
                **sampling: Any) -> list[dict[str, Any]]:
        """Return a prediction for each input.

        Args:
            values: Files, folders, or texts, as the task reads them; pairs of texts are tuples, or have a tab between.
            batch_size: Examples of one forward pass; default: 64. Prompts are gone on with one after the other.
            sampling: Fields of `tlhub.config.SamplingConfig`, for runs that go on with texts.

        Returns:
            Dictionaries with `input`, and `label`, `score` and `scores`, or `value`; or `text`, what follows the input,
            one for each text that is asked for.

        Raises:
            UsageError: An option does not fit the run's task, or has a wrong value.
            DataError: An input cannot be read.
        """
        generates = self.config.task in GENERATION_TASKS
        if unfit := ["batch_size"] if generates and batch_size is not None else [] if generates else list(sampling):
            raise UsageError(f"option {unfit[0]!r} has no effect with {str(self.folder)!r}, a run of "
                             f"{self.config.task}; leave it out")
        examples = self.task.read(values, pairs=self._pairs)
        if len(examples.ids) == 0:
            return []
        if generates:
            return self._go_on(examples.inputs, SamplingConfig(**sampling))
        logits = self.logits(self.inputs(examples), batch_size=batch_size or 64)
        rows = self.problem.predictions(logits, self.target.names)
        return [{"input": str(name), **row} for name, row in zip(examples.ids, rows, strict=True)]

    def _go_on(self, texts: Sequence[str], sampling: SamplingConfig) -> list[dict[str, Any]]:
        check_sampling(sampling)
        seed = self.config.seed if sampling.seed is None else sampling.seed
        device = make_accelerator(self.config, training=False).device
        model, tokenizer = self._load()
        model.to(device)
        rows = []
        for text in texts:
            prompt = spoken(text) if self.record.get("conversations") else text
            answers = generate(model, tokenizer, prompt_tokens(prompt, tokenizer), sampling, seed=seed)
            rows += [{"input": text, "text": answer} for answer in answers]
        return rows

    def logits(self, inputs: Inputs, *, batch_size: int | None = None) -> np.ndarray:
        """Return what the saved model gives for inputs, shape (n, c).

        Raises:
            CheckpointError: That is not what the run's labels are.
        """
        accelerator = make_accelerator(self.config, training=False)
        scorer = self.problem.scorer(self._model().to(accelerator.device), {"test": inputs}, logger.info)
        logits = predict_logits(scorer, inputs, accelerator,
                                batch_size=batch_size or self.config.train.micro_batch_size or 64)
        if self.config.task not in GENERATION_TASKS and logits.shape[1:] != (len(self._names),):
            raise CheckpointError(f"the model of {str(self.folder)!r} gives {logits.shape[-1]} numbers for an input, "
                                  f"and its config.yaml names {len(self._names)} labels; make the run again")
        return logits

    def evaluate(self, source: str, **choices: Any) -> dict[str, Any]:
        """Score the saved model on data: its test split where it has one, otherwise all of it.

        Args:
            source: A folder, file or Hub id.
            choices: Options of the section `data` that are other than in the run, such as `text_column`.

        Returns:
            `metrics` with their `intervals`, the number of `groups` where there are any, and what else the kind of
            target tells (for wake words the `operating_point`), written to `evaluations/` as well.

        Raises:
            UsageError: An option is unknown, has a wrong value or would have no effect.
            DataError: The data cannot be used, or holds labels that the model does not know.
        """
        self._files.check_links()
        section = self._data_section(source, choices)
        examples = prepare_evaluation(section, self.task.modality, target=self.target, pairs=self._pairs,
                                      keywords=self.task.keywords(self.config),
                                      group_column=self.config.data.group_column)
        inputs = self.inputs(examples)
        logits, problem = self.logits(inputs), self.problem
        scores = results.score_split(problem, logits, inputs.labels, results.groups_of(inputs, examples.groups),
                                     self.config)
        facts = problem.facts({"test": logits}, {"test": inputs.labels}, {"test": examples.groups}, self.label_names,
                              self.config)
        if PartialState().is_main_process:
            number = len(list((self.folder / "evaluations").glob("*.json"))) + 1
            self._files.write_json(f"evaluations/{number:03d}.json", {
                "data": section.source, "examples": len(inputs), **scores["metrics"],
                "intervals": scores["intervals"], **({"groups": scores["groups"]} if "groups" in scores else {}),
                **facts})
        return {**scores, **facts}

    def _data_section(self, source: str, choices: Mapping[str, Any]) -> DataConfig:
        """Return the run's own section `data` for another source: its columns, unless other ones are named."""
        own = dataclasses.asdict(self.config.data)
        kept = [*_LAYOUT, "split_column", "group_column"] if source == self.config.data.source else _LAYOUT
        named = {name: own[name] for name in kept if own[name] not in (None, [])}
        table = named.get("metadata")
        place = place_of(dataclasses.replace(self.config.data, source=source))
        if table and "metadata" not in choices and place.is_dir() and not (place / table).exists():
            logger.info("%r has no table %r as the run's data have; its folders are taken for classes", source, table)
            named = {name: value for name, value in named.items() if name not in _OF_TABLE}
        for one, other in (("label_column", "target_columns"), ("target_columns", "label_column")):
            if choices.get(one):
                named.pop(other, None)  # the run's way of naming the target gives way to the one chosen here
        named |= {**choices, "source": source}
        return from_kwargs(self.config.task, model="-", data=named, task_options=self.config.task_options).data

    def _model(self) -> nn.Module:
        return self._load()[0]

    def inputs(self, examples: Any) -> Inputs:
        """Return examples (`tlhub.data.prepare.Examples`) as what the saved model reads."""
        config = dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, cache_limit_gib=0.0))
        return self.task.inputs(examples, self._load()[1], config, fingerprint="")

    def _load(self) -> tuple[nn.Module, Any]:
        if self._loaded is None:
            model, processor = load_saved(self.folder / "model", auto_model=self.task.auto_model,
                                          auto_processor=self.task.auto_processor)
            self._loaded = lay_out(model), processor
        return self._loaded
