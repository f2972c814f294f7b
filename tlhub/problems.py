"""Kinds of target, by transformers' problem types: how each is trained towards, scored and told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from tlhub.config import MULTI_LABEL, NEXT_TOKEN, REGRESSION, SINGLE_LABEL, RunConfig, TrainConfig
from tlhub.data.batches import Inputs
from tlhub.data.blocks import GenerationInputs
from tlhub.data.sampling import class_sampling
from tlhub.errors import UsageError
from tlhub.evaluation import baselines, metrics, plots
from tlhub.evaluation.samples import samples_section
from tlhub.evaluation.scores import Scores
from tlhub.models.heads import language_model
from tlhub.models.next_token import keeps_documents_apart, next_token
from tlhub.models.outputs import IDENTITY, OutputMap, one_sigmoid, standardising
from tlhub.training.objectives import (
    CrossEntropy,
    LabelsCrossEntropy,
    Objective,
    TargetError,
    TokenLoss,
    balanced_weights,
    log_prior,
    positive_weights,
)


class Problem(ABC):
    """A kind of target.

    Attributes:
        losses: The accepted values of `train.loss`, the default first.
        metrics: The metrics of a report.
        best: The metric that chooses the best epoch on validation.
        unit: What `amount` counts, as throughput is told.
        accuracy: What the share of right answers is called.
        scores_checkpoint: Whether the checkpoint can be scored as it is, before anything is trained.
    """

    losses: ClassVar[tuple[str, ...]]
    metrics: ClassVar[tuple[str, ...]]
    best: ClassVar[str]
    unit: ClassVar[str] = "examples"
    accuracy: ClassVar[str] = "accuracy"
    scores_checkpoint: ClassVar[bool] = False

    def check(self, config: RunConfig, names: Sequence[str]) -> None:
        """Refuse options that do not fit this kind of target, or these names of its outputs.

        Raises:
            UsageError: One does not fit.
        """
        if config.train.loss not in (None, *self.losses):
            raise UsageError(f"--train.loss {config.train.loss!r} is no loss for this kind of target; take one of: "
                             f"{', '.join(self.losses)}")
        if config.model.sigmoid and len(names) != 2:
            raise UsageError(f"--model.sigmoid tells two classes apart, and the data have {len(names)}; leave it out")

    def best_of(self, names: Sequence[str]) -> str:
        """Return the metric that chooses the best epoch, for outputs of these names."""
        return self.best

    def outputs(self, labels: np.ndarray, config: RunConfig, *, centre: bool) -> OutputMap:
        """Return the map from what the model is trained to give to its final outputs.

        Args:
            labels: Of the training split.
            config: The run.
            centre: Whether the model's last layer has a bias.
        """
        return one_sigmoid() if config.model.sigmoid else IDENTITY

    def scorer(self, model: nn.Module, inputs: Mapping[str, Inputs], tell: Callable[[str], None]) -> nn.Module:
        """Return the module that gives the outputs of this kind of target; what trains and scores a model runs it.

        Args:
            model: The model, on the device that it is run on.
            inputs: What it reads, by split; may be told how to lay out what they give.
            tell: Tells the user what was found of the model.
        """
        return model

    def amount(self, labels: np.ndarray) -> int:
        """Return how many answers the examples of a split ask for."""
        return len(labels)

    def counts(self, labels: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, int]:
        """Return what else to tell of the size of the data, from the labels of each split and the outputs' names."""
        return {"classes": len(names)}

    @abstractmethod
    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig, outputs: OutputMap) -> Objective:
        """Return the loss of the training split's examples.

        Args:
            labels: Of the training split.
            classes: Number of final outputs.
            train: The loss and its settings.
            outputs: The space that the model is trained in.
        """

    def facts(self, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray],
              groups: Mapping[str, np.ndarray | None], names: Sequence[str], config: RunConfig) -> dict[str, Any]:
        """Return what else `metrics.json`, or the scores of a finished run on other data, should tell.

        Args:
            outputs: Final outputs of `validation` and, where there is one, `test`, each (n, c); of a finished run only
                those of the other data, as `test`.
            labels: Of the same splits.
            groups: The group of each example (speaker, patient), or None, of the same splits.
            names: Of the outputs.
            config: The run.
        """
        return {}

    def sections(self, content: Mapping[str, Any]) -> list[list[str]]:
        """Return further sections of the report, each its lines, from the content of `metrics.json`."""
        return []

    def draw(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str,
             folder: Path) -> tuple[Path, ...]:
        """Draw what the outputs (n, c) of a split show, and return the files; none where there is no picture.

        Args:
            outputs: Final outputs.
            labels: Of the split.
            names: Of the outputs.
            split: Its name, for the files' names.
            folder: Where to draw.
        """
        return ()

    @abstractmethod
    def baselines(self, train: Inputs, scored: Inputs, names: Sequence[str], classes: int) -> Mapping[str, Scores]:
        """Return what can be reached without a model: scores by baseline and metric.

        Args:
            train: The training split.
            scored: The split that is scored.
            names: Metrics by name.
            classes: Number of final outputs.
        """

    @abstractmethod
    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return one plain dictionary for each row of final outputs (n, c)."""

    def score(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Scores:
        """Return metrics by name for final outputs (n, c)."""
        return metrics.compute(names, outputs, labels)


class SingleLabel(Problem):
    """One class out of several; labels int64, shape (n,)."""

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "ece", "loss")
    best: ClassVar[str] = "accuracy"

    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig, outputs: OutputMap) -> Objective:
        """Return cross-entropy with the run's class weights, smoothing, focus and prior."""
        seen = _seen(labels, train)
        return CrossEntropy(
            labels, class_weights=balanced_weights(seen, classes) if train.class_weights == "balanced" else None,
            label_smoothing=train.label_smoothing, focal_gamma=train.focal_gamma if train.loss == "focal" else 0.0,
            prior=train.logit_adjustment * log_prior(seen, classes) if train.logit_adjustment else None)

    def baselines(self, train: Inputs, scored: Inputs, names: Sequence[str], classes: int) -> Mapping[str, Scores]:
        """Return the scores of always answering the most frequent class."""
        return {"majority": baselines.majority(train.labels, scored.labels, names, classes)}

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return label, score and all scores (softmax) of each row."""
        shifted = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
        rows = shifted / shifted.sum(axis=1, keepdims=True)
        return [{"label": names[int(row.argmax())], "score": float(row.max()),
                 "scores": dict(zip(names, row.tolist(), strict=True))} for row in rows]

    def draw(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str,
             folder: Path) -> tuple[Path, ...]:
        """Draw the confusion matrix."""
        matrix = metrics.confusion_matrix(outputs.argmax(axis=1), labels, len(names))
        path = folder / f"confusion_{split}.png"
        plots.confusion(matrix, names, path)
        return (path,)


class MultiLabel(Problem):
    """Any number of labels; labels bool, shape (n, c)."""

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_micro", "ece",
                                          "loss")
    best: ClassVar[str] = "f1_macro"

    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig, outputs: OutputMap) -> Objective:
        """Return binary cross-entropy with the run's weights and focus."""
        balanced = train.class_weights == "balanced"
        return LabelsCrossEntropy(
            labels, positive_weights=positive_weights(_seen(labels, train)) if balanced else None,
            focal_gamma=train.focal_gamma if train.loss == "focal" else 0.0)

    def baselines(self, train: Inputs, scored: Inputs, names: Sequence[str], classes: int) -> Mapping[str, Scores]:
        """Return the scores of always answering the labels that most training examples have."""
        return {"majority": baselines.majority(train.labels, scored.labels, names, classes)}

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the labels above one half, the probability of just these (taken as independent), and all scores."""
        rows = 1 / (1 + np.exp(-outputs.astype(np.float64)))
        return [{"label": [name for name, value in zip(names, row, strict=True) if value > 0.5],
                 "score": float(np.maximum(row, 1 - row).prod()),
                 "scores": dict(zip(names, row.tolist(), strict=True))} for row in rows]


class Regression(Problem):
    """One value or several; labels float64, shape (n, t)."""

    losses: ClassVar[tuple[str, ...]] = ("mse", "huber")
    metrics: ClassVar[tuple[str, ...]] = ("mae", "rmse", "r2", "pearson")
    best: ClassVar[str] = "rmse"

    def best_of(self, names: Sequence[str]) -> str:
        """Return `rmse`, or `r2` for several targets, which has no units that one of them could outweigh others by."""
        return self.best if len(names) == 1 else "r2"

    def outputs(self, labels: np.ndarray, config: RunConfig, *, centre: bool) -> OutputMap:
        """Return the map from standardised targets to their own units."""
        return standardising(labels, centre=centre)

    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig, outputs: OutputMap) -> Objective:
        """Return squared or Huber's error of the standardised targets."""
        return TargetError(outputs.standardise(labels),
                           huber_delta=train.huber_delta if train.loss == "huber" else None)

    def baselines(self, train: Inputs, scored: Inputs, names: Sequence[str], classes: int) -> Mapping[str, Scores]:
        """Return the scores of always answering the training examples' mean."""
        return {"mean": baselines.mean(train.labels, scored.labels, names)}

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the value of each row, or the values by name where there are several targets."""
        if len(names) == 1:
            return [{"value": float(row[0])} for row in outputs]
        return [{"value": dict(zip(names, map(float, row), strict=True))} for row in outputs]

    def draw(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str], split: str,
             folder: Path) -> tuple[Path, ...]:
        """Draw predicted against true values."""
        path = folder / f"predicted_{split}.png"
        plots.predicted_against_true(outputs, labels, names, path)
        return (path,)


class NextTokens(Problem):
    """What comes next in a text; labels int64, shape (n, 2): tokens to predict, and the bytes that they stand for.

    Outputs are, for each example, the summed loss in nats and the number of tokens predicted right.
    """

    losses: ClassVar[tuple[str, ...]] = ("cross_entropy",)
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_byte", "token_accuracy", "loss")
    best: ClassVar[str] = "loss"
    unit: ClassVar[str] = "tokens"
    accuracy: ClassVar[str] = "token_accuracy"
    scores_checkpoint: ClassVar[bool] = True

    def scorer(self, model: nn.Module, inputs: Mapping[str, Inputs], tell: Callable[[str], None]) -> nn.Module:
        """Return the model with its loss in pieces; where it mixes documents in a row, each gets a row of its own."""
        packed = [split for split in inputs.values() if isinstance(split, GenerationInputs) and split.packing]
        if packed and not keeps_documents_apart(model):
            tell(f"{type(language_model(model)).__name__} does not keep documents in one row apart, so each has a row "
                 "of its own (data.packing false)")
            for split in packed:
                split.packing = False
        first = next(iter(inputs.values()))
        device = next(model.parameters()).device
        return next_token(model, first.batch(np.arange(min(2, len(first))), None, device), tell)

    def amount(self, labels: np.ndarray) -> int:
        """Return the tokens that are predicted."""
        return int(labels[:, 0].sum())

    def counts(self, labels: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, int]:
        """Return the tokens that are predicted in each split."""
        return {f"{split}_tokens": self.amount(values) for split, values in labels.items()}

    def objective(self, labels: np.ndarray, classes: int, train: TrainConfig, outputs: OutputMap) -> Objective:
        """Return the cross-entropy of the tokens, all of which count alike."""
        return TokenLoss(labels)

    def baselines(self, train: Inputs, scored: Inputs, names: Sequence[str], classes: int) -> Mapping[str, Scores]:
        """Return the scores of predicting every token by its frequency in the training split."""
        return {"unigram": baselines.unigram(train, scored, names)}

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the summed loss of each row, and how many tokens were predicted right."""
        return [{"loss": float(row[0]), "right": int(row[1])} for row in outputs]

    def sections(self, content: Mapping[str, Any]) -> list[list[str]]:
        """Return what the model makes of a few prompts, before and after."""
        return [samples_section(content.get("samples", []))] if content.get("samples") else []


def _seen(labels: np.ndarray, train: TrainConfig) -> np.ndarray:
    """Return the labels as an epoch draws them: what weights and priors make up for is what sampling leaves of it."""
    sampling = class_sampling(labels, train.sampling, seed=0)
    return labels if sampling is None else labels[sampling.drawn(0) % len(labels)]


PROBLEMS: dict[str, type[Problem]] = {SINGLE_LABEL: SingleLabel, MULTI_LABEL: MultiLabel, REGRESSION: Regression,
                                      NEXT_TOKEN: NextTokens}
"""The kinds of target by problem type."""
